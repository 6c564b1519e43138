"""The kernels of the preference losses as compiled: executed, every access checked and counted."""

import pytest
import torch
from preferences_inputs import DTYPES, LOSSES, REDUCTIONS, assert_dpo_close, make_logps
from preferences_reference import dpo_torch
from simulation import simulated

import rlox_gpu


def _run(logps, *, options=None, **simulator):
    options = options or {}
    leaves = [x.clone().requires_grad_() for x in logps]
    with simulated(**simulator) as simulation:
        result = rlox_gpu.dpo_loss(*leaves, **options)
        result.loss.sum().backward()
    assert_dpo_close(result, logps, **options)
    return simulation.launches, [x.grad for x in leaves]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("loss_type", "label_smoothing"), LOSSES)
def test_losses_and_gradients(loss_type, label_smoothing, reduction):
    options = {
        "loss_type": loss_type,
        "label_smoothing": label_smoothing,
        "reduction": reduction,
    }
    logps = make_logps(0, 600)
    launches, got = _run(logps, options=options)
    assert len(launches) == 2
    leaves = [x.clone().requires_grad_() for x in logps]
    dpo_torch(*leaves, **options).sum().backward()
    for ours, leaf in zip(got, leaves, strict=True):
        # A log-ratio is a difference of numbers around a hundred.
        torch.testing.assert_close(ours, leaf.grad, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("arch", [80, 90, 100, 120])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_on_every_architecture(arch, dtype):
    _run(make_logps(1, 63, dtype), arch=arch)


@pytest.mark.parametrize(("reduction", "written"), [("mean", 12), ("none", 16)])
def test_each_pair_is_moved_once(reduction, written):
    logps = make_logps(2, 8192)
    (forward, backward), _ = _run(logps, options={"reduction": reduction}, check_races=False)
    moved = 32 * (forward.global_load_sectors + forward.global_store_sectors)
    assert moved <= 1.05 * (16 + written) * 8192
    assert forward.coalescing_efficiency >= 0.95
    moved = 32 * (backward.global_load_sectors + backward.global_store_sectors)
    # A gradient that is one number is read by every warp: a byte for each of its pairs.
    assert moved <= 1.05 * (4 + 8 + (4 if reduction == "none" else 1)) * 8192
