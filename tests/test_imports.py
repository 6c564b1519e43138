"""The way through the house: who may import whom, and what an import may load."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PACKAGE, KERNELS, CSRC, RUST = (ROOT / name for name in ("rlox_gpu", "kernels", "csrc", "rust/src"))

# A module may import from its own layer and from those below.
LAYERS = (
    {"cli"},
    {"runs", "trainer", "trainers"},
    {"algorithms"},
    {"collectors", "evaluation", "video"},
    {
        "actor_critic",
        "adam",
        "batch",
        "buffers",
        "envs",
        "gym_vec_env",
        "losses",
        "networks",
        "parameters",
        "policies",
    },
    {"ops"},
    {"_dispatch"},
    {"_checks", "_host", "_rust", "csrc", "kernels"},
)
# Files, settings, hooks and displays: anyone may import them, they import only each other.
SUPPORT = {
    "__init__",
    "backends",
    "callbacks",
    "checkpoint",
    "config",
    "files",
    "logging",
    "plotting",
    "progress",
}
LAYER_OF = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
KERNEL_FILES = sorted(KERNELS.glob("*.py"))
CUDA_FILES = sorted([*CSRC.glob("*.cuh"), *CSRC.glob("*.cu")])
RUST_CORE = sorted(
    path for part in ("ops", "envs", "buffers") for path in (RUST / part).rglob("*.rs")
)


def named(paths):
    return [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in paths]


def imported_names(path, package):
    """Dotted names of everything that ``path`` imports anywhere, relative ones resolved."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            # `from rlox_gpu import _rust` imports a module, `from torch import Tensor` a name.
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def own_parts(path):
    """First components below ``rlox_gpu`` of the modules that ``path`` imports."""
    package = ("rlox_gpu", *path.relative_to(PACKAGE).parent.parts)
    dotted = [name.split(".") for name in imported_names(path, package)]
    return {parts[1] for parts in dotted if parts[0] == "rlox_gpu" and len(parts) > 1}


def test_there_is_something_to_walk():
    assert all((MODULES, KERNEL_FILES, CUDA_FILES, RUST_CORE))


def test_the_resolver_sees_every_form_of_import(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import rlox_gpu.ops\n"
        "from rlox_gpu import _rust\n"
        "from . import base\n"
        "from ..envs.cuda import BLOCK\n"
        "def f():\n"
        "    from .. import cli\n"
    )
    assert imported_names(path, ("rlox_gpu", "algorithms")) == {
        "rlox_gpu.ops",
        "rlox_gpu._rust",
        "rlox_gpu.algorithms.base",
        "rlox_gpu.envs.cuda.BLOCK",
        "rlox_gpu.cli",
    }


@pytest.mark.parametrize("path", named(MODULES))
def test_imports_point_right_only(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert own in LAYER_OF or own in SUPPORT, f"say in LAYERS where {own} belongs"
    for other in own_parts(path):
        if other.startswith("__") or other in SUPPORT:
            continue
        assert other in LAYER_OF, f"{path} imports {other}, which no layer names"
        assert own not in SUPPORT, f"{own} serves every layer and may not import {other}"
        assert LAYER_OF[own] <= LAYER_OF[other], f"{own} may not import {other}"


@pytest.mark.parametrize("path", named(KERNEL_FILES))
def test_kernels_import_torch_triton_and_siblings_only(path):
    allowed = {"torch", "triton", "kernels", *sys.stdlib_module_names}
    names = imported_names(path, ("kernels",))
    assert {name.split(".")[0] for name in names} <= allowed
    siblings = {sibling.stem for sibling in KERNEL_FILES}
    own = {name.split(".")[1] for name in names if name.startswith("kernels.")}
    assert own <= siblings


@pytest.mark.parametrize("path", named(CUDA_FILES))
def test_cuda_sources_include_only_each_other(path):
    included = re.findall(r'#\s*include\s*[<"]([^>"]+)[>"]', path.read_text())
    assert set(included) <= {header.name for header in CSRC.glob("*.cuh")}


@pytest.mark.parametrize("path", named(RUST_CORE))
def test_rust_core_knows_nothing_of_python(path):
    used = re.findall(r"\b(?:use|extern crate)\s+(\w+)|\b(pyo3|numpy)::", path.read_text())
    assert not {"pyo3", "numpy", "python"} & {name for pair in used for name in pair}


def in_fresh_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_loads_no_torch_triton_or_cupy():
    loaded = in_fresh_process("import rlox_gpu, sys; print(*sys.modules)")
    assert "rlox_gpu" in loaded
    assert not {"torch", "triton", "cupy"} & set(loaded)


BLOCK_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "triton", "cupy"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
"""


def test_numpy_gae_works_without_torch():
    printed = in_fresh_process(
        BLOCK_TORCH
        + """
import numpy as np, rlox_gpu
zeros = np.zeros((2, 1), np.float32)
result = rlox_gpu.gae(
    zeros + 1, zeros, zeros.astype(bool), np.zeros(1, np.float32), gamma=0.5, gae_lambda=1.0
)
print(*result.advantages.ravel())
"""
    )
    assert [float(word) for word in printed] == [1.5, 1.0]  # 1 + 0.5 * 1, then 1


def test_numpy_logprobs_work_without_torch():
    printed = in_fresh_process(
        BLOCK_TORCH
        + """
import numpy as np, rlox_gpu
logits, tokens = np.zeros((1, 4), np.float32), np.array([2])
print(rlox_gpu.token_logprobs(logits, tokens)[0])
print(rlox_gpu.linear_token_logprobs(np.ones((1, 2)), np.ones((4, 2)), tokens)[0])
"""
    )
    np.testing.assert_allclose([float(word) for word in printed], -np.log(4.0), rtol=1e-6)


def test_numpy_divergences_work_without_torch():
    printed = in_fresh_process(
        BLOCK_TORCH
        + """
import numpy as np, rlox_gpu
logits, ref_logits = np.zeros((1, 2)), np.log([[0.2, 0.8]])
print(rlox_gpu.full_kl(logits, ref_logits, reduction="mean"))
print(rlox_gpu.token_kl(np.log([0.5]), np.log([0.2]), kind="k1")[0])
"""
    )
    got = [float(word) for word in printed]
    np.testing.assert_allclose(got, [np.log(0.5 / 0.4), np.log(2.5)])


def test_numpy_wrappers_work_without_torch():
    printed = in_fresh_process(
        BLOCK_TORCH
        + """
import numpy as np, rlox_gpu
from rlox_gpu.envs import wrappers
env = wrappers.FrameStack(wrappers.NormalizeObservation(rlox_gpu.make_vec("CartPole-v1", 3)), 2)
env = wrappers.RecordEpisodeStatistics(wrappers.NormalizeReward(env))
env.reset(seed=0)
obs, rewards, *_ = env.step(np.array([0, 1, 0]))
print(*obs.shape)
"""
    )
    assert printed == ["3", "2", "4"]


def test_replay_buffers_work_without_torch():
    printed = in_fresh_process(
        BLOCK_TORCH
        + """
import numpy as np, rlox_gpu
buffer = rlox_gpu.ReplayBuffer(4, 2, 1)
buffer.push(np.ones(2), 0.5, 3.0, False, False)
out = buffer.sample(1)
print(buffer.sample(1, out=out)["rewards"][0])
try:
    buffer.batches(1)
except ImportError as error:
    print(str(error).split()[0])
"""
    )
    assert printed == ["3.0", "torch"]


def test_numpy_environments_work_without_torch():
    printed = in_fresh_process(
        BLOCK_TORCH
        + """
import numpy as np, rlox_gpu
env = rlox_gpu.make_vec("CartPole-v1", 3)
env.reset(seed=0)
obs, rewards, *_ = env.step(np.array([0, 1, 0]))
print(*obs.shape, *rewards)
"""
    )
    assert [float(word) for word in printed] == [3, 4, 1, 1, 1]
