import numpy as np
import pytest
import torch
from counting_env import CountingEnv, LinearValue

from rlox_gpu import RolloutBatch, RolloutCollector
from rlox_gpu.batch import RolloutStorage
from rlox_gpu.collectors import collect, compute_advantages, episode_totals
from rlox_gpu.policies import DiscretePolicy

LENGTHS = [3, 4, 2]


def rollout(num_steps, lengths=LENGTHS):
    env = CountingEnv(lengths)
    storage = RolloutStorage.allocate(num_steps, env.num_envs, 3, "cpu")
    storage.obs[0].copy_(env.reset(seed=0)[0])
    collect(LinearValue(), env, storage, seed=0, step=0)
    return env, storage


def test_every_entry_is_stored_where_it_belongs():
    env, storage = rollout(7)
    for t in range(7):
        for i, length in enumerate(LENGTHS):
            episode, step = divmod(t, length)
            assert storage.obs[t, i].tolist() == [i, episode, step]
            assert storage.rewards[t, i] == 1000 * i + 10 * episode + step + 1
            assert storage.values[t, i] == 100 * i + 10 * episode + step
            assert storage.actions[t, i] == step % 2 == env.actions[t][i]
            assert storage.log_probs[t, i].item() == pytest.approx(-0.1 * i - 0.01 * step)
            ended = step + 1 == length
            assert storage.terminated[t, i] == (ended and i % 2 == 0)
            assert storage.truncated[t, i] == (ended and i % 2 == 1)
            if ended:
                assert storage.final_obs[t, i].tolist() == [i, episode, length]
                assert storage.episode_lengths[t, i] == length
    assert storage.obs[7].tolist() == [[i, *divmod(7, n)] for i, n in enumerate(LENGTHS)]


@pytest.mark.parametrize("gae_lambda", [0.0, 0.9, 1.0])
def test_time_limits_bootstrap_from_the_final_observation(gae_lambda):
    gamma = 0.5
    _, storage = rollout(7)
    advantages, returns = compute_advantages(
        LinearValue(), storage, gamma=gamma, gae_lambda=gae_lambda
    )
    for i, length in enumerate(LENGTHS):
        carried = 0.0
        for t in reversed(range(7)):
            episode, step = divmod(t, length)
            ended = step + 1 == length
            following = 100 * i + 10 * episode + step + 1  # the value of the step's own result
            if ended and i % 2 == 0:
                following = 0.0
            if t == 6 and not ended:
                carried = 0.0
            reward = 1000 * i + 10 * episode + step + 1
            delta = reward + gamma * following - (100 * i + 10 * episode + step)
            carried = delta + (0.0 if ended else gamma * gae_lambda * carried)
            assert advantages[t, i].item() == pytest.approx(carried, rel=1e-5)
            assert returns[t, i].item() == pytest.approx(
                carried + 100 * i + 10 * episode + step, rel=1e-5
            )


def test_a_truncated_constant_reward_is_worth_the_infinite_sum():
    # Reward 1 for ever, cut every 2 steps; the true value 1 / (1 - gamma) has no TD error.
    class One(CountingEnv):
        def step_into(self, actions, out):
            super().step_into(actions, out)
            out.rewards.fill_(1.0)

    class Constant(LinearValue):
        def get_value(self, obs):
            return torch.full((len(obs),), 10.0)

    collector = RolloutCollector("", env=One([9, 2]), gamma=0.9, gae_lambda=1.0)
    batch = collector.collect(Constant(), 8)
    torch.testing.assert_close(batch.advantages, torch.zeros(16), rtol=0, atol=1e-5)
    assert batch.dones.any()


def test_episode_totals_count_finished_episodes_only():
    _, storage = rollout(7)
    totals = episode_totals(storage)
    # Finished: env 0: 2 of 3 steps, env 1: 1 of 4, env 2: 3 of 2.
    assert totals.episodes.item() == 6
    assert totals.lengths.item() == 2 * 3 + 4 + 3 * 2
    expected = (1 + 2 + 3) + (11 + 12 + 13)
    expected += 4000 + 1 + 2 + 3 + 4
    expected += sum(2 * 2000 + 2 * 10 * e + 1 + 2 for e in range(3))
    assert totals.returns.item() == expected


def test_collector_goes_on_from_call_to_call_and_records_episodes():
    collector = RolloutCollector("", env=CountingEnv(LENGTHS))
    first = collector.collect(LinearValue(), 3)
    kept = first.obs.clone()
    second = collector.collect(LinearValue(), 4)
    assert isinstance(second, RolloutBatch)
    assert torch.equal(first.obs, kept)
    obs = torch.cat((first.obs.view(3, 3, 3), second.obs.view(4, 3, 3)))
    assert torch.equal(obs, rollout(7)[1].obs[:-1])
    assert collector.episode_lengths == [2, 3, 4, 2, 3, 2]
    assert collector.episode_rewards[:2] == [4003.0, 6.0]


def test_batch_shapes_are_flat():
    batch = RolloutCollector("CartPole-v1", n_envs=3).collect(DiscretePolicy(4, 2, seed=0), 5)
    assert batch.obs.shape == (15, 4)
    for name in ("actions", "rewards", "dones", "log_probs", "values", "advantages", "returns"):
        assert getattr(batch, name).shape == (15,)
    torch.testing.assert_close(batch.returns, batch.advantages + batch.values)


def test_reward_function_shapes_the_advantages_only():
    plain = RolloutCollector("", env=CountingEnv([9]))
    shaped = RolloutCollector("", env=CountingEnv([9]), reward_fn=lambda obs, actions, r: 2 * r)
    a, b = plain.collect(LinearValue(), 20), shaped.collect(LinearValue(), 20)
    assert torch.equal(2 * a.rewards, b.rewards)
    assert not torch.equal(a.advantages, b.advantages)
    assert plain.episode_rewards == shaped.episode_rewards


@pytest.mark.parametrize("env_id", ["CartPole-v1", "tests/Acrobot-v1"], ids=["native", "gymnasium"])
def test_the_seed_determines_a_rollout(env_id):
    width, n_actions = (4, 2) if env_id == "CartPole-v1" else (6, 3)
    policy = DiscretePolicy(width, n_actions, seed=0)
    batches = [
        RolloutCollector(env_id, n_envs=4, seed=seed).collect(policy, 20) for seed in (3, 3, 4)
    ]
    for name in ("obs", "actions", "advantages"):
        assert torch.equal(getattr(batches[0], name), getattr(batches[1], name))
    assert not torch.equal(batches[0].obs, batches[2].obs)


@pytest.mark.parametrize("batch_size", [1, 7, 20, 100])
def test_minibatches_hold_each_transition_once(batch_size):
    n = 20
    column = torch.arange(n)
    batch = RolloutBatch(column[:, None].float(), *[column.float()] * 7)
    minibatches = list(batch.sample_minibatches(batch_size, seed=1, step=2))
    assert sorted(torch.cat([m.actions for m in minibatches]).tolist()) == list(range(n))
    assert all(torch.equal(m.obs[:, 0], m.returns) for m in minibatches)
    assert [len(m) for m in minibatches[:-1]] == [batch_size] * (len(minibatches) - 1)


def test_minibatch_order_follows_seed_and_step():
    column = torch.arange(64.0)
    batch = RolloutBatch(column[:, None], *[column] * 7)

    def order(**kwargs):
        return torch.cat([m.actions for m in batch.sample_minibatches(8, **kwargs)]).tolist()

    assert order(seed=1, step=2) == order(seed=1, step=2) != order(seed=1, step=3)
    assert order(shuffle=False) == column.tolist()
    torch.manual_seed(0)
    assert order() != order()


def test_wrong_calls_are_refused():
    column = torch.zeros(3)
    with pytest.raises(ValueError, match="returns"):
        RolloutBatch(column[:, None], *[column] * 6, torch.zeros(2))
    batch = RolloutBatch(column[:, None], *[column] * 7)
    with pytest.raises(ValueError, match="batch_size"):
        next(batch.sample_minibatches(0))
    with pytest.raises(ValueError, match="gamma"):
        RolloutCollector("CartPole-v1", gamma=1.5)
    with pytest.raises(ValueError, match="device"):
        RolloutCollector("CartPole-v1", device="gpux")
    with pytest.raises(ValueError, match="gae_lambda"):
        RolloutCollector("CartPole-v1", gae_lambda=np.nan)
    with pytest.raises(ValueError, match="n_steps"):
        RolloutCollector("CartPole-v1").collect(DiscretePolicy(4, 2), 0)
    with pytest.raises(ValueError, match="env_id"):
        RolloutCollector("NoSuchEnv-v0")
    with pytest.raises(ValueError, match="Box observation"):
        RolloutCollector("FrozenLake8x8-v1").collect(DiscretePolicy(4, 2), 1)
