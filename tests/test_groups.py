"""Group-relative advantages: meaning, special rewards, both kinds of arrays, bad input."""

import numpy as np
import pytest
import torch
from groups_inputs import as_tensor, assert_advantages, make_rewards
from hypothesis import given, settings
from hypothesis import strategies as st

import rlox_gpu
from rlox_gpu import group_advantages

DTYPES = ["float16", "bfloat16", "float32", "float64"]
SHAPES = [(1, 1), (1, 63), (63, 1), (5, 7), (64, 8), (63, 16), (3, 1000), (0, 4), (4, 0), (40, 130)]


def both(rewards, dtype, **options):
    """The result from tensors, after a look at that from arrays."""
    tensor = group_advantages(as_tensor(rewards, dtype), **options)
    if dtype != "bfloat16":
        plain = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
        array = group_advantages(rewards.astype(dtype), **plain)
        np.testing.assert_array_equal(array, tensor.numpy())
    return tensor


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_matches_the_reference(shape, dtype):
    rewards = make_rewards(0, shape, dtype)
    assert_advantages(both(rewards, dtype), rewards, dtype)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.integers(1, 20),
    size=st.integers(1, 40),
    dtype=st.sampled_from(DTYPES),
    baseline=st.sampled_from(["mean", "loo"]),
    scale=st.sampled_from(["std", "none", "batch"]),
    ddof=st.integers(0, 1),
    eps=st.sampled_from([0.0, 1e-4, 0.5]),
    masked=st.booleans(),
    ids=st.booleans(),
    tokens=st.sampled_from([None, 0, 1, 5]),
    bad_rate=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 2**32 - 1),
)
def test_matches_the_reference_whatever_the_options(
    groups, size, dtype, baseline, scale, ddof, eps, masked, ids, tokens, bad_rate, seed
):
    rng = np.random.default_rng(seed)
    rewards = make_rewards(seed, (groups, size), dtype, bad_rate=bad_rate)
    options = {"baseline": baseline, "scale": scale, "ddof": ddof, "eps": eps}
    if masked:
        options["mask"] = torch.from_numpy(rng.random(rewards.shape) < 0.8)
    if ids:
        options["group_ids"] = torch.from_numpy(rng.integers(-3, 4, rewards.shape))
    if tokens is not None:
        options["token_mask"] = torch.from_numpy(rng.integers(0, 2, (*rewards.shape, tokens)))
    assert_advantages(both(rewards, dtype, **options), rewards, dtype, **options)


@pytest.mark.parametrize("size", [2, 3, 8, 16, 17, 200])
@pytest.mark.parametrize("options", [{}, {"baseline": "loo"}, {"scale": "batch"}, {"ddof": 0}])
@pytest.mark.parametrize("reward", [0.35, 0.1, 1e6 + 0.3, -7e-5])
def test_constant_groups_give_exact_zeros(reward, options, size):
    rewards = np.full((20, size), reward, np.float32)
    rewards[7] = np.linspace(0, 1, size)
    advantages = group_advantages(rewards, **options)
    assert not np.delete(advantages, 7, axis=0).any()
    assert not np.signbit(np.delete(advantages, 7, axis=0)).any()
    assert advantages[7].any()


def test_a_group_of_one_gives_zero():
    assert not group_advantages(np.array([[3.0], [4.0]]), baseline="loo").any()
    ids = np.array([5, 5, 9])
    assert group_advantages(np.array([1.0, 2.0, 7.0]), group_ids=ids)[2] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scale", ["std", "none", "batch"])
def test_a_bad_reward_spoils_its_own_entry_only(scale, bad):
    rewards = make_rewards(1, (40, 16), constant_rate=0).astype(np.float32)
    dirty = rewards.copy()
    dirty[3, 5] = bad
    advantages = group_advantages(dirty, scale=scale)
    assert np.isnan(advantages[3, 5])
    assert np.isnan(advantages).sum() == 1
    without = group_advantages(rewards, scale=scale, mask=np.isfinite(dirty))
    others = np.isfinite(dirty)
    np.testing.assert_allclose(advantages[others], without[others], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_what_is_masked_changes_nothing(poison):
    rewards = make_rewards(2, (9, 8)).astype(np.float32)
    mask = np.random.default_rng(0).random(rewards.shape) < 0.7
    poisoned = np.where(mask, rewards, np.float32(poison))
    clean = group_advantages(np.where(mask, rewards, 0), mask=mask)
    np.testing.assert_array_equal(group_advantages(poisoned, mask=mask), clean)
    assert not clean[~mask].any()


def test_sums_to_zero_within_a_group():
    advantages = group_advantages(make_rewards(3, (30, 12), constant_rate=0))
    np.testing.assert_allclose(advantages.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(advantages.std(axis=1, ddof=1), 1, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("power", [-30, 30, -37])
def test_no_size_of_reward_over_or_underflows(power, dtype):
    rewards = make_rewards(4, (9, 8), constant_rate=0)
    scaled = rewards * 10.0**power
    expected = group_advantages(rewards.astype(dtype))
    np.testing.assert_allclose(group_advantages(scaled.astype(dtype)), expected, rtol=1e-4)


def test_a_large_offset_costs_nothing():
    rewards = np.float32(2**20) + np.arange(8, dtype=np.float32)[None] / 8
    expected = group_advantages(np.arange(8, dtype=np.float32)[None] / 8)
    np.testing.assert_allclose(group_advantages(rewards), expected, rtol=1e-6)


def test_three_of_eight_correct():
    rewards = np.array([1.0, 1, 1, 0, 0, 0, 0, 0])
    advantages = group_advantages(rewards, group_size=8)
    np.testing.assert_allclose(advantages[[0, 7]], [1.2076, -0.7246], atol=1e-4)


def test_leave_one_out_is_rloo():
    rewards = make_rewards(5, (1, 6), constant_rate=0)
    got = group_advantages(rewards, baseline="loo", scale="none")
    others = [np.delete(rewards[0], k).mean() for k in range(6)]
    np.testing.assert_allclose(got[0], rewards[0] - others)


@pytest.mark.parametrize("id_dtype", ["int8", "uint8", "int32", "int64", "uint64"])
def test_ids_may_be_any_integers_in_any_order(id_dtype):
    rewards = make_rewards(6, (50,))
    ids = np.random.default_rng(0).integers(0, 9, 50).astype(id_dtype)
    assert_advantages(group_advantages(rewards, group_ids=ids), rewards, "float64", group_ids=ids)


def test_far_apart_ids_give_what_near_ones_do():
    rewards = make_rewards(7, (200,))
    near = np.random.default_rng(0).integers(0, 9, 200)
    far = np.array([5, -(2**63), 2**63 - 1, 0, -1, 10**12, 7, 8, 2**40])[near]
    np.testing.assert_array_equal(
        group_advantages(rewards, group_ids=near), group_advantages(rewards, group_ids=far)
    )


def test_the_order_of_groups_does_not_matter():
    rewards = make_rewards(8, (37, 16)).astype(np.float32)
    advantages = group_advantages(rewards)
    np.testing.assert_array_equal(group_advantages(rewards[::-1].copy()), advantages[::-1])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_any_layout(dtype):
    rewards = make_rewards(9, (12, 16), dtype)
    tensor = as_tensor(rewards, dtype)
    wide = torch.stack([tensor, tensor], -1)
    views = [tensor.T.contiguous().T, wide[..., 0], tensor[:, None].expand(12, 3, 16)[:, 1]]
    mask = torch.rand(16, 12).T < 0.7
    for view in views:
        for options in ({}, {"mask": mask}, {"group_ids": mask.int()}, {"scale": "batch"}):
            got = group_advantages(view, **options)
            assert_advantages(got, rewards, dtype, **options)
            plain = {k: v.numpy() for k, v in options.items() if k != "scale"}
            array = group_advantages(view.numpy(), **(options | plain))
            np.testing.assert_array_equal(array, got.numpy())
    flat = wide.reshape(-1)[::2]
    assert_advantages(group_advantages(flat, group_size=16), rewards.reshape(-1), dtype,
                      group_size=16)  # fmt: skip


def test_a_flag_of_any_dtype():
    rewards = make_rewards(10, (6, 5))
    flags = np.random.default_rng(0).integers(0, 2, rewards.shape)
    for dtype in ("bool", "int8", "int16", "int32", "int64", "float16", "float32", "float64"):
        mask = flags.astype(dtype)
        assert_advantages(group_advantages(rewards, mask=mask), rewards, "float64", mask=mask)


def test_tokens_get_the_advantage_of_their_sequence():
    rewards = make_rewards(11, (4, 6)).astype(np.float32)
    lengths = np.random.default_rng(0).integers(0, 20, rewards.shape)
    tokens = np.arange(20) < lengths[..., None]
    spread = group_advantages(rewards, token_mask=tokens)
    np.testing.assert_array_equal(spread, group_advantages(rewards)[..., None] * tokens)


def test_dlpack_arrays_come_back_as_their_own_kind():
    class Foreign:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    rewards = make_rewards(12, (4, 6))
    mask = np.ones((4, 6), np.int8)
    got = group_advantages(Foreign(rewards), mask=Foreign(mask))
    np.testing.assert_array_equal(got, group_advantages(rewards, mask=mask))


def test_many_groups_are_shared_among_threads():
    rewards = make_rewards(13, (20000, 16), constant_rate=0).astype(np.float32)
    tokens = np.ones((*rewards.shape[:1], 16, 2), bool)
    spread = group_advantages(rewards, token_mask=tokens)
    expected = (rewards - rewards.mean(1, keepdims=True)) / rewards.std(1, keepdims=True, ddof=1)
    np.testing.assert_allclose(spread[..., 1], expected, atol=1e-5)
    np.testing.assert_array_equal(group_advantages(rewards), spread[..., 0])


F32 = np.zeros((6, 4), np.float32)
BAD_CALLS = {
    "rewards list": ([[1.0, 2.0]], {}, TypeError, "rewards"),
    "rewards int": (np.zeros((6, 4), np.int64), {}, TypeError, "rewards"),
    "rewards 3-d": (np.zeros((6, 4, 1)), {}, ValueError, "rewards"),
    "rewards 0-d": (np.zeros(()), {}, ValueError, "rewards"),
    "no group": (np.zeros(6), {}, ValueError, "group_size"),
    "size 0": (np.zeros(6), {"group_size": 0}, ValueError, "group_size"),
    "size negative": (np.zeros(6), {"group_size": -1}, ValueError, "group_size"),
    "size float": (np.zeros(6), {"group_size": 2.0}, TypeError, "group_size"),
    "size does not divide": (np.zeros(6), {"group_size": 4}, ValueError, "group_size"),
    "size against the row": (F32, {"group_size": 3}, ValueError, "group_size"),
    "size and ids": (np.zeros(6), {"group_size": 3, "group_ids": np.zeros(6, int)},
                     ValueError, "group_size"),
    "ids shape": (np.zeros(6), {"group_ids": np.zeros(5, int)}, ValueError, "group_ids"),
    "ids float": (np.zeros(6), {"group_ids": np.zeros(6)}, TypeError, "group_ids"),
    "mask shape": (F32, {"mask": np.ones((4, 6))}, ValueError, "mask"),
    "mask complex": (F32, {"mask": np.ones((6, 4)) * 1j}, TypeError, "mask"),
    "tokens shape": (F32, {"token_mask": np.ones((6, 5, 4))}, ValueError, "token_mask"),
    "tokens 0-d": (F32, {"token_mask": np.array(1)}, ValueError, "token_mask"),
    "baseline": (F32, {"baseline": "median"}, ValueError, "baseline"),
    "baseline None": (F32, {"baseline": None}, TypeError, "baseline"),
    "scale": (F32, {"scale": "max"}, ValueError, "scale"),
    "scale list": (F32, {"scale": []}, TypeError, "scale"),
    "ddof 2": (F32, {"ddof": 2}, ValueError, "ddof"),
    "ddof float": (F32, {"ddof": 1.0}, TypeError, "ddof"),
    "eps negative": (F32, {"eps": -1e-8}, ValueError, "eps"),
    "eps NaN": (F32, {"eps": np.nan}, ValueError, "eps"),
    "eps text": (F32, {"eps": "0"}, TypeError, "eps"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize(("rewards", "options", "error", "name"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_named(rewards, options, error, name, kind):
    if kind == "torch":
        rewards, *others = (
            torch.from_numpy(x) if isinstance(x, np.ndarray) else x
            for x in (rewards, *options.values())
        )
        options = dict(zip(options, others, strict=True))
    with pytest.raises(error, match=name):
        group_advantages(rewards, **options)


def test_rlox_agrees():
    rlox = pytest.importorskip("rlox")
    rewards = make_rewards(14, (50, 8))
    rewards[3] = 0.35
    rewards[4] = 0.1 + np.arange(8) * 1e-10
    flat = rewards.reshape(-1)
    got = rlox_gpu.compute_batch_group_advantages(flat, 8)
    np.testing.assert_allclose(got, rlox.compute_batch_group_advantages(flat, 8), atol=1e-12)
    for group in rewards:
        got = rlox_gpu.compute_group_advantages(group)
        np.testing.assert_allclose(got, rlox.compute_group_advantages(group), atol=1e-12)
    assert not rlox_gpu.compute_batch_group_advantages(flat, 8)[24:40].any()


def test_rlox_names_take_lists_and_tensors():
    got = rlox_gpu.compute_group_advantages([1, 0, 0, 1])
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, [1, -1, -1, 1])
    tensor = rlox_gpu.compute_batch_group_advantages(torch.tensor([1.0, 0, 2, 2]), 2)
    assert torch.equal(tensor, torch.tensor([1.0, -1, 0, 0], dtype=torch.float64))
    assert rlox_gpu.compute_group_advantages([]).shape == (0,)
    with pytest.raises(ValueError, match="group_size"):
        rlox_gpu.compute_batch_group_advantages([1.0, 2.0], 0)
    with pytest.raises(TypeError, match="group_size"):
        rlox_gpu.compute_batch_group_advantages([1.0, 2.0], 1.0)
    with pytest.raises(ValueError, match="rewards"):
        rlox_gpu.compute_group_advantages([[1.0, 2.0]])
