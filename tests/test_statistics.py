"""Running moments and normalising: NumPy, torch and the objects of rlox."""

import numpy as np
import pytest
import torch
from fake_device import run_on_fake_device
from hypothesis import given, settings
from hypothesis import strategies as st
from statistics_kernel_cases import DTYPES, ROUNDING, make_batch, moments_reference

from rlox_gpu import (
    RunningStats,
    RunningStatsVec,
    merge_moments,
    normalize,
    update_moments,
)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    dim=st.integers(0, 9),
    dtype=st.sampled_from(DTYPES),
    masked=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_batches_add_up_to_the_moments_of_all(sizes, dim, dtype, masked, seed):
    batches = [make_batch(seed + at, (size, dim), dtype) for at, size in enumerate(sizes)]
    masks = [torch.rand(size) < 0.7 if masked else None for size in sizes]
    state, array = torch.zeros(3, dim, dtype=torch.float64), np.zeros((3, dim))
    for batch, mask in zip(batches, masks, strict=True):
        assert update_moments(state, batch, mask=mask) is state
        if dtype is not torch.bfloat16:
            update_moments(array, batch.numpy(), mask=None if mask is None else mask.numpy())
    together = torch.cat(batches).double().numpy()
    expected = moments_reference(together, torch.cat(masks).numpy() if masked else None)
    np.testing.assert_allclose(state.numpy(), expected, rtol=1e-9, atol=1e-9)
    if dtype is not torch.bfloat16:
        np.testing.assert_allclose(array, state.numpy(), rtol=1e-12, atol=1e-12)


def test_states_of_ranks_merge():
    batches = [make_batch(seed, (20, 5)) for seed in range(4)]
    states = [update_moments(torch.zeros(3, 5).double(), batch) for batch in batches]
    empty = torch.zeros(3, 5, dtype=torch.float64)
    merged = merge_moments(torch.stack([empty, *states, empty]))
    expected = moments_reference(torch.cat(batches).numpy())
    np.testing.assert_allclose(merged.numpy(), expected, rtol=1e-12)
    assert not empty.any()
    np.testing.assert_allclose(merge_moments(np.stack(states)), expected, rtol=1e-12)


def test_a_large_offset_costs_nothing():
    x = 1e9 + np.arange(8.0)[:, None]
    state = update_moments(np.zeros((3, 1)), x)
    state = update_moments(state, x)
    assert state[2, 0] == 2 * np.square(np.arange(8) - 3.5).sum()


@pytest.mark.parametrize("dim", [1, 3, 16, 40])
@pytest.mark.parametrize("rows", [31, 700, 70_000])
@pytest.mark.parametrize("layout", ["rows", "columns", "strided", "reversed"])
def test_any_layout_and_size_gives_the_moments(rows, dim, layout):
    if rows == 70_000 and dim == 40:
        rows = 3000
    x = make_batch(rows + dim, (rows, dim), torch.float32).numpy() + np.float32(1000)
    if layout == "columns":
        x = np.asfortranarray(x)
    elif layout == "strided":
        x = np.repeat(x, 2, axis=1)[:, ::2]
    elif layout == "reversed":
        x = x[::-1, ::-1]
    mask = np.random.default_rng(0).random(2 * rows)[::2] < 0.7
    for flags in (None, mask, mask.astype(np.int64)):
        state = update_moments(np.zeros((3, dim)), x, mask=flags)
        expected = moments_reference(x.astype(np.float64), flags)
        np.testing.assert_allclose(state, expected, rtol=1e-10)
        again = update_moments(np.zeros((3, dim)), x, mask=flags)
        assert np.array_equal(again, state)
    mean, var = expected[1], expected[2] / expected[0]
    result = normalize(x, mean, var, clip=2.0)
    want = ((x - mean) / np.sqrt(var)).clip(-2, 2)
    np.testing.assert_allclose(result, want.astype(np.float32), rtol=1e-6, atol=1e-6)


def test_states_that_are_not_contiguous():
    x = make_batch(0, (30, 4))
    expected = update_moments(np.zeros((3, 4)), x.numpy())
    room = np.zeros((4, 3))
    update_moments(room.T, x.numpy())
    assert np.array_equal(room.T, expected)
    room = torch.zeros(4, 3, dtype=torch.float64)
    update_moments(room.T, x)
    assert np.array_equal(room.T.numpy(), expected)


def test_an_outlier_in_front_spoils_nothing():
    x = np.random.default_rng(0).normal(size=(1000, 2))
    x[0] = 1e8
    state = update_moments(np.zeros((3, 2)), x)
    np.testing.assert_allclose(state, moments_reference(x), rtol=1e-12)


def test_equal_numbers_have_no_variance():
    state = np.zeros((3, 2))
    for _ in range(5):
        update_moments(state, np.full((7, 2), 0.35, np.float32))
    assert not state[2].any()
    assert (state[1] == np.float32(0.35)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("clip", [None, 1.5])
def test_normalize(dtype, clip):
    x = make_batch(1, (30, 4), dtype, bad_rate=0)
    x[3, 2] = torch.nan
    mean = torch.linspace(1, 4, 4, dtype=torch.float64)
    var = torch.tensor([0.0, 1e-20, 4.0, 9.0], dtype=torch.float64)
    exact = (x.double() - mean) / var.sqrt().clamp(min=1e-3)
    want = exact if clip is None else exact.clamp(-clip, clip)
    got = normalize(x, mean, var, clip=clip, eps=1e-3)
    assert got.dtype is dtype
    tolerance = {"rtol": ROUNDING[dtype], "atol": ROUNDING[dtype], "equal_nan": True}
    torch.testing.assert_close(got.double(), want, **tolerance)
    strided = normalize(torch.stack([x, x], -1)[..., 0], mean, var, clip=clip, eps=1e-3)
    assert torch.equal(strided.nan_to_num(), got.nan_to_num())
    if dtype is not torch.bfloat16:
        array = normalize(x.numpy(), mean.numpy(), var.numpy(), clip=clip, eps=1e-3)
        np.testing.assert_allclose(array, got.numpy(), rtol=ROUNDING[dtype])


def test_normalize_takes_any_leading_shape():
    mean, var = np.zeros(3), np.ones(3)
    for shape in ((3,), (2, 5, 3), (0, 3)):
        assert normalize(np.ones(shape, np.float32), mean, var).shape == shape
    assert normalize(torch.ones(2, 0), torch.zeros(0).double(), torch.ones(0).double()).numel() == 0


def test_results_are_constants_of_the_graph():
    zeros, ones = torch.zeros(3).double(), torch.ones(3).double()
    assert not normalize(torch.ones(2, 3, requires_grad=True), zeros, ones).requires_grad
    state = torch.zeros(3, 3).double()
    update_moments(state, torch.ones(2, 3, requires_grad=True))
    assert not state.requires_grad


def test_ops_pass_opcheck():
    x, numbers = make_batch(2, (6, 4), bad_rate=0), torch.rand(4).double()
    normalize(x, numbers, numbers)
    ops = torch.ops.rlox_gpu
    torch.library.opcheck(ops.normalize.default, (x, numbers, numbers, 2.0, 1e-8))
    state = torch.zeros(3, 4).double()
    torch.library.opcheck(ops.update_moments_.default, (state, x, torch.ones(6)))


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compiles_without_a_graph_break():
    def step(state, x):
        update_moments(state, x)
        return normalize(x, state[1], state[2] / state[0], clip=5.0) * 2

    torch.compiler.reset()
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    states = torch.zeros(2, 3, 4).double()
    for seed in range(2):
        x = make_batch(seed, (6, 4), bad_rate=0)
        torch.testing.assert_close(compiled(states[0], x), step(states[1], x))
    torch.testing.assert_close(states[0], states[1])


def on_a_fake_device():
    import torch

    import rlox_gpu

    stats = rlox_gpu.RunningStatsVec(4, device="gpu")
    x = torch.zeros(6, 4, device="gpu")
    stats.batch_update(x, 6)
    stats.merge(stats)
    assert stats.normalize_batch(x, 6).device.type == "gpu"
    assert stats.std().device.type == "gpu"
    stats.load_state_dict(stats.state_dict())
    rlox_gpu.update_moments(stats.state, x, mask=x[:, 0])


def test_nothing_waits_for_the_device():
    run_on_fake_device(on_a_fake_device)


def test_rlox_has_the_same_scalars():
    rlox = pytest.importorskip("rlox")
    ours, theirs = RunningStats(), rlox.RunningStats()
    values = np.random.default_rng(0).normal(5, 3, 40)

    def compare():
        for name in ("mean", "var", "std"):
            assert getattr(ours, name)() == pytest.approx(getattr(theirs, name)(), abs=1e-12)
        assert ours.count() == theirs.count()
        assert ours.normalize(3.0) == pytest.approx(theirs.normalize(3.0), abs=1e-9)

    compare()
    for stats in (ours, theirs):
        stats.update(2.0)
    compare()
    for part in (values[:1], values[1:30], values[30:], values[:0]):
        for stats in (ours, theirs):
            stats.batch_update(part)
        compare()
    for stats in (ours, theirs):
        stats.reset()
        stats.batch_update(np.full(3, 5.0))
    compare()


def test_rlox_has_the_same_vectors():
    rlox = pytest.importorskip("rlox")
    ours, theirs = RunningStatsVec(3), rlox.RunningStatsVec(3)
    rng = np.random.default_rng(0)

    def compare():
        for name in ("mean", "var", "std"):
            np.testing.assert_allclose(getattr(ours, name)(), getattr(theirs, name)(), atol=1e-12)
        assert (ours.count(), ours.dim()) == (theirs.count(), theirs.dim())
        sample, batch = rng.normal(size=3), rng.normal(size=12)
        np.testing.assert_allclose(ours.normalize(sample), theirs.normalize(sample))
        got, want = ours.normalize_batch(batch, 4), theirs.normalize_batch(batch, 4)
        np.testing.assert_allclose(got, want)

    compare()
    for size in (1, 7, 0):
        sample, batch = rng.normal(size=3), rng.normal(size=3 * size)
        for stats in (ours, theirs):
            stats.update(sample)
            stats.batch_update(batch, size)
        compare()
    for stats in (ours, theirs):
        stats.reset()
    compare()


@pytest.mark.parametrize("device", [None, "cpu"])
def test_objects_merge_and_keep_their_state(device):
    kind = (lambda x: x) if device is None else torch.from_numpy
    data = np.random.default_rng(0).normal(size=(10, 3))
    first, second, whole = (RunningStatsVec(3, device=device) for _ in range(3))
    first.batch_update(kind(data[:4]), 4)
    second.batch_update(kind(data[4:]), 6)
    whole.batch_update(kind(data), 10)
    first.merge(second)
    np.testing.assert_allclose(np.asarray(first.state), np.asarray(whole.state), rtol=1e-12)
    saved = first.state_dict()
    first.reset()
    assert first.count() == 0
    first.load_state_dict(saved)
    np.testing.assert_allclose(np.asarray(first.mean()), data.mean(0))
    assert first.normalize_batch(kind(data), 10).shape == (10, 3)


def test_scalars_merge_and_keep_their_state():
    first, second = RunningStats(), RunningStats()
    first.batch_update([1.0, 2.0])
    second.batch_update([3.0, np.nan])
    first.merge(second)
    assert (first.count(), first.mean()) == (3, 2.0)
    again = RunningStats()
    again.load_state_dict(first.state_dict())
    assert again.var() == first.var() == pytest.approx(2 / 3)


X, STATE, FOUR = np.zeros((6, 4)), np.zeros((3, 4)), np.zeros(4)
BAD_CALLS = {
    "x int": (update_moments, (STATE, X.astype(int)), TypeError, "x"),
    "x 1-d": (update_moments, (STATE, FOUR), ValueError, "x"),
    "state shape": (update_moments, (X, X), ValueError, "state"),
    "state f32": (update_moments, (STATE.astype(np.float32), X), TypeError, "state"),
    "state tensor": (update_moments, (torch.zeros(3, 4), X), TypeError, "state"),
    "mean shape": (normalize, (X, X, FOUR), ValueError, "mean"),
    "var f32": (normalize, (X, FOUR, FOUR.astype(np.float32)), TypeError, "var"),
    "x number": (normalize, (1.0, FOUR, FOUR), TypeError, "x"),
    "states": (merge_moments, (STATE,), ValueError, "states"),
    "dim": (RunningStatsVec, (-1,), ValueError, "dim"),
    "sample": (RunningStatsVec(3).update, (FOUR,), ValueError, "values"),
    "batch": (RunningStatsVec(4).batch_update, (FOUR, 2), ValueError, "data"),
    "values": (RunningStats().batch_update, (X,), ValueError, "values"),
    "saved": (RunningStats().load_state_dict, ({"state": X},), ValueError, "state"),
}


@pytest.mark.parametrize(("call", "args", "error", "name"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_named(call, args, error, name):
    with pytest.raises(error, match=name):
        call(*args)


def test_a_state_that_cannot_be_written_is_named():
    state = STATE.copy()
    state.flags.writeable = False
    with pytest.raises(ValueError, match="state"):
        update_moments(state, X)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="mask"):
        update_moments(STATE.copy(), X, mask=np.ones(5))
    with pytest.raises(ValueError, match="clip"):
        normalize(X, FOUR, FOUR, clip=-1.0)
    with pytest.raises(TypeError, match="eps"):
        normalize(X, FOUR, FOUR, eps=None)
