"""The benchmark report: arithmetic of rates, ratios, claims and left-out rows on made-up times."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"
MACHINE = {
    "processor": {"model": "Made-up CPU", "cores": 2, "simd": ["avx2"]},
    "gpu": {"absent": "none in this file"},
    "versions": {"python": "3.12"},
    "source": None,
    "threads": {"OMP_NUM_THREADS": "1"},
}


def entry(job, provider, seconds, *, ours=False, group="gae", calls=1, items=1000, nbytes=17000):
    return {
        "extra_info": {
            "job": job,
            "group": group,
            "provider": provider,
            "ours": ours,
            "device": "cpu",
            "calls": calls,
            "items": items,
            "unit": "transitions",
            "nbytes": nbytes,
            "traffic": "17 B/transition",
        },
        "stats": {"min": seconds, "median": 2 * seconds, "iqr": 0.0, "rounds": 5},
    }


@pytest.fixture
def bench_file(tmp_path):
    def write(*entries):
        path = tmp_path / "figures.json"
        left_out = {
            "group": "gae",
            "job": "gae f32 128x1024 time-major",
            "provider": "torch loop",
            "device": "cuda",
            "reason": "none in this file",
        }
        content = {
            "machine_info": {"bench": MACHINE},
            "benchmarks": list(entries),
            "left_out": [left_out],
        }
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import claims
    import results
    import tables

    yield results, tables, claims
    for module in (results, tables, claims):
        sys.modules.pop(module.__name__)


def test_rows_divide_by_calls_and_give_rates(modules, bench_file):
    results, tables, _ = modules
    path = bench_file(
        entry("gae f32 128x1024 time-major", "rlox-gpu numpy", 4e-3, ours=True, calls=4),
        entry("copy 256 MiB", "numpy", 1e-3, group="copy", nbytes=34_000_000),
    )
    found = results.load(path)
    row = found.find("gae f32 128x1024 time-major", "rlox-gpu numpy")
    assert (row.best, row.median) == (1e-3, 2e-3)
    assert row.rate == pytest.approx(1e6)
    assert row.bandwidth == pytest.approx(17e6)  # 17,000 bytes a millisecond
    (gae, _copy) = tables.time_tables(found)
    assert gae.rows[0][3:] == ("1 ms", "2 ms", "0 ns", "1 M transitions/s", "0.0", "0%")
    assert gae.rows[1][1:4] == ("torch loop", "cuda", "left out [1]")
    assert "[1] none in this file." in gae.note


def test_ratios_are_of_the_fastest_rounds(modules, bench_file):
    results, tables, _ = modules
    path = bench_file(
        entry("gae f32 128x1024 time-major", "rlox-gpu numpy", 1e-3, ours=True),
        entry("gae f32 128x1024 time-major", "rlox", 6e-3),
    )
    (table,) = tables.ratio_tables(results.load(path))
    assert table.columns[3:] == ("vs rlox",)
    assert table.rows == (("gae f32 128x1024 time-major", "rlox-gpu numpy", "cpu", "6.00x"),)


def test_claim_against_several_peers_takes_the_fastest_and_needs_all(modules, bench_file):
    results, _, claims = modules
    job = "CartPole n=4096"
    ours = entry(job, "rlox-gpu make_vec", 1e-5, ours=True)
    peers = [entry(job, "rlox VecEnv", 6e-4), entry(job, "gymnasium native", 2e-4)]
    measure = claims.ratio(job, "rlox-gpu make_vec", *claims.CARTPOLE_PEERS)
    assert measure(results.load(bench_file(ours, *peers))) == pytest.approx(20)
    assert measure(results.load(bench_file(ours, peers[0]))) is None


def test_time_claim_is_in_its_unit_and_has_an_upper_bound(modules, bench_file):
    results, _, claims = modules
    claim = next(c for c in claims.CLAIMS if c.text.startswith("import"))
    for seconds, holds in ((0.050, True), (0.151, False)):
        found = results.load(bench_file(entry("process start", "import rlox_gpu", seconds)))
        assert claim.verdict(found) == (pytest.approx(1000 * seconds), holds)


@pytest.mark.parametrize(("flags", "status"), [((), 0), (("--require",), 1)])
def test_report_writes_its_files_and_require_fails_on_a_missed_claim(bench_file, flags, status):
    path = bench_file(
        entry("gae f32 128x1024 time-major", "rlox-gpu numpy", 1e-3, ours=True),
        entry("gae f32 128x1024 time-major", "rlox", 2e-3),
    )
    done = subprocess.run(
        [sys.executable, str(BENCH / "report.py"), str(path), *flags],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == status, done.stderr
    markdown = path.with_suffix(".md").read_text()
    assert "| gae 128x1024 against rlox | >= 5x | 2.00x | MISSED |" in markdown
    assert path.with_suffix(".png").stat().st_size > 1000
