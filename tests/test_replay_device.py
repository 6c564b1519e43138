"""Replay buffers on a device: arguments, placement, and what runs without data."""

import numpy as np
import pytest
import torch
from fake_device import run_on_fake_device
from replay_twins import make_rows, to
from simulation import simulated

import rlox_gpu
from rlox_gpu import _dispatch
from rlox_gpu.buffers import _device_frames
from rlox_gpu.buffers._device_rows import all_rows

ROWS = to(make_rows(np.random.default_rng(0), 4, 3, 2), "cpu")


@pytest.fixture
def buffer():
    """On the CPU, by the path of a device; nothing in these tests may get as far as a launch."""
    with _dispatch.force_triton():
        yield rlox_gpu.PrioritizedReplayBuffer(8, 3, 2, num_envs=2, device="cpu")


def test_the_class_follows_the_device(buffer):
    assert isinstance(buffer, rlox_gpu.PrioritizedReplayBuffer)
    assert not isinstance(buffer, rlox_gpu.ReplayBuffer)
    with _dispatch.force_triton():
        uniform = rlox_gpu.ReplayBuffer(8, 3, 2, device="cpu")
    assert isinstance(uniform, rlox_gpu.ReplayBuffer)
    assert repr(uniform) == "ReplayBuffer(0 of 8 transitions on cpu)"


def test_the_cpu_keeps_its_arrays():
    for device in (None, "cpu", torch.device("cpu")):
        there = rlox_gpu.ReplayBuffer(8, 3, 2, device=device)
        there.extend(ROWS)
        assert isinstance(there.sample(1)["obs"], np.ndarray)


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        ("nowhere", RuntimeError, "device: expected a torch device, got 'nowhere'"),
        (3.5, TypeError, "device: expected a torch device, got 3.5"),
        pytest.param(
            "cuda",
            RuntimeError,
            "torch finds no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_bad_devices(device, error, message):
    for kind in (rlox_gpu.ReplayBuffer, rlox_gpu.PrioritizedReplayBuffer):
        with pytest.raises(error, match=message):
            kind(8, 3, 2, device=device)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 9}, "capacity: expected at least num_envs = 9 on a device, got 8"),
        ({"capacity": 1 << 31}, r"capacity: expected less than 2\*\*31 on a device"),
    ],
)
def test_what_a_device_has_no_buffer_for(options, message):
    with _dispatch.force_triton(), pytest.raises(ValueError, match=message):
        rlox_gpu.ReplayBuffer(**{"capacity": 8, **options}, obs_dim=3, act_dim=2, device="cpu")


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("obs", torch.zeros(4, 2), ValueError, r"obs: expected shape \(4, 3\), got \(4, 2\)"),
        ("next_obs", torch.zeros(5, 3), ValueError, r"next_obs: expected shape \(4, 3\)"),
        ("actions", torch.zeros(4, 2, 1), ValueError, r"actions: expected shape \(4, 2\)"),
        ("actions", torch.zeros(4, 2, dtype=torch.complex64), TypeError, "actions: expected an"),
        ("obs", "words", TypeError, "obs: expected an array of numbers"),
        ("rewards", torch.zeros(()), ValueError, r"rewards: expected shape \(B,\), got \(\)"),
        ("rewards", torch.zeros(4, 2), ValueError, r"rewards: expected shape \(B,\)"),
        ("terminated", torch.zeros(3), ValueError, r"terminated: expected shape \(4,\)"),
        ("truncated", None, TypeError, "truncated: expected an array of numbers"),
        ("envs", [0, 1, 2, 0], ValueError, r"envs: expected numbers in \[0, 2\), .* got 2"),
        ("envs", [0.5, 1, 1, 0], TypeError, "envs: expected int64 numbers"),
        ("priorities", [1, 2, np.nan, 1], ValueError, "priorities: .* got nan at index 2"),
        ("priorities", [1, -2, 1, 1], ValueError, "priorities: .* got -2.0 at index 1"),
        ("priorities", torch.ones(3), ValueError, "priorities: expected 4 rows as in rewards"),
        ("priorities", torch.ones(2, 2), ValueError, r"priorities: expected shape \(B,\)"),
    ],
)
def test_bad_batches_name_the_argument_and_store_nothing(buffer, name, value, error, message):
    with pytest.raises(error, match=message):
        buffer.extend(ROWS | {name: value})
    assert len(buffer) == 0


def test_a_number_of_rows_that_environments_cannot_share(buffer):
    odd = {name: x[:3] for name, x in ROWS.items()}
    with pytest.raises(ValueError, match="rewards: expected a multiple of 2 rows"):
        buffer.extend(odd)


@pytest.mark.parametrize(
    ("dtype", "given", "refused"),
    [
        ("int64", torch.int32, False),
        ("int64", torch.bool, False),
        ("uint8", torch.int64, True),
        ("int32", torch.float32, True),
        ("float32", torch.float64, False),
        ("float32", torch.int64, False),
        ("bool", torch.float32, False),
    ],
)
def test_tensors_are_converted_where_no_number_is_lost(dtype, given, refused):
    stored, row = torch.ones(2, 3, dtype=given), (np.dtype(dtype), (3,))
    if refused:
        with pytest.raises(TypeError, match=f"obs: expected torch.{dtype} or what it holds"):
            all_rows("obs", stored, row, 2, stored.device)
    else:
        rows = all_rows("obs", stored, row, 2, stored.device)
        assert rows.dtype == getattr(torch, dtype)
        assert (rows == 1).all()


def test_rows_of_the_stored_dtype_are_not_copied():
    x = torch.ones(2, 3)
    rows = all_rows("obs", x, (np.dtype("float32"), (3,)), 2, x.device)
    assert rows.data_ptr() == x.data_ptr()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda b: b.sample(1), ValueError, "batch_size: the buffer is empty"),
        (lambda b: b.sample_sequences(1, 2), ValueError, "batch_size: the buffer is empty"),
        (lambda b: b.sample(0), ValueError, "batch_size: expected at least 1, got 0"),
        (lambda b: b.sample(2.0), TypeError, "batch_size: expected an integer"),
        (lambda b: b.sample(1, seed=-1), ValueError, "seed: expected an integer"),
        (lambda b: b.sample_sequences(1, 0), ValueError, "length: expected at least 1"),
        (lambda b: b.sample_sequences(1, 1, stride=0), ValueError, "stride: expected at least 1"),
        (lambda b: b.sample_sequences(1, 1, burn_in=-1), ValueError, "burn_in: expected"),
        (lambda b: b.update_priorities([0.5], [1.0]), TypeError, "indices: expected int64"),
        (
            lambda b: b.update_priorities([0], [1.0]),
            ValueError,
            r"indices: expected numbers in \[0, 0\), .* got 0 at index 0",
        ),
        (
            lambda b: b.update_priorities(np.zeros(0, int), [np.nan]),
            ValueError,
            r"priorities: expected shape \(0,\), got \(1,\)",
        ),
        (lambda b: b.set_beta(-1.0), ValueError, "beta: expected a finite number"),
        (lambda b: b.push(np.zeros(2), 0, 0, 0, 0), ValueError, r"obs: expected shape \(3,\)"),
        (lambda b: b.push(torch.zeros(2), 0, 0, 0, 0), ValueError, r"obs: expected shape \(3,\)"),
        (
            lambda b: b.push(np.zeros(3), np.zeros(2), 0, 0, 0, priority=-1.0),
            ValueError,
            "priority: expected a finite number",
        ),
        (
            lambda b: b.push(np.zeros(3), np.zeros(2), 0, 0, 0, env=2),
            ValueError,
            r"env: expected an integer in \[0, 2\)",
        ),
        (lambda b: b.batches(0), ValueError, "batch_size: expected at least 1"),
        (lambda b: b.batches(1, prefetch=-1), ValueError, "prefetch: expected an integer"),
        (lambda b: b.batches(1, device="meta"), ValueError, "device: expected cpu, the buffer's"),
        (lambda b: b.batches(1, sample=3), TypeError, "sample: expected a function"),
    ],
)
def test_bad_calls_name_the_argument(buffer, call, error, message):
    with pytest.raises(error, match=message):
        call(buffer)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"obs": None}, TypeError, r'out\["obs"\]: expected a tensor, got NoneType'),
        ({"weights": torch.zeros(3)}, ValueError, r'out\["weights"\]: .* shape \(2,\) on cpu'),
        ({"indices": torch.zeros(2)}, ValueError, r'out\["indices"\]: .* torch.int64 tensor'),
        ({"obs": torch.zeros(3, 2).T}, ValueError, "not contiguous"),
        ({"actions": torch.zeros(2, 2, device="meta")}, ValueError, "on cpu, got .* on meta"),
    ],
)
def test_bad_results_to_write_to(buffer, change, error, message):
    buffer._pushed = 1  # a sample is refused before it is drawn
    out = {
        "obs": torch.zeros(2, 3),
        "next_obs": torch.zeros(2, 3),
        "actions": torch.zeros(2, 2),
        "rewards": torch.zeros(2),
        "terminated": torch.zeros(2, dtype=torch.bool),
        "truncated": torch.zeros(2, dtype=torch.bool),
        "weights": torch.zeros(2),
        "indices": torch.zeros(2, dtype=torch.int64),
    }
    with pytest.raises(error, match=message):
        buffer.sample(2, out=out | change)
    with pytest.raises(TypeError, match="out: expected a dict"):
        buffer.sample(2, out=[1])


def test_damaged_contents_are_refused(buffer):
    host = rlox_gpu.PrioritizedReplayBuffer(8, 3, 2, num_envs=2)
    host.extend(ROWS)
    contents = host.contents()
    contents["links.next"] = np.full_like(contents["links.next"], 77)
    with pytest.raises(ValueError, match=r"links\.next holds"):
        buffer.restore(contents)
    assert len(buffer) == 0


def test_graphs_and_memory_that_may_grow(monkeypatch):
    """A capture cannot get memory, and what a graph samples from stays where it is."""
    rng = np.random.default_rng(1)
    with simulated():
        buffer = rlox_gpu.ReplayBuffer(64, 3, 1, deduplicate=True, device="cpu")
        buffer.extend(to(make_rows(rng, 8, 3, 1), "cpu"))
        with monkeypatch.context() as capture:
            capture.setattr(_device_frames, "is_capturing", lambda device: True)
            with pytest.raises(RuntimeError, match="push_batch: a push with deduplicate=True may"):
                buffer.extend(to(make_rows(rng, 8, 3, 1), "cpu"))
            assert len(buffer) == 8
            buffer.sample(4, seed=0)
        buffer.extend(to(make_rows(rng, 8, 3, 1), "cpu"))
        after = buffer.contents()
        with pytest.raises(RuntimeError, match="push_batch: so many episodes need more memory"):
            buffer.extend(to(make_rows(rng, 40, 3, 1), "cpu"))
        assert len(buffer) == 16
        for name, x in buffer.contents().items():
            np.testing.assert_array_equal(x, after[name], err_msg=name)


def buffers_work():
    import torch

    import rlox_gpu

    def zeros(*size, dtype=torch.float32):
        return torch.zeros(size, dtype=dtype, device="gpu")

    uniform, prioritized = rlox_gpu.ReplayBuffer, rlox_gpu.PrioritizedReplayBuffer
    for kind, once in ((uniform, False), (prioritized, False), (uniform, True)):
        buffer = kind(100, 3, 2, num_envs=4, n_step=2, deduplicate=once, device="gpu")
        flags = zeros(8, dtype=torch.bool)
        for _ in range(3):
            rows = (zeros(8, 3), zeros(8, 3), zeros(8, 2), zeros(8), flags, flags)
            buffer.push_batch(*rows)
            buffer.push_batch(*rows, envs=[0, 1, 1, 3, 0, 1, 2, 0])
            assert len(buffer) > 0
            sample = buffer.sample(32)
            buffer.sample(32, out=sample)
            if "indices" in sample:
                buffer.update_priorities(sample["indices"], sample["weights"] + sample["rewards"])
                buffer.set_beta(0.5)
            sequences = buffer.sample_sequences(5, 4, burn_in=1)
        assert {x.device.type for x in (*sample.values(), *sequences.values())} == {"gpu"}
        assert sequences["obs"].shape == (5, 5, 3)
        assert sample["discounts"].shape == (32,)
        buffer.clear()


def test_a_device_that_does_not_exist_is_never_waited_for():
    run_on_fake_device(buffers_work)
