"""Rows of a benchmark file, and the ratios between them."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One provider's time for one job on one device; times are seconds per call of the job."""

    group: str
    job: str
    provider: str
    device: str
    ours: bool
    best: float
    median: float
    spread: float
    rounds: int
    items: int
    unit: str
    nbytes: int | None
    traffic: str
    # The 99th percentile of single calls over their median, of each round in which they were timed.
    tails: tuple[float, ...] = ()
    # The same of further rounds, each with that of a plain copy.
    tails_in_turn: tuple[tuple[float, float], ...] = ()

    @property
    def rate(self):
        return self.items / self.best

    @property
    def bandwidth(self):
        return None if self.nbytes is None else self.nbytes / self.best


@dataclass(frozen=True)
class LeftOut:
    group: str
    job: str
    provider: str
    device: str
    reason: str


@dataclass(frozen=True)
class Results:
    machine: dict
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]

    def find(self, job, provider, device="cpu"):
        """The row of that name, or None."""
        key = (job, provider, device)
        return next((r for r in self.rows if (r.job, r.provider, r.device) == key), None)

    def copy_bandwidth(self, device):
        """Bytes per second of a large copy on ``device``, or None where it was not measured."""
        found = [row.bandwidth for row in self.rows if (row.group, row.device) == ("copy", device)]
        return max(found, default=None)

    def jobs(self):
        return list(dict.fromkeys(row.job for row in self.rows))

    def peers(self, job, device):
        """Rows of others that do the job; a CUDA row also competes with the peers of the CPU.

        Other imports are no peers of ours: they do other work.
        """
        return [
            row
            for row in self.rows
            if row.job == job
            and not row.ours
            and row.device in ("cpu", device)
            and row.group != "import"
        ]


def load(path):
    """Read a file that ``pytest --benchmark-json`` wrote here."""
    content = json.loads(Path(path).read_text())
    return Results(
        machine=content["machine_info"]["bench"],
        rows=tuple(_row(entry) for entry in content["benchmarks"]),
        left_out=tuple(LeftOut(**entry) for entry in content["left_out"]),
    )


def _row(entry):
    info, stats = entry["extra_info"], entry["stats"]
    calls = info["calls"]
    return Row(
        **{
            name: info[name]
            for name in (
                "group",
                "job",
                "provider",
                "device",
                "ours",
                "items",
                "unit",
                "nbytes",
                "traffic",
            )
        },
        best=stats["min"] / calls,
        median=stats["median"] / calls,
        spread=stats["iqr"] / calls,
        rounds=stats["rounds"],
        tails=tuple(info.get("tails", ())),
        tails_in_turn=tuple(map(tuple, info.get("tails_in_turn", ()))),
    )
