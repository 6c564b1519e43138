"""Samples written to arrays of the caller's."""

import copy
import inspect

import numpy as np
import pytest
import torch
from replay_twins import filled

import rlox_gpu

SHAPES = {"image": (4, 4), "state": 3}
DTYPES = {"image": "uint8", "state": "float32"}
CASES = {
    "uniform": (rlox_gpu.ReplayBuffer, {}),
    "deduplicated": (rlox_gpu.ReplayBuffer, {"deduplicate": True}),
    "n_step": (rlox_gpu.ReplayBuffer, {"n_step": 3}),
    "prioritized": (rlox_gpu.PrioritizedReplayBuffer, {}),
    "prioritized_n_step": (rlox_gpu.PrioritizedReplayBuffer, {"n_step": 2}),
    "dicts": (rlox_gpu.ReplayBuffer, {"obs_dim": SHAPES, "obs_dtype": DTYPES}),
    "wide": (rlox_gpu.ReplayBuffer, {"obs_dim": (60, 60), "obs_dtype": "uint8"}),
}


def leaves(sample, name="out"):
    """Every array of a sample with its name."""
    for key, x in sample.items():
        if isinstance(x, dict):
            yield from leaves(x, f'{name}["{key}"]')
        else:
            yield f'{name}["{key}"]', x


def emptied(sample):
    """Arrays like those of a sample, full of other numbers."""
    if isinstance(sample, dict):
        return {key: emptied(x) for key, x in sample.items()}
    return np.full_like(sample, 1 if sample.dtype == bool else 99)


def assert_equal(found, wanted):
    found, wanted = dict(leaves(found)), dict(leaves(wanted))
    assert list(found) == list(wanted)
    for name, x in wanted.items():
        assert found[name].dtype == x.dtype
        np.testing.assert_array_equal(found[name], x, err_msg=name)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch_size", [1, 16, 500])
def test_the_given_arrays_are_filled(case, batch_size):
    kind, options = CASES[case]
    buffer, twin = filled(kind, **options), filled(kind, **options)
    out = emptied(twin.sample(batch_size, seed=0))
    arrays = dict(leaves(out))
    for seed in (None, 3, None):
        assert buffer.sample(batch_size, seed, out=out) is out
        assert all(x is arrays[name] for name, x in leaves(out))
        assert_equal(out, twin.sample(batch_size, seed))


@pytest.mark.parametrize("case", CASES)
def test_sequences_fill_the_given_arrays(case):
    kind, options = CASES[case]
    buffer, twin = filled(kind, **options), filled(kind, **options)
    out = emptied(twin.sample_sequences(6, 2, burn_in=1, seed=0))
    for _ in range(2):
        assert buffer.sample_sequences(6, 2, burn_in=1, out=out) is out
        assert_equal(out, twin.sample_sequences(6, 2, burn_in=1))


def test_memory_of_tensors_and_files_is_written_in_place(tmp_path):
    buffer = filled()
    out = buffer.sample(8, seed=0)
    tensor = torch.zeros(8, 3)
    out["obs"] = tensor.numpy()
    out["next_obs"] = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(8, 3))
    buffer.sample(8, seed=1, out=out)
    wanted = buffer.sample(8, seed=1)
    np.testing.assert_array_equal(tensor.numpy(), wanted["obs"])
    np.testing.assert_array_equal(out["next_obs"], wanted["next_obs"])


def test_adjoining_memory_is_no_overlap():
    buffer = filled()
    block = np.zeros((16, 3), np.float32)
    out = buffer.sample(8, seed=0) | {"obs": block[:8], "next_obs": block[8:]}
    buffer.sample(8, seed=1, out=out)
    wanted = buffer.sample(8, seed=1)
    np.testing.assert_array_equal(block, np.concatenate([wanted["obs"], wanted["next_obs"]]))


def test_other_keys_stay():
    buffer = filled()
    out = buffer.sample(8, seed=0) | {"note": "mine"}
    assert buffer.sample(8, out=out)["note"] == "mine"


def strided(x):
    return np.repeat(x, 2, axis=0)[::2]


def read_only(x):
    x.flags.writeable = False
    return x


def misaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)
    return memory[1:].view(x.dtype).reshape(x.shape)


BAD_ARRAYS = [
    ("obs", lambda x: x[:7], ValueError, r"expected shape \(8, 3\), got \(7, 3\)"),
    ("obs", lambda x: x.ravel(), ValueError, r"expected shape \(8, 3\), got \(24,\)"),
    ("obs", lambda x: x[:, :, None], ValueError, r"expected shape \(8, 3\), got \(8, 3, 1\)"),
    ("obs", lambda x: x.astype("f8"), TypeError, "expected dtype float32, got float64"),
    ("obs", lambda x: x.astype(">f4"), TypeError, "expected dtype float32, got >f4"),
    ("obs", torch.from_numpy, TypeError, "expected a NumPy array, got Tensor"),
    ("obs", np.ndarray.tolist, TypeError, "expected a NumPy array, got list"),
    ("obs", lambda x: None, TypeError, "expected a NumPy array, got NoneType"),
    ("obs", lambda x: {"state": x}, TypeError, "expected a NumPy array, got dict"),
    ("next_obs", strided, ValueError, "expected a C-contiguous array, got one that is not"),
    ("next_obs", np.asfortranarray, ValueError, "expected a C-contiguous array"),
    ("actions", read_only, ValueError, "expected a writable array, got one that is not"),
    ("rewards", misaligned, ValueError, "expected an aligned array, got one that is not"),
    ("rewards", lambda x: x[:, None], ValueError, r"expected shape \(8,\), got \(8, 1\)"),
    ("terminated", lambda x: x.view("u1"), TypeError, "expected dtype bool, got uint8"),
    ("truncated", lambda x: x[0], TypeError, "expected a NumPy array, got bool"),
    ("discounts", lambda x: x.astype("i4"), TypeError, "expected dtype float32, got int32"),
    ("weights", lambda x: x.astype("f8"), TypeError, "expected dtype float32, got float64"),
    ("indices", lambda x: x.view("i8"), TypeError, "expected dtype uint64, got int64"),
]


@pytest.mark.parametrize(("key", "spoil", "error", "message"), BAD_ARRAYS)
def test_bad_arrays_are_named_and_nothing_is_drawn(key, spoil, error, message):
    options = {"kind": rlox_gpu.PrioritizedReplayBuffer, "n_step": 2}
    buffer, twin = filled(**options), filled(**options)
    out = emptied(buffer.sample(8, seed=0))
    others = {name: x for name, x in out.items() if name != key}
    before = copy.deepcopy(others)
    with pytest.raises(error, match=rf'^out\["{key}"\]: {message}'):
        buffer.sample(8, out={**others, key: spoil(out[key])})
    assert_equal(others, before)
    assert_equal(buffer.sample(8), twin.sample(8))


def test_missing_keys_are_named_and_nothing_is_drawn():
    options = {"kind": rlox_gpu.PrioritizedReplayBuffer, "n_step": 2}
    buffer, twin = filled(**options), filled(**options)
    out = buffer.sample(8, seed=0)
    assert len(out) == 9
    for key in out:
        rest = {name: x for name, x in out.items() if name != key}
        with pytest.raises(ValueError, match=rf'^out\["{key}"\]: .* the key is missing'):
            buffer.sample(8, out=rest)
    assert_equal(buffer.sample(8), twin.sample(8))


def test_bad_parts_of_observations_are_named():
    buffer = filled(**CASES["dicts"][1])
    out = buffer.sample(8, seed=0)
    parts = out["obs"]
    for bad, error, message in (
        ({"state": parts["state"]}, ValueError, r'\["image"\]: .* the key is missing'),
        ({**parts, "image": parts["state"]}, TypeError, r'\["image"\]: expected dtype uint8'),
        ({**parts, "state": parts["state"][:7]}, ValueError, r'\["state"\]: expected shape \(8, 3'),
        (parts["state"], TypeError, ": expected a dict of arrays, got ndarray"),
    ):
        with pytest.raises(error, match=rf'^out\["obs"\]{message}'):
            buffer.sample(8, out={**out, "obs": bad})
    del out["next_obs"]
    with pytest.raises(ValueError, match=r'^out\["next_obs"\]\["image"\]: .* the key is missing'):
        buffer.sample(8, out=out)


def test_arrays_that_share_memory_are_refused():
    buffer, twin = filled(), filled()
    out = buffer.sample(8, seed=0)
    block = np.zeros((15, 3), np.float32)
    for bad in ({"next_obs": out["obs"]}, {"obs": block[:8], "next_obs": block[7:]}):
        message = (
            r'^out\["next_obs"\]: expected memory of its own, got some that is out\["obs"\]\'s'
        )
        with pytest.raises(ValueError, match=message):
            buffer.sample(8, out={**out, **bad})
    with pytest.raises(ValueError, match=r'^out\["truncated"\]: .* out\["terminated"\]'):
        buffer.sample(8, out={**out, "truncated": out["terminated"]})
    assert_equal(buffer.sample(8), twin.sample(8))


def test_bad_dicts_are_named():
    buffer = filled()
    for bad in ([], buffer.sample(8)["obs"], "obs"):
        with pytest.raises(TypeError, match=r"^out: expected a dict of arrays, got "):
            buffer.sample(8, out=bad)
        with pytest.raises(TypeError, match=r"^out: expected a dict of arrays, got "):
            buffer.sample_sequences(8, 2, out=bad)


def test_bad_sequences_are_named_and_nothing_is_drawn():
    buffer, twin = filled(), filled()
    out = buffer.sample_sequences(6, 2, seed=0)
    with pytest.raises(ValueError, match=r'^out\["obs"\]: expected shape \(6, 3, 3\), got \(6, 2,'):
        buffer.sample_sequences(6, 3, out=out)
    with pytest.raises(ValueError, match=r'^out\["obs"\]: expected shape \(6, 3\), got \(6, 2, 3'):
        buffer.sample(6, out=out)
    assert_equal(buffer.sample_sequences(6, 2), twin.sample_sequences(6, 2))


def test_an_empty_buffer_leaves_the_arrays_alone():
    out = filled().sample(8, seed=0)
    before = copy.deepcopy(out)
    with pytest.raises(ValueError, match="the buffer is empty"):
        rlox_gpu.ReplayBuffer(50, 3, 2).sample(8, out=out)
    assert_equal(out, before)


@pytest.mark.parametrize("kind", [rlox_gpu.ReplayBuffer, rlox_gpu.PrioritizedReplayBuffer])
def test_out_is_in_the_signatures(kind):
    for method in (kind.sample, kind.sample_sequences):
        parameter = inspect.signature(method).parameters["out"]
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is None
