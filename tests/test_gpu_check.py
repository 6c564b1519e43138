"""The command for owners of a GPU: what it says without one, and what its report holds."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"
JUNIT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_good"/>
<testcase classname="tests.test_a" name="test_bad">
<failure message="assert 1 == 2&#10;more"/></testcase>
<testcase classname="tests.test_a" name="test_broken"><error message="boom"/></testcase>
<testcase classname="tests.test_a" name="test_absent"><skipped message="why"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def gpu_check(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    spec = importlib.util.spec_from_file_location("gpu_check", BENCH / "gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_says_so_in_one_line_and_exits_2(tmp_path):
    report = tmp_path / "report.md"
    done = subprocess.run(
        [sys.executable, str(BENCH / "gpu_check.py"), "--report", str(report)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("gpu-check: no GPU to check: ")
    assert not report.exists()


def test_log_of_a_run_is_counted(gpu_check, tmp_path):
    log = tmp_path / "log.xml"
    log.write_text(JUNIT)
    outcome = gpu_check.read_log(log, status=1)
    assert (outcome.passed, outcome.skipped) == (1, 1)
    assert outcome.failures == (
        ("tests.test_a::test_bad", "assert 1 == 2"),
        ("tests.test_a::test_broken", "boom"),
    )
    assert not outcome.good


@pytest.mark.parametrize(("passed", "status", "good"), [(3, 0, True), (0, 0, False), (3, 1, False)])
def test_only_a_run_that_passed_something_is_good(gpu_check, passed, status, good):
    assert gpu_check.Outcome(passed, 0, (), status).good is good


def test_report_names_device_outcome_and_failures(gpu_check):
    tests = gpu_check.Outcome(3, 0, (), 0)
    bench = gpu_check.Outcome(1, 2, (("bench_gae.bench_gae[x-cuda]", "Mismatched elements"),), 1)
    text = gpu_check.report(tests, bench, None)
    assert "FAILED" in text
    assert "3 passed, 0 failed, 0 skipped\n" in text
    assert "1 passed, 1 failed, 2 skipped - NOT GOOD" in text
    assert "- bench_gae.bench_gae[x-cuda]: Mismatched elements" in text
    for name in ("processor", "GPU", "versions", "source"):
        assert f"| {name} |" in text


@pytest.mark.parametrize(("failures", "status"), [((), 0), ((("test", "reason"),), 1)])
def test_with_a_gpu_it_writes_one_report_and_exits_by_outcome(
    gpu_check, monkeypatch, tmp_path, failures, status
):
    report = tmp_path / "report.md"
    monkeypatch.setattr(gpu_check.machine, "gpu", lambda: {"name": "G", "driver": "1", "cuda": "2"})
    monkeypatch.setattr(gpu_check, "run_tests", lambda _: gpu_check.Outcome(2, 0, failures, 0))
    monkeypatch.setattr(
        gpu_check, "run_benchmarks", lambda _: (gpu_check.Outcome(1, 0, (), 0), None)
    )
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--report", str(report)])
    with pytest.raises(SystemExit) as end:
        gpu_check.main()
    assert int(end.value.code) == status
    assert "| GPU | G, driver 1, CUDA 2 |" in report.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


def test_a_run_of_pytest_is_read_back(gpu_check, tmp_path):
    (tmp_path / "test_two.py").write_text("def test_a(): pass\ndef test_b(): assert False, 'no'\n")
    arguments = ["-p", "no:cacheprovider", "test_two.py"]
    outcome = gpu_check._pytest(arguments, tmp_path, tmp_path / "log.xml", timeout=120)
    assert (outcome.passed, outcome.status) == (1, 1)
    assert [name for name, _ in outcome.failures] == ["test_two::test_b"]
