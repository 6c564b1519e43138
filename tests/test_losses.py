import math

import pytest
import torch

from rlox_gpu.adam import AdamState, adam_step, limit_norm
from rlox_gpu.losses import METRICS, PPOLoss, categorical_ppo_gradients
from rlox_gpu.policies import DiscretePolicy


class Table:
    """A policy that returns what it was given."""

    def __init__(self, log_probs, entropies, values):
        self.log_probs, self.entropies, self.values = log_probs, entropies, values

    def get_logprob_and_entropy(self, obs, actions):
        return self.log_probs, self.entropies

    def get_value(self, obs):
        return self.values


def batch_of(n, dtype=torch.float64, actions=3):
    generator = torch.Generator().manual_seed(n)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return {
        "logits": normal(n, actions) * 2,
        "values": normal(n),
        "actions": torch.randint(0, actions, (n,), generator=generator),
        "old_log_probs": -normal(n).abs() - 0.5,
        "advantages": normal(n),
        "returns": normal(n),
        "old_values": normal(n),
    }


def test_loss_equals_hand_computed_values():
    # ratios: 1.5, 0.5, 1.1; advantages 1, -1, 2; eps 0.2
    # min(r A, clip(r) A): min(1.5, 1.2), min(-0.5, -0.8), min(2.2, 2.2): mean = 2.6 / 3
    # values 1, 2, 3, old 0, 2, 2.5, returns 2, 2, 2: clipped 0.2, 2, 2.7
    # squared errors: max(1, 3.24), 0, max(1, 0.49): mean = 4.24 / 3
    table = Table(
        torch.tensor([1.5, 0.5, 1.1]).log(),
        torch.tensor([0.3, 0.6, 0.9]),
        torch.tensor([1.0, 2.0, 3.0]),
    )
    loss_fn = PPOLoss(clip_eps=0.2, vf_coef=0.5, ent_coef=0.01)
    loss, metrics = loss_fn(
        table,
        torch.zeros(3, 1),
        torch.zeros(3),
        torch.zeros(3),
        torch.tensor([1.0, -1.0, 2.0]),
        torch.full((3,), 2.0),
        torch.tensor([0.0, 2.0, 2.5]),
    )
    assert metrics["policy_loss"].item() == pytest.approx(-2.6 / 3)
    assert metrics["value_loss"].item() == pytest.approx(0.5 * 4.24 / 3)
    assert metrics["entropy"].item() == pytest.approx(0.6)
    kl = sum(r - 1 - math.log(r) for r in (1.5, 0.5, 1.1)) / 3
    assert metrics["approx_kl"].item() == pytest.approx(kl, rel=1e-5)
    assert metrics["clip_fraction"].item() == pytest.approx(2 / 3)
    assert loss.item() == pytest.approx(-2.6 / 3 + 0.25 * 4.24 / 3 - 0.006)
    assert next(f"{metrics[name]:.3f}" for name in METRICS) == "-0.867"


def test_value_loss_without_clip_is_half_the_squared_error():
    table = Table(torch.zeros(2), torch.zeros(2), torch.tensor([1.0, 3.0]))
    arguments = [torch.zeros(2, 1), *(torch.zeros(2) for _ in range(5))]
    _, metrics = PPOLoss(clip_vloss=False)(table, *arguments)
    assert metrics["value_loss"].item() == pytest.approx(0.5 * (1 + 9) / 2)


def test_metrics_carry_no_graph():
    policy = DiscretePolicy(4, 2, seed=0)
    n = torch.zeros(5)
    loss, metrics = PPOLoss()(policy, torch.randn(5, 4), n, n, n + 1, n, n)
    assert loss.requires_grad
    assert not any(m.requires_grad for m in metrics.values())


@pytest.mark.parametrize("ent_coef", [0.0, 0.01])
@pytest.mark.parametrize("clip_vloss", [False, True])
@pytest.mark.parametrize("n", [1, 63, 64, 1000])
def test_closed_form_gradient_equals_autograd(n, clip_vloss, ent_coef):
    data = batch_of(n)
    logits, values = data["logits"].requires_grad_(), data["values"].requires_grad_()
    log_p = logits.log_softmax(-1)
    table = Table(
        log_p.gather(-1, data["actions"][:, None])[:, 0], -(log_p.exp() * log_p).sum(-1), values
    )
    loss_fn = PPOLoss(ent_coef=ent_coef, clip_vloss=clip_vloss)
    columns = [data[k] for k in ("old_log_probs", "advantages", "returns", "old_values")]
    loss, metrics = loss_fn(table, logits, data["actions"], *columns)
    loss.backward()
    with torch.no_grad():
        found = categorical_ppo_gradients(**data, loss=loss_fn)
    torch.testing.assert_close(found.logits, logits.grad, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(found.values, values.grad, rtol=1e-12, atol=1e-15)
    expected = torch.stack([metrics[name] for name in METRICS])
    torch.testing.assert_close(found.metrics, expected, rtol=1e-12, atol=1e-12)
    silent = categorical_ppo_gradients(**data, loss=loss_fn, with_metrics=False)
    assert silent.metrics is None
    assert torch.equal(silent.logits, found.logits.detach())


def test_loss_passes_gradcheck():
    data = batch_of(6)
    columns = [data[k] for k in ("old_log_probs", "advantages", "returns", "old_values")]

    def loss(logits, values):
        log_p = logits.log_softmax(-1)
        table = Table(
            log_p.gather(-1, data["actions"][:, None])[:, 0], -(log_p.exp() * log_p).sum(-1), values
        )
        return PPOLoss()(table, logits, data["actions"], *columns)[0]

    inputs = data["logits"].requires_grad_(), data["values"].requires_grad_()
    assert torch.autograd.gradcheck(loss, inputs)


def test_at_ratio_one_the_gradient_is_the_policy_gradient():
    data = batch_of(40)
    log_p = data["logits"].log_softmax(-1)
    data["old_log_probs"] = log_p.gather(-1, data["actions"][:, None])[:, 0]
    found = categorical_ppo_gradients(**data, loss=PPOLoss(ent_coef=0.0))
    onehot = torch.nn.functional.one_hot(data["actions"], 3)
    expected = -data["advantages"][:, None] * (onehot - log_p.exp()) / 40
    torch.testing.assert_close(found.logits, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip_eps": 0.0}, "clip_eps"),
        ({"clip_eps": math.nan}, "clip_eps"),
        ({"vf_coef": -1.0}, "vf_coef"),
        ({"ent_coef": math.inf}, "ent_coef"),
    ],
    ids=str,
)
def test_coefficients_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        PPOLoss(**arguments)


@pytest.mark.parametrize(
    ("position", "shape", "message"),
    [
        (2, (4,), "old_log_probs"),
        (3, (3, 1), "advantages"),
        (4, (2,), "returns"),
        (5, (), "old_values"),
        (1, (2,), "actions"),
    ],
    ids=["old_log_probs", "advantages", "returns", "old_values", "actions"],
)
def test_shapes_are_checked(position, shape, message):
    arguments = [torch.zeros(3, 4), *(torch.zeros(3) for _ in range(5))]
    arguments[position] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        PPOLoss()(DiscretePolicy(4, 2), *arguments)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        PPOLoss()(DiscretePolicy(4, 2), torch.zeros(0, 4), *(torch.zeros(0) for _ in range(5)))


def test_adam_and_norm_limit_equal_torch():
    torch.manual_seed(0)
    data = torch.randn(100, dtype=torch.float64)
    parameter = torch.nn.Parameter(data.clone())
    optimizer = torch.optim.Adam([parameter], lr=1e-2, eps=1e-5)
    state = AdamState.like(data)
    for step in range(20):
        gradient = torch.randn(100, dtype=torch.float64) * (0.01 if step % 2 else 1.0)
        parameter.grad = gradient.clone()
        norm = torch.nn.utils.clip_grad_norm_([parameter], 0.5)
        optimizer.param_groups[0]["lr"] = 1e-2 / (step + 1)
        optimizer.step()
        assert limit_norm(gradient, 0.5) == pytest.approx(norm.item())
        adam_step(data, gradient, state, learning_rate=1e-2 / (step + 1))
    torch.testing.assert_close(data, parameter.detach(), rtol=1e-12, atol=1e-12)
