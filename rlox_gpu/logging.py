"""Where metrics go: a file of JSON lines, TensorBoard, or several places at once.

A logger is any object with ``log(step, metrics)``; those here also have ``close()``.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol


class Logger(Protocol):
    """What the algorithms ask of a logger."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record ``metrics`` at environment step ``step``."""
        ...

    def close(self) -> None:
        """Finish writing."""
        ...


class JSONLinesLogger:
    """Appends one JSON object per call to a file; NaN is written as null.

    Parameters
    ----------
    path : str or Path
        The file; created if need be.
    keep_until : int, optional
        Drop the lines of later steps first: what a run that is resumed from step ``keep_until``
        will write again. Default: keep all.
    """

    def __init__(self, path: str | Path, *, keep_until: int | None = None) -> None:
        self.path = Path(path)
        if keep_until is not None and self.path.exists():
            rows = [row for row in read_metrics(self.path) if row["step"] <= keep_until]
            self.path.write_text("".join(map(_line, rows)), encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line."""
        self._file.write(_line({"step": step, **metrics}))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(row: Mapping[str, Any]) -> str:
    finite = {k: v if v is None or math.isfinite(v) else None for k, v in row.items()}
    return json.dumps(finite) + "\n"


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a :class:`JSONLinesLogger` file; a last line cut short is left out."""
    # A process that was killed while writing leaves a line without its end.
    *lines, _ = Path(path).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines]


class TensorBoardLogger:
    """Writes scalars as TensorBoard events.

    Parameters
    ----------
    log_dir : str or Path
        Folder of the event files.
    keep_until : int, optional
        Hide events of later steps that an earlier process wrote.

    Raises
    ------
    ImportError
        If the package ``tensorboard`` is missing.
    """

    def __init__(self, log_dir: str | Path = "runs", *, keep_until: int | None = None) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError(
                "TensorBoardLogger needs the package tensorboard: "
                "pip install tensorboard (or rlox-gpu[tensorboard])"
            )
        from torch.utils.tensorboard import SummaryWriter

        purge = None if keep_until is None else keep_until + 1
        self._writer = SummaryWriter(str(log_dir), purge_step=purge)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one scalar per metric; those that are not finite are left out."""
        for name, value in metrics.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is pending and close the file."""
        self._writer.close()


class LoggerList:
    """Several loggers as one."""

    def __init__(self, loggers: Iterable[Logger]) -> None:
        self.loggers = list(loggers)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Pass the metrics to each."""
        for logger in self.loggers:
            logger.log(step, metrics)

    def close(self) -> None:
        """Close each."""
        for logger in self.loggers:
            logger.close()
