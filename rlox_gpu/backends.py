"""What is installed, which backends work here, and why one does not."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PACKAGES = ("rlox-gpu", "numpy", "torch", "triton", "gymnasium", "tensorboard", "matplotlib")
CUPY_PACKAGES = ("cupy-cuda13x", "cupy-cuda12x", "cupy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter, ``"missing"`` for none."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        found[name] = _version(name) or "missing"
    found["cupy"] = next(filter(None, map(_version, CUPY_PACKAGES)), "missing")
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def backends() -> dict[str, str | None]:
    """Return for each backend why it does not work here, None if it does."""
    checks: dict[str, Callable[[], str | None]] = {
        "cpu: array ops and environments in Rust": lambda: _import_problem("rlox_gpu._rust"),
        "cpu: CUDA environments built for the host (for tests)": lambda: _import_problem(
            "rlox_gpu._host"
        ),
        "cuda: array ops in Triton": _triton_problem,
        "cuda: environments through CuPy and NVRTC": cuda_problem,
    }
    return {name: check() for name, check in checks.items()}


def choose_device(device: torch.device | str) -> torch.device:
    """Return the device to run on; ``"auto"`` is CUDA where it can be used, else the CPU.

    Raises
    ------
    ValueError
        If the name is not a device, or CUDA is asked for and torch has none.
    """
    import torch

    if device == "auto":
        device = "cuda" if cuda_problem() is None else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: {device!r} is not a device: {error}") from error
    if chosen.type == "cuda" and (problem := cuda_problem()) is not None:
        raise ValueError(f"device: {device!r} cannot be used: {problem}")
    return torch.empty(0, device=chosen).device  # with its index: tensors say "cuda:0"


def cuda_problem() -> str | None:
    """Return why training cannot run on CUDA here, None if it can."""
    import torch

    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed (pip install rlox-gpu[cuda12] or rlox-gpu[cuda13])"
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy raises its own kinds, ImportError of libraries included
        return f"CuPy does not work: {error}"
    return None


def _triton_problem() -> str | None:
    import torch

    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return _import_problem("triton")


def _import_problem(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return str(error)
    return None
