"""Relabelled goals: where they come from, how often, and their rewards."""

import numpy as np
import pytest

from rlox_gpu import HERBuffer

DIMS = {"observation": 1, "achieved_goal": 2, "desired_goal": 2}
LENGTHS = (1, 3, 10, 30, 7)


def reward_fn(achieved, desired):
    return -(np.abs(achieved - desired).max(-1) > 0.5).astype(np.float32)


def obs(number, goal):
    achieved = np.array([number, -number], np.float32)
    return {
        "observation": [number],
        "achieved_goal": achieved,
        "desired_goal": np.array([goal, goal], np.float32),
    }


def filled(capacity=100, num_envs=1, **options):
    """Episodes of several lengths; transition t goes from position t to t + 1."""
    buffer = HERBuffer(capacity, DIMS, 1, reward_fn, num_envs=num_envs, **options)
    number, episodes = 0, []
    for episode, length in enumerate(LENGTHS):
        episodes.append(range(number, number + length))
        for t in range(length):
            last = t == length - 1 and episode < len(LENGTHS) - 1
            goal = 1000 + episode
            buffer.push(obs(number, goal), 0.0, -1.0, False, last, obs(number + 1, goal))
            number += 1
    return buffer, episodes


def test_goals_are_reached_later_in_the_same_episode():
    buffer, episodes = filled(capacity=45, seed=1)
    oldest = sum(LENGTHS) - 45
    draws = 20_000
    sample = buffer.sample(draws)
    numbers = sample["obs"]["observation"][:, 0].astype(int)
    goals = sample["obs"]["desired_goal"][:, 0].astype(int)
    relabelled = sample["relabelled"]
    np.testing.assert_array_equal(sample["obs"]["desired_goal"], sample["next_obs"]["desired_goal"])
    np.testing.assert_array_equal(
        sample["next_obs"]["achieved_goal"][:, 0], sample["next_obs"]["observation"][:, 0]
    )
    assert numbers.min() == oldest
    assert abs(relabelled.mean() - 0.8) < 6 * np.sqrt(0.16 / draws)
    counts = {}
    for number, goal, chosen, reward in zip(
        numbers, goals, relabelled, sample["rewards"], strict=True
    ):
        at = next(i for i, episode in enumerate(episodes) if number in episode)
        if chosen:
            later = goal - 1
            assert number <= later <= episodes[at][-1]
            assert reward == (0.0 if goal == number + 1 else -1.0)
            counts[number, later] = counts.get((number, later), 0) + 1
        else:
            assert goal == 1000 + at
            assert reward == -1.0
    # Of the first transition of the longest episode, each later one is as likely as the others.
    first = episodes[3]
    found = np.array([counts.get((first[0], later), 0) for later in first])
    expected = found.sum() / len(first)
    assert ((found - expected) ** 2 / expected).sum() < 83.0  # the 1e-6 quantile for 29 degrees


@pytest.mark.parametrize(("goals_per_step", "share"), [(0.0, 0.0), (1.0, 0.5), (np.inf, 1.0)])
def test_the_share_of_relabelled_goals(goals_per_step, share):
    buffer, _ = filled(goals_per_step=goals_per_step)
    found = buffer.sample(2000, seed=0)["relabelled"].mean()
    assert found == share if share in (0.0, 1.0) else abs(found - share) < 0.07


def test_samples_by_seed_and_files(tmp_path):
    buffer, _ = filled(seed=3)
    buffer.save(tmp_path / "buffer")
    loaded = HERBuffer.load(tmp_path / "buffer", reward_fn=reward_fn)
    for _ in range(2):
        wanted, found = buffer.sample(20), loaded.sample(20)
        np.testing.assert_array_equal(wanted["rewards"], found["rewards"])
        np.testing.assert_array_equal(wanted["relabelled"], found["relabelled"])
        for key in DIMS:
            np.testing.assert_array_equal(wanted["obs"][key], found["obs"][key])
    np.testing.assert_array_equal(buffer.sample(9, 4)["rewards"], loaded.sample(9, 4)["rewards"])


def test_bad_arguments_are_named():
    def make(**options):
        good = {"capacity": 5, "obs_dim": DIMS, "act_dim": 1, "reward_fn": reward_fn}
        return HERBuffer(**{**good, **options})

    cases = [
        ({"obs_dim": 3}, TypeError, "obs_dim"),
        ({"obs_dim": {"achieved_goal": 2}}, ValueError, "obs_dim"),
        ({"obs_dim": {**DIMS, "desired_goal": 3}}, ValueError, "obs_dim"),
        ({"reward_fn": None}, TypeError, "reward_fn"),
        ({"goals_per_step": -1.0}, ValueError, "goals_per_step"),
        ({"capacity": 0}, ValueError, "capacity"),
    ]
    for options, error, name in cases:
        with pytest.raises(error, match=f"^{name}"):
            make(**options)
    with pytest.raises(ValueError, match="the buffer is empty"):
        make().sample(1)
    wrong = make(reward_fn=lambda achieved, desired: achieved, goals_per_step=np.inf)
    wrong.push(obs(0, 1), 0.0, 0.0, False, False, obs(1, 1))
    with pytest.raises(ValueError, match=r"^reward_fn: expected rewards of shape \(3,\)"):
        wrong.sample(3)
