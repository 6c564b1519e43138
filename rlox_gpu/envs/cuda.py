"""CUDA sources of the environments: compiled at run time, launched on torch's current stream.

Everything that needs a CUDA device is in ``CupyModule``. ``use_launcher`` puts something else in
its place, so that all code above it also runs where there is no device.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

BLOCK = 128
_CSRC = importlib.import_module("rlox_gpu.csrc").__path__[0]
SOURCE = Path(_CSRC) / "vector_env.cu"
# No fused multiply-add, and IEEE division: the same bits as the CPU.
OPTIONS = ("--std=c++17", "--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false")

Argument = torch.Tensor | np.ndarray | int | None


class CompiledModule(Protocol):
    """CUDA source compiled for one device."""

    def launch(
        self,
        kernel: str,
        grid: int,
        block: int,
        arguments: Sequence[Argument],
        device: torch.device,
    ) -> None:
        """Launch a kernel.

        Arguments are tensors (pointers), None (a null pointer), Python integers (32 bits), and
        structured arrays of one entry (a struct by value).
        """


class CupyModule:
    """CUDA source compiled by NVRTC through CuPy.

    Parameters
    ----------
    source
        The ``.cu`` file; headers are looked for beside it.
    options
        Compiler options.

    Raises
    ------
    RuntimeError
        If CuPy is not installed.
    """

    def __init__(self, source: Path, options: tuple[str, ...]) -> None:
        self._cupy = import_cupy()
        self._module = self._cupy.RawModule(
            code=source.read_text(),
            options=(*options, f"-I{source.parent}"),
            backend="nvrtc",
        )
        self._kernels: dict[str, Any] = {}

    def launch(
        self,
        kernel: str,
        grid: int,
        block: int,
        arguments: Sequence[Argument],
        device: torch.device,
    ) -> None:
        """Launch a kernel on torch's current stream of ``device``."""
        stream = torch.cuda.current_stream(device)
        cuda = self._cupy.cuda
        with (
            cuda.Device(stream.device_index),
            cuda.ExternalStream(stream.cuda_stream, stream.device_index),
        ):
            function = self._kernels.get(kernel)
            if function is None:
                function = self._kernels[kernel] = self._module.get_function(kernel)
            function((grid,), (block,), tuple(map(_cupy_argument, arguments)))


def _cupy_argument(argument: Argument) -> Any:
    if isinstance(argument, torch.Tensor):
        return argument.data_ptr()
    if argument is None:
        return 0
    if isinstance(argument, int):
        return np.int32(argument)
    return argument


def import_cupy() -> Any:
    """Import CuPy.

    Raises
    ------
    RuntimeError
        If it is missing or broken; the message says what to install.
    """
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        major = (torch.version.cuda or "13").split(".")[0]
        raise RuntimeError(
            "environments on a CUDA device need CuPy, which cannot be imported "
            f"({error}); install it with `pip install rlox-gpu[cuda{major}]`"
        ) from error


_compile: Callable[[Path, tuple[str, ...]], CompiledModule] | None = None


@contextmanager
def use_launcher(
    compile_module: Callable[[Path, tuple[str, ...]], CompiledModule],
) -> Iterator[None]:
    """Compile and launch by other means inside a ``with`` block, CPU tensors included.

    Parameters
    ----------
    compile_module
        Takes the source file and the compiler options, gives an object with ``launch``.
    """
    global _compile
    previous, _compile = _compile, compile_module
    compiled_module.cache_clear()
    try:
        yield
    finally:
        _compile = previous
        compiled_module.cache_clear()


def runs_kernels(device: torch.device) -> bool:
    """Whether environments on ``device`` run CUDA kernels; on the CPU only under a launcher."""
    return device.type != "cpu" or _compile is not None


@functools.cache
def compiled_module(task: str, device: torch.device, of_each: bool = False) -> CompiledModule:
    """Compile the kernels of a task for a device, once.

    ``of_each`` asks for kernels that take constants and step limits of each environment.
    """
    options = (*OPTIONS, *task_options(task, of_each))
    return (_compile or CupyModule)(SOURCE, options)


def task_options(task: str, of_each: bool = False) -> tuple[str, ...]:
    """Give the compiler options that select a task, and rules of each environment's own."""
    options = (f"-DRLOX_TASK={task}", f'-DRLOX_TASK_HEADER="{task.lower()}.cuh"')
    return (*options, "-DRLOX_RULES_OF_EACH") if of_each else options


def grid_size(num_envs: int) -> int:
    """Blocks that cover one thread per environment."""
    return -(-num_envs // BLOCK)
