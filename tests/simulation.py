"""The library's Triton path on CPU tensors, compiled and executed by the PTX simulator."""

from contextlib import contextmanager

import ptxsim
import torch

import rlox_gpu
from rlox_gpu import _dispatch


@contextmanager
def simulated(arch=90, **options):
    """Inside, CPU tensors take the Triton path; yields the simulation with its ``launches``."""
    checks = {"check_races": True, "check_uninit": True} | options
    with _dispatch.force_triton(), ptxsim.triton_driver(arch=arch, **checks) as simulation:
        yield simulation


def simulated_gae(inputs, *, time_dim=0, gamma=0.99, gae_lambda=0.95, **options):
    """``rlox_gpu.gae`` into memory that counts as never written; the result and the launch."""
    with simulated(**options) as simulation:
        out = [torch.full_like(inputs["values"], torch.nan) for _ in range(2)]
        for x in out:
            simulation.mark_uninitialized(x)
        result = rlox_gpu.gae(
            **inputs, time_dim=time_dim, gamma=gamma, gae_lambda=gae_lambda, out=tuple(out)
        )
    (launch,) = simulation.launches
    return result, launch
