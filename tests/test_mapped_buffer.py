"""The buffer in a file: samples, reopening, kills, foreign files."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from rlox_gpu import MmapReplayBuffer, ReplayBuffer
from rlox_gpu.buffers import mapped

# Pushes for ever; every number of a transition is its number in the order of pushes.
PUSHER = """
import sys
import numpy as np
from rlox_gpu import MmapReplayBuffer
buffer = MmapReplayBuffer(10, 5000, 30, 2, sys.argv[1])
number = 0
print("ready", flush=True)
while number < 10**6:
    count = 1 if number % 3 else 1 + number % 700
    column = np.arange(number, number + count, dtype=np.float32)[:, None]
    none = np.zeros(count, bool)
    obs = np.repeat(column, 30, 1)
    buffer.push_batch(obs, obs + 1, np.repeat(column, 2, 1), column[:, 0], none, none)
    number += count
"""
LARGEST_PUSH = 700


def rows(start, count):
    column = np.arange(start, start + count, dtype=np.float32)[:, None]
    return {
        "obs": np.repeat(column, 3, 1),
        "next_obs": np.repeat(column, 3, 1) + 1,
        "actions": column,
        "rewards": column[:, 0],
        "terminated": column[:, 0] % 2 == 0,
        "truncated": column[:, 0] % 3 == 0,
    }


def opened(path, capacity=50, **options):
    return MmapReplayBuffer(5, capacity, 3, 1, path, **options)


def assert_holds(buffer, first, last):
    """Exactly the transitions from ``first`` up to ``last``, each whole."""
    assert len(buffer) == last - first
    sample = buffer.sample(20 * (last - first), seed=1)
    wanted = rows(0, last)
    numbers = sample["rewards"].astype(int)
    assert set(numbers) == set(range(first, last))
    for key, x in wanted.items():
        np.testing.assert_array_equal(sample[key], x[numbers])


def test_the_newest_transitions_are_kept_over_reopening(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "_SPARE", 8)
    path, pushed = tmp_path / "buffer", 0
    for count in (1, 20, 3, 9, 100, 0, 8, 77):
        with opened(path) as buffer:
            batch = rows(pushed, count)
            if count == 1:
                buffer.push(
                    *(batch[k][0] for k in ("obs", "actions", "rewards")), True, True, [1] * 3
                )
            else:
                buffer.extend(batch)
            pushed += count
            assert_holds(buffer, max(0, pushed - 50), pushed)


def test_samples_are_those_of_the_buffer_in_memory(tmp_path):
    in_memory = ReplayBuffer(50, 3, 1, seed=3)
    buffer = opened(tmp_path / "buffer", seed=3)
    for each in (in_memory, buffer):
        each.extend(rows(0, 30))
    for wanted, found in (
        (in_memory.sample(9, 4), buffer.sample(9, 4)),
        (in_memory.sample(9), buffer.sample(9)),
    ):
        assert list(wanted) == list(found)
        for key, x in wanted.items():
            np.testing.assert_array_equal(found[key], x)
            assert found[key].dtype == x.dtype
    buffer.close()


def test_what_is_left_out_and_dicts(tmp_path):
    dims, dtypes = {"image": (2, 2), "state": 1}, {"image": "u1", "state": "f4"}
    with MmapReplayBuffer(1, 5, dims, (), tmp_path / "b", obs_dtype=dtypes) as buffer:
        obs = {"image": np.full((2, 2), 7, np.uint8), "state": 0.5}
        buffer.push(obs, 0.25, 1, False, True)
        sample = buffer.sample(2)
        assert sample["obs"]["image"].tolist() == [[[7, 7], [7, 7]]] * 2
        assert sample["next_obs"]["state"].tolist() == [[0.0]] * 2
        assert sample["actions"].tolist() == [0.25] * 2
        assert sample["truncated"].tolist() == [True] * 2
        with pytest.raises(TypeError, match=r"^obs\['state'\]"):
            buffer.push({"image": obs["image"]}, 0.0, 0.0, False, False)
        assert len(buffer) == 1


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.3])
def test_a_kill_loses_at_most_the_push_in_flight(tmp_path, delay):
    path = tmp_path / "buffer"
    process = subprocess.Popen([sys.executable, "-c", PUSHER, str(path)], stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    with MmapReplayBuffer(10, 5000, 30, 2, path) as buffer:
        committed = buffer._file.committed
        assert len(buffer) == min(committed, 5000)
        if committed == 0:
            return
        sample = buffer.sample(20_000, seed=0)
        numbers = sample["rewards"]
        assert numbers.max() == committed - 1
        assert numbers.min() >= committed - len(buffer)
        assert (sample["obs"] == numbers[:, None]).all()
        assert (sample["next_obs"] == numbers[:, None] + 1).all()
        assert (sample["actions"] == numbers[:, None]).all()


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "buffer"
    with opened(path) as buffer:
        buffer.extend(rows(0, 30))
        with pytest.raises(ValueError, match="in use by another process"):
            opened(path)
    contents = path.read_bytes()
    with pytest.raises(ValueError, match=r"holds another buffer, expected .*51.*got .*50"):
        opened(path, capacity=51)
    cases = [
        (contents[:-1], "truncated, expected"),
        (contents + b"x", "truncated, expected"),
        (contents[:4096], "truncated, expected"),
        (contents[:30], "header is damaged"),
        (contents[:9], "header is damaged"),
        (contents[:20] + b"#" + contents[21:], "header is damaged"),
        (b"", "not a replay buffer's file"),
        (b"PK" + contents, "not a replay buffer's file"),
    ]
    for broken, message in cases:
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=message):
            opened(path)
        assert path.read_bytes() == broken
    path.write_bytes(contents)
    with opened(path) as buffer:
        assert_holds(buffer, 0, 30)
        buffer.flush()
    with pytest.raises(OSError, match="none"):
        opened(tmp_path / "none" / "buffer")


def test_bad_arguments_are_named(tmp_path):
    for name, value in (("hot_capacity", 0), ("hot_capacity", 60), ("total_capacity", 0)):
        sizes = {"hot_capacity": 5, "total_capacity": 50, name: value}
        with pytest.raises(ValueError, match=f"^{name}"):
            MmapReplayBuffer(*sizes.values(), 3, 1, tmp_path / "buffer")
    buffer = opened(tmp_path / "buffer")
    with pytest.raises(ValueError, match="the buffer is empty"):
        buffer.sample(1)
    for name in ("obs", "next_obs", "actions", "terminated", "truncated"):
        with pytest.raises(ValueError, match=rf"^{name}: expected shape"):
            buffer.extend({**rows(0, 4), name: np.zeros(7)})
    with pytest.raises(ValueError, match=r"^action: expected shape"):
        buffer.push([1, 2, 3], [1, 2], 0.0, False, False)
    assert len(buffer) == 0
    buffer.close()
    buffer.close()
    with pytest.raises(ValueError, match="has been closed"):
        buffer.sample(1)
