"""What the order of transitions means: n-step returns and sequences, against brute force."""

import numpy as np
import pytest

import rlox_gpu

GAMMA = 0.9


class History:
    """Every push, in lists; the buffer's answers are looked up in it."""

    def __init__(self, capacity, num_envs):
        self.capacity = capacity
        self.rows = []  # (env, reward, terminated, truncated, next_obs)
        self.episodes = [[] for _ in range(num_envs)]  # indices of the running episode
        self.all_episodes = []

    def push(self, env, reward, terminated, truncated, next_obs):
        if not self.episodes[env]:
            self.episodes[env] = []
            self.all_episodes.append(self.episodes[env])
        self.episodes[env].append(len(self.rows))
        self.rows.append((env, reward, terminated, truncated, next_obs))
        if terminated or truncated:
            self.episodes[env] = []

    def kept(self, number):
        return number >= len(self.rows) - self.capacity

    def n_step(self, number, n):
        """(reward, discount, terminated, truncated, next_obs)."""
        episode = next(e for e in self.all_episodes if number in e)
        window = episode[episode.index(number) :][:n]
        total = sum(GAMMA**k * self.rows[t][1] for k, t in enumerate(window))
        return (total, GAMMA ** len(window), *self.rows[window[-1]][2:])

    def sequences(self, length, stride):
        """All of them, as tuples of push numbers."""
        return {
            tuple(episode[start : start + length])
            for episode in self.all_episodes
            for start in range(0, len(episode) - length + 1, stride)
            if self.kept(episode[start])
        }


def played(seed, pushes, capacity=61, num_envs=4, batched=False, kind=None, **options):
    """A buffer and its history; the observation of a transition is its number."""
    rng = np.random.default_rng(seed)
    kind = kind or rlox_gpu.ReplayBuffer
    buffer = kind(capacity, 1, 1, num_envs=num_envs, gamma=GAMMA, **options)
    history = History(capacity, num_envs)
    while len(history.rows) < pushes:
        count = num_envs if batched else 1
        envs = np.arange(num_envs) if batched else rng.integers(num_envs, size=1)
        numbers = np.arange(count) + len(history.rows)
        rewards = rng.standard_normal(count).astype(np.float32)
        ends = rng.random((2, count)) < 0.08
        following = rng.random((count, 1)).astype(np.float32)
        batch = {
            "obs": numbers[:, None].astype(np.float32),
            "next_obs": following,
            "actions": np.zeros((count, 1), np.float32),
            "rewards": rewards,
            "terminated": ends[0],
            "truncated": ends[1],
        }
        if batched:
            buffer.extend(batch)
        else:
            buffer.push(
                batch["obs"][0], 0.0, rewards[0], *ends[:, 0], following[0], env=int(envs[0])
            )
        for i, env in enumerate(envs):
            history.push(env, float(rewards[i]), *ends[:, i], following[i, 0])
    return buffer, history


@pytest.mark.parametrize("kind", [rlox_gpu.ReplayBuffer, rlox_gpu.PrioritizedReplayBuffer])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("n", [2, 3, 5, 40])
def test_n_step_equals_brute_force(n, batched, kind):
    for seed, pushes in enumerate((5, 60, 61, 300)):
        options = {"deduplicate": seed % 2 == 1, "n_step": n, "kind": kind}
        buffer, history = played(seed, pushes, batched=batched, **options)
        sample = buffer.sample(300, seed)
        assert sample["discounts"].dtype == np.float32
        for i, number in enumerate(sample["obs"][:, 0].astype(int)):
            assert history.kept(number)
            reward, discount, terminated, truncated, next_obs = history.n_step(number, n)
            np.testing.assert_allclose(sample["rewards"][i], reward, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(sample["discounts"][i], discount, rtol=1e-6)
            assert sample["terminated"][i] == terminated
            assert sample["truncated"][i] == truncated
            assert sample["next_obs"][i, 0] == next_obs


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(
    ("length", "burn_in", "stride"), [(1, 0, 1), (3, 0, 1), (2, 2, 1), (3, 1, 2), (2, 0, 5)]
)
def test_sequences_equal_brute_force(length, burn_in, stride, batched):
    """Exactly the possible ones are drawn, each as often as the others."""
    for seed, pushes in enumerate((60, 61, 200, 500)):
        buffer, history = played(seed, pushes, batched=batched, n_step=3)
        possible = history.sequences(burn_in + length, stride)
        draws = 200 * len(possible)
        sample = buffer.sample_sequences(draws, length, stride=stride, burn_in=burn_in, seed=seed)
        assert sample["obs"].shape == (draws, burn_in + length, 1)
        assert sample["truncated"].shape == (draws, burn_in + length)
        assert "discounts" not in sample
        numbers = sample["obs"][:, :, 0].astype(int)
        rewards = np.array([row[1] for row in history.rows], np.float32)
        np.testing.assert_array_equal(sample["rewards"], rewards[numbers])
        found, counts = np.unique(numbers, axis=0, return_counts=True)
        assert {tuple(row) for row in found.tolist()} == possible
        # Chi-square, eight standard deviations above its mean.
        degrees = len(possible) - 1
        assert ((counts - 200) ** 2 / 200).sum() < degrees + 8 * np.sqrt(2 * degrees) + 8


def test_rare_sequences_are_found():
    """One start in ten thousand: the list of starts serves where attempts fail."""
    buffer = rlox_gpu.ReplayBuffer(10_000, 1, 1)
    numbers = np.arange(10_000, dtype=np.float32)
    ends = np.ones(10_000, bool)
    ends[4321:4325] = False
    column = numbers[:, None]
    buffer.push_batch(column, column, column, numbers, ends, np.zeros_like(ends))
    sample = buffer.sample_sequences(7, 5, seed=1)
    np.testing.assert_array_equal(sample["rewards"], np.tile(numbers[4321:4326], (7, 1)))
    with pytest.raises(ValueError, match=r"^length: no episode in the buffer has 6 consecutive"):
        buffer.sample_sequences(1, 4, burn_in=2)


def test_bad_sequences_name_the_argument():
    buffer = rlox_gpu.ReplayBuffer(5, 1, 1)
    with pytest.raises(ValueError, match=r"^length: no episode"):
        buffer.sample_sequences(1, 1)
    buffer.push([0.0], 0.0, 0.0, False, False)
    for name, value in (("batch_size", 0), ("length", 0), ("stride", 0)):
        with pytest.raises(ValueError, match=f"^{name}"):
            buffer.sample_sequences(**{"batch_size": 1, "length": 1, name: value})
    for name in ("batch_size", "length"):
        with pytest.raises(TypeError, match=f"^{name}"):
            buffer.sample_sequences(**{"batch_size": 1, "length": 1, name: "x"})
