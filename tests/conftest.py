"""Shared by the whole suite: the device switch, poisoned memory, paths of the test packages."""

import sys
import types
from pathlib import Path

import gymnasium
import numpy as np
import pytest

TESTS = Path(__file__).parent
for folder in (TESTS / "ptxsim", TESTS):
    sys.path.insert(0, str(folder))


# An environment that is Gymnasium's own for certain, whatever becomes native.
gymnasium.register(
    "tests/Acrobot-v1",
    entry_point="gymnasium.envs.classic_control.acrobot:AcrobotEnv",
    max_episode_steps=500,
)


def pytest_addoption(parser):
    parser.addoption(
        "--require-gpu",
        action="store_true",
        help="fail the tests marked gpu instead of skipping them where there is no CUDA device",
    )


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "unpoisoned: torch.empty as it is, for code that torch.compile traces"
    )


def _why_no_gpu():
    try:
        import torch
    except ImportError as error:
        return f"torch is missing: {error}"
    return None if torch.cuda.is_available() else "torch finds no CUDA device"


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") is None:
        return
    reason = _why_no_gpu()
    if reason is None:
        return
    if item.config.getoption("--require-gpu"):
        pytest.fail(f"--require-gpu: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def poisoned_memory(request, monkeypatch):
    """Fill ``torch.empty*`` with NaN for library code: a result cell nobody wrote shows up.

    Only the name ``torch`` inside the library's modules is replaced: torch's own tables, which
    the compiler builds once, know its functions by identity.
    """
    torch = sys.modules.get("torch")
    if torch is None or request.node.get_closest_marker("unpoisoned"):
        return
    poisoned = _PoisonedTorch(torch)
    for name, module in list(sys.modules.items()):
        if name.startswith("rlox_gpu.") and getattr(module, "torch", None) is torch:
            monkeypatch.setattr(module, "torch", poisoned)


class _PoisonedTorch(types.ModuleType):
    def __init__(self, torch):
        super().__init__("torch")
        self._torch = torch

    def __getattr__(self, name):
        return getattr(self._torch, name)

    def empty(self, *args, **kwargs):
        return _poison(self._torch.empty(*args, **kwargs))

    def empty_like(self, *args, **kwargs):
        return _poison(self._torch.empty_like(*args, **kwargs))


def _poison(tensor):
    if tensor.is_floating_point():
        return tensor.detach().fill_(float("nan")).requires_grad_(tensor.requires_grad)
    return tensor if tensor.dtype.itemsize == 1 else tensor.fill_(-1)
