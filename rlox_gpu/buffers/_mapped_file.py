"""A file of columns, mapped into memory, whose rows count from the moment they are committed.

A header of one page (a magic word, a checksum, the columns as JSON, and the number of committed
rows) is followed by the columns, each from a new page on. Rows are written where no row that
counts is, and counted afterwards with one store of eight bytes: a process killed at any moment
leaves the rows of before, whole.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import replacing

MAGIC = b"RLOXGPU1"
_PAGE = 4096
# The counter has a cache line of its own at the end of the page.
_COUNTER = _PAGE - 64

# A name, a dtype, the shape of a row.
Column = tuple[str, "np.dtype[Any]", list[int]]


class MappedFile:
    """``columns[name]`` is an array of ``rows`` rows in the file; ``committed`` counts.

    Raises
    ------
    ValueError
        If the file is another one than ``settings`` and ``columns`` say, truncated, damaged, or in
        use by another process.
    OSError
        If it cannot be opened or made.
    """

    def __init__(
        self, path: str | Path, rows: int, columns: list[Column], settings: dict[str, Any]
    ) -> None:
        self.path = Path(path)
        described = [[name, dtype.name, shape] for name, dtype, shape in columns]
        text = json.dumps({"rows": rows, "columns": described, **settings}).encode()
        if len(text) + 16 > _COUNTER:
            raise ValueError(f"{self.path}: the observations have too many parts for the header")
        offsets, size = [], _PAGE
        for _, dtype, shape in columns:
            offsets.append(size)
            nbytes = rows * dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            size += -(-nbytes // _PAGE) * _PAGE
        head = MAGIC + np.array([zlib.crc32(text), len(text)], "<u4").tobytes() + text
        if not self.path.exists():
            self._create(head, size)
        self._file = self.path.open("rb+")
        try:
            self._lock()
            self._check(head, size)
            self._map = mmap.mmap(self._file.fileno(), size)
        except BaseException:
            self._file.close()
            raise
        self.columns = {
            name: self._view(dtype, (rows, *shape), offset)
            for (name, dtype, shape), offset in zip(columns, offsets, strict=True)
        }
        self._counter = self._view(np.dtype("<u8"), (1,), _COUNTER)

    def _create(self, head: bytes, size: int) -> None:
        with replacing(self.path) as partial, partial.open("wb") as file:
            file.write(head)
            file.truncate(size)

    def _lock(self) -> None:
        if os.name == "nt":
            return
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{self.path}: in use by another process or buffer") from error

    def _check(self, head: bytes, size: int) -> None:
        found = self._file.read(_COUNTER)
        if found[: len(MAGIC)] != MAGIC:
            raise ValueError(f"{self.path}: not a replay buffer's file")
        checksum, length = np.frombuffer(found[8:16].ljust(8, b"\0"), "<u4").tolist()
        text = found[16 : 16 + length]
        if len(text) != length or zlib.crc32(text) != checksum:
            raise ValueError(f"{self.path}: the header is damaged")
        if text != head[16:]:
            raise ValueError(
                f"{self.path}: holds another buffer, expected {head[16:].decode()}, "
                f"got {text.decode()}"
            )
        actual = os.fstat(self._file.fileno()).st_size
        if actual != size:
            raise ValueError(f"{self.path}: truncated, expected {size} bytes, got {actual}")

    def _view(self, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> NDArray[Any]:
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self._map, dtype, count, offset).reshape(shape)

    @property
    def committed(self) -> int:
        """Rows that have been committed, ever."""
        return int(self._counter[0])

    @committed.setter
    def committed(self, number: int) -> None:
        self._counter[0] = number

    def flush(self) -> None:
        """Write what has changed to the disk, rows first."""
        self._map.flush(_PAGE, len(self._map) - _PAGE)
        self._map.flush(0, _PAGE)

    def close(self) -> None:
        """Flush and unmap; arrays of :attr:`columns` must not be in use."""
        self.flush()
        self.columns.clear()
        del self._counter
        self._map.close()
        self._file.close()
