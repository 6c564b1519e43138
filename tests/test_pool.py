"""The thread pool under fork, and its size. Each case runs in an interpreter of its own."""

import os
import subprocess
import sys

import pytest

PARALLEL_CALL = """
import numpy as np
from rlox_gpu import _rust

rng = np.random.default_rng(0)
rewards, values = rng.standard_normal((2, 300, 1100))
flags = rng.random((300, 1100)) < 0.01

def work():
    advantages, _ = _rust.gae(rewards, values, flags, values[0], None, None, 0.9, 0.9, 0, None)
    return float(advantages.sum())
"""

FORK = """
import os, signal, sys

expected = work()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if work() == expected and work() == expected else 1)
_, status = os.waitpid(child, 0)
assert work() == expected
sys.exit(os.waitstatus_to_exitcode(status))
"""

MULTIPROCESSING = """
import multiprocessing

if __name__ == "__main__":
    expected = work()
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        results = [pool.apply_async(work) for _ in range(4)]
        assert [result.get(timeout=30) for result in results] == [expected] * 4
    assert work() == expected
"""

NESTED = """
import os, signal, sys

expected = work()
child = os.fork()
if child == 0:
    signal.alarm(20)
    assert work() == expected
    grandchild = os.fork()
    if grandchild == 0:
        signal.alarm(20)
        os._exit(0 if work() == expected else 1)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

COUNT = """
import os

before = len(os.listdir("/proc/self/task"))
work()
print(len(os.listdir("/proc/self/task")) - before)
"""

SMALL = """
_rust.gae(rewards[:9], values[:9], flags[:9], values[0], None, None, 0.9, 0.9, 0, None)
print("small arrays need no pool")
work()
"""


def run(code, num_threads):
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PARALLEL_CALL + code],
        env={**os.environ, "RLOX_GPU_NUM_THREADS": num_threads},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.parametrize("code", [FORK, NESTED, MULTIPROCESSING], ids=["fork", "nested", "pool"])
def test_a_forked_child_computes(code):
    done = run(code, "3")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("num_threads", "started"), [("1", 0), ("3", 3)])
def test_the_variable_sets_the_number_of_threads(num_threads, started):
    done = run(COUNT, num_threads)
    assert done.stdout.split() == [str(started)], done.stderr


@pytest.mark.parametrize("value", ["0", "-2", "many", "1.5", ""])
def test_a_bad_number_of_threads_is_named_at_first_use(value):
    done = run(SMALL, value)
    assert "small arrays need no pool" in done.stdout
    assert "ValueError: RLOX_GPU_NUM_THREADS must be a whole number" in done.stderr
    assert repr(value).strip("'") in done.stderr


def test_the_result_does_not_depend_on_the_number_of_threads():
    results = {run("print(work())", num_threads).stdout for num_threads in ("1", "2", "5")}
    assert len(results) == 1
    assert results.pop().strip()
