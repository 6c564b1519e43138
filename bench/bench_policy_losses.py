"""The policy losses with their gradients against the same formulas in eager torch."""

import functools

import numpy as np
import pytest
from harness import Job, Provider, Work, cases, over_rotated, rotation
from policy_losses_inputs import (
    grpo_formula,
    make_grpo_inputs,
    make_ppo_inputs,
    ppo_formula,
)

# name: loss, sizes, bytes per item of one pass that writes the gradient, options
PPO, GRPO = ("logits", "values"), ("logprobs",)
KINDS = {
    "ppo 256x2": (PPO, (256, 2), 8 * 2 + 32, {}),
    "ppo 2048x6": (PPO, (2048, 6), 8 * 6 + 32, {}),
    "ppo 32768x6": (PPO, (32768, 6), 8 * 6 + 32, {}),
    "grpo 64x512": (GRPO, (64, 512), 17, {"kl_coef": 0.1}),
    "grpo 64x4096": (GRPO, (64, 4096), 17, {"kl_coef": 0.1}),
    "gspo 64x4096": (GRPO, (64, 4096), 17, {"kl_coef": 0.1, "ratio_level": "sequence"}),
}


def job_of(name):
    leaves, size, per_item, _ = KINDS[name]
    items = size[0] if leaves is PPO else size[0] * size[1]
    unit = "samples" if leaves is PPO else "tokens"
    traffic = f"{per_item} B/{unit[:-1]}: inputs in, gradient out"
    return Job(f"{name} f32 forward and backward", "losses", items, unit, per_item * items, traffic)


JOBS = {job_of(name): name for name in KINDS}


@functools.cache
def inputs_of(name):
    leaves, size, _, _ = KINDS[name]
    make = make_ppo_inputs if leaves is PPO else make_grpo_inputs
    return make(0, *size, masked=False)


def differentiated(loss, name, device):
    """Value and gradients of ``loss``, over and over."""
    import torch

    leaves, _, _, options = KINDS[name]
    count = rotation(device, sum(x.nbytes for x in inputs_of(name).values()))
    sets = [{k: x.to(device).clone() for k, x in inputs_of(name).items()} for _ in range(count)]
    for inputs in sets:
        for leaf in leaves:
            inputs[leaf].requires_grad_()

    def both(inputs):
        value = loss(**inputs, **options)
        value = getattr(value, "loss", value)
        return value, *torch.autograd.grad(value, [inputs[leaf] for leaf in leaves])

    def check():
        inputs = {k: x.double() if x.is_floating_point() else x for k, x in sets[0].items()}
        formula = ppo_formula if leaves is PPO else grpo_formula
        wanted = formula(**inputs, **options)
        expected = wanted, *torch.autograd.grad(wanted, [inputs[leaf] for leaf in leaves])
        for got, want in zip(both(sets[0]), expected, strict=True):
            scale = max(1.0, want.abs().max().item()) if want.ndim == 0 else want.abs().max().item()
            error = (got.double() - want).abs().max().item()
            np.testing.assert_array_less(error, 1e-4 * scale)

    call, calls = over_rotated(both, sets, device)
    return Work(call, check, calls)


def ours(name, device):
    import rlox_gpu

    return differentiated(
        rlox_gpu.ppo_loss if KINDS[name][0] is PPO else rlox_gpu.grpo_loss, name, device
    )


def eager(name, device):
    return differentiated(ppo_formula if KINDS[name][0] is PPO else grpo_formula, name, device)


PROVIDERS = [
    Provider("rlox-gpu torch", ours, ("cpu", "cuda"), ours=True, needs=("torch",)),
    Provider("torch eager", eager, ("cpu", "cuda"), needs=("torch",)),
]


@pytest.mark.parametrize(("job", "provider", "device"), cases(list(JOBS), PROVIDERS))
def bench_policy_losses(check_then_time, job, provider, device):
    check_then_time(job, provider, device, JOBS[job])
