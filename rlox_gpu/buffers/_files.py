"""Buffers in files: safetensors, with the buffer's settings as JSON in the metadata.

Nothing in a file is ever executed, and what does not fit together is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..files import replacing

FORMAT = "rlox-gpu buffer 1"


def write(path: str | Path, contents: dict[str, Any], settings: dict[str, Any]) -> None:
    """Write named byte arrays and JSON-able settings to ``path``, atomically."""
    metadata = {"format": FORMAT, "settings": json.dumps(settings)}
    with replacing(path) as partial:
        partial.touch()  # an OSError says what is wrong with the folder
        save_file(contents, partial, metadata=metadata)


def read(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays and the settings of the ``kind`` of buffer in ``path``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is truncated, damaged or something else.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: a folder, not a buffer's file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(
                    f"{path}: expected the format {FORMAT!r}, got {metadata.get('format')!r}"
                )
            settings = json.loads(metadata["settings"])
            contents = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{path}: no buffer's file, or a damaged one ({error})") from error
    found = settings.pop("kind", None)
    if found != kind:
        raise ValueError(f"{path}: expected a {kind}, got a {found}")
    return contents, settings
