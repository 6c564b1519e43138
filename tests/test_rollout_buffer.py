"""On-policy storage: what was added, its advantages, minibatches."""

import numpy as np
import pytest
import torch

from rlox_gpu import RolloutBuffer, gae

T, N = 6, 4


def added(truncation=True, numpy=False):
    generator = torch.Generator().manual_seed(0)
    buffer = RolloutBuffer(T, N, (2, 3), act_dtype=torch.int64)
    steps = []
    for t in range(T):
        random = torch.rand(6, N, generator=generator)
        step = {
            "obs": torch.rand(N, 2, 3, generator=generator),
            "actions": torch.arange(N) + N * t,
            "rewards": random[0],
            "terminated": random[1] < 0.2,
            "values": random[2],
            "log_probs": -random[3],
        }
        if truncation:
            step |= {"truncated": random[4] < 0.2, "final_values": random[5]}
        steps.append(step)
        buffer.add(**{name: x.numpy() for name, x in step.items()} if numpy else step)
    return buffer, {name: torch.stack([step[name] for step in steps]) for name in steps[0]}


@pytest.mark.parametrize("numpy", [False, True])
@pytest.mark.parametrize("truncation", [False, True])
def test_what_was_added_comes_back_with_its_advantages(truncation, numpy):
    buffer, steps = added(truncation, numpy)
    last_values = torch.rand(N)
    buffer.finish(last_values.numpy() if numpy else last_values, gamma=0.9, gae_lambda=0.8)
    wanted = gae(
        steps["rewards"],
        steps["values"],
        steps["terminated"],
        last_values,
        truncated=steps.get("truncated"),
        final_values=steps.get("final_values"),
        gamma=0.9,
        gae_lambda=0.8,
    )
    batch = buffer.as_batch()
    assert len(buffer) == T
    assert batch.obs.shape == (T * N, 2, 3)
    for name in ("obs", "actions", "rewards", "values", "log_probs"):
        assert torch.equal(getattr(batch, name), steps[name].flatten(0, 1))
    torch.testing.assert_close(batch.advantages, wanted.advantages.flatten())
    torch.testing.assert_close(batch.returns, wanted.returns.flatten())
    ends = steps["terminated"] | steps.get("truncated", torch.zeros(T, N, dtype=torch.bool))
    assert torch.equal(batch.dones, ends.flatten())


def test_minibatches_hold_each_transition_once():
    buffer, _ = added()
    buffer.finish(torch.zeros(N))
    order = torch.cat([batch.actions for batch in buffer.minibatches(5, seed=1)])
    assert not torch.equal(order, torch.arange(T * N))
    assert torch.equal(order.sort().values, torch.arange(T * N))
    again = torch.cat([batch.actions for batch in buffer.minibatches(7, seed=1)])
    other = torch.cat([batch.actions for batch in buffer.minibatches(7, seed=1, step=1)])
    assert torch.equal(order, again)
    assert not torch.equal(order, other)
    sizes = [len(batch) for batch in buffer.minibatches(7, seed=1)]
    assert sizes == [7, 7, 7, 3]


def test_minibatches_in_order_are_views():
    buffer, _ = added()
    buffer.finish(torch.zeros(N))
    memory = buffer.obs.untyped_storage().data_ptr()
    for batch in buffer.minibatches(N, shuffle=False):
        assert batch.obs.untyped_storage().data_ptr() == memory


def test_a_second_rollout_overwrites_the_first():
    buffer, _ = added()
    buffer.finish(torch.zeros(N))
    with pytest.raises(ValueError, match="the buffer is full: 6 steps"):
        buffer.add(*[torch.zeros(N)] * 6)
    buffer.clear()
    assert len(buffer) == 0
    with pytest.raises(ValueError, match="call finish first"):
        buffer.as_batch()
    for _ in range(T):
        zeros = torch.zeros(N)
        buffer.add(torch.zeros(N, 2, 3), zeros.long(), zeros + 1, zeros.bool(), zeros, zeros)
    assert not buffer.truncated.any()
    buffer.finish(np.zeros(N, np.float32), gamma=1.0, gae_lambda=1.0)
    np.testing.assert_allclose(buffer.returns[:, 0], np.arange(T, 0, -1))


def test_bad_arguments_are_named():
    buffer = RolloutBuffer(2, N, 3)
    zeros = torch.zeros(N)
    good = {"obs": torch.zeros(N, 3)}
    good |= dict.fromkeys(("actions", "rewards", "terminated", "values", "log_probs"), zeros)
    for name in good:
        with pytest.raises(ValueError, match=rf"^{name}: expected shape"):
            buffer.add(**{**good, name: torch.zeros(N + 1)})
    for name in ("truncated", "final_values"):
        with pytest.raises(ValueError, match="expected together with"):
            buffer.add(**good, **{name: zeros})
    assert len(buffer) == 0
    with pytest.raises(ValueError, match=r"^finish: 0 of 2 steps"):
        buffer.finish(zeros)
    for name in ("num_steps", "num_envs", "obs_dim"):
        arguments = {"num_steps": 2, "num_envs": 2, "obs_dim": 2, name: 0}
        with pytest.raises(ValueError, match=f"^{name}"):
            RolloutBuffer(**arguments)
