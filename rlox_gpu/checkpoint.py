"""Files that hold tensors and JSON: written whole or not at all, read without running code.

The format is safetensors; numbers and settings go as JSON into its metadata. A file is written
beside its destination, flushed to the disk and renamed over it, so that a process killed at any
moment leaves either the old file or the new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load, save
from torch import Tensor

from .files import replacing

FORMAT = "rlox-gpu checkpoint 1"


def write_checkpoint(
    path: str | Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:
    """Write ``tensors`` and the JSON-able ``values`` to ``path``, atomically.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written.
    """
    contents = save(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
        metadata={"format": FORMAT, "values": json.dumps(values)},
    )
    with replacing(path) as partial:
        partial.write_bytes(contents)


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the CPU tensors and the values in ``path``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, damaged or something else; the message names it.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: a folder, not a checkpoint file")
    contents = path.read_bytes()
    try:
        tensors = load(contents)
        header = json.loads(contents[8 : 8 + int.from_bytes(contents[:8], "little")])
        metadata = header.get("__metadata__", {})
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{path}: not a checkpoint, or a damaged one ({error})") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: expected the format {FORMAT!r}, got {metadata.get('format')!r}")
    return tensors, json.loads(metadata["values"])


def split_state(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Separate the tensors of a state from its other, JSON-able entries."""
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in state.items() if name not in tensors}


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``tensors`` with ``prefix.`` before each name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix.``, by the rest of their names."""
    start = len(prefix) + 1
    return {n[start:]: tensor for n, tensor in tensors.items() if n.startswith(f"{prefix}.")}
