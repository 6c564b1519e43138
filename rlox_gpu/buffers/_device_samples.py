"""Samples as dicts of tensors on a device: new ones, or those of the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from .._checks import described


class Entry(NamedTuple):
    """One tensor of a sample; ``key`` is that of a dict observation."""

    name: str
    key: str | None
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def shown(self) -> str:
        """What a message calls it."""
        inner = "" if self.key is None else f'["{self.key}"]'
        return f'out["{self.name}"]{inner}'


def new_sample(
    entries: Sequence[Entry], leading: tuple[int, ...], device: torch.device
) -> tuple[dict[str, Any], list[torch.Tensor]]:
    """A sample's dict, and its tensors ``[*leading, *shape]`` in the order of ``entries``."""
    sample: dict[str, Any] = {}
    tensors = []
    for name, key, dtype, shape in entries:
        x = torch.empty((*leading, *shape), dtype=dtype, device=device)
        tensors.append(x)
        if key is None:
            sample[name] = x
        else:
            sample.setdefault(name, {})[key] = x
    return sample, tensors


def given_sample(
    out: Any, entries: Sequence[Entry], leading: tuple[int, ...], device: torch.device
) -> tuple[dict[str, Any], list[torch.Tensor]]:
    """``out`` and its tensors, if they are what a sample would consist of.

    Raises
    ------
    TypeError, ValueError
        If one is missing or does not fit; the message names it.
    """
    if not isinstance(out, dict):
        raise TypeError(f"out: expected a dict, an earlier sample, got {described(out)}")
    return out, [_given(out, entry, leading, device) for entry in entries]


def _given(
    out: dict[str, Any], entry: Entry, leading: tuple[int, ...], device: torch.device
) -> torch.Tensor:
    x = out.get(entry.name)
    if entry.key is not None:
        x = x.get(entry.key) if isinstance(x, Mapping) else None
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{entry.shown}: expected a tensor, got {described(x)}")
    size = (*leading, *entry.shape)
    wanted = (entry.dtype, size, device, True)
    if (x.dtype, tuple(x.shape), x.device, x.is_contiguous()) != wanted:
        raise ValueError(
            f"{entry.shown}: expected a contiguous {entry.dtype} tensor of shape {size} on "
            f"{device}, got {x.dtype} of shape {tuple(x.shape)} on {x.device}"
            + ("" if x.is_contiguous() else ", not contiguous")
        )
    return x
