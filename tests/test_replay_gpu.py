"""Replay buffers on CUDA: graphs, streams, and that the host never waits."""

import numpy as np
import pytest
import torch
from replay_twins import make_rows, make_steps, to

import rlox_gpu

pytestmark = [pytest.mark.gpu, pytest.mark.unpoisoned]


def filled(kind, **options):
    buffer = kind(4096, 17, 6, seed=1, device="cuda", **options)
    buffer.extend(to(make_rows(np.random.default_rng(0), 4096), "cuda"))
    return buffer


def on_host(sample):
    return {name: x.cpu() for name, x in sample.items()}


def assert_equal(found, wanted):
    for name, x in wanted.items():
        assert torch.equal(found[name], x), name


@pytest.mark.parametrize("kind", [rlox_gpu.ReplayBuffer, rlox_gpu.PrioritizedReplayBuffer])
def test_a_graph_goes_on_where_its_last_replay_ended(kind):
    captured, eager = filled(kind), filled(kind)
    rows = to(make_rows(np.random.default_rng(1), 64), "cuda")
    out = captured.sample(256)  # kernels are compiled before the capture
    eager.sample(256)
    for buffer in (captured, eager):
        buffer.extend(rows)
        if kind is rlox_gpu.PrioritizedReplayBuffer:
            buffer.update_priorities(out["indices"], out["rewards"].abs())

    def step(buffer, sample):
        buffer.extend(rows)
        buffer.sample(256, out=sample)
        if kind is rlox_gpu.PrioritizedReplayBuffer:
            buffer.update_priorities(sample["indices"], sample["rewards"].abs())

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(captured, out)
    wanted = eager.sample(256, seed=0)
    for _ in range(70):
        graph.replay()
        step(eager, wanted)
        assert_equal(on_host(out), on_host(wanted))
    assert len(captured) == len(eager) == 4096
    for name, x in eager.contents().items():
        np.testing.assert_array_equal(captured.contents()[name], x, err_msg=name)


def test_the_host_never_waits():
    buffer = filled(rlox_gpu.PrioritizedReplayBuffer, n_step=3)
    rows = to(make_rows(np.random.default_rng(2), 64), "cuda")
    sample = buffer.sample(256)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            buffer.extend(rows)
            buffer.sample(256, out=sample)
            buffer.update_priorities(sample["indices"], sample["rewards"].abs())
            buffer.set_beta(0.5)
            sequences = buffer.sample_sequences(16, 2)
            assert len(buffer) == 4096
    finally:
        torch.cuda.set_sync_debug_mode("default")
    buffer.check()
    assert sequences["obs"].shape == (16, 2, 17)


def test_the_host_waits_for_frames_only_where_they_may_lack():
    """Episodes of eight steps or more need no further memory, so that graphs may sample as well."""
    rng = np.random.default_rng(5)
    options = {"obs_dtype": "uint8", "num_envs": 16, "deduplicate": True, "seed": 2}
    buffer = rlox_gpu.ReplayBuffer(4096, (8, 8), 1, device="cuda", **options)
    host = rlox_gpu.ReplayBuffer(4096, (8, 8), 1, **options)
    ends = np.zeros((16, 8, 8), np.uint8)
    steps = [make_steps(rng, ends, 16, breaks=0.02) for _ in range(64)]
    there = [to(rows, "cuda") for rows in steps]
    for rows in there[:2]:
        buffer.extend(rows)
    out = buffer.sample(64)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        buffer.sample(64, out=out)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for rows in there[2:]:
            buffer.extend(rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for rows in steps:
        host.extend(rows)
    host.sample(64)
    for _ in range(3):
        graph.replay()
        wanted = host.sample(64)
        assert_equal(on_host(out), {name: torch.from_numpy(x) for name, x in wanted.items()})


def test_a_bad_priority_is_told_by_a_later_call():
    buffer = filled(rlox_gpu.PrioritizedReplayBuffer)
    total = buffer.total_weight
    buffer.update_priorities(torch.arange(3), torch.tensor([1.0, torch.nan, 1.0], device="cuda"))
    torch.cuda.synchronize()
    with pytest.raises(ValueError, match=r"priorities: expected finite .* nan at index 1"):
        buffer.sample(1)
    assert buffer.total_weight == total


def test_draws_are_uniform_and_proportional():
    """Chi-square of 10**6 draws, below the 1e-6 quantile for 999 degrees of freedom."""
    priorities = np.random.default_rng(3).exponential(size=1000) + 0.05
    rows = make_rows(np.random.default_rng(4), 1000, 1, 1)
    rows["rewards"] = np.arange(1000, dtype=np.float32)
    for kind, weights in (
        (rlox_gpu.ReplayBuffer, np.ones(1000)),
        (rlox_gpu.PrioritizedReplayBuffer, priorities**0.6),
    ):
        buffer = kind(1000, 1, 1, seed=0, device="cuda")
        buffer.extend(rows | {"priorities": priorities})
        drawn = torch.cat([buffer.sample(10_000)["rewards"] for _ in range(100)])
        counts = torch.bincount(drawn.long(), minlength=1000).cpu().numpy()
        expected = weights / weights.sum() * 1e6
        assert ((counts - expected) ** 2 / expected).sum() < 1226.0


def test_a_stream_of_ones_own():
    buffer = filled(rlox_gpu.ReplayBuffer)
    wanted = buffer.sample(256, seed=3)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        found = buffer.sample(256, seed=3)
    stream.synchronize()
    assert_equal(on_host(found), on_host(wanted))
