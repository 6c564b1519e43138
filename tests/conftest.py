"""Shared by the whole suite: the device switch, poisoned memory, paths of the test packages."""

import inspect
import sys
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).parent
for folder in (TESTS / "ptxsim", TESTS):
    sys.path.insert(0, str(folder))

_LIBRARY = ("rlox_gpu.",)


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
    """Fill ``torch.empty*`` with NaN for library code: a result cell nobody wrote shows up."""
    torch = sys.modules.get("torch")
    if torch is None or request.node.get_closest_marker("unpoisoned"):
        return
    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, _poisoned(torch, getattr(torch, name)))


def _poisoned(torch, allocate):
    def filled(*args, **kwargs):
        tensor = allocate(*args, **kwargs)
        caller = inspect.currentframe().f_back.f_globals.get("__name__", "")
        if caller.startswith(_LIBRARY) and type(tensor) is torch.Tensor:
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))
            elif tensor.dtype is not torch.bool:
                tensor.fill_(-1 if tensor.dtype.is_signed else 255)
        return tensor

    return filled
