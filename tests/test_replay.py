"""The uniform replay buffer against plain lists."""

import numpy as np
import pytest
import torch

import rlox_gpu

OBS, ACT = 3, 2


def transition(t, obs_shape=(OBS,), dtype=np.float32, ends=False):
    """Transition number t: everything in it is a function of t."""
    size = int(np.prod(obs_shape))
    obs = (np.arange(size) + 7 * t).astype(dtype).reshape(obs_shape)
    return {
        "obs": obs,
        "actions": np.array([t, -t], np.float32),
        "rewards": np.float32(t / 2),
        "terminated": ends and t % 3 == 0,
        "truncated": ends and t % 3 == 1,
        "next_obs": (obs + 7).astype(dtype),
    }


def push(buffer, row, **options):
    buffer.push(
        row["obs"],
        row["actions"],
        row["rewards"],
        row["terminated"],
        row["truncated"],
        row["next_obs"],
        **options,
    )


def stacked(rows):
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def assert_rows_are(sample, rows, by="rewards"):
    """Each row of a sample equals the pushed one with the same reward, and is still kept."""
    known = {float(row[by]): row for row in rows}
    for i, key in enumerate(sample[by].tolist()):
        for name, value in known[key].items():
            np.testing.assert_array_equal(sample[name][i], value, err_msg=name)


def test_samples_have_the_documented_shapes_and_dtypes():
    buffer = rlox_gpu.ReplayBuffer(10, OBS, ACT)
    for t in range(4):
        push(buffer, transition(t))
    sample = buffer.sample(6, seed=0)
    assert {key: (x.shape, x.dtype.name) for key, x in sample.items()} == {
        "obs": ((6, OBS), "float32"),
        "next_obs": ((6, OBS), "float32"),
        "actions": ((6, ACT), "float32"),
        "rewards": ((6,), "float32"),
        "terminated": ((6,), "bool"),
        "truncated": ((6,), "bool"),
    }
    assert all(x.flags.c_contiguous for x in sample.values())
    assert len(buffer) == 4
    assert buffer.capacity == 10


@pytest.mark.parametrize("deduplicate", [False, True])
@pytest.mark.parametrize("pushes", [1, 9, 10, 11, 35])
def test_the_newest_transitions_are_kept(pushes, deduplicate):
    buffer = rlox_gpu.ReplayBuffer(10, OBS, ACT, deduplicate=deduplicate)
    rows = [transition(t, ends=t % 4 == 3) for t in range(pushes)]
    for row in rows:
        push(buffer, row)
    kept = rows[-10:]
    assert len(buffer) == len(kept)
    sample = buffer.sample(500, seed=1)
    assert_rows_are(sample, kept)
    assert set(sample["rewards"].tolist()) == {float(row["rewards"]) for row in kept}


@pytest.mark.parametrize("deduplicate", [False, True])
@pytest.mark.parametrize("sizes", [[4, 4, 4, 4], [10], [25], [7, 25, 3], [0, 1, 0, 9, 2]])
def test_batches_equal_single_pushes(sizes, deduplicate):
    rows = [transition(t, ends=t % 5 == 4) for t in range(sum(sizes))]
    single = rlox_gpu.ReplayBuffer(10, OBS, ACT, deduplicate=deduplicate)
    batched = rlox_gpu.ReplayBuffer(10, OBS, ACT, deduplicate=deduplicate)
    for row in rows:
        push(single, row)
    start = 0
    for size in sizes:
        if size:
            batched.extend(stacked(rows[start : start + size]))
        start += size
    for seed in range(3):
        wanted, found = single.sample(40, seed), batched.sample(40, seed)
        for key, x in wanted.items():
            np.testing.assert_array_equal(found[key], x)


def test_a_scalar_action_and_what_is_left_out():
    buffer = rlox_gpu.ReplayBuffer(4, OBS, 1)
    buffer.push(np.ones(OBS, np.float32), 0.5, 1.0, False, False)
    buffer.push(np.ones(OBS, np.float32), 1, 1, np.bool_(False), 0)
    sample = buffer.sample(20, seed=0)
    assert sample["actions"].shape == (20, 1)
    assert set(sample["actions"].ravel().tolist()) == {0.5, 1.0}
    assert not sample["next_obs"].any()


@pytest.mark.parametrize("deduplicate", [False, True])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((4, 5, 2), "uint8"),
        ((84, 84), "uint8"),
        ((), "int64"),
        ((1,), "float64"),
        ((5,), "float16"),
        ((3,), "int32"),
        ((2, 2), "uint16"),
        ((2, 300), "float64"),
    ],
)
def test_observations_of_any_shape_and_dtype(shape, dtype, deduplicate):
    buffer = rlox_gpu.ReplayBuffer(6, shape, ACT, obs_dtype=dtype, deduplicate=deduplicate)
    rows = [transition(t, shape, dtype) for t in range(9)]
    for row in rows[:5]:
        push(buffer, row)
    buffer.extend(stacked(rows[5:]))
    sample = buffer.sample(50, seed=2)
    assert sample["obs"].shape == (50, *shape)
    assert sample["obs"].dtype == sample["next_obs"].dtype == dtype
    assert_rows_are(sample, rows[-6:])


def test_integer_actions():
    buffer = rlox_gpu.ReplayBuffer(4, OBS, (), act_dtype=np.int64)
    for action in (3, np.int64(2**40), np.array(5)):
        buffer.push(np.zeros(OBS, np.float32), action, 0.0, False, False)
    sample = buffer.sample(50, seed=0)
    assert sample["actions"].shape == (50,)
    assert set(sample["actions"].tolist()) == {3, 2**40, 5}


def test_dict_observations():
    shapes = {"image": (4, 4), "state": 3}
    dtypes = {"image": "uint8", "state": "float32"}
    buffer = rlox_gpu.ReplayBuffer(8, shapes, 1, obs_dtype=dtypes)

    def obs(t):
        return {"image": np.full((4, 4), t, np.uint8), "state": np.full(3, t, np.float32)}

    for t in range(5):
        buffer.push(obs(t), 0.0, t, False, False, obs(t + 1))
    batch = {key: np.stack([obs(t)[key] for t in range(5, 9)]) for key in shapes}
    later = {key: x + 1 for key, x in batch.items()}
    rewards = np.arange(5, 9, dtype=np.float32)
    none = np.zeros(4, bool)
    buffer.push_batch(batch, later, np.zeros((4, 1), np.float32), rewards, none, none)
    sample = buffer.sample(60, seed=0)
    for i, t in enumerate(sample["rewards"].astype(int)):
        for key in shapes:
            np.testing.assert_array_equal(sample["obs"][key][i], obs(t)[key])
            np.testing.assert_array_equal(sample["next_obs"][key][i], obs(t + 1)[key])
    with pytest.raises(TypeError, match=r"obs\['state'\]: expected a dict with this key"):
        buffer.push({"image": obs(0)["image"]}, 0.0, 0.0, False, False)
    with pytest.raises(TypeError, match=r"obs\['image'\]: expected a dict"):
        buffer.push(np.zeros(3), 0.0, 0.0, False, False)


def test_tensors_lists_and_other_layouts_are_taken():
    rows = [transition(t) for t in range(4)]
    wanted = rlox_gpu.ReplayBuffer(8, OBS, ACT)
    wanted.extend(stacked(rows))
    batch = stacked(rows)
    forms = {
        "torch": {key: torch.from_numpy(x) for key, x in batch.items()},
        "lists": {key: x.tolist() for key, x in batch.items()},
        "float64": {key: x.astype(np.float64) for key, x in batch.items()},
        "fortran": {key: np.asfortranarray(x) for key, x in batch.items()},
        "strided": {key: np.repeat(x, 2, axis=0)[::2] for key, x in batch.items()},
        "flat": {key: x.ravel() for key, x in batch.items()},
        "swapped": {key: x.astype(x.dtype.newbyteorder()) for key, x in batch.items()},
        "bfloat16": {key: torch.from_numpy(x).bfloat16() for key, x in batch.items()},
    }
    for name, form in forms.items():
        found = rlox_gpu.ReplayBuffer(8, OBS, ACT)
        found.extend(form)
        for key, x in wanted.sample(30, 5).items():
            np.testing.assert_array_equal(found.sample(30, 5)[key], x, err_msg=name)
    single = rlox_gpu.ReplayBuffer(8, OBS, ACT)
    for row in rows:
        push(single, {key: torch.as_tensor(x) for key, x in row.items()})
    np.testing.assert_array_equal(single.sample(30, 5)["obs"], wanted.sample(30, 5)["obs"])


def test_seeds():
    def filled(seed):
        buffer = rlox_gpu.ReplayBuffer(100, OBS, ACT, seed=seed)
        buffer.extend(stacked([transition(t) for t in range(100)]))
        return buffer

    first, second, third = filled(1), filled(1), filled(2)
    samples = [first.sample(50)["rewards"] for _ in range(3)]
    for sample in samples:
        np.testing.assert_array_equal(second.sample(50)["rewards"], sample)
        assert not np.array_equal(third.sample(50)["rewards"], sample)
    assert not np.array_equal(samples[0], samples[1])
    np.testing.assert_array_equal(first.sample(9, 7)["obs"], third.sample(9, seed=7)["obs"])
    np.testing.assert_array_equal(first.sample(9, 7)["obs"], first.sample(20, 7)["obs"][:9])
    unseeded = [filled(None).sample(50)["rewards"] for _ in range(2)]
    assert not np.array_equal(*unseeded)


def test_draws_are_uniform():
    """Chi-square of 10**6 draws from 1,000 slots, below the 1e-6 quantile."""
    buffer = rlox_gpu.ReplayBuffer(1000, 1, 1, seed=3)
    rewards = np.arange(1000, dtype=np.float32)
    column, none = rewards[:, None], np.zeros(1000, bool)
    buffer.push_batch(column, column, column, rewards, none, none)
    drawn = np.concatenate([buffer.sample(1000)["rewards"] for _ in range(1000)])
    counts = np.bincount(drawn.astype(int), minlength=1000)
    assert ((counts - 1000.0) ** 2 / 1000.0).sum() < 1226.0


def test_clear():
    for options in ({}, {"deduplicate": True}):
        buffer = rlox_gpu.ReplayBuffer(5, OBS, ACT, **options)
        for t in range(7):
            push(buffer, transition(t))
        buffer.clear()
        assert len(buffer) == 0
        with pytest.raises(ValueError, match="the buffer is empty"):
            buffer.sample(1)
        push(buffer, transition(9))
        assert_rows_are(buffer.sample(3, 0), [transition(9)])


def test_large_samples_are_the_same_in_threads():
    buffer = rlox_gpu.ReplayBuffer(64, (40, 40), ACT, obs_dtype="uint8", n_step=3)
    rows = [transition(t, (40, 40), "uint8", ends=t % 7 == 6) for t in range(90)]
    buffer.extend(stacked(rows))
    large, small = buffer.sample(3000, 4), buffer.sample(100, 4)
    for key, x in small.items():
        np.testing.assert_array_equal(large[key][:100], x)
    assert large["obs"][2999].any()


@pytest.mark.parametrize("deduplicate", [False, True])
def test_interleaved_environments_read_back(deduplicate):
    """Ends, truncations, filtered rows and resets that no flag announces, past the wrap-around."""
    rng = np.random.default_rng(0)
    buffer = rlox_gpu.ReplayBuffer(37, 2, 1, num_envs=5, deduplicate=deduplicate)
    current = rng.random((5, 2), np.float32)
    rows = []
    for step in range(60):
        envs = np.flatnonzero(rng.random(5) < 0.7)
        following = rng.random((5, 2), np.float32)
        terminated, truncated = rng.random((2, 5)) < 0.1
        batch = {
            "obs": current[envs],
            "next_obs": following[envs],
            "actions": np.zeros((len(envs), 1), np.float32),
            "rewards": (100 * step + envs).astype(np.float32),
            "terminated": terminated[envs],
            "truncated": truncated[envs],
        }
        rows += [{key: x[i] for key, x in batch.items()} for i in range(len(envs))]
        buffer.extend({**batch, "envs": envs})
        reset = (terminated | truncated | (rng.random(5) < 0.05))[:, None]
        current = np.where(reset, rng.random((5, 2), np.float32), following)
        assert_rows_are(buffer.sample(50, step), rows[-37:])


BAD_CONSTRUCTIONS = [
    ((0, 3, 1), {}, ValueError, "capacity"),
    ((-1, 3, 1), {}, ValueError, "capacity"),
    ((2**32, 3, 1), {}, ValueError, "capacity"),
    ((2.5, 3, 1), {}, TypeError, "capacity"),
    ((5, 0, 1), {}, ValueError, "obs_dim"),
    ((5, "three", 1), {}, TypeError, "obs_dim"),
    ((5, (3, -1), 1), {}, ValueError, "obs_dim"),
    ((5, {}, 1), {}, ValueError, "obs_dim"),
    ((5, {1: 3}, 1), {}, TypeError, "obs_dim"),
    ((5, {"a": 3}, 1), {"obs_dtype": {"b": "f4"}}, ValueError, "obs_dtype"),
    ((5, 3, (1, 0)), {}, ValueError, "act_dim"),
    ((5, 3, 1), {"obs_dtype": "complex64"}, TypeError, "obs_dtype"),
    ((5, 3, 1), {"obs_dtype": "nonsense"}, TypeError, "obs_dtype"),
    ((5, 3, 1), {"obs_dtype": ">f4"}, TypeError, "obs_dtype"),
    ((5, 3, 1), {"act_dtype": object}, TypeError, "act_dtype"),
    ((5, 3, 1), {"num_envs": 0}, ValueError, "num_envs"),
    ((5, 3, 1), {"deduplicate": 1}, TypeError, "deduplicate"),
    ((5, 3, 1), {"n_step": 0}, ValueError, "n_step"),
    ((5, 3, 1), {"gamma": 1.5}, ValueError, "gamma"),
    ((5, 3, 1), {"seed": -1}, ValueError, "seed"),
]


@pytest.mark.parametrize(("args", "options", "error", "name"), BAD_CONSTRUCTIONS)
def test_bad_constructions_name_the_argument(args, options, error, name):
    with pytest.raises(error, match=rf"^{name}"):
        rlox_gpu.ReplayBuffer(*args, **options)


BAD_ROWS = [
    ("obs", np.zeros(4, np.float32), ValueError, r"obs: expected shape \(3,\), got \(4,\)"),
    ("obs", np.zeros((1, 3)), ValueError, "obs: expected shape"),
    ("obs", "words", TypeError, "obs: expected an array of numbers, got str"),
    ("obs", None, TypeError, "obs"),
    ("obs", np.zeros(3, complex), TypeError, "obs"),
    ("next_obs", np.zeros(2), ValueError, "next_obs"),
    ("action", 0.5, ValueError, "action: expected shape"),
    ("reward", "one", TypeError, "reward: expected a number, got str"),
    ("reward", None, TypeError, "reward"),
    ("terminated", None, TypeError, "terminated: expected a bool"),
    ("truncated", "no", TypeError, "truncated"),
    ("env", 2, ValueError, r"env: expected numbers in \[0, 2\)"),
]


@pytest.mark.parametrize(("name", "value", "error", "message"), BAD_ROWS)
def test_bad_rows_name_the_argument(name, value, error, message):
    buffer = rlox_gpu.ReplayBuffer(5, OBS, ACT, num_envs=2)
    arguments = {
        "obs": np.zeros(3, np.float32),
        "action": np.zeros(2, np.float32),
        "reward": 0.0,
        "terminated": False,
        "truncated": False,
        "next_obs": np.zeros(3, np.float32),
        name: value,
    }
    with pytest.raises(error, match=f"^{message}"):
        buffer.push(**arguments)
    assert len(buffer) == 0


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("obs", np.zeros((3, 3)), ValueError),
        ("obs", np.zeros(11), ValueError),
        ("obs", [[1, 2, 3], [4]], TypeError),
        ("next_obs", np.zeros((4, 2)), ValueError),
        ("actions", np.zeros((3, 2)), ValueError),
        ("rewards", np.zeros((4, 2)), ValueError),
        ("rewards", 1.0, ValueError),
        ("rewards", np.zeros(3), ValueError),
        ("terminated", np.zeros(3, bool), ValueError),
        ("truncated", None, TypeError),
        ("envs", [0, 1, 2, 0], ValueError),
        ("envs", [0, 1, -1, 0], ValueError),
        ("envs", [0.0, 1.0, 0.0, 0.0], TypeError),
        ("envs", [0, 1], ValueError),
    ],
)
def test_bad_batches_name_an_argument_and_store_nothing(name, value, error):
    buffer = rlox_gpu.ReplayBuffer(5, OBS, ACT, num_envs=2)
    batch = stacked([transition(t) for t in range(4)])
    named = r"terminated|obs|rewards" if name == "rewards" else name
    with pytest.raises(error, match=f"^({named}):"):
        buffer.extend({**batch, name: value})
    assert len(buffer) == 0


def test_bad_batches_of_other_kinds():
    buffer = rlox_gpu.ReplayBuffer(5, OBS, ACT, num_envs=2)
    with pytest.raises(TypeError, match=r"^batch"):
        buffer.extend([1, 2])
    with pytest.raises(ValueError, match=r"^batch.*\['obs'\] are missing"):
        buffer.extend({"actions": 0, "rewards": 0, "terminated": 0, "truncated": 0})
    with pytest.raises(ValueError, match=r"^rewards: expected a multiple of 2 rows"):
        buffer.extend(stacked([transition(t) for t in range(3)]))


@pytest.mark.parametrize(
    ("batch_size", "seed", "error", "name"),
    [
        (0, 0, ValueError, "batch_size"),
        (-3, 0, ValueError, "batch_size"),
        (2.0, 0, TypeError, "batch_size"),
        (2, -1, ValueError, "seed"),
        (2, 2**64, ValueError, "seed"),
        (2, "x", TypeError, "seed"),
    ],
)
def test_bad_samples_name_the_argument(batch_size, seed, error, name):
    buffer = rlox_gpu.ReplayBuffer(5, OBS, ACT)
    push(buffer, transition(0))
    with pytest.raises(error, match=f"^{name}"):
        buffer.sample(batch_size, seed)


def test_numbers_that_do_not_fit_are_refused():
    buffer = rlox_gpu.ReplayBuffer(5, 2, (), obs_dtype="uint8", act_dtype="int32")
    with pytest.raises(TypeError, match=r"^obs: expected uint8 numbers, got float64"):
        buffer.push(np.array([1.0, 2.0]), 0, 0.0, False, False)
    with pytest.raises(ValueError, match=r"^obs: expected numbers that uint8 holds"):
        buffer.push([1, 256], 0, 0.0, False, False)
    with pytest.raises(ValueError, match=r"^action: expected numbers that int32 holds"):
        buffer.push([1, 255], 2**40, 0.0, False, False)
    with pytest.raises(TypeError, match=r"^action: expected int32 numbers, got float64"):
        buffer.push([1, 255], 0.5, 0.0, False, False)
    assert len(buffer) == 0
