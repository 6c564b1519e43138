"""Replay buffers: pushes, samples, prioritised samples with their updates, against the peers."""

import functools
import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
from harness import Job, Provider, Work, cases, need, synchronize

CAPACITY, OBS, ACT, BATCH = 100_000, 17, 6, 256
IMAGE = 28_224  # 84 x 84 x 4
IMAGES = 2_000
LAUNCHES = 100  # of a device, before it is waited for


@dataclass(frozen=True)
class Case:
    what: str
    count: int
    obs: int = OBS
    capacity: int = CAPACITY
    dtype: str = "float32"

    @property
    def row_bytes(self):
        return 2 * self.obs * np.dtype(self.dtype).itemsize + 4 * ACT + 4 + 2


def job(name, case, traffic, nbytes=None):
    return (
        Job(
            name=name,
            group="replay buffers",
            items=case.count,
            unit="transitions",
            nbytes=nbytes or 2 * case.count * case.row_bytes,
            traffic=traffic,
        ),
        case,
    )


READ = "each transition read and written once"
JOBS = [
    job("replay push", Case("push", 1), READ),
    job("replay push_batch 256", Case("push_batch", 256), READ),
    *(job(f"replay sample {n}", Case("sample", n), READ) for n in (32, 256, 1024)),
    job("replay prioritized sample and update 256", Case("prioritized", 256), READ),
    job(
        "replay priority update 256",
        Case("update", 256),
        "an index and a priority read, a weight written",
        nbytes=256 * 24,
    ),
    job("replay push images", Case("push", 1, IMAGE, IMAGES, "uint8"), READ),
    job("replay sample 32 images", Case("sample", 32, IMAGE, IMAGES, "uint8"), READ),
]


@functools.cache
def rows(case, count):
    """``count`` transitions; the first number of an observation is the reward."""
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 100, (count, case.obs)).astype(case.dtype)
    rewards = obs[:, 0].astype(np.float32)
    none = np.zeros(count, bool)
    actions = rng.random((count, ACT), np.float32)
    return obs, (obs + 1).astype(case.dtype), actions, rewards, none, none


def check_sample(case, sample):
    assert len(sample["obs"]) == case.count
    assert np.array_equal(sample["obs"][:, 0].astype(np.float32), sample["rewards"])
    assert np.array_equal(sample["next_obs"], sample["obs"] + 1)


def work_on(case, buffer, flags_as=bool, device="cpu"):
    """The work of a case on a buffer with rlox's calls."""
    batch = on(device, rows(case, BATCH))
    flat = [x.ravel() for x in batch[:4]] + [x.astype(flags_as) for x in batch[4:]]
    push_all = (
        (lambda: buffer.push_batch(*flat))
        if flags_as is not bool
        else (lambda: buffer.push_batch(*batch))
    )
    for _ in range(-(-case.capacity // BATCH)):
        push_all()
    (priorities,) = on(device, [np.random.default_rng(1).random(case.count) + 0.1])
    obs, following, action = batch[0][0], batch[1][0], batch[2][0]
    reward = float(batch[3][0])
    seeds = iter(range(1 << 62))
    drawn = buffer.sample(case.count, 0).get("indices")

    def prioritized():
        sample = buffer.sample(case.count, next(seeds))
        buffer.update_priorities(sample["indices"], priorities)
        return sample

    calls = {
        "push": lambda: buffer.push(obs, action, reward, False, False, following),
        "push_batch": push_all,
        "sample": lambda: buffer.sample(case.count, next(seeds)),
        "prioritized": prioritized,
        "update": lambda: buffer.update_priorities(drawn, priorities),
    }

    def check():
        assert len(buffer) == case.capacity
        calls[case.what]()
        count = case.count if case.what in ("sample", "prioritized") else BATCH
        sample = buffer.sample(count, 1)
        if device != "cpu":
            sample = {name: x.cpu().numpy() for name, x in sample.items()}
        check_sample(Case("", count, case.obs, dtype=case.dtype), sample)

    if device == "cpu":
        return Work(calls[case.what], check)

    def many():
        for _ in range(LAUNCHES):
            calls[case.what]()
        synchronize(device)

    return Work(many, check, calls=LAUNCHES)


def plain_copy(case):
    """Copies of as many bytes as a sample has, in one piece, from as much memory as a buffer's."""
    nbytes = case.count * case.row_bytes
    memory = np.ones(case.capacity * case.row_bytes, np.uint8)
    to = np.empty(nbytes, np.uint8)
    starts = np.random.default_rng(2).integers(0, len(memory) - nbytes, 1 << 16)
    start = itertools.cycle(starts.tolist())

    def copy():
        at = next(start)
        np.copyto(to, memory[at : at + nbytes])

    return copy


def on(device, arrays):
    """Arrays, as tensors if ``device`` is not the CPU."""
    if device == "cpu":
        return arrays
    import torch

    return [torch.from_numpy(x).to(device) for x in arrays]


def ours(case, device):
    import rlox_gpu

    options = {"obs_dtype": case.dtype, "device": None if device == "cpu" else device}
    prioritized = case.what in ("prioritized", "update")
    kind = rlox_gpu.PrioritizedReplayBuffer if prioritized else rlox_gpu.ReplayBuffer
    work = work_on(case, kind(case.capacity, case.obs, ACT, **options), device=device)
    if device == "cpu" and case.what == "sample" and case.obs == OBS:
        return replace(work, plain=plain_copy(case))
    return work


def rlox_buffer(case, device):
    import rlox

    # It stores float32 only; prioritised buffers have no push_batch.
    case = Case(case.what, case.count, case.obs, case.capacity)
    if case.what not in ("prioritized", "update"):
        buffer = rlox.ReplayBuffer(case.capacity, case.obs, ACT)
        return work_on(case, buffer, flags_as=np.uint8)
    return work_on(case, _OneByOne(rlox.PrioritizedReplayBuffer(case.capacity, case.obs, ACT)))


class _OneByOne:
    """Adds ``push_batch`` to a buffer that has none."""

    def __init__(self, buffer):
        self.buffer = buffer
        self.sample, self.update_priorities = buffer.sample, buffer.update_priorities

    def __len__(self):
        return len(self.buffer)

    def push_batch(self, obs, following, actions, rewards, terminated, truncated):
        for i in range(len(obs)):
            self.buffer.push(obs[i], actions[i], float(rewards[i]), False, False, following[i])


def sb3(case, device):
    from gymnasium import spaces
    from stable_baselines3.common.buffers import ReplayBuffer

    high = 255 if case.dtype == "uint8" else np.inf
    buffer = ReplayBuffer(
        case.capacity,
        spaces.Box(0 if high == 255 else -high, high, (case.obs,), np.dtype(case.dtype)),
        spaces.Box(-1, 1, (ACT,), np.float32),
        device="cpu",
        handle_timeout_termination=False,
    )
    obs, following, actions, rewards, none, _ = rows(case, BATCH)
    for i in range(case.capacity):
        j = i % BATCH
        buffer.add(obs[j], following[j], actions[j], rewards[j], none[j], [{}])

    def push():
        buffer.add(obs[0], following[0], actions[0], rewards[0], none[0], [{}])

    def check():
        sample = buffer.sample(case.count)
        found = {
            "obs": sample.observations.numpy(),
            "next_obs": sample.next_observations.numpy(),
            "rewards": sample.rewards.numpy()[:, 0],
        }
        check_sample(case, {key: x.astype(np.float32) for key, x in found.items()})

    return Work(push if case.what == "push" else lambda: buffer.sample(case.count), check)


def cpprb(case, device):
    module = need("cpprb")
    fields = {
        "obs": {"shape": case.obs, "dtype": np.dtype(case.dtype)},
        "next_obs": {"shape": case.obs, "dtype": np.dtype(case.dtype)},
        "act": {"shape": ACT},
        "rew": {},
        "done": {},
    }
    prioritized = case.what in ("prioritized", "update")
    kind = module.PrioritizedReplayBuffer if prioritized else module.ReplayBuffer
    buffer = kind(case.capacity, fields)
    names = ("obs", "next_obs", "act", "rew", "done")
    batch = dict(zip(names, rows(case, BATCH), strict=False))
    first = {name: x[0] for name, x in batch.items()}
    for _ in range(-(-case.capacity // BATCH)):
        buffer.add(**batch)
    priorities = np.random.default_rng(1).random(case.count) + 0.1

    drawn = buffer.sample(case.count)["indexes"] if prioritized else None

    def sample_and_update():
        sample = buffer.sample(case.count)
        buffer.update_priorities(sample["indexes"], priorities)

    def check():
        sample = buffer.sample(case.count)
        check_sample(case, {**sample, "rewards": sample["rew"][:, 0]})

    calls = {
        "push": lambda: buffer.add(**first),
        "push_batch": lambda: buffer.add(**batch),
        "sample": lambda: buffer.sample(case.count),
        "prioritized": sample_and_update,
        "update": lambda: buffer.update_priorities(drawn, priorities),
    }
    return Work(calls[case.what], check)


PROVIDERS = [
    Provider("rlox-gpu", ours, devices=("cpu", "cuda"), ours=True),
    Provider("rlox", rlox_buffer, needs=("rlox",)),
    Provider("SB3", sb3, needs=("stable_baselines3",)),
    Provider("cpprb", cpprb, needs=("cpprb",)),
]
CASES = {job.name: case for job, case in JOBS}
# SB3 has neither priorities nor batches of transitions that are no step of all environments.
PAIRS = [
    param
    for param in cases([job for job, _ in JOBS], PROVIDERS)
    if not (
        param.values[1].name == "SB3"
        and CASES[param.values[0].name].what in ("push_batch", "prioritized", "update")
    )
]


@pytest.mark.parametrize(("job", "provider", "device"), PAIRS)
def bench_replay(check_then_time, job, provider, device):
    check_then_time(job, provider, device, CASES[job.name])
