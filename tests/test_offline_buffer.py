"""The offline dataset: samples, pieces of trajectories, statistics, files."""

import numpy as np
import pytest

from rlox_gpu import OfflineDatasetBuffer

N = 10
OBS = np.arange(2 * N, dtype=np.float32).reshape(N, 2)
TERMINATED = np.isin(np.arange(N), [3])
TRUNCATED = np.isin(np.arange(N), [7])
EPISODES = [range(4), range(4, 8), range(8, 10)]


def columns():
    numbers = np.arange(N, dtype=np.float32)
    return {
        "obs": OBS,
        "next_obs": OBS + 1,
        "actions": numbers[:, None],
        "rewards": numbers,
        "terminated": TERMINATED,
        "truncated": TRUNCATED,
    }


def dataset(**options):
    return OfflineDatasetBuffer(**{**columns(), **options})


def test_samples_are_transitions_of_the_dataset():
    sample = dataset().sample(200, seed=0)
    numbers = sample["rewards"].astype(int)
    assert set(numbers) == set(range(N))
    for key, x in columns().items():
        np.testing.assert_array_equal(sample[key], x[numbers])


def test_flat_arrays_as_in_rlox():
    flat = {key: x.ravel() for key, x in columns().items()}
    wanted, found = dataset(), OfflineDatasetBuffer(*flat.values())
    for key, x in wanted.sample(50, 3).items():
        np.testing.assert_array_equal(found.sample(50, 3)[key], x)
    assert wanted.stats() == found.stats()


def test_stats():
    assert dataset().n_episodes() == 3
    assert dataset().stats() == {
        "n_transitions": 10,
        "n_episodes": 3,
        "obs_dim": 2,
        "act_dim": 1,
        "mean_return": 15.0,
        "std_return": pytest.approx(np.std([6, 22, 17], ddof=1)),
        "min_return": 6.0,
        "max_return": 22.0,
        "mean_episode_length": pytest.approx(10 / 3),
    }


def test_normalized():
    buffer = dataset(normalize=True)
    np.testing.assert_allclose(buffer.obs_mean, OBS.mean(0))
    np.testing.assert_allclose(buffer.obs_std, OBS.std(0))
    sample = buffer.sample(100, seed=0)
    numbers = sample["rewards"].astype(int)
    wanted = (OBS - OBS.mean(0)) / OBS.std(0)
    np.testing.assert_allclose(sample["obs"], wanted[numbers], rtol=1e-5)
    np.testing.assert_allclose(
        sample["next_obs"], (OBS[numbers] + 1 - OBS.mean(0)) / OBS.std(0), rtol=1e-5
    )
    assert not dataset(obs=np.ones((N, 2)), normalize=True).sample(5)["obs"].any()


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_trajectories_are_pieces_of_episodes(length):
    """Every episode and every start in it equally often (six standard deviations)."""
    draws = 6000
    sample = dataset().sample_trajectories(draws, length, seed=5)
    assert sample["obs"].shape == (draws, length, 2)
    assert sample["mask"].dtype == bool
    assert sample["timesteps"].dtype == np.uint32
    seen = {}
    for i in range(draws):
        mask = sample["mask"][i]
        numbers = sample["rewards"][i][mask].astype(int)
        episode = next(e for e in EPISODES if numbers[0] in e)
        piece = episode[numbers[0] - episode[0] :][:length]
        assert numbers.tolist() == list(piece)
        assert len(piece) == min(length, len(episode))
        seen[numbers[0]] = seen.get(numbers[0], 0) + 1
        np.testing.assert_array_equal(sample["obs"][i][mask], OBS[numbers])
        np.testing.assert_array_equal(sample["actions"][i, mask, 0], numbers)
        np.testing.assert_array_equal(sample["timesteps"][i][mask], numbers - episode[0])
        to_go = [sum(range(n, episode[-1] + 1)) for n in numbers]
        np.testing.assert_array_equal(sample["returns_to_go"][i][mask], to_go)
        for key in ("obs", "actions", "rewards", "returns_to_go", "timesteps"):
            assert not sample[key][i][~mask].any()
    for episode in EPISODES:
        choices = max(len(episode) - length, 0) + 1
        for start in episode[:choices]:
            wanted = draws / 3 / choices
            assert abs(seen[start] - wanted) < 6 * np.sqrt(wanted)


def test_seeds():
    first, second = dataset(seed=1), dataset(seed=1)
    for _ in range(3):
        wanted, found = (b.sample_trajectories(20, 2) for b in (first, second))
        np.testing.assert_array_equal(wanted["rewards"], found["rewards"])
    again = first.sample_trajectories(20, 2)
    assert not np.array_equal(again["rewards"], wanted["rewards"])


def test_files(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **columns())
    np.testing.assert_array_equal(
        OfflineDatasetBuffer.from_file(path).sample(9, 1)["obs"], dataset().sample(9, 1)["obs"]
    )
    theirs = {
        "observations": OBS,
        "actions": columns()["actions"],
        "rewards": columns()["rewards"],
        "terminals": TERMINATED,
        "timeouts": TRUNCATED,
    }
    np.savez_compressed(path, **theirs)
    sample = OfflineDatasetBuffer.from_file(path).sample(100, 1)
    numbers = sample["rewards"].astype(int)
    following = np.where(np.isin(numbers, [3, 7, 9]), numbers, numbers + 1)
    np.testing.assert_array_equal(sample["next_obs"], OBS[following])


def test_bad_files(tmp_path):
    path = tmp_path / "data.npz"
    for contents in (b"", b"x" * 100, b"PK\x03\x04"):
        path.write_bytes(contents)
        with pytest.raises(ValueError, match=r"not an \.npz file"):
            OfflineDatasetBuffer.from_file(path)
    np.savez(path, obs=np.array([object()], dtype=object), rewards=np.zeros(1))
    with pytest.raises(ValueError, match=r"not an \.npz file"):
        OfflineDatasetBuffer.from_file(path)
    np.savez(path, obs=OBS)
    with pytest.raises(ValueError, match="expected the columns"):
        OfflineDatasetBuffer.from_file(path)
    with pytest.raises(FileNotFoundError):
        OfflineDatasetBuffer.from_file(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="expected the ending"):
        OfflineDatasetBuffer.from_file(tmp_path / "data.csv")


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    arrays = {key: x.tolist() for key, x in columns().items()}
    parquet.write_table(pyarrow.table(arrays), tmp_path / "data.parquet")
    found = OfflineDatasetBuffer.from_file(tmp_path / "data.parquet").sample(9, 1)
    np.testing.assert_array_equal(found["obs"], dataset().sample(9, 1)["obs"])


class Episode:
    """As Minari has them: one more observation than transitions."""

    def __init__(self, numbers):
        self.observations = np.append(OBS[numbers], OBS[numbers][-1:] + 100, axis=0)
        self.actions = np.array(numbers, np.float32)[:, None]
        self.rewards = np.array(numbers, np.float64)
        self.terminations = TERMINATED[numbers]
        self.truncations = np.zeros(len(numbers), bool)


class Minari:
    def iterate_episodes(self):
        return iter([Episode(list(numbers)) for numbers in EPISODES])


def test_minari():
    buffer = OfflineDatasetBuffer.from_minari(Minari())
    assert buffer.n_episodes() == 3
    sample = buffer.sample(100, seed=0)
    numbers = sample["rewards"].astype(int)
    lasts = np.isin(numbers, [3, 7, 9])
    np.testing.assert_array_equal(sample["next_obs"][lasts], OBS[numbers[lasts]] + 100)
    np.testing.assert_array_equal(sample["next_obs"][~lasts], OBS[numbers[~lasts] + 1])
    np.testing.assert_array_equal(sample["truncated"], np.isin(numbers, [7, 9]))


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("obs", OBS[:9], ValueError),
        ("obs", np.zeros(7), ValueError),
        ("next_obs", OBS[:, :1], ValueError),
        ("actions", np.zeros((N + 1, 1)), ValueError),
        ("terminated", np.zeros(3), ValueError),
        ("truncated", "x", ValueError),
        ("rewards", [], ValueError),
        ("normalize", 1, TypeError),
    ],
)
def test_bad_arguments_are_named(name, value, error):
    with pytest.raises((error, TypeError), match=f"^{name}"):
        dataset(**{name: value})
    for wrong in ({"batch_size": 0, "seq_len": 1}, {"batch_size": 1, "seq_len": 0}):
        with pytest.raises(ValueError, match="expected at least 1"):
            dataset().sample_trajectories(**wrong)
