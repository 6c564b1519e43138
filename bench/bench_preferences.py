"""DPO's loss with its gradients against the same formula in eager torch."""

import functools

import numpy as np
import pytest
from harness import Job, Provider, Work, cases, over_rotated, rotation
from preferences_inputs import make_logps
from preferences_reference import dpo_reference, dpo_torch

SIZES = (64, 65536)
# Four log-probabilities in; the gradients of two and two rewards out.
BYTES = 4 * (4 + 2 + 2)


def job_of(pairs):
    name = f"dpo {pairs} pairs f32 forward and backward"
    return Job(name, "losses", pairs, "pairs", BYTES * pairs, f"{BYTES} B/pair: in and out")


JOBS = {job_of(pairs): pairs for pairs in SIZES}


@functools.cache
def logps_of(pairs):
    return make_logps(0, pairs)


def differentiated(function):
    """A provider's builder from ``function(*logps)``, a loss or a tuple that begins with one."""

    def build(pairs, device):
        import torch

        count = rotation(device, 4 * 4 * pairs)
        sets = [[x.to(device).clone() for x in logps_of(pairs)] for _ in range(count)]
        for logps in sets:
            for x in logps[:2]:
                x.requires_grad_()

        def both(logps):
            found = function(*logps)
            loss = found[0] if isinstance(found, tuple) else found
            return loss, *torch.autograd.grad(loss, logps[:2])

        def check():
            logps = [x.detach().double().cpu() for x in sets[0]]
            expected = dpo_reference(*(x.numpy() for x in logps))[0]
            leaves = [x.requires_grad_() for x in logps[:2]]
            gradients = torch.autograd.grad(dpo_torch(*leaves, *logps[2:]), leaves)
            loss, *found = both(sets[0])
            np.testing.assert_allclose(loss.item(), expected, rtol=1e-5)
            for got, want in zip(found, gradients, strict=True):
                error = (got.double().cpu() - want).abs().max()
                np.testing.assert_array_less(error, 1e-4 * want.abs().max())

        call, calls = over_rotated(both, sets, device)
        return Work(call, check, calls)

    return build


def ours(*logps):
    import rlox_gpu

    return tuple(rlox_gpu.dpo_loss(*logps))


PROVIDERS = [
    Provider("rlox-gpu torch", differentiated(ours), ("cpu", "cuda"), ours=True, needs=("torch",)),
    Provider("torch eager", differentiated(dpo_torch), ("cpu", "cuda"), needs=("torch",)),
]


@pytest.mark.parametrize(("job", "provider", "device"), cases(list(JOBS), PROVIDERS))
def bench_preferences(check_then_time, job, provider, device):
    check_then_time(job, provider, device, JOBS[job])
