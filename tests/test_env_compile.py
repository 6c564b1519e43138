"""The environment kernels compile for every architecture we name, without spills."""

import re

import numpy as np
import ptxsim
import pytest
from simulated_cuda import compile_kernels

from rlox_gpu.envs.cuda import OPTIONS, SOURCE, task_options
from rlox_gpu.envs.tasks import TASKS

ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")
NATIVE = list({task.name: task for task, _ in TASKS.values()}.values())
OPTIONS_BY_TASK = {task.name: (*OPTIONS, *task_options(task.name)) for task in NATIVE}
# Constants and step limits of each environment.
OPTIONS_OF_EACH = {
    f"{task.name}-each": (*OPTIONS, *task_options(task.name, of_each=True)) for task in NATIVE
}
COMPILED = OPTIONS_BY_TASK | OPTIONS_OF_EACH


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("task", COMPILED)
def test_kernels_compile_without_spills(task, arch, record_property):
    module = compile_kernels(SOURCE, COMPILED[task], arch)
    info = ptxsim.ptxas_info(module)
    assert set(info) == {"env_step", "env_rollout", "env_rollout_random", "env_reset"}
    for kernel, used in info.items():
        record_property(f"{task}-{kernel}-{arch}-registers", used["registers"])
        assert used["spill_stores"] == used["spill_loads"] == used["stack"] == 0
        # A rollout holds the episode's number and seed as well, and constants that are not shared
        # are in registers too.
        few = "rollout" not in kernel and task in OPTIONS_BY_TASK
        assert used["registers"] <= (64 if few else 96)


@pytest.mark.parametrize("task", [t.name for t in NATIVE if t.state_dtype is np.float32])
def test_kernels_round_like_the_cpu(task):
    ptx = compile_kernels(SOURCE, OPTIONS_BY_TASK[task]).ptx
    arithmetic = set(re.findall(r"\b(?:add|sub|mul|div|sqrt|fma|mad)\.[\w.]*f(?:32|64)\b", ptx))
    needed = {"add.rn.f32", "sub.rn.f32", "mul.rn.f32", "mul.rn.f64"}
    assert needed <= arithmetic <= needed | {"div.rn.f32"}
    assert not re.findall(r"\b\w+\.approx", ptx)


@pytest.mark.parametrize(("task", "width"), [(task.name, task.state_size) for task in NATIVE])
def test_state_moves_in_vectors(task, width):
    ptx = compile_kernels(SOURCE, OPTIONS_BY_TASK[task]).ptx
    vector = {4: r"v(?:4\.(?:b|f)32|2\.b64)", 2: r"(?:v2\.(?:b|f)32|b64)", 1: r"(?:b|u|s)32"}[width]
    wide = re.findall(rf"\b(?:ld|st)\.global\.{vector}", ptx)
    assert sum(access.startswith("ld") for access in wide) >= 1
    assert sum(access.startswith("st") for access in wide) >= 2
