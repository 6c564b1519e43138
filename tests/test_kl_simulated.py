"""The divergence kernels as compiled: executed, every memory access checked and counted."""

import pytest
import torch
from kl_inputs import DTYPES, KINDS, REDUCTIONS, assert_kl_close, make_kl_inputs, with_layout
from kl_reference import token_kl_torch
from simulation import simulated

import rlox_gpu

ARCHITECTURES = [80, 90, 100, 120]


def _run(inputs, *, layout="plain", grads=False, options=None, **simulator):
    """The result, the launches, and the gradients if asked for."""
    options = options or {}
    rlox_gpu.token_kl(**inputs, **options)
    leaves = {
        k: with_layout(v, layout).detach().requires_grad_(grads and k != "mask")
        for k, v in inputs.items()
    }
    with simulated(**simulator) as simulation:
        result = rlox_gpu.token_kl(**leaves, **options)
        if grads:
            result.sum().backward()
    assert_kl_close(result.detach(), inputs, **options)
    return simulation.launches, [v.grad for k, v in leaves.items() if k != "mask"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(1,), (63,), (4100,), (9, 70), (3, 1100), (40, 3)])
def test_token_kl_at_ragged_sizes(shape, reduction):
    launches, _ = _run(make_kl_inputs(0, shape), options={"reduction": reduction})
    assert len(launches) == 1


@pytest.mark.parametrize("layout", ["cut", "transposed"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_token_kl_in_other_layouts(layout, reduction):
    _run(make_kl_inputs(1, (5, 40)), layout=layout, options={"reduction": reduction})


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_on_every_architecture(arch, dtype):
    inputs = make_kl_inputs(2, (3, 64), dtype)
    for reduction in ("none", "mean"):
        _run(inputs, options={"reduction": reduction}, arch=arch)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind, reduction):
    inputs = make_kl_inputs(3, (5, 48))
    options = {"kind": kind, "reduction": reduction}
    launches, got = _run(inputs, grads=True, options=options)
    assert len(launches) == 2
    leaves = {k: v.clone().requires_grad_(k != "mask") for k, v in inputs.items()}
    token_kl_torch(**leaves, **options).sum().backward()
    for ours, name in zip(got, ("logprobs", "ref_logprobs", "ratio"), strict=True):
        torch.testing.assert_close(ours, leaves[name].grad.nan_to_num(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", ["lockstep", "random"])
def test_totals_do_not_depend_on_which_program_is_last(schedule):
    inputs = make_kl_inputs(4, (20, 1500))
    expected = None
    for seed in range(2):
        with simulated(schedule=schedule, seed=seed, check_races=False):
            total = rlox_gpu.token_kl(**inputs, reduction="sum")
        assert expected is None or total == expected
        expected = total
    assert_kl_close(expected, inputs, reduction="sum")


@pytest.mark.parametrize(
    ("reduction", "mask", "ratio", "least"),
    [
        ("none", False, False, 12),
        ("none", True, False, 13),
        ("none", True, True, 17),
        ("sum", True, False, 9),
        ("mean", False, False, 8),
        ("sequence", True, False, 9),
    ],
)
def test_forward_moves_each_element_once(reduction, mask, ratio, least):
    inputs = make_kl_inputs(5, (32, 2048), ratio=ratio, mask_dtype=torch.bool if mask else None)
    (launch,), _ = _run(inputs, options={"reduction": reduction}, check_races=False)
    moved = 32 * (launch.global_load_sectors + launch.global_store_sectors)
    assert moved <= 1.05 * least * 32 * 2048
    assert launch.coalescing_efficiency >= 0.95


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_backward_moves_each_element_once(reduction):
    inputs = make_kl_inputs(6, (32, 2048), ratio=False)
    launches, _ = _run(inputs, grads=True, options={"reduction": reduction}, check_races=False)
    launch = launches[1]
    moved = 32 * (launch.global_load_sectors + launch.global_store_sectors)
    # The gradient of a sum is one number: it is not read token by token.
    assert moved <= 1.05 * (8 + 1 + 8) * 32 * 2048
    assert launch.coalescing_efficiency >= 0.95


@pytest.mark.slow
def test_offsets_go_past_two_to_the_31():
    # Rows of the mask 2**30 + 64 bytes apart: an int32 offset of the third would wrap.
    inputs = make_kl_inputs(7, (3, 16), ratio=False)
    far = torch.zeros(2 * (2**30 + 64) + 1024, dtype=torch.bool)
    mask = far.as_strided((3, 16), (2**30 + 64, 1))
    mask.copy_(inputs["mask"])
    with simulated(check_races=False, check_uninit=False):
        result = rlox_gpu.token_kl(**(inputs | {"mask": mask}))
    assert_kl_close(result, inputs)
