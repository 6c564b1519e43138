"""Everything that the owner of a GPU should run, and one file that says how it went.

``python bench/gpu_check.py [--report FILE]`` runs the tests marked ``gpu`` and the CUDA rows of
the benchmarks. Exit status: 0 all passed, 1 something failed, 2 there is no GPU.
"""

import argparse
import datetime
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import machine
import results as benchmark_file
import tables

ROOT = Path(__file__).parent.parent
NO_GPU = 2
TEST_TIMEOUT, BENCH_TIMEOUT = 3600, 3600


@dataclass(frozen=True)
class Outcome:
    """Counts of one pytest run, and one ``(test, first line of the reason)`` per failure."""

    passed: int
    skipped: int
    failures: tuple[tuple[str, str], ...]
    status: int

    @property
    def good(self):
        # A run that collects nothing, or only skips, has shown nothing.
        return self.status == 0 and self.passed > 0 and not self.failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--report", type=Path, default=ROOT / "gpu-report.md", help="the file to write"
    )
    arguments = parser.parse_args()
    absent = machine.gpu().get("absent")
    if absent:
        print(f"gpu-check: no GPU to check: {absent}", file=sys.stderr)
        sys.exit(NO_GPU)
    with tempfile.TemporaryDirectory() as folder:
        tests = run_tests(Path(folder))
        bench, figures = run_benchmarks(Path(folder))
    arguments.report.write_text(report(tests, bench, figures))
    good = tests.good and bench.good
    print(f"gpu-check: {'passed' if good else 'FAILED'}; the report is {arguments.report}")
    sys.exit(not good)


def run_tests(folder):
    arguments = ["-m", "gpu", "--require-gpu", "tests"]
    return _pytest(arguments, ROOT, folder / "tests.xml", TEST_TIMEOUT)


def run_benchmarks(folder):
    """Outcome and figures of the CUDA rows; the copy among them measures the bandwidth."""
    figures = folder / "bench.json"
    arguments = ["-k", "cuda", f"--benchmark-json={figures}"]
    outcome = _pytest(arguments, ROOT / "bench", folder / "bench.xml", BENCH_TIMEOUT)
    return outcome, benchmark_file.load(figures) if figures.exists() else None


def _pytest(arguments, directory, log, timeout):
    command = [sys.executable, "-m", "pytest", *arguments, f"--junit-xml={log}"]
    try:
        status = subprocess.run(command, cwd=directory, timeout=timeout, check=False).returncode
    except subprocess.TimeoutExpired:
        return Outcome(0, 0, ((" ".join(command), f"no end after {timeout} s"),), 1)
    if not log.exists():
        return Outcome(0, 0, ((" ".join(command), f"pytest ended with status {status}"),), status)
    return read_log(log, status)


def read_log(log, status):
    """Outcome of a run from the JUnit file that pytest wrote."""
    passed, skipped, failures = 0, 0, []
    for case in ElementTree.parse(log).getroot().iter("testcase"):
        bad = [child for child in case if child.tag in ("failure", "error")]
        if bad:
            reason = (bad[0].get("message") or "").splitlines()
            name = f"{case.get('classname')}::{case.get('name')}"
            failures.append((name, reason[0] if reason else "no message"))
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return Outcome(passed, skipped, tuple(failures), status)


def report(tests, bench, figures):
    """The report file: device and versions, both outcomes, times and shares of the bandwidth."""
    now = datetime.datetime.now(datetime.timezone.utc)
    parts = [
        "# GPU check",
        "",
        f"{now:%Y-%m-%d %H:%M} UTC: {'passed' if tests.good and bench.good else 'FAILED'}",
        "",
        tables.machine_table(machine.describe()).markdown(),
        _outcome("Tests marked gpu", tests),
        _outcome("CUDA benchmark rows, each checked before it was timed", bench),
    ]
    if figures is not None:
        parts += [table.markdown() for table in tables.time_tables(figures)]
    return "\n".join(parts)


def _outcome(title, outcome):
    counts = f"{outcome.passed} passed, {len(outcome.failures)} failed, {outcome.skipped} skipped"
    lines = [f"### {title}", "", counts + ("" if outcome.good else " - NOT GOOD"), ""]
    lines += [f"- {name}: {reason}" for name, reason in outcome.failures]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
