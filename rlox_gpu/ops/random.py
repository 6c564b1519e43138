"""Counter-based random tensors: the same bits on the CPU and on a GPU.

Every number is a word of Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2,
3", SC 2011) under the key ``seed``, at the counter (index, ``step``, ``stream``): a pure function
of what it is for, whatever the device and the launch.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import _dispatch, _rust
from .._checks import SEEDS, WORDS, described, integer


def uniform(out: torch.Tensor, *, seed: int, step: int, stream: int) -> torch.Tensor:
    """Fill ``out`` with uniform numbers in [0, 1) and return it.

    Element i in memory is word ``i % 4`` of Philox at index ``i // 4``: its upper 24 bits times
    2**-24.

    Parameters
    ----------
    out : torch.Tensor, float32, contiguous
        Written in place.
    seed : int
        Key, in [0, 2**64).
    step, stream : int
        The last two counter words, each in [0, 2**32).

    Raises
    ------
    TypeError, ValueError
        If ``out`` is no contiguous float32 tensor, or a number is no integer in its range.
    """
    if not isinstance(out, torch.Tensor):
        raise TypeError(f"out: expected a torch tensor, got {described(out)}")
    if out.dtype is not torch.float32:
        raise TypeError(f"out: expected float32, got {out.dtype}")
    if not out.is_contiguous():
        raise ValueError(
            f"out: expected a contiguous tensor, got strides {out.stride()} "
            f"for shape {tuple(out.shape)}"
        )
    numbers = integer("seed", seed, SEEDS), integer("step", step, WORDS)
    _fill(_uniform_op, _uniform_bodies, out, (*numbers, integer("stream", stream, WORDS)))
    return out


def permutation(
    n: int, *, seed: int, step: int, device: torch.device | str | None = None
) -> torch.Tensor:
    """A random permutation of ``0 .. n - 1`` as int64 ``[n]``, a pure function of its arguments.

    A Feistel network keyed by Philox, made to fit by cycle walking (Black and Rogaway, "Ciphers
    with arbitrary finite domains", CT-RSA 2002): each element is computed on its own.

    Parameters
    ----------
    n : int
        Length, in [0, 2**32].
    seed : int
        Key, in [0, 2**64).
    step : int
        Counter word, in [0, 2**32): the next shuffle has the next step.
    device : torch.device or str, optional
        Where the result lives; torch's default device if not given.

    Raises
    ------
    TypeError, ValueError
        If a number is no integer in its range.
    """
    n = integer("n", n, WORDS + 1)
    numbers = integer("seed", seed, SEEDS), integer("step", step, WORDS)
    out = torch.empty(n, dtype=torch.int64, device=device)
    _fill(_permutation_op, _permutation_bodies, out, numbers)
    return out


def _fill(op: Any, bodies: tuple[Any, Any], out: torch.Tensor, numbers: tuple[int, ...]) -> None:
    if not _dispatch.is_plain_call(out) or out.device.type not in ("cpu", "cuda"):
        op(out.detach(), signed(numbers[0]), *numbers[1:])
        return
    rust, triton = bodies
    (rust if _dispatch.runs_in_rust(out.device) else triton)(out, *numbers)


def signed(seed: int) -> int:
    """The same 64 bits as ``seed``, as an integer that torch's dispatcher takes."""
    return seed - SEEDS if seed >= SEEDS // 2 else seed


def _uniform_rust(out: torch.Tensor, seed: int, step: int, stream: int) -> None:
    _rust.uniform_raw(out.data_ptr(), out.numel(), seed % SEEDS, step, stream)


def _uniform_triton(out: torch.Tensor, seed: int, step: int, stream: int) -> None:
    from ..kernels.random import launch_uniform

    launch_uniform(out, seed % SEEDS, step, stream)


def _permutation_rust(out: torch.Tensor, seed: int, step: int) -> None:
    _rust.permutation_raw(out.data_ptr(), out.numel(), seed % SEEDS, step)


def _permutation_triton(out: torch.Tensor, seed: int, step: int) -> None:
    from ..kernels.random import launch_permutation

    launch_permutation(out, seed % SEEDS, step)


_uniform_bodies = (_uniform_rust, _uniform_triton)
_permutation_bodies = (_permutation_rust, _permutation_triton)


def _no_result(*_: Any) -> None:
    return None


_uniform_op = _dispatch.register(
    "uniform_(Tensor(a!) out, int seed, int step, int stream) -> ()",
    cpu=_uniform_rust,
    cuda=_uniform_triton,
    fake=_no_result,
)
_permutation_op = _dispatch.register(
    "permutation_(Tensor(a!) out, int seed, int step) -> ()",
    cpu=_permutation_rust,
    cuda=_permutation_triton,
    fake=_no_result,
)
