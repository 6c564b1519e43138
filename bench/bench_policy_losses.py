"""The policy losses with their gradients against the same formulas in eager torch."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from harness import Job, Provider, Work, cases, over_rotated, rotation
from policy_losses_inputs import (
    gaussian_formula,
    grpo_formula,
    make_gaussian_inputs,
    make_grpo_inputs,
    make_ppo_inputs,
    ppo_formula,
)


class Loss(NamedTuple):
    """An op, the same formula, what makes their inputs, and what is differentiated."""

    op: str
    formula: Callable
    make: Callable
    leaves: tuple[str, ...]
    unit: str = "sample"


PPO = Loss("ppo_loss", ppo_formula, make_ppo_inputs, ("logits", "values"))
GAUSSIAN = Loss(
    "gaussian_ppo_loss", gaussian_formula, make_gaussian_inputs, ("mean", "log_std", "values")
)
GRPO = Loss("grpo_loss", grpo_formula, make_grpo_inputs, ("logprobs",), "token")

# name: loss, sizes, bytes per item of one pass that writes the gradient, options
KINDS = {
    "ppo 256x2": (PPO, (256, 2), 8 * 2 + 32, {}),
    "ppo 2048x6": (PPO, (2048, 6), 8 * 6 + 32, {}),
    "ppo 32768x6": (PPO, (32768, 6), 8 * 6 + 32, {}),
    "gaussian ppo 2048x6": (GAUSSIAN, (2048, 6), 12 * 6 + 24, {}),
    "gaussian ppo 32768x6": (GAUSSIAN, (32768, 6), 12 * 6 + 24, {}),
    "grpo 64x512": (GRPO, (64, 512), 17, {"kl_coef": 0.1}),
    "grpo 64x4096": (GRPO, (64, 4096), 17, {"kl_coef": 0.1}),
    "gspo 64x4096": (GRPO, (64, 4096), 17, {"kl_coef": 0.1, "ratio_level": "sequence"}),
}


def job_of(name):
    loss, size, per_item, _ = KINDS[name]
    items = size[0] * size[1] if loss is GRPO else size[0]
    traffic = f"{per_item} B/{loss.unit}: inputs in, gradient out"
    name = f"{name} f32 forward and backward"
    return Job(name, "losses", items, f"{loss.unit}s", per_item * items, traffic)


JOBS = {job_of(name): name for name in KINDS}


@functools.cache
def inputs_of(name):
    loss, size, _, _ = KINDS[name]
    return loss.make(0, *size, masked=False)


def differentiated(function, name, device):
    """Value and gradients of ``function``, over and over."""
    import torch

    loss, _, _, options = KINDS[name]
    leaves = loss.leaves
    count = rotation(device, sum(x.nbytes for x in inputs_of(name).values()))
    sets = [{k: x.to(device).clone() for k, x in inputs_of(name).items()} for _ in range(count)]
    for inputs in sets:
        for leaf in leaves:
            inputs[leaf].requires_grad_()

    def both(inputs):
        value = function(**inputs, **options)
        value = getattr(value, "loss", value)
        return value, *torch.autograd.grad(value, [inputs[leaf] for leaf in leaves])

    def check():
        inputs = {k: x.double() if x.is_floating_point() else x for k, x in sets[0].items()}
        wanted = loss.formula(**inputs, **options)
        expected = wanted, *torch.autograd.grad(wanted, [inputs[leaf] for leaf in leaves])
        for got, want in zip(both(sets[0]), expected, strict=True):
            scale = max(1.0, want.abs().max().item()) if want.ndim == 0 else want.abs().max().item()
            error = (got.double() - want).abs().max().item()
            np.testing.assert_array_less(error, 1e-4 * scale)

    call, calls = over_rotated(both, sets, device)
    return Work(call, check, calls)


def ours(name, device):
    import rlox_gpu

    return differentiated(getattr(rlox_gpu, KINDS[name][0].op), name, device)


def eager(name, device):
    return differentiated(KINDS[name][0].formula, name, device)


PROVIDERS = [
    Provider("rlox-gpu torch", ours, ("cpu", "cuda"), ours=True, needs=("torch",)),
    Provider("torch eager", eager, ("cpu", "cuda"), needs=("torch",)),
]


@pytest.mark.parametrize(("job", "provider", "device"), cases(list(JOBS), PROVIDERS))
def bench_policy_losses(check_then_time, job, provider, device):
    check_then_time(job, provider, device, JOBS[job])
