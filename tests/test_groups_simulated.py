"""The group kernels as compiled: PTX executed, every memory access checked and counted."""

import pytest
import torch
from groups_inputs import as_tensor, assert_advantages, make_rewards
from groups_kernel_cases import DTYPES, flags, ids_of
from simulation import simulated

from rlox_gpu import group_advantages

ARCHITECTURES = [80, 90, 100, 120]


def run(rewards, dtype="float32", arch=90, **options):
    """The launch, after a look at its results."""
    tensor = as_tensor(rewards, dtype)
    with simulated(arch=arch) as simulation:
        got = group_advantages(tensor, **options)
    assert_advantages(got, rewards, dtype, **options)
    (launch,) = simulation.launches
    return launch


@pytest.mark.parametrize("shape", [(1, 1), (1, 63), (63, 1), (64, 8), (1000, 5), (3, 1000)])
def test_rows_at_ragged_sizes(shape):
    run(make_rewards(0, shape))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_on_every_architecture(arch, dtype):
    rewards = make_rewards(1, (20, 16), dtype, bad_rate=0.05)
    run(rewards, dtype, arch, mask=flags(0, rewards.shape), baseline="loo")
    run(rewards, dtype, arch, group_ids=ids_of(0, rewards.shape), scale="batch")


@pytest.mark.parametrize("options", [{"scale": "none"}, {"scale": "batch"}, {"eps": 0.1}])
def test_every_scale(options):
    run(make_rewards(2, (70, 12)), **options)


@pytest.mark.parametrize("count", [1, 63, 1000])
@pytest.mark.parametrize("order", ["sorted", "mixed"])
def test_ids_at_ragged_sizes(count, order):
    ids = ids_of(1, (count,), 60)
    ids = ids.sort().values if order == "sorted" else ids
    run(make_rewards(3, (count,)), group_ids=ids)


@pytest.mark.parametrize("width", [1, 63, 64, 1100])
def test_tokens_at_ragged_sizes(width):
    run(make_rewards(4, (2, 3)), token_mask=flags(1, (2, 3, width)))


def test_a_long_row():
    run(make_rewards(5, (1, 2100), constant_rate=0))


def test_rewards_of_any_size():
    rewards = make_rewards(6, (5, 8), constant_rate=0)
    for power in (-37, 30):
        run((rewards * 10.0**power).astype("float32").astype("float64"))
    constant = torch.full((9, 7), 0.35)
    with simulated():
        assert not group_advantages(constant).any()


def test_no_rewards_launch_nothing():
    with simulated() as simulation:
        assert group_advantages(torch.zeros(0, 4)).shape == (0, 4)
        assert group_advantages(torch.zeros(2, 3), token_mask=torch.zeros(2, 3, 0)).numel() == 0
    assert not simulation.launches


@pytest.mark.parametrize("size", [8, 16, 64])
@pytest.mark.parametrize("masked", [False, True])
def test_rows_move_each_reward_once(size, masked):
    rewards = make_rewards(7, (16384 // size, size))
    options = {"mask": flags(2, rewards.shape)} if masked else {}
    launch = run(rewards, **options)
    moved = 32 * (launch.global_load_sectors + launch.global_store_sectors)
    assert moved <= 1.05 * (9 if masked else 8) * rewards.size
    assert launch.coalescing_efficiency >= 0.95


def test_tokens_are_moved_once():
    launch = run(make_rewards(8, (2, 8)), token_mask=flags(3, (2, 8, 2048)))
    moved = 32 * (launch.global_load_sectors + launch.global_store_sectors)
    # A piece of 1,024 tokens reads the rewards of its group again, three times.
    assert moved <= 1.05 * (5 * 1024 + 3 * 8 * 4) * 2 * 8 * 2


def test_sorted_ids_are_compared_with_near_ones_only():
    ids = torch.arange(2048) // 16
    rewards = make_rewards(9, (2048,))
    near = run(rewards, group_ids=ids)
    far = run(rewards, group_ids=ids.reshape(128, 16).T.reshape(-1))
    assert near.total_warp_instructions < far.total_warp_instructions / 5
