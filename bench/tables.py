"""The tables of the report: title, columns and rows of text, for terminal and markdown."""

from dataclasses import dataclass

from claims import CLAIMS


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self):
        lines = [
            f"### {self.title}",
            "",
            _line(self.columns),
            _line(["---"] * len(self.columns)),
            *map(_line, self.rows),
            "",
        ]
        return "\n".join([*lines, self.note, ""] if self.note else lines)


def _line(cells):
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def machine_table(machine):
    processor, gpu, source = machine["processor"], machine["gpu"], machine["source"]
    rows = [
        ("processor", f"{processor['model']}, {processor['cores']} cores"),
        ("SIMD", " ".join(processor["simd"]) or "none recorded"),
        ("threads", "1" if set(machine["threads"].values()) == {"1"} else str(machine["threads"])),
        ("GPU", _gpu_text(gpu)),
        ("versions", ", ".join(f"{name} {v}" for name, v in machine["versions"].items())),
        ("source", _source_text(source)),
    ]
    return Table("Machine", ("what", "found"), tuple(rows))


def _gpu_text(gpu):
    if "absent" in gpu:
        return f"none: {gpu['absent']}"
    return f"{gpu['name']}, driver {gpu['driver']}, CUDA {gpu['cuda']}"


def _source_text(source):
    if source is None:
        return "not a git checkout"
    return source["commit"][:12] + (" with changes" if source["dirty"] else "")


def time_tables(results):
    """One table per group of jobs: times, rates, bandwidth, and the rows that were left out."""
    groups = dict.fromkeys([row.group for row in results.rows + results.left_out])
    return [_time_table(results, group) for group in groups]


def _time_table(results, group):
    measured = [row for row in results.rows if row.group == group]
    absent = [row for row in results.left_out if row.group == group]
    reasons = list(dict.fromkeys(row.reason for row in absent))
    rows = []
    for job in dict.fromkeys(row.job for row in measured + absent):
        cells = [_time_row(results, row) for row in measured if row.job == job]
        cells += [
            (row.provider, row.device, f"left out [{reasons.index(row.reason) + 1}]", *[""] * 5)
            for row in absent
            if row.job == job
        ]
        rows += [(job if first else "", *row) for first, row in _first_marked(cells)]
    notes = list(dict.fromkeys(row.traffic + "." for row in measured if row.traffic))
    if any(row.nbytes for row in measured):
        notes.append("GB/s are of that traffic; work that fits a cache can beat a large copy.")
    notes += [f"[{number}] {reason}." for number, reason in enumerate(reasons, start=1)]
    columns = ("job", "provider", "device", "best", "median", "IQR", "rate", "GB/s", "of copy")
    return Table(group, columns, tuple(rows), " ".join(notes))


def _first_marked(rows):
    return [(index == 0, row) for index, row in enumerate(rows)]


def _time_row(results, row):
    copy = results.copy_bandwidth(row.device)
    bandwidth = row.bandwidth
    return (
        row.provider,
        row.device,
        duration(row.best),
        duration(row.median),
        duration(row.spread),
        f"{quantity(row.rate)} {row.unit}/s",
        "" if bandwidth is None else f"{bandwidth / 1e9:.1f}",
        "" if bandwidth is None or copy is None else f"{bandwidth / copy:.0%}",
    )


def ratio_tables(results):
    """Every row of ours against every peer that did the same job, a table per group."""
    ours = [row for row in results.rows if row.ours and results.peers(row.job, row.device)]
    return [
        _ratio_table(results, group, [row for row in ours if row.group == group])
        for group in dict.fromkeys(row.group for row in ours)
    ]


def _ratio_table(results, group, ours):
    names = list(
        dict.fromkeys(_peer_name(p) for row in ours for p in results.peers(row.job, row.device))
    )
    rows = []
    for row in ours:
        peers = {_peer_name(peer): peer for peer in results.peers(row.job, row.device)}
        cells = [f"{peers[n].best / row.best:.2f}x" if n in peers else "" for n in names]
        rows.append((row.job, row.provider, row.device, *cells))
    return Table(
        f"{group}: how many times faster",
        ("job", "provider", "device", *(f"vs {name}" for name in names)),
        tuple(rows),
        "Fastest rounds of one run divided.",
    )


def _peer_name(row):
    return row.provider if row.device == "cpu" else f"{row.provider} ({row.device})"


def claims_table(results):
    """``(table, every claim with data holds and none lacks it)``."""
    rows, kept = [], True
    for claim in CLAIMS:
        figure, holds = claim.verdict(results)
        kept &= bool(holds)
        rows.append(
            (
                claim.text,
                f"{'>=' if claim.at_least else '<='} {claim.bound:g}{claim.unit}",
                "no data" if figure is None else f"{figure:.2f}{claim.unit}",
                {True: "holds", False: "MISSED", None: "no data"}[holds],
            )
        )
    return Table("Claims", ("claim", "stated", "measured", "verdict"), tuple(rows)), kept


def duration(seconds):
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def quantity(number):
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number:.3g}"
