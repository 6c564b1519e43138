"""Which layout a ``[T, N]`` view has, and how to give it another."""

import torch

from ._launch import Layout


def layout_of(x: torch.Tensor) -> Layout:
    """The layout to run in for ``x``: its own, time-major if it has neither.

    A single long trajectory is a row, so that a warp shares its steps.
    """
    if x.shape[1] == 1 and x.shape[0] > 1:
        return Layout.ROW_MAJOR
    if not fits(x, Layout.TIME_MAJOR) and fits(x, Layout.ROW_MAJOR):
        return Layout.ROW_MAJOR
    return Layout.TIME_MAJOR


def fits(x: torch.Tensor, layout: Layout) -> bool:
    """Whether the inner axis of ``layout`` has stride one in ``x``."""
    inner = 1 if layout is Layout.TIME_MAJOR else 0
    return x.shape[inner] == 1 or x.stride(inner) == 1


def laid_out(x: torch.Tensor, layout: Layout) -> torch.Tensor:
    """``x`` if it has ``layout``, else a copy that has."""
    if fits(x, layout):
        return x
    return x.contiguous() if layout is Layout.TIME_MAJOR else x.T.contiguous().T


def empty_in(x: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Memory for a tensor like ``x`` in ``layout``."""
    if layout is Layout.TIME_MAJOR:
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    return torch.empty_like(x.T, memory_format=torch.contiguous_format).T


def as_bytes(flags: torch.Tensor) -> torch.Tensor:
    """Bools as the bytes that they are, which kernels read; other tensors as they came."""
    return flags.view(torch.uint8) if flags.dtype is torch.bool else flags
