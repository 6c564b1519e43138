"""Samples as tensors on a device: drawn ahead, copied while the device is at work.

There are no threads: launches return before the device is done, which gives the host time to draw.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from .._checks import WORDS, described, integer
from ._blocks import Layout, Sample, as_tensors, write
from ._specs import positive


def batches(
    sample: Callable[..., Sample], batch_size: Any, device: Any, prefetch: Any
) -> Iterator[Sample]:
    """What ``Common.batches`` returns, drawn by ``sample(batch_size)``, if it can with ``out=``."""
    batch_size = positive("batch_size", batch_size, WORDS)
    prefetch = integer("prefetch", prefetch, WORDS)
    if not callable(sample):
        raise TypeError(f"sample: expected a function, got {described(sample)}")
    device = _usable(torch.get_default_device() if device is None else device)
    if device.type == "cuda":
        return _Staged(partial(sample, batch_size), device, prefetch)
    # No generator: an error would be its end.
    return map(partial(_drawn, sample, device), repeat(batch_size))


def _drawn(sample: Callable[..., Sample], device: torch.device, batch_size: int) -> Sample:
    return as_tensors(sample(batch_size), device)


def _usable(device: Any) -> torch.device:
    """The device, with the number that it has now."""
    try:
        return torch.empty(0, device=device).device
    except (AssertionError, RuntimeError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        reason = str(error).partition(". ")[0]
        raise kind(
            f"device: expected one that torch can use here, got {device}: {reason}"
        ) from error


class _Staged(Iterator[Sample]):
    """Samples by way of ``prefetch + 1`` pieces of pinned memory, written in turn."""

    def __init__(self, draw: Callable[..., Sample], device: torch.device, prefetch: int) -> None:
        self._draw, self._device, self._prefetch = draw, device, prefetch
        self._writes_out = "out" in inspect.signature(draw).parameters
        # The oldest sample comes first; those without one are last.
        self._stages: deque[_Stage] = deque()

    def __next__(self) -> Sample:
        if not self._stages:
            self._begin(self._draw())
        for stage in self._stages:
            if stage.copy is None:
                stage.copied.synchronize()
                self._fill(stage.arrays)
                stage.send()
        self._stages.rotate(-1)
        return self._layout.tensors(self._stages[-1].receive())

    def _begin(self, first: Sample) -> None:
        self._layout = Layout(first)
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._stages = deque(_Stage(self._layout, stream) for _ in range(self._prefetch + 1))
        write(self._stages[0].arrays, first)
        self._stages[0].send()

    def _fill(self, arrays: Sample) -> None:
        if self._writes_out:
            self._draw(out=arrays)
        else:
            write(arrays, self._draw())


class _Stage:
    """Pinned memory for a sample, and the copy that is on its way to the stream's device."""

    def __init__(self, layout: Layout, stream: torch.cuda.Stream) -> None:
        self._memory = torch.empty(layout.size, dtype=torch.uint8, device="cpu", pin_memory=True)
        self._stream = stream
        self.arrays = layout.arrays(self._memory.numpy())
        self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.copy: Tensor | None = None

    def send(self) -> None:
        with torch.cuda.stream(self._stream):
            self.copy = self._memory.to(self._stream.device, non_blocking=True)
            self.copied.record(self._stream)

    def receive(self) -> Tensor:
        """The copy, for which the caller's stream waits, not the host."""
        copy, self.copy = self.copy, None
        assert copy is not None
        stream = torch.cuda.current_stream(self._stream.device)
        stream.wait_event(self.copied)
        # It was allocated on the other stream, which may reuse it when this one is done with it.
        copy.record_stream(stream)
        return copy
