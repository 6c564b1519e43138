"""The cases of the group kernels, wherever they run: interpreted on the CPU and on a GPU."""

import numpy as np
import pytest
import torch
from groups_inputs import as_tensor, assert_advantages, make_rewards

import rlox_gpu

DTYPES = ["float16", "bfloat16", "float32", "float64"]
RULES = [
    {},
    {"baseline": "loo", "ddof": 0},
    {"scale": "none"},
    {"scale": "batch", "eps": 0.1},
    {"eps": 1e-4},
]


def groups_on(device, rewards, dtype="float32", **options):
    on_device = {k: v.to(device) if torch.is_tensor(v) else v for k, v in options.items()}
    got = rlox_gpu.group_advantages(as_tensor(rewards, dtype).to(device), **on_device)
    assert got.device.type == torch.device(device).type
    assert_advantages(got, rewards, dtype, **options)


def flags(seed, shape, rate=0.8):
    return torch.from_numpy(np.random.default_rng(seed).random(shape) < rate)


def ids_of(seed, shape, count=5):
    return torch.from_numpy(np.random.default_rng(seed).integers(-2, count - 2, shape))


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (300, 4), (65, 16), (5, 63), (2, 130)])
def check_group_rows(device, shape):
    groups_on(device, make_rewards(0, shape))
    groups_on(device, make_rewards(1, shape, bad_rate=0.1), mask=flags(0, shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", RULES, ids=str)
def check_group_rules(device, dtype, options):
    rewards = make_rewards(2, (20, 6), dtype, bad_rate=0.05)
    groups_on(device, rewards, dtype, **options)
    groups_on(device, rewards, dtype, group_ids=ids_of(0, rewards.shape), **options)


def check_group_of_one_long_row(device):
    groups_on(device, make_rewards(3, (1, 2100), constant_rate=0))


@pytest.mark.parametrize("count", [1, 63, 200])
@pytest.mark.parametrize("order", ["sorted", "mixed"])
def check_group_ids(device, count, order):
    ids = ids_of(1, (count,), 9)
    ids = ids.sort().values if order == "sorted" else ids.int()
    groups_on(device, make_rewards(4, (count,)), group_ids=ids, mask=flags(1, (count,)))


@pytest.mark.parametrize("width", [1, 5, 40])
def check_group_tokens(device, width):
    rewards = make_rewards(5, (3, 4), bad_rate=0.1)
    tokens = flags(2, (3, 4, width))
    groups_on(device, rewards, token_mask=tokens)
    groups_on(device, rewards, token_mask=tokens.double(), mask=flags(3, (3, 4)), scale="batch")
    groups_on(device, rewards, token_mask=tokens, group_ids=ids_of(2, (3, 4)))


def check_constant_groups_are_exactly_zero(device):
    for options in RULES:
        rewards = torch.full((9, 7), 0.35, device=device)
        assert not rlox_gpu.group_advantages(rewards, **options).any()


def check_group_rewards_of_any_size(device):
    rewards = make_rewards(6, (5, 8), constant_rate=0)
    for power in (-30, 30):
        groups_on(device, (rewards * 10.0**power).astype(np.float32).astype(np.float64))
