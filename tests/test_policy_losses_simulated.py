"""The kernels of the policy losses as compiled: PTX executed, every memory access checked."""

import policy_losses_kernel_cases as cases
import pytest
import torch
from policy_losses_inputs import make_gaussian_inputs, make_grpo_inputs, make_ppo_inputs
from simulation import simulated

import rlox_gpu
from rlox_gpu.ops import _policy_losses_torch

ARCHITECTURES = [80, 90, 100, 120]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_losses_in_every_dtype_on_every_architecture(arch, dtype):
    with simulated(arch=arch):
        cases.compare_ppo("cpu", make_ppo_inputs(0, 70, 3, dtype))
        inputs = make_grpo_inputs(0, 3, 40, dtype)
        cases.compare_grpo("cpu", inputs, kl_coef=0.1)
        cases.compare_grpo("cpu", inputs, ratio_level="sequence", clip_eps_low=0.01)


@pytest.mark.parametrize(("count", "actions"), [(1, 5), (1000, 5), (5000, 5), (200, 40)])
def test_ppo_at_ragged_sizes(count, actions):
    with simulated() as simulation:
        cases.compare_ppo("cpu", make_ppo_inputs(1, count, actions))
    # Without and with a gradient, each one launch, two for many samples; and the scaling.
    assert len(simulation.launches) == (5 if count == 5000 else 3)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_gaussian_in_every_dtype_on_every_architecture(arch, dtype):
    with simulated(arch=arch):
        for shared in (False, True):
            cases.compare_gaussian("cpu", make_gaussian_inputs(0, 70, 3, dtype, shared=shared))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("count", "actions"), [(1, 5), (1000, 5), (5000, 5), (200, 40)])
def test_gaussian_at_ragged_sizes(count, actions, shared):
    with simulated() as simulation:
        inputs = make_gaussian_inputs(1, count, actions, shared=shared)
        cases.compare_gaussian("cpu", inputs)
    assert len(simulation.launches) == (5 if count == 5000 or actions == 40 else 3)


@pytest.mark.parametrize(
    ("op", "make"), [("ppo_loss", make_ppo_inputs), ("gaussian_ppo_loss", make_gaussian_inputs)]
)
def test_too_many_actions_are_an_error_that_names_the_argument(op, make):
    inputs = make(0, 1, 4097, masked=False)
    name = "logits" if op == "ppo_loss" else "mean"
    with simulated(), pytest.raises(ValueError, match=f"{name}: .* at most 4096 .* got 4097"):
        getattr(rlox_gpu, op)(**inputs)


@pytest.mark.parametrize("variant", cases.VARIANTS)
def test_grpo_variants(variant):
    with simulated():
        inputs = make_grpo_inputs(2, 3, 150, per_token=True)
        cases.compare_grpo("cpu", inputs, **cases.VARIANTS[variant])


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (2, 3000), (130, 3)])
def test_grpo_at_ragged_sizes(rows, length):
    with simulated():
        cases.compare_grpo("cpu", make_grpo_inputs(3, rows, length), kl_coef=0.1)


def _traffic(call):
    """Bytes of the sectors that each launch touched."""
    with simulated(check_races=False) as simulation:
        call()
    return [
        32 * (launch.global_load_sectors + launch.global_store_sectors)
        for launch in simulation.launches
    ]


@pytest.mark.parametrize("actions", [2, 4, 6, 18])
def test_ppo_moves_each_element_once(actions):
    inputs = make_ppo_inputs(4, 8192, actions, masked=False)
    inputs["logits"].requires_grad_()
    main, combine = _traffic(lambda: rlox_gpu.ppo_loss(**inputs))
    least = (8 * actions + 8 + 5 * 4 + 4) * 8192
    assert main <= (1.05 if actions in (2, 4) else 1.10) * least
    assert combine <= 0.05 * least


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("actions", [1, 4, 6, 16])
def test_gaussian_moves_each_element_once(actions, shared):
    inputs = make_gaussian_inputs(4, 8192, actions, masked=False, shared=shared)
    inputs["mean"].requires_grad_()
    main, combine = _traffic(lambda: rlox_gpu.gaussian_ppo_loss(**inputs))
    least = ((3 if shared else 5) * 4 * actions + 5 * 4 + 4) * 8192
    assert main <= 1.10 * least
    assert combine <= 0.05 * least


def test_grpo_moves_each_element_once():
    inputs = make_grpo_inputs(5, 8, 2048, masked=False, reference=False)
    inputs["mask"] = torch.ones(8, 2048, dtype=torch.bool)
    inputs["logprobs"].requires_grad_()
    elements = 8 * 2048
    main, combine = _traffic(lambda: rlox_gpu.grpo_loss(**inputs))
    assert main <= 1.05 * (4 + 4 + 1 + 4) * elements
    assert combine <= 0.05 * main
    main, _ = _traffic(lambda: rlox_gpu.grpo_loss(**inputs, ratio_level="sequence"))
    assert main <= 1.05 * (4 + 4 + 1 + 1 + 4) * elements
    inputs["ref_logprobs"] = inputs["old_logprobs"]
    main, _ = _traffic(lambda: rlox_gpu.grpo_loss(**inputs, kl_coef=0.1))
    assert main <= 1.05 * (4 + 4 + 1 + 4 + 4) * elements


def test_scaling_moves_each_element_once():
    gradient, scale = torch.ones(16, 1024), torch.ones(16)
    (bytes_moved,) = _traffic(
        lambda: _policy_losses_torch._scaled_op(gradient, scale, torch.tensor(2.0))
    )
    assert bytes_moved <= 1.05 * 8 * 16 * 1024
