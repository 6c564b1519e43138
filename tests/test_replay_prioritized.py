"""The prioritised buffer against the formulas of the paper."""

import numpy as np
import pytest

import rlox_gpu


def filled(priorities, capacity=None, **options):
    """The observation of a transition is its index."""
    n = len(priorities)
    buffer = rlox_gpu.PrioritizedReplayBuffer(capacity or n, 1, 1, **options)
    column = np.arange(n, dtype=np.float32)[:, None]
    none = np.zeros(n, bool)
    buffer.push_batch(column, column, column, column[:, 0], none, none, priorities)
    return buffer


def test_samples_have_weights_and_indices():
    buffer = rlox_gpu.PrioritizedReplayBuffer(10, 3, 2)
    for t in range(5):
        buffer.push(np.full(3, t), np.zeros(2), t, False, False, np.zeros(3), priority=t + 1.0)
    sample = buffer.sample(8, seed=0)
    assert sample["weights"].dtype == np.float32
    assert sample["indices"].dtype == np.uint64
    assert sample["weights"].shape == sample["indices"].shape == (8,)
    np.testing.assert_array_equal(sample["rewards"], sample["indices"].astype(np.float32))
    assert (buffer.alpha, buffer.beta) == (0.6, 0.4)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_draws_are_proportional(alpha):
    """Chi-square of 10**6 draws, below the 1e-6 quantile for 499 degrees of freedom."""
    rng = np.random.default_rng(0)
    priorities = rng.exponential(size=500) + 0.05
    buffer = filled(priorities, alpha=alpha, seed=5)
    drawn = np.concatenate([buffer.sample(1000)["indices"] for _ in range(1000)])
    expected = priorities**alpha / (priorities**alpha).sum() * 1e6
    counts = np.bincount(drawn.astype(int), minlength=500)
    assert ((counts - expected) ** 2 / expected).sum() < 662.0


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("alpha", [0.3, 0.6, 1.0])
def test_weights_equal_the_formula(alpha, beta):
    priorities = np.random.default_rng(1).exponential(size=1000) * 10.0
    buffer = filled(priorities, alpha=alpha, beta=0.5)
    buffer.set_beta(beta)
    sample = buffer.sample(2000, seed=3)
    p = priorities**alpha / (priorities**alpha).sum()
    formula = (1000 * p) ** -beta
    wanted = (formula / formula.max())[sample["indices"].astype(int)]
    np.testing.assert_allclose(sample["weights"], wanted, rtol=2e-6)
    np.testing.assert_allclose(buffer.total_weight, (priorities**alpha).sum(), rtol=1e-12)


def test_updates():
    buffer = filled(np.ones(100), alpha=1.0)
    buffer.update_priorities(np.array([3, 7, 3], np.uint64), np.array([5.0, 2.0, 0.0]))
    assert buffer.total_weight == 98 + 2.0
    sample = buffer.sample(100, seed=0)
    assert 3 not in sample["indices"]
    assert (sample["indices"] == 7).sum() >= 2
    buffer.update_priorities([3], [1000.0])
    assert (buffer.sample(100, seed=0)["indices"] == 3).mean() > 0.8
    buffer.update_priorities(np.arange(100), np.zeros(100))
    with pytest.raises(ValueError, match="all priorities are zero"):
        buffer.sample(1)
    buffer.update_priorities([99], [1e-300])
    assert (buffer.sample(10)["indices"] == 99).all()


def test_random_updates_and_pushes_keep_the_total():
    rng = np.random.default_rng(2)
    buffer = rlox_gpu.PrioritizedReplayBuffer(1000, 1, 1, alpha=1.0)
    weights = np.zeros(1000)
    largest, head = 1.0, 0
    for step in range(500):
        count = int(rng.integers(1, 40))
        column = np.zeros((count, 1), np.float32)
        none = np.zeros(count, bool)
        priorities = None if step % 3 == 0 else 10.0 ** rng.uniform(-6, 6, count)
        buffer.push_batch(column, column, column, column[:, 0], none, none, priorities)
        pushed = np.full(count, largest) if priorities is None else priorities
        weights[(head + np.arange(count)) % 1000] = pushed
        head = (head + count) % 1000
        indices = rng.integers(0, len(buffer), 64)
        updates = 10.0 ** rng.uniform(-6, 6, 64)
        buffer.update_priorities(indices, updates)
        for index, weight in zip(indices, updates, strict=True):
            weights[index] = weight
        largest = max(largest, pushed.max(), updates.max())
        np.testing.assert_allclose(buffer.total_weight, weights.sum(), rtol=1e-12)


def test_a_push_without_priority_gets_the_largest():
    buffer = filled([0.5], capacity=4, alpha=1.0)
    assert buffer.total_weight == 0.5
    buffer.push([1.0], 0.0, 0.0, False, False)
    assert buffer.total_weight == 1.5
    buffer.update_priorities([0], [7.0])
    buffer.push([1.0], 0.0, 0.0, False, False)
    assert buffer.total_weight == 15.0
    buffer.clear()
    assert buffer.total_weight == 0.0
    buffer.push([1.0], 0.0, 0.0, False, False)
    assert buffer.total_weight == 1.0


def test_seeds_make_samples():
    first, second = (filled(np.arange(1.0, 51.0), seed=4) for _ in range(2))
    for _ in range(3):
        wanted, found = first.sample(30), second.sample(30)
        for key, x in wanted.items():
            np.testing.assert_array_equal(found[key], x)
    np.testing.assert_array_equal(first.sample(9, 3)["obs"], second.sample(9, seed=3)["obs"])


BAD_UPDATES = [
    ([5], [1.0], ValueError, "indices: expected numbers below 5, the buffer's length, got 5"),
    ([-1], [1.0], ValueError, "indices"),
    ([0.5], [1.0], TypeError, "indices"),
    ([0, 1], [1.0], ValueError, "priorities: expected shape"),
    ([0, 1], [1.0, np.nan], ValueError, "priorities: .*got NaN at index 1"),
    ([0, 1], [1.0, -2.0], ValueError, "priorities: .*got -2 at index 1"),
    ([0], [np.inf], ValueError, "priorities"),
    ([0], [1e300], ValueError, "priorities"),
    ([0], ["x"], TypeError, "priorities"),
]


@pytest.mark.parametrize(("indices", "priorities", "error", "message"), BAD_UPDATES)
def test_bad_updates_name_the_argument_and_change_nothing(indices, priorities, error, message):
    buffer = filled(np.ones(5), capacity=9, alpha=1.0)
    with pytest.raises(error, match=f"^{message}"):
        buffer.update_priorities(indices, priorities)
    assert buffer.total_weight == 5.0


def test_bad_priorities_and_settings():
    buffer = filled(np.ones(5), capacity=9)
    for priority in (np.nan, -1.0, np.inf):
        with pytest.raises(ValueError, match=r"^priorities"):
            buffer.push([0.0], 0.0, 0.0, False, False, priority=priority)
    with pytest.raises(TypeError, match=r"^priority"):
        buffer.push([0.0], 0.0, 0.0, False, False, priority="high")
    with pytest.raises(ValueError, match=r"^priorities: expected 5 rows"):
        filled(np.ones(5)).push_batch(
            *(np.zeros((5, 1)),) * 3, *(np.zeros(5),) * 3, priorities=np.ones(4)
        )
    assert len(buffer) == 5
    for beta, error in ((-0.1, ValueError), (np.nan, ValueError), ("x", TypeError)):
        with pytest.raises(error, match=r"^beta"):
            buffer.set_beta(beta)
    for name, value in (("alpha", -1.0), ("alpha", np.inf), ("beta", np.nan)):
        with pytest.raises(ValueError, match=f"^{name}"):
            rlox_gpu.PrioritizedReplayBuffer(5, 1, 1, **{name: value})
    with pytest.raises(ValueError, match="the buffer is empty"):
        rlox_gpu.PrioritizedReplayBuffer(5, 1, 1).sample(1)
