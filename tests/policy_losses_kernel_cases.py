"""The cases the kernels of the policy losses must pass wherever they run."""

import pytest
import torch
from policy_losses_inputs import (
    DTYPES,
    assert_gradients,
    assert_terms,
    doubled,
    gaussian_formula,
    gradients,
    grpo_formula,
    make_gaussian_inputs,
    make_grpo_inputs,
    make_ppo_inputs,
    ppo_formula,
)
from policy_losses_reference import gaussian_ppo_reference, grpo_reference, ppo_reference

import rlox_gpu

PPO_LEAVES = ("logits", "values")
GAUSSIAN_LEAVES = ("mean", "log_std", "values")
VARIANTS = {
    "GRPO": {"kl_coef": 0.1},
    "k1": {"kl_coef": 0.1, "kl_kind": "k1"},
    "k2": {"kl_coef": 0.1, "kl_kind": "k2"},
    "Dr. GRPO": {"aggregation": "dr_grpo", "max_tokens": 100},
    "DAPO": {"aggregation": "dapo", "clip_eps_high": 0.28},
    "GSPO": {"ratio_level": "sequence", "clip_eps_low": 0.03, "clip_eps_high": 0.04},
    "GSPO by tokens": {"ratio_level": "sequence", "aggregation": "dapo", "kl_coef": 0.1},
    "unclipped": {"clip_eps_low": None, "clip_eps_high": None},
}


def compare(op, formula, reference, leaves, device, inputs, counts, *, terms=0, **options):
    """Numbers, and gradients where ``leaves`` are wanted, against float64."""
    dtype = inputs[leaves[0]].dtype
    moved = {name: x.to(device) for name, x in inputs.items()}
    expected = reference(**{k: x.double().numpy() for k, x in inputs.items()}, **options)
    result = op(**moved, **options)
    assert result.loss.device.type == torch.device(device).type
    assert_terms(result, expected, dtype)
    found = gradients(op, moved, leaves, **options)
    wanted = gradients(formula, doubled(inputs), leaves, **options)
    assert_gradients(found, wanted, counts, dtype, terms=terms)


def compare_ppo(device, inputs, **options):
    count = max(1, inputs["actions"].numel())

    def reference(actions, **rest):
        return ppo_reference(actions=actions.astype(int), **rest)

    counts = [count] * len(PPO_LEAVES)
    compare(
        rlox_gpu.ppo_loss, ppo_formula, reference, PPO_LEAVES, device, inputs, counts, **options
    )


def compare_gaussian(device, inputs, **options):
    """As :func:`compare_ppo`; what all samples share is compared as the mean that it is."""
    shared = inputs["log_std"].ndim < inputs["mean"].ndim
    counts = [max(1, inputs["values"].numel())] * 3
    counts[1] = 1 if shared else counts[1]
    compare(
        rlox_gpu.gaussian_ppo_loss,
        gaussian_formula,
        gaussian_ppo_reference,
        GAUSSIAN_LEAVES,
        device,
        inputs,
        counts,
        terms=inputs["mean"].shape[1],
        **options,
    )


def compare_grpo(device, inputs, **options):
    counts = [inputs["logprobs"].numel()]
    leaves = ("logprobs",)
    compare(
        rlox_gpu.grpo_loss, grpo_formula, grpo_reference, leaves, device, inputs, counts, **options
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("actions", [1, 2, 6, 33])
@pytest.mark.parametrize("count", [1, 63, 64, 1000])
def check_ppo_sizes(device, count, actions, masked):
    compare_ppo(device, make_ppo_inputs(count + actions, count, actions, masked=masked))


def check_ppo_of_several_programs(device):
    compare_ppo(device, make_ppo_inputs(0, 3000, 4))


@pytest.mark.parametrize("dtype", DTYPES)
def check_ppo_dtypes(device, dtype):
    compare_ppo(device, make_ppo_inputs(1, 90, 5, dtype))


def check_ppo_without_value_clip(device):
    inputs = make_ppo_inputs(2, 90, 5)
    del inputs["old_values"]
    compare_ppo(device, inputs, clip_eps=0.1, vf_coef=1.0, ent_coef=0.3)


def check_ppo_with_forbidden_actions(device):
    inputs = make_ppo_inputs(3, 40, 5, masked=False)
    forbidden = (inputs["actions"] + 1) % 5
    inputs["logits"].scatter_(1, forbidden[:, None], -torch.inf)
    result = rlox_gpu.ppo_loss(**{k: x.to(device) for k, x in inputs.items()})
    expected = ppo_reference(**{k: x.numpy() for k, x in inputs.items()})
    assert_terms(result, expected, torch.float32)
    moved = {k: x.to(device) for k, x in inputs.items()}
    (found, _) = gradients(rlox_gpu.ppo_loss, moved, PPO_LEAVES)
    found = found.cpu()
    assert not found.gather(1, forbidden[:, None]).any()
    assert not found.isnan().any()


def check_ppo_of_a_wrong_action(device):
    inputs = make_ppo_inputs(4, 10, 3, masked=False)
    for wrong in (-1, 3):
        inputs["actions"][2] = wrong
        result = rlox_gpu.ppo_loss(**{k: x.to(device) for k, x in inputs.items()})
        assert result.loss.isnan()
        assert not result.value_loss.isnan()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("actions", [1, 3, 17, 40])
@pytest.mark.parametrize("count", [1, 63, 64, 1000])
def check_gaussian_sizes(device, count, actions, shared, masked):
    inputs = make_gaussian_inputs(count + actions, count, actions, masked=masked, shared=shared)
    compare_gaussian(device, inputs)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("actions", [4, 19])
def check_gaussian_of_several_programs(device, actions, shared):
    compare_gaussian(device, make_gaussian_inputs(0, 3000, actions, shared=shared))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def check_gaussian_dtypes(device, dtype, shared):
    compare_gaussian(device, make_gaussian_inputs(1, 90, 5, dtype, shared=shared))


def check_gaussian_without_value_clip(device):
    inputs = make_gaussian_inputs(2, 90, 5)
    del inputs["old_values"]
    compare_gaussian(device, inputs, clip_eps=0.1, vf_coef=1.0, ent_coef=0.3)


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def check_grpo_variants(device, variant, per_token):
    inputs = make_grpo_inputs(5, 7, 40, per_token=per_token)
    compare_grpo(device, inputs, **VARIANTS[variant])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("rows", "length"), [(1, 1), (3, 63), (9, 2), (1, 1000), (2, 2500)])
def check_grpo_sizes(device, rows, length, masked):
    inputs = make_grpo_inputs(rows + length, rows, length, masked=masked)
    compare_grpo(device, inputs, kl_coef=0.1)
    compare_grpo(device, inputs, ratio_level="sequence", clip_eps_low=0.01)


@pytest.mark.parametrize("dtype", DTYPES)
def check_grpo_dtypes(device, dtype):
    compare_grpo(device, make_grpo_inputs(6, 5, 30, dtype, per_token=True), kl_coef=0.1)
