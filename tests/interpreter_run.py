"""The kernel cases in Triton's interpreter: ``TRITON_INTERPRET=1 pytest interpreter_run.py``.

The interpreter must be chosen before the kernels are imported, so this file is collected in a
process of its own, by test_kernels_interpreter.py.
"""

import estimator_api_cases
import estimator_kernel_cases
import full_kl_kernel_cases
import groups_kernel_cases
import kernel_cases
import kl_kernel_cases
import logprobs_kernel_cases
import policy_losses_kernel_cases
import preferences_kernel_cases
import pytest
import replay_kernel_cases
import sampling_kernel_cases
import statistics_kernel_cases

from rlox_gpu import _dispatch

for _cases in (
    groups_kernel_cases,
    kernel_cases,
    estimator_api_cases,
    estimator_kernel_cases,
    full_kl_kernel_cases,
    kl_kernel_cases,
    logprobs_kernel_cases,
    policy_losses_kernel_cases,
    preferences_kernel_cases,
    replay_kernel_cases,
    sampling_kernel_cases,
    statistics_kernel_cases,
):
    for _name, _check in vars(_cases).copy().items():
        if _name.startswith("check_"):
            globals()["test_" + _name.removeprefix("check_")] = _check


@pytest.fixture
def device():
    return "cpu"


@pytest.fixture(autouse=True)
def interpreted():
    from rlox_gpu.kernels.time_major import time_major_kernel

    assert type(time_major_kernel).__name__ == "InterpretedFunction"
    with _dispatch.force_triton():
        yield
