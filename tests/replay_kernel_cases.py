"""The cases of the replay buffers' kernels, interpreted on the CPU and on a GPU."""

import math

import numpy as np
import pytest
import torch
from replay_twins import Twins, assert_same, frames_read, make_rows, make_steps, to

import rlox_gpu


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("prioritized", [False, True])
def check_replay_is_that_of_the_cpu(device, prioritized, n_step):
    rng = np.random.default_rng(0)
    twins = Twins(device, 100, prioritized=prioritized, num_envs=3, n_step=n_step)
    for count, envs in ((3, None), (30, None), (9, 3), (99, None), (150, 3), (60, None)):
        priorities = prioritized and count != 30
        twins.extend(make_rows(rng, count, envs=envs, priorities=priorities))
        twins.sample(40)
        sample = twins.sample(33, seed=9)
        if prioritized:
            indices = sample["indices"].cpu().numpy()
            indices[:3] = indices[3]
            twins.update(indices, rng.random(33))
        twins.check()


@pytest.mark.parametrize("capacity", [1, 7, 8, 9, 64, 65, 513])
def check_replay_priorities_of_any_capacity(device, capacity):
    rng = np.random.default_rng(capacity)
    twins = Twins(device, capacity, 1, 1, prioritized=True)
    for count in (1, 5, capacity, 2 * capacity + 3):
        twins.extend(make_rows(rng, count, 1, 1, priorities=True))
        twins.check()
        # More than one pass of the program, most indices named several times.
        for updates in (1, 300):
            indices = rng.integers(0, len(twins.host), updates)
            twins.update(indices, rng.choice([0.0, 0.25, 3.0, 1e-200, 1e150], updates))
        twins.extend(make_rows(rng, 1, 1, 1))
        twins.sample(20)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def check_replay_weights_for_every_alpha_and_beta(device, alpha):
    rng = np.random.default_rng(1)
    twins = Twins(device, 70, 1, 1, prioritized=True, alpha=alpha)
    twins.extend(make_rows(rng, 70, 1, 1, priorities=True))
    for beta in (0.0, 0.5, 1.0):
        twins.host.set_beta(beta)
        twins.device.set_beta(beta)
        weights = twins.sample(50)["weights"]
        assert (weights <= 1.0).all()
        assert (weights == 1.0).all() == (beta == 0.0 or alpha == 0.0)
    assert twins.device.beta == 1.0


@pytest.mark.parametrize("envs", [None, 4])
def check_replay_sequences_are_those_of_the_cpu(device, envs):
    rng = np.random.default_rng(2)
    twins = Twins(device, 61, 3, 1, num_envs=4)
    for count in (40, 200):
        twins.extend(make_rows(rng, count, 3, 1, envs=envs))
        # The longest and those of wide strides are few: not every attempt finds one.
        for length, stride, burn_in in ((1, 1, 0), (3, 1, 2), (2, 7, 0), (7, 1, 0)):
            twins.sample_sequences(20, length, stride=stride, burn_in=burn_in)
            twins.sample_sequences(5, length, stride=stride, burn_in=burn_in, seed=1)


def check_replay_sequences_that_do_not_exist(device):
    rng = np.random.default_rng(3)
    buffer = rlox_gpu.ReplayBuffer(50, 3, 1, device=device)
    buffer.extend(make_rows(rng, 30, 3, 1, ends=1.0))
    buffer.sample_sequences(4, 2)
    with pytest.raises(ValueError, match="length: no episode in the buffer"):
        buffer.check()
    buffer.sample_sequences(4, 1)
    buffer.check()


@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 5, 2)])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "float16", "float64"])
def check_replay_observations_of_any_dtype(device, shape, dtype):
    rng = np.random.default_rng(4)
    twins = Twins(device, 20, shape, 1, obs_dtype=dtype)
    twins.extend(make_rows(rng, 33, shape, 1, dtype))
    twins.sample(30)
    twins.check()


def check_replay_images_are_copied_piece_by_piece(device):
    rng = np.random.default_rng(5)
    twins = Twins(device, 6, (60, 160), 1, obs_dtype="uint8")
    twins.extend(make_rows(rng, 8, (60, 160), 1, "uint8"))
    twins.sample(5)


@pytest.mark.parametrize(("num_envs", "capacity"), [(1, 1), (1, 17), (3, 3), (3, 40), (5, 23)])
@pytest.mark.parametrize("n_step", [1, 3])
def check_replay_observations_stored_once(device, num_envs, capacity, n_step):
    """In turn and in any order, across the ring's end, more rows than there are slots."""
    rng = np.random.default_rng(20)
    options = {"num_envs": num_envs, "n_step": n_step, "deduplicate": True}
    twins = Twins(device, capacity, 3, 1, **options)
    ends = np.zeros((num_envs, 3), np.float32)
    for times, envs in ((1, None), (4, num_envs), (3, None), (2, num_envs), (13, None), (2, None)):
        twins.extend(make_steps(rng, ends, times * num_envs, envs))
        twins.sample(20)
        twins.check()
        once = twins.device._once
        frames = once._next_frame[: len(twins.device)].tolist()
        assert len(set(frames)) == len(frames)
        assert int(once._used) == sum(frame >= capacity + num_envs for frame in frames)


def check_replay_stored_once_whatever_the_bits(device):
    """Zeros of two signs differ, a NaN is itself; a broken row is not taken for its neighbour."""
    kind = rlox_gpu.ReplayBuffer
    buffer = kind(8, 2, 1, device=device, deduplicate=True)
    zero, minus = np.array([0.0, 1.0], np.float32), np.array([-0.0, 1.0], np.float32)
    nan = np.array([np.nan, 1.0], np.float32)
    obs = torch.from_numpy(np.stack([zero, minus, nan, nan])).to(device)
    following = torch.from_numpy(np.stack([zero, nan, nan, zero])).to(device)
    flags = torch.zeros(4, dtype=torch.bool, device=device)
    buffer.push_batch(obs, following, obs[:, :1], obs[:, 1], flags, flags)
    assert int(buffer._once._used) == 1
    kept = frames_read(buffer)["pairs.0"]
    wanted = torch.stack([obs, following], 1).cpu().numpy()
    np.testing.assert_array_equal(kept, wanted.view(np.uint8).reshape(kept.shape))


def check_replay_images_stored_once(device):
    """Frames of several pieces, of which one byte may be what differs."""
    rng = np.random.default_rng(21)
    options = {"obs_dtype": "uint8", "num_envs": 2, "deduplicate": True, "prioritized": True}
    twins = Twins(device, 6, (60, 160), 1, **options)
    ends = np.zeros((2, 60, 160), np.uint8)
    for _ in range(3):
        rows = make_steps(rng, ends, 4, breaks=0.0)
        rows["obs"][1, -1, -1] ^= 1
        twins.extend(rows)
        twins.check()
        twins.sample(5)


def check_replay_dict_observations_stored_once(device, tmp_path):
    """Parts are stored once together, and files go from one to the other."""
    rng = np.random.default_rng(22)
    shapes, dtypes = {"image": (4, 4), "state": 3}, {"image": "uint8", "state": "float64"}
    twins = Twins(device, 12, shapes, 1, obs_dtype=dtypes, num_envs=2, deduplicate=True)
    ends = {"image": np.zeros((2, 4, 4), np.uint8), "state": np.zeros((2, 3))}
    for count in (4, 14, 6):
        parts = {key: make_steps(rng, x, count, breaks=0.1) for key, x in ends.items()}
        rows = parts["state"] | {"terminated": np.arange(count) == 1}
        rows["truncated"] = ~rows["terminated"] & (np.arange(count) == 2)
        for name in ("obs", "next_obs"):
            rows[name] = {key: part[name] for key, part in parts.items()}
        twins.extend(rows)
        twins.check()
        twins.sample(9)
        twins.sample_sequences(4, 2)
        twins.host.save(tmp_path / "host")
        twins.device.save(tmp_path / "device")
        twins.host = rlox_gpu.ReplayBuffer.load(tmp_path / "device")
        twins.device = rlox_gpu.ReplayBuffer.load(tmp_path / "host", device=device)
        twins.check()


def check_replay_stored_once_from_the_start(device):
    """Single pushes without next observations, and all over again."""
    rng = np.random.default_rng(23)
    twins = Twins(device, 5, 2, 1, num_envs=2, deduplicate=True)
    for _ in range(2):
        for t in range(9):
            obs = rng.integers(0, 2, 2).astype(np.float32)
            for buffer in (twins.host, twins.device):
                buffer.push(obs, 0.5, 1.0, False, t % 4 == 3, env=t * t % 2)
            twins.check()
        for buffer in (twins.host, twins.device):
            buffer.clear()
    twins.extend(make_rows(rng, 4, 2, 1))
    twins.sample(6)
    twins.check()


def check_replay_memory_grows_with_the_breaks(device):
    rng = np.random.default_rng(24)
    twins = Twins(device, 160, 2, 1, num_envs=2, deduplicate=True)
    ends = np.zeros((2, 2), np.float32)
    once = twins.device._once
    for _ in range(10):
        twins.extend(make_steps(rng, ends, 40, breaks=0.02))
    assert len(once._free) == len(once.breaks[0]) == 20
    rooms = []
    for _ in range(6):
        twins.extend(make_steps(rng, ends, 40, breaks=1.0))
        twins.check()
        twins.sample(20)
        rooms.append(len(once._free))
        held = [frame - 162 for frame in once._next_frame.tolist() if frame >= 162]
        free = once._free[int(once._used) :].tolist()
        assert sorted(held + free) == list(range(rooms[-1]))
    assert rooms == sorted(rooms)
    assert rooms[-1] == len(once.breaks[0]) == 160
    for _ in range(6):
        twins.extend(make_steps(rng, ends, 40, breaks=0.0))
    twins.check()
    assert int(once._used) == 0


def check_replay_of_dict_observations(device):
    shapes, dtypes = {"image": (4, 4), "state": 3}, {"image": "uint8", "state": "float32"}
    rng = np.random.default_rng(6)
    twins = Twins(device, 12, shapes, 2, obs_dtype=dtypes, n_step=2)
    rows = make_rows(rng, 15, 1, 2)
    for key in ("obs", "next_obs"):
        image = rng.integers(0, 255, (15, 4, 4)).astype(np.uint8)
        rows[key] = {"image": image, "state": rng.random((15, 3), np.float32)}
    twins.extend(rows)
    twins.sample(9)
    twins.check()
    out = twins.device.sample(9, seed=1)
    assert twins.device.sample(9, seed=2, out=out) is out
    assert_same(out, twins.host.sample(9, seed=2))


def check_replay_single_pushes(device):
    rng = np.random.default_rng(7)
    twins = Twins(device, 9, 3, 2, prioritized=True, num_envs=2)
    for t in range(14):
        rows = make_rows(rng, 1, 3, 2, ends=0.2)
        first = [rows[key][0] for key in ("obs", "actions", "rewards", "terminated", "truncated")]
        options = {"env": t % 2 if t < 9 else 1, "next_obs": rows["next_obs"][0]}
        options |= {"priority": 0.5 + t} if t % 3 else {}
        twins.host.push(*first, **options)
        options["next_obs"] = to(options["next_obs"], device)
        twins.device.push(*first, **options)
        twins.check()
    twins.sample(11)


def check_replay_files_go_from_one_to_the_other(device, tmp_path):
    rng = np.random.default_rng(8)
    twins = Twins(device, 40, 3, 1, prioritized=True, num_envs=2, n_step=2)
    twins.extend(make_rows(rng, 50, 3, 1, ends=0.05, priorities=True))
    twins.sample(4)
    twins.host.save(tmp_path / "host")
    twins.device.save(tmp_path / "device")
    kind = rlox_gpu.PrioritizedReplayBuffer
    twins.host = kind.load(tmp_path / "device")
    twins.device = kind.load(tmp_path / "host", device=device)
    assert isinstance(twins.device, kind)
    assert "on" in repr(twins.device)
    for _ in range(2):
        twins.extend(make_rows(rng, 10, 3, 1))
        twins.sample(20)
        twins.check()


def check_replay_cleared(device):
    rng = np.random.default_rng(9)
    twins = Twins(device, 20, 3, 1, prioritized=True, num_envs=2)
    twins.extend(make_rows(rng, 30, 3, 1, priorities=True))
    for buffer in (twins.host, twins.device):
        buffer.clear()
        assert len(buffer) == 0
        with pytest.raises(ValueError, match="the buffer is empty"):
            buffer.sample(1)
    twins.extend(make_rows(rng, 6, 3, 1))
    twins.sample(8)
    twins.check()


@pytest.mark.parametrize("bad", [math.nan, -1.0, math.inf, 1e300])
def check_replay_bad_priorities(device, bad):
    """Nothing of the call is done, and a later call says so."""
    rng = np.random.default_rng(10)
    twins = Twins(device, 20, 1, 1, prioritized=True, alpha=1.0)
    twins.extend(make_rows(rng, 20, 1, 1, priorities=True))
    places = torch.arange(5, device=device)
    priorities = torch.tensor([1.0, 2.0, 3.0, bad, 5.0], dtype=torch.float64, device=device)
    twins.device.update_priorities(places, priorities)
    with pytest.raises(ValueError, match=r"priorities: expected finite .* at index 3; none"):
        twins.device.check()
    twins.check()
    twins.device.update_priorities(places + 16, priorities.clamp(0, 1).nan_to_num(1.0))
    with pytest.raises(ValueError, match=r"indices: expected numbers in \[0, 20\), got 20 at ind"):
        twins.device.check()
    twins.check()
    # A push has happened: its transitions get the largest priority so far.
    rows = make_rows(rng, 5, 1, 1)
    twins.host.extend(rows)
    twins.device.extend(to(rows | {"priorities": priorities.cpu().numpy()}, device))
    with pytest.raises(ValueError, match="priorities: expected finite"):
        twins.device.check()
    twins.check()


def check_replay_all_priorities_zero(device):
    buffer = rlox_gpu.PrioritizedReplayBuffer(10, 1, 1, device=device)
    buffer.extend(make_rows(np.random.default_rng(11), 10, 1, 1))
    buffer.update_priorities(np.arange(10), np.zeros(10))
    assert not buffer.sample(4)["weights"].any()
    with pytest.raises(ValueError, match="all priorities were zero"):
        buffer.check()
    buffer.update_priorities([3], [0.5])
    assert (buffer.sample(4)["indices"] == 3).all()
    buffer.check()


def check_replay_draws_go_on(device):
    """Samples differ, launches of a seed of their own do not count."""
    buffer = rlox_gpu.ReplayBuffer(1000, 1, 1, seed=3, device=device)
    buffer.extend(make_rows(np.random.default_rng(12), 1000, 1, 1))
    again = rlox_gpu.ReplayBuffer(1000, 1, 1, seed=3, device=device)
    again.extend(make_rows(np.random.default_rng(12), 1000, 1, 1))
    first, second = buffer.sample(50)["rewards"], buffer.sample(50)["rewards"]
    assert (first != second).any()
    assert (again.sample(50)["rewards"] == first).all()
    again.sample(50, seed=0)
    assert (again.sample(50)["rewards"] == second).all()
