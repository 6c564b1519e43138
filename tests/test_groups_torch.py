"""Group-relative advantages as a torch operation: registration, compilation, placement."""

import pytest
import torch
from fake_device import run_on_fake_device
from groups_inputs import as_tensor, make_rewards
from rlox_gpu.kernels.groups import groups_config

import rlox_gpu
from rlox_gpu import group_advantages

OPTIONS = [
    {},
    {"baseline": "loo", "scale": "batch"},
    {"mask": torch.rand(6, 5) < 0.7},
    {"group_ids": torch.randint(0, 4, (6, 5))},
    {"token_mask": torch.rand(6, 5, 7) < 0.7},
]


def _inputs():
    return as_tensor(make_rewards(0, (6, 5)), "float32")


def _positional(options):
    optional = (options.get(name) for name in ("group_ids", "mask", "token_mask"))
    return (_inputs(), *optional, 0 if "group_ids" in options else 5, False, 1, 1.0, 0.0, 0.0)


@pytest.mark.parametrize("options", OPTIONS, ids=list)
def test_op_passes_opcheck(options):
    group_advantages(_inputs())
    torch.library.opcheck(torch.ops.rlox_gpu.group_advantages.default, _positional(options))


def test_the_raw_op_checks_too():
    group_advantages(_inputs())
    _, *rest = _positional({})
    with pytest.raises(TypeError, match="rewards"):
        torch.ops.rlox_gpu.group_advantages(torch.zeros(6, 5, dtype=torch.int64), *rest)


def test_results_are_constants_of_the_graph():
    rewards = _inputs().requires_grad_()
    assert not group_advantages(rewards).requires_grad
    assert not group_advantages(rewards * 1.0).requires_grad
    assert torch.equal(group_advantages(rewards), group_advantages(rewards.detach()))


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("options", OPTIONS, ids=list)
def test_compiles_without_a_graph_break(options):
    def doubled(rewards, **options):
        return group_advantages(rewards, **options) * 2

    torch.compiler.reset()
    compiled = torch.compile(doubled, backend="aot_eager", fullgraph=True)
    for rewards in (_inputs(), _inputs() + 1):
        assert torch.equal(compiled(rewards, **options), doubled(rewards, **options))


def test_subclasses_take_the_op():
    class Tagged(torch.Tensor):
        pass

    tagged = group_advantages(_inputs().as_subclass(Tagged))
    assert type(tagged) is Tagged
    assert torch.equal(tagged.as_subclass(torch.Tensor), group_advantages(_inputs()))


def test_tensors_on_two_devices_are_refused():
    with pytest.raises(ValueError, match="mask"):
        group_advantages(_inputs(), mask=torch.ones(6, 5, device="meta"))


def on_a_fake_device():
    import torch

    import rlox_gpu

    with torch.device("gpu"):
        rewards = torch.zeros(6, 5)
        tokens = torch.zeros(6, 5, 7, dtype=torch.bool)
        ids = torch.zeros(6, 5, dtype=torch.int32)
    advantages = rlox_gpu.group_advantages(rewards, mask=rewards, scale="batch")
    assert advantages.device.type == "gpu"
    assert advantages.shape == (6, 5)
    spread = rlox_gpu.group_advantages(rewards, group_ids=ids, token_mask=tokens)
    assert spread.device.type == "gpu"
    assert spread.shape == (6, 5, 7)
    flat = rlox_gpu.compute_batch_group_advantages(rewards.reshape(-1), 5)
    assert flat.device.type == "gpu"


def test_nothing_waits_for_the_device():
    run_on_fake_device(on_a_fake_device)


@pytest.mark.parametrize("size", [1, 5, 16, 64, 1000, 1024, 1025, 10**6])
def test_blocks_are_a_pure_function_of_sizes(size):
    for wide, longest in ((False, 1024), (True, 256)):
        config = groups_config(size, None, ids=False, wide=wide)
        # A row fits into a tile, or is walked in pieces.
        assert config.others >= size if size <= longest else config.others < longest
        tokens = [groups_config(size, width, ids=True, wide=wide) for width in (1, 10**6)]
        assert tokens[0] == tokens[1] == groups_config(1, 5, ids=False, wide=wide)


def test_empty_rewards_are_nothing():
    assert rlox_gpu.group_advantages(torch.zeros(0), group_size=4).shape == (0,)
    assert rlox_gpu.group_advantages(torch.zeros(0), group_ids=torch.zeros(0).int()).shape == (0,)
