"""The same buffer twice: on the CPU, in Rust, and on a device, by the kernels."""

from contextlib import contextmanager

import numpy as np
import torch

import rlox_gpu
from rlox_gpu import _dispatch

OBS, ACT = 17, 6


@contextmanager
def in_rust():
    """Inside, the CPU is the CPU again, whatever tensors are sent elsewhere."""
    before, _dispatch._triton_for_cpu = _dispatch._triton_for_cpu, False
    try:
        yield
    finally:
        _dispatch._triton_for_cpu = before


class Twins:
    """Everything is done to both; what they give must have the same bits."""

    def __init__(self, device, capacity, obs=OBS, act=ACT, *, prioritized=False, **options):
        kind = rlox_gpu.PrioritizedReplayBuffer if prioritized else rlox_gpu.ReplayBuffer
        self.host = kind(capacity, obs, act, seed=5, **options)
        self.device = kind(capacity, obs, act, seed=5, device=device, **options)
        self.where = device

    def extend(self, rows):
        self.host.extend(rows)
        # Environments are read on the host.
        there = {key: x if key == "envs" else to(x, self.where) for key, x in rows.items()}
        self.device.extend(there)
        assert len(self.device) == len(self.host)

    def sample(self, *arguments, **options):
        wanted = self.host.sample(*arguments, **options)
        found = self.device.sample(*arguments, **options)
        assert_same(found, wanted)
        return found

    def sample_sequences(self, *arguments, **options):
        wanted = self.host.sample_sequences(*arguments, **options)
        assert_same(self.device.sample_sequences(*arguments, **options), wanted)

    def update(self, indices, priorities):
        self.host.update_priorities(indices, priorities)
        self.device.update_priorities(to(indices, self.where), to(priorities, self.where))
        self.check()

    def check(self):
        """The whole contents, sums of weights included."""
        wanted, found = frames_read(self.host), frames_read(self.device)
        assert found.keys() == wanted.keys()
        for key, x in wanted.items():
            np.testing.assert_array_equal(found[key], x, err_msg=key)
        if hasattr(self.host, "total_weight"):
            assert self.device.total_weight == self.host.total_weight


def frames_read(buffer):
    """The contents with the observations of each transition, however their frames are stored."""
    contents = buffer.contents()
    kept = {k: x for k, x in contents.items() if not k.startswith(("frames", "pairs", "tails"))}
    if "pairs.0" not in contents or not len(buffer):
        return kept
    obs = buffer.sample(1, seed=0)["obs"]
    for at, x in enumerate(obs.values() if isinstance(obs, dict) else [obs]):
        chunks = [x for name, x in contents.items() if name.startswith(f"frames.{at}.")]
        frames = np.concatenate(chunks).reshape(-1, x[0].nbytes)
        pairs = contents[f"pairs.{at}"].view(np.uint32).reshape(-1, 2)
        assert pairs.max() < contents[f"frames.{at}"].view(np.uint64)[0]
        kept[f"pairs.{at}"] = frames[pairs]
    return kept


def to(x, device):
    """Arrays, or dicts of them, as tensors."""
    if isinstance(x, dict):
        return {key: to(value, device) for key, value in x.items()}
    return torch.from_numpy(x).to(device)


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for key, x in wanted.items():
        if isinstance(x, dict):
            assert_same(found[key], x)
            continue
        x = x.astype(np.int64) if key == "indices" else x
        there = found[key].cpu().numpy()
        assert there.dtype == x.dtype
        np.testing.assert_array_equal(there, x, err_msg=key)


def make_rows(rng, count, obs=OBS, act=ACT, dtype="float32", ends=0.1, envs=None, priorities=False):
    """Transitions with random contents."""
    shape = (count, *((obs,) if isinstance(obs, int) else obs))

    def observations():
        if np.dtype(dtype).kind == "f":
            return rng.standard_normal(shape).astype(dtype)
        return rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)

    rows = {
        "obs": observations(),
        "next_obs": observations(),
        "actions": rng.standard_normal((count, act)).astype(np.float32),
        "rewards": rng.standard_normal(count).astype(np.float32),
        "terminated": rng.random(count) < ends,
        "truncated": rng.random(count) < ends,
    }
    if envs is not None:
        rows["envs"] = rng.integers(0, envs, count)
    if priorities:
        rows["priorities"] = rng.exponential(size=count)
    return rows


def make_steps(rng, ends, count, envs=None, breaks=0.2):
    """Transitions that begin where their environment's last one ended, but for some.

    ``ends [N, ...]`` are those places, which are brought up to date.
    """
    num_envs, *shape = ends.shape
    rows = make_rows(rng, count, tuple(shape), 1, ends.dtype, envs=envs)
    for i in range(count):
        env = i % num_envs if envs is None else rows["envs"][i]
        if rng.random() >= breaks:
            rows["obs"][i] = ends[env]
        ends[env] = rows["next_obs"][i]
    return rows


def filled(kind=rlox_gpu.ReplayBuffer, obs_dim=3, obs_dtype="float32", **options):
    """Fifty transitions of random numbers, the same in every call."""
    buffer = kind(50, obs_dim, 2, obs_dtype=obs_dtype, seed=7, **options)
    rng = np.random.default_rng(0)

    def rows(shape, dtype):
        shape = shape if isinstance(shape, tuple) else (shape,)
        return rng.integers(0, 255, (50, *shape)).astype(dtype)

    def observations():
        if isinstance(obs_dim, dict):
            dtypes = obs_dtype if isinstance(obs_dtype, dict) else dict.fromkeys(obs_dim, obs_dtype)
            return {key: rows(shape, dtypes[key]) for key, shape in obs_dim.items()}
        return rows(obs_dim, obs_dtype)

    buffer.push_batch(
        observations(),
        observations(),
        rng.standard_normal((50, 2)).astype(np.float32),
        rng.standard_normal(50).astype(np.float32),
        *(rng.random((2, 50)) < 0.05),
    )
    return buffer
