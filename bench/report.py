"""Print a benchmark file as tables; write them as markdown, and a plot, beside it.

``python bench/report.py results/latest.json``; with ``--require`` the exit status is 1 when a
stated claim is missed or has no data.
"""

import argparse
import sys
from pathlib import Path

import results as benchmark_file
import tables
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

MIN_WIDTH = 150  # a pipe or a log has no width of its own
PLOTTED_GROUPS = ("gae", "envs", "overhead", "import", "training")
OURS, PEER = "#2a6f97", "#b0b7bd"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="what pytest --benchmark-json wrote")
    parser.add_argument("--require", action="store_true", help="fail when a claim is missed")
    arguments = parser.parse_args()
    found = benchmark_file.load(arguments.file)
    claims, kept = tables.claims_table(found)
    every_table = [
        tables.machine_table(found.machine),
        *tables.time_tables(found),
        *tables.ratio_tables(found),
        claims,
    ]
    show(every_table)
    markdown = arguments.file.with_suffix(".md")
    markdown.write_text("\n".join(table.markdown() for table in every_table))
    picture = arguments.file.with_suffix(".png")
    plot(found, picture)
    print(f"wrote {markdown} and {picture}")
    sys.exit(arguments.require and not kept)


def show(tables):
    console = Console(width=max(Console().width, MIN_WIDTH))
    for table in tables:
        console.print(as_rich(table))


def as_rich(table):
    shown = RichTable(
        title=table.title,
        caption=escape(table.note) or None,
        title_justify="left",
        caption_justify="left",
    )
    for column in table.columns:
        shown.add_column(column, overflow="fold")
    for row in table.rows:
        shown.add_row(*map(escape, row))
    return shown


def plot(found, path):
    """One panel per job: a bar per provider and device, as long as its call."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    jobs = [
        job
        for group in PLOTTED_GROUPS
        for job in found.jobs()
        if any((row.job, row.group) == (job, group) for row in found.rows)
    ]
    if not jobs:
        return
    columns = 2
    height = -(-len(jobs) // columns)
    figure, axes = plt.subplots(height, columns, figsize=(13, 2.2 * height), squeeze=False)
    for axis in axes.flat[len(jobs) :]:
        axis.remove()
    for axis, job in zip(axes.flat, jobs, strict=False):
        rows = sorted((r for r in found.rows if r.job == job), key=lambda r: r.best, reverse=True)
        bars = axis.barh(
            [f"{row.provider} ({row.device})" for row in rows],
            [row.best for row in rows],
            color=[OURS if row.ours else PEER for row in rows],
        )
        axis.bar_label(bars, [tables.duration(row.best) for row in rows], padding=3)
        axis.margins(x=0.2)
        axis.set_xticks([])
        axis.set_title(job, loc="left", fontsize=10)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    machine = found.machine
    figure.suptitle(
        f"Time per call, less is better. {machine['processor']['model']}, one thread; "
        f"GPU: {machine['gpu'].get('name', 'none')}",
        fontsize=11,
    )
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
