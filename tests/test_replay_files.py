"""Buffers in files, and in several threads."""

import threading
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import rlox_gpu
from rlox_gpu import PrioritizedReplayBuffer, ReplayBuffer


def pushed(buffer, count, seed=0):
    rng = np.random.default_rng(seed)
    buffer.push_batch(
        rng.integers(0, 255, (count, 6)).astype(np.uint8),
        rng.integers(0, 255, (count, 6)).astype(np.uint8),
        rng.random((count, 2), np.float32),
        rng.random(count, np.float32),
        rng.random(count) < 0.1,
        rng.random(count) < 0.1,
    )
    return buffer


OPTIONS = {"obs_dtype": "uint8", "num_envs": 3, "n_step": 2, "gamma": 0.5, "seed": 2**63}


@pytest.mark.parametrize("deduplicate", [False, True])
@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
@pytest.mark.parametrize("count", [0, 30, 99])
def test_a_loaded_buffer_goes_on_like_the_saved_one(tmp_path, kind, count, deduplicate):
    original = pushed(kind(40, 6, 2, deduplicate=deduplicate, **OPTIONS), count)
    if kind is PrioritizedReplayBuffer:
        original.set_beta(0.7)
        indices = np.arange(min(count, 40))
        original.update_priorities(indices, indices + 0.5)
    for _ in range(3 if count else 0):
        original.sample(5)
    path = tmp_path / "buffer.safetensors"
    original.save(path)
    loaded = kind.load(path)
    assert [p.name for p in tmp_path.iterdir()] == ["buffer.safetensors"]
    assert repr(loaded) == repr(original) == f"{kind.__name__}({min(count, 40)} of 40 transitions)"
    for round_number in range(3):
        for buffer in (original, loaded):
            pushed(buffer, 9, seed=round_number)
        samples = [(b.sample(50), b.sample_sequences(5, 2)) for b in (original, loaded)]
        for wanted, found in zip(*samples, strict=True):
            assert wanted.keys() == found.keys()
            for key, x in wanted.items():
                np.testing.assert_array_equal(found[key], x, err_msg=key)


def test_dict_observations_come_back(tmp_path):
    original = ReplayBuffer(5, {"a": 2, "b": (1, 3)}, (), obs_dtype={"a": "f8", "b": "u1"})
    original.push({"a": [1.5, 2.5], "b": [[1, 2, 3]]}, 4.0, 1.0, True, False)
    original.save(tmp_path / "buffer")
    sample = ReplayBuffer.load(tmp_path / "buffer").sample(1)
    np.testing.assert_array_equal(sample["obs"]["a"], [[1.5, 2.5]])
    np.testing.assert_array_equal(sample["obs"]["b"], [[[1, 2, 3]]])
    assert sample["obs"]["b"].dtype == np.uint8


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "buffer"
    pushed(ReplayBuffer(40, 6, 2, deduplicate=True, **OPTIONS), 51).save(path)
    contents = path.read_bytes()
    for broken in (contents[:-1], contents[:50], b"", b"\x80\x04K\x01.", b"x" * 1000):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="no buffer's file, or a damaged one"):
            ReplayBuffer.load(path)
    path.write_bytes(contents)
    with pytest.raises(ValueError, match="expected a PrioritizedReplayBuffer, got a ReplayBuffer"):
        PrioritizedReplayBuffer.load(path)
    with pytest.raises(ValueError, match="a folder"):
        ReplayBuffer.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        ReplayBuffer.load(tmp_path / "none")
    save_file({"x": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="expected the format"):
        ReplayBuffer.load(path)
    with pytest.raises(OSError, match="none"):
        pushed(ReplayBuffer(40, 6, 2, **OPTIONS), 51).save(tmp_path / "none" / "buffer")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pushed", 1000),
        ("actions", None),
        ("links.next", 77),
        ("links.tails", 77),
        ("pairs.0", 1000),
        ("tails.0", 1000),
        ("frames.0", 10**6),
        ("frames.0.0", None),
        ("weights", -1.0),
        ("weights", np.nan),
    ],
)
def test_contents_that_do_not_fit_together_are_refused(name, value):
    """Whatever a file says, memory that is not the buffer's is never touched."""

    def new():
        return PrioritizedReplayBuffer(40, 6, 2, deduplicate=True, **OPTIONS)

    contents = pushed(new(), 30).contents()
    if value is None:
        del contents[name]
    else:
        kind = {"pushed": "u8", "frames.0": "u8", "links.tails": "u8", "weights": "f8"}
        contents[name].view(kind.get(name, "u4"))[:] = value
    buffer = new()
    with pytest.raises(ValueError, match=name if value is None else r"\w+"):
        buffer.restore(contents)
    buffer.clear()
    pushed(buffer, 30).sample(10)


def test_saving_does_not_pickle(tmp_path):
    pushed(ReplayBuffer(40, 6, 2, **OPTIONS), 51).save(tmp_path / "buffer")
    contents = load_file(tmp_path / "buffer")
    assert contents["obs.0"].nbytes == 40 * 6
    assert all(x.dtype == np.uint8 for x in contents.values())


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
@pytest.mark.parametrize("width", [4, 5000])
def test_no_transition_is_torn(kind, width):
    """Producers and consumers at the same time: every row is of one push."""
    buffer = kind(64, width, 1, num_envs=2, deduplicate=width == 4, n_step=2)
    end = time.monotonic() + 2.0
    failures = []

    def check(work):
        try:
            number = 0
            while time.monotonic() < end and not failures:
                number += 1
                work(number)
        except BaseException as error:
            failures.append(error)

    def batch(count, value):
        column = np.full((count, 1), value, np.float32)
        rows = np.full((count, width), value, np.float32)
        none = np.zeros(count, bool)
        buffer.push_batch(rows, rows + 1, column, column[:, 0], ~none, none)

    def single(value):
        row = np.full(width, value, np.float32)
        buffer.push(row, value, value, True, False, row + 1)

    def consume(seed):
        sample = buffer.sample(50, seed)
        value = sample["rewards"][:, None]
        assert (sample["obs"] == value).all()
        assert (sample["next_obs"] == value + 1).all()
        assert (sample["actions"] == value).all()
        if kind is PrioritizedReplayBuffer:
            buffer.update_priorities(sample["indices"], np.abs(sample["rewards"]) % 7 + 0.1)

    single(0.5)
    workers = (
        lambda number: batch(10, 3 * (number % 10**6)),
        lambda number: single(3 * (number % 10**6) + 1),
        consume,
        consume,
    )
    threads = [threading.Thread(target=check, args=(work,)) for work in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def test_the_names_are_exported():
    assert rlox_gpu.ReplayBuffer is ReplayBuffer
    assert {"ReplayBuffer", "PrioritizedReplayBuffer"} <= set(rlox_gpu.__all__)
