"""What a buffer on a device notes beside its transitions: counters, links, what went wrong."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ._launches import State

# The host's view of memory that kernels write; None if they write none that it could read.
Seen = NDArray[np.int64] | None


def check_device(device: torch.device) -> None:
    """Raise RuntimeError if there is no such device."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"device: {device} was asked for, but torch finds no CUDA device; install a CUDA build "
            "of torch, or keep the buffer in host memory (device=None)"
        )


def shared_numbers(count: int, device: torch.device) -> tuple[torch.Tensor, Seen]:
    """Zeros that kernels write and the host reads without waiting for them."""
    if device.type == "cuda":
        numbers = torch.zeros(count, dtype=torch.int64, device="cpu", pin_memory=True)
    else:
        numbers = torch.zeros(count, dtype=torch.int64, device=device)
    readable = numbers.device.type == "cpu" and type(numbers) is torch.Tensor
    return numbers, numbers.numpy() if readable else None


def wait_for(device: torch.device) -> None:
    """Wait until all that was launched is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_capturing(device: torch.device) -> bool:
    """Whether what is launched now becomes part of a graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def make_state(capacity: int, num_envs: int, device: torch.device) -> tuple[State, Seen]:
    """Counters and links of an empty buffer, and the host's view of what kernels find wrong."""

    def zeros(*size: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(size, dtype=dtype, device=device)

    tails = zeros(num_envs, 3, dtype=torch.int64)
    tails[:, 1].fill_(-1)
    links = (zeros(capacity, dtype=torch.int32), zeros(capacity, dtype=torch.int32))
    errors, seen = shared_numbers(3, device)
    return (zeros(3, dtype=torch.int64), errors, *links, tails), seen
