import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rlox_gpu import actor_critic
from rlox_gpu.parameters import ALIGNMENT, FlatParameters, flatten_parameters
from rlox_gpu.policies import DiscretePolicy, policy_for_spaces, sample_categorical


@pytest.fixture
def policy():
    return DiscretePolicy(4, 2, seed=0)


def assert_shares(module, flat):
    assert flat.shares_memory_with(module)
    flat.data.add_(1.0)
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter.detach(), flat.view(flat.data, name))


@pytest.mark.parametrize("shape", [(4, 2, 64), (3, 5, 20), (1, 1, 1)], ids=str)
def test_parameters_start_at_multiples_of_16_and_do_not_overlap(shape):
    flat = DiscretePolicy(*shape).flat
    spans = sorted((flat.offsets[n], p.numel()) for n, p in flat.parameters.items())
    assert all(start % ALIGNMENT == 0 for start, _ in spans)
    assert all(a + size <= b for (a, size), (b, _) in itertools.pairwise(spans))
    assert flat.data.dtype is torch.float32
    assert len(flat.data) % ALIGNMENT == 0


def test_a_fresh_policy_shares_one_tensor(policy):
    assert_shares(policy, policy.flat)


@pytest.mark.parametrize(
    "transform",
    [
        copy.deepcopy,
        lambda p: pickle.loads(pickle.dumps(p)),
        lambda p: p.to("cpu"),
        lambda p: p.double().float(),
        lambda p: (p.load_state_dict(DiscretePolicy(4, 2, seed=9).state_dict()), p)[1],
        lambda p: (p.load_state_dict(DiscretePolicy(4, 2).state_dict(), assign=True), p)[1],
        lambda p: (p.zero_grad(set_to_none=True), p)[1],
    ],
    ids=["deepcopy", "pickle", "to", "double", "load", "load-assign", "zero_grad"],
)
def test_sharing_survives(policy, transform):
    result = transform(policy)
    assert_shares(result, result.flat)
    assert torch.equal(result.weights.actor_bias, result.actor[4].bias.detach())


def test_a_deep_copy_is_independent_and_equal(policy):
    twin = copy.deepcopy(policy)
    assert torch.equal(twin.flat.data, policy.flat.data)
    twin.flat.data.zero_()
    assert policy.flat.data.abs().sum() > 0


def test_a_shallow_copy_shares_with_the_original(policy):
    twin = copy.copy(policy)
    assert_shares(policy, policy.flat)
    assert twin.flat is policy.flat


def test_state_dict_is_a_snapshot(policy):
    state = policy.state_dict()
    before = state["actor.0.weight"].clone()
    policy.flat.data.zero_()
    assert torch.equal(state["actor.0.weight"], before)


def test_gradients_are_views_of_one_tensor(policy):
    obs = torch.randn(7, 4)
    (
        policy.get_value(obs).sum() + policy.get_logprob_and_entropy(obs, torch.zeros(7))[0].sum()
    ).backward()
    for name, parameter in policy.named_parameters():
        assert parameter.grad.is_set_to(policy.flat.view(policy.flat.grad, name))
    assert policy.flat.grad.abs().sum() > 0


def test_flattening_any_module_keeps_values_gradients_and_training():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))
    twin = copy.deepcopy(module)
    x = torch.randn(9, 3)
    module(x).sum().backward()
    before = [p.grad.clone() for p in module.parameters()]
    flat = flatten_parameters(module)
    assert isinstance(flat, FlatParameters)
    assert torch.equal(module(x), twin(x))
    for parameter, gradient in zip(module.parameters(), before, strict=True):
        assert torch.equal(parameter.grad, gradient)
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    assert_shares(module, flat)


def test_tied_and_frozen_parameters_are_handled():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    module[2].requires_grad_(False)
    flat = flatten_parameters(module)
    assert sorted(flat.parameters) == ["0.bias", "0.weight", "1.bias"]
    flat.data.zero_()
    assert module[1].weight.abs().sum() == 0
    assert module[2].weight.abs().sum() > 0


def test_lost_sharing_is_noticed():
    module = nn.Linear(2, 2)
    flat = flatten_parameters(module)
    module.weight.data = module.weight.data.clone()
    assert not flat.shares_memory_with(module)


@pytest.mark.parametrize(
    ("module", "order", "message"),
    [
        (nn.Tanh(), None, "no trainable parameter"),
        (nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1).double()), None, "one dtype"),
        (nn.Linear(1, 1), ["weight"], "order"),
        (nn.Linear(1, 1), ["weight", "weight"], "order"),
    ],
    ids=["nothing", "mixed", "missing", "twice"],
)
def test_flattening_refuses(module, order, message):
    with pytest.raises(ValueError, match=message):
        flatten_parameters(module, order)


@pytest.mark.parametrize("batch", [1, 63, 64, 1000])
def test_explicit_passes_equal_torch(batch):
    torch.manual_seed(batch)
    policy = DiscretePolicy(5, 3, hidden=20, seed=1).double()
    obs = torch.randn(batch, 5, dtype=torch.float64)
    d_logits, d_values = torch.randn(batch, 3).double(), torch.randn(batch).double()
    (policy.actor(obs) * d_logits).sum().backward()
    (policy.get_value(obs) * d_values).sum().backward()
    expected = policy.flat.grad.clone()
    with torch.no_grad():
        logits, values, saved = actor_critic.forward(policy.weights, obs)
        actor_critic.backward(policy.weights, saved, d_logits, d_values, policy.gradients)
    torch.testing.assert_close(logits, policy.actor(obs).detach(), rtol=0, atol=1e-13)
    torch.testing.assert_close(values, policy.get_value(obs).detach(), rtol=0, atol=1e-13)
    torch.testing.assert_close(policy.flat.grad, expected, rtol=1e-11, atol=1e-11)


def test_explicit_forward_in_f32_is_within_rounding_of_torch(policy):
    obs = torch.randn(1000, 4) * 3
    with torch.no_grad():
        logits, values, _ = actor_critic.forward(policy.weights, obs)
        torch.testing.assert_close(values, policy.get_value(obs), rtol=0, atol=2e-6)
        torch.testing.assert_close(logits, policy.actor(obs), rtol=0, atol=2e-6)


def test_the_seed_determines_the_weights():
    weights = [DiscretePolicy(4, 2, seed=s).flat.data for s in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    torch.manual_seed(3)
    free = DiscretePolicy(4, 2).flat.data
    torch.manual_seed(3)
    assert torch.equal(free, DiscretePolicy(4, 2).flat.data)


def test_initial_weights_are_orthogonal_with_the_stated_gains(policy):
    hidden = policy.actor[2].weight.detach()
    torch.testing.assert_close(hidden @ hidden.T, 2 * torch.eye(64), rtol=0, atol=1e-5)
    head = policy.actor[4].weight.detach()
    torch.testing.assert_close(head @ head.T, 1e-4 * torch.eye(2), rtol=0, atol=1e-8)
    assert policy.critic[4].weight.norm().item() == pytest.approx(1.0)
    assert all((p == 0).all() for n, p in policy.named_parameters() if n.endswith("bias"))


def test_methods_agree_with_each_other(policy):
    policy.flat.data.mul_(3)
    obs = torch.randn(50, 4)
    actions, log_probs, values = policy.get_action_value(obs)
    again, entropy = policy.get_logprob_and_entropy(obs, actions)
    torch.testing.assert_close(log_probs, again)
    assert torch.equal(values, policy.get_value(obs))
    p = policy.actor(obs).softmax(-1)
    torch.testing.assert_close(entropy, -(p * p.log()).sum(-1))
    assert torch.equal(policy.act(obs), p.argmax(-1))
    assert actions.shape == log_probs.shape == values.shape == entropy.shape == (50,)
    drawn, log_probs = policy.get_action_and_logprob(obs)
    torch.testing.assert_close(log_probs, policy.get_logprob_and_entropy(obs, drawn)[0])
    sample = policy.sample(obs, torch.rand(50))
    expected = policy.get_logprob_and_entropy(obs, sample.actions)[0].detach()
    torch.testing.assert_close(sample.log_probs, expected, rtol=0, atol=2e-6)


def test_sampling_inverts_the_distribution():
    # p = 0.2, 0.3, 0.5: cumulative 0.2, 0.5, 1.
    logits = torch.tensor([0.2, 0.3, 0.5]).log().expand(6, 3)
    uniforms = torch.tensor([0.0, 0.199, 0.201, 0.499, 0.501, 1 - 2**-24])
    actions, log_probs = sample_categorical(logits, uniforms)
    assert actions.tolist() == [0, 0, 1, 1, 2, 2]
    expected = [math.log(p) for p in (0.2, 0.2, 0.3, 0.3, 0.5, 0.5)]
    np.testing.assert_allclose(log_probs.numpy(), expected, rtol=1e-6)


def test_sampled_frequencies_match_the_probabilities():
    n = 200_000
    p = torch.tensor([0.05, 0.7, 0.25])
    actions, _ = sample_categorical(p.log().expand(n, 3), (torch.arange(n) + 0.5) / n)
    torch.testing.assert_close(actions.bincount(minlength=3) / n, p, rtol=0, atol=2e-5)


@pytest.mark.parametrize("bad", [(0, 2, 64), (4, 0, 64), (4, 2, -1), (4.0, 2, 64)], ids=str)
def test_sizes_are_checked(bad):
    with pytest.raises(ValueError, match="positive integer"):
        DiscretePolicy(*bad)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 4, 1)], ids=str)
@pytest.mark.parametrize("method", ["get_value", "get_action_value", "act"])
def test_observation_shape_is_checked(policy, method, shape):
    with pytest.raises(ValueError, match=r"obs: expected shape \(B, 4\)"):
        getattr(policy, method)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("obs_space", "action_space", "message"),
    [
        (spaces.Discrete(5), spaces.Discrete(2), "Box"),
        (spaces.Box(0, 1, (2, 2)), spaces.Discrete(2), "one dimension"),
        (spaces.Box(0, 1, (2,)), spaces.Box(-1, 1, (1,)), "Discrete action"),
        (spaces.Box(0, 1, (2,)), spaces.Discrete(3, start=1), "from 0"),
    ],
    ids=["discrete-obs", "image", "box-action", "start"],
)
def test_unsuitable_spaces_are_refused(obs_space, action_space, message):
    with pytest.raises(ValueError, match=message):
        policy_for_spaces(obs_space, action_space)
