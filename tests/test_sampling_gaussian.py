"""sample_gaussian and sample_squashed_gaussian: values, draws, gradients, torch, bad input."""

import math

import numpy as np
import pytest
import torch
from fake_device import run_on_fake_device
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_cases import DTYPES, assert_gaussian, make_gaussian, sample_gaussian
from sampling_reference import gaussian_reference, normals_reference

import rlox_gpu

SQUASH = pytest.mark.parametrize("squash", [False, True], ids=["plain", "squashed"])


@SQUASH
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (1, 1), (63, 3), (64, 4), (1000, 6), (2, 300), (3, 5, 7)])
def test_gaussian_matches_reference(shape, dtype, squash):
    for shared in (False, True):
        assert_gaussian(*make_gaussian(0, *shape, dtype=dtype, shared=shared), squash=squash)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    width=st.integers(1, 20),
    layout=st.sampled_from(["plain", "transposed", "strided", "expanded"]),
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**32 - 1),
    squash=st.booleans(),
)
def test_gaussian_of_any_layout_torch_and_numpy(rows, width, layout, seed, step, squash):
    mean, log_std = make_gaussian(1, rows, width)
    if layout == "transposed":
        mean = mean.T.contiguous().T
    elif layout == "strided":
        log_std = torch.stack([log_std, log_std], -1)[..., 0]
    elif layout == "expanded":
        mean = mean[:1].expand(rows, width)
    result = sample_gaussian(mean, log_std, seed, step, squash=squash)
    noise = torch.from_numpy(normals_reference(rows, width, seed, step))
    wanted = gaussian_reference(mean.double(), log_std.double(), noise, squash=squash)
    for got, want in zip(result, wanted, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=3e-5, atol=3e-5)
    arrays = sample_gaussian(mean.numpy(), log_std.numpy(), seed, step, squash=squash)
    for got, want in zip(arrays, result, strict=True):
        assert type(got) is np.ndarray
        np.testing.assert_array_equal(got, want.numpy())


@SQUASH
def test_no_rows_give_no_draws(squash):
    result = sample_gaussian(torch.zeros(0, 3), torch.zeros(3), squash=squash)
    assert result.actions.shape == (0, 3)
    assert result.log_prob.shape == (0,)


def test_a_million_draws_follow_the_normal_distribution():
    zeros = torch.zeros(250_000, 4)
    noise = np.sort(sample_gaussian(zeros, zeros[0]).actions.double().flatten().numpy())
    count = len(noise)
    exact = 0.5 * (1 + torch.erf(torch.from_numpy(noise) / math.sqrt(2)).numpy())
    steps = np.arange(count + 1) / count
    distance = max((steps[1:] - exact).max(), (exact - steps[:-1]).max())
    # Kolmogorov and Smirnov's quantile of one in a million.
    assert distance * math.sqrt(count) < 2.7
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((noise**power).mean() - moment) < 5 * math.sqrt(variance / count)


def test_entries_rows_and_steps_are_uncorrelated():
    zeros = torch.zeros(50_000, 6)
    first, second = (sample_gaussian(zeros, zeros, step=step).actions.double() for step in (1, 2))
    columns = torch.cat([first, second, first.roll(1, 0)], 1)
    for power in (1, 2):
        off = torch.corrcoef((columns**power).T) - torch.eye(18)
        assert off.abs().max() < 5 / math.sqrt(50_000)


def test_a_draw_depends_on_its_row_alone():
    mean, log_std = make_gaussian(2, 20_000, 3)
    whole = sample_gaussian(mean, log_std)
    for count in (1, 77, 5000):
        part = sample_gaussian(mean[:count], log_std[:count])
        assert torch.equal(part.actions, whole.actions[:count])
        assert torch.equal(part.log_prob, whole.log_prob[:count])
    assert not torch.equal(sample_gaussian(mean, log_std, step=6).actions, whole.actions)
    assert not torch.equal(sample_gaussian(mean, log_std, seed=4).actions, whole.actions)


def test_log_prob_is_that_of_torch():
    mean, log_std = make_gaussian(3, 200, 4, dtype=torch.float64)
    normal = torch.distributions.Normal(mean, log_std.exp())
    actions, log_prob = sample_gaussian(mean, log_std)
    torch.testing.assert_close(log_prob, normal.log_prob(actions).sum(-1))
    tanh = torch.distributions.TransformedDistribution(
        normal, [torch.distributions.TanhTransform()]
    )
    actions, log_prob = sample_gaussian(mean, log_std, squash=True)
    torch.testing.assert_close(log_prob, tanh.log_prob(actions).sum(-1), rtol=1e-6, atol=1e-6)


def test_squashed_log_prob_is_finite_where_tanh_is_one():
    mean = torch.tensor([[40.0], [-40.0], [1e4]], requires_grad=True)
    log_std = torch.zeros(1, requires_grad=True)
    actions, log_prob = sample_gaussian(mean, log_std, squash=True)
    assert actions[:, 0].tolist() == [1.0, -1.0, 1.0]
    assert log_prob.isfinite().all()
    # ln(1 - tanh(x)^2) is 2 ln 2 - 2 |x| out there.
    assert abs(log_prob[2].item() - 2e4) < 20
    log_prob.sum().backward()
    assert mean.grad[:, 0].tolist() == [2.0, -2.0, 2.0]
    assert log_std.grad.isfinite().all()


@SQUASH
def test_nan_stays_in_its_own_row(squash):
    mean, log_std = make_gaussian(4, 10, 3)
    clean = sample_gaussian(mean, log_std, squash=squash)
    mean[4, 1] = torch.nan
    result = sample_gaussian(mean, log_std, squash=squash)
    assert result.actions.isnan().sum() == 1
    assert result.actions[4, 1].isnan()
    kept = torch.arange(10) != 4
    assert torch.equal(result.log_prob[kept], clean.log_prob[kept])
    # Without tanh the density at the draw does not know the mean.
    assert result.log_prob[4].isnan() == squash


@SQUASH
def test_reference_and_kernel_pass_gradcheck(squash):
    mean, log_std = (x.requires_grad_() for x in make_gaussian(5, 3, 4, dtype=torch.float64))
    noise = torch.from_numpy(normals_reference(3, 4, 3, 5))
    assert torch.autograd.gradcheck(
        lambda *x: gaussian_reference(*x, noise, squash=squash), (mean, log_std)
    )
    assert torch.autograd.gradcheck(
        lambda *x: tuple(sample_gaussian(*x, squash=squash)), (mean, log_std)
    )


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@SQUASH
@pytest.mark.parametrize("step_at", [None, torch.tensor(7)])
def test_ops_pass_opcheck(step_at, squash):
    mean, log_std = (x.requires_grad_() for x in make_gaussian(6, 4, 3))
    actions, log_prob = (torch.ones_like(x) for x in sample_gaussian(mean, log_std))
    draw = (-1, 3, step_at, squash)
    torch.library.opcheck(torch.ops.rlox_gpu.sample_gaussian.default, (mean, log_std, *draw))
    torch.library.opcheck(
        torch.ops.rlox_gpu.sample_gaussian_backward.default,
        (mean.detach(), log_std.detach(), actions.detach(), log_prob.detach(), *draw),
    )


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compiles_without_a_graph_break():
    def loss(mean, log_std, step):
        actions, log_prob = sample_gaussian(mean, log_std, step=step, squash=True)
        return (actions * 2).sum() + log_prob.sum()

    torch.compiler.reset()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    grads = []
    for f in (compiled, loss):
        mean, log_std = (x.requires_grad_() for x in make_gaussian(7, 4, 3, shared=True))
        f(mean, log_std, torch.tensor(3)).backward()
        grads.append((mean.grad, log_std.grad))
    torch.testing.assert_close(*grads)


def test_the_backward_pass_draws_the_noise_of_the_forward_pass():
    mean, log_std = (x.requires_grad_() for x in make_gaussian(8, 5, 3))
    step = torch.tensor(5)
    actions = sample_gaussian(mean, log_std, step=step).actions
    step += 1
    actions.sum().backward()
    torch.testing.assert_close(log_std.grad, (actions - mean).detach(), rtol=1e-5, atol=1e-6)


def _on_fake_device():
    import torch

    import rlox_gpu

    mean = torch.randn(6, 3, device="gpu", requires_grad=True)
    log_std = torch.zeros(3, device="gpu", requires_grad=True)
    step = torch.zeros((), dtype=torch.int64, device="gpu")
    for op in (rlox_gpu.sample_gaussian, rlox_gpu.sample_squashed_gaussian):
        result = op(mean, log_std, seed=1, step=step)
        assert result.actions.device.type == result.log_prob.device.type == "gpu"
        (result.log_prob.sum() + result.actions.sum()).backward()
    assert log_std.grad.shape == (3,)


def test_runs_on_a_device_that_does_not_exist():
    run_on_fake_device(_on_fake_device)


BAD_CALLS = {
    "mean list": ({"mean": [0.0]}, TypeError, "mean"),
    "mean integers": ({"mean": torch.zeros(3, 2, dtype=torch.int64)}, TypeError, "mean"),
    "mean empty": ({"mean": torch.zeros(3, 0)}, ValueError, "mean"),
    "mean number": ({"mean": torch.tensor(0.0)}, ValueError, "mean"),
    "log_std number": ({"log_std": 0.0}, TypeError, "log_std"),
    "log_std numpy": ({"log_std": np.zeros(2, np.float32)}, TypeError, "log_std"),
    "log_std dtype": ({"log_std": torch.zeros(2).double()}, TypeError, "log_std"),
    "log_std width": ({"log_std": torch.zeros(3)}, ValueError, "log_std"),
    "log_std rows": ({"log_std": torch.zeros(1, 2)}, ValueError, "log_std"),
    "log_std device": ({"log_std": torch.zeros(2, device="meta")}, ValueError, "log_std"),
    "seed": ({"seed": -1}, ValueError, "seed"),
    "step": ({"step": 2**32}, ValueError, "step"),
    "step float": ({"step": 0.5}, TypeError, "step"),
}


@SQUASH
@pytest.mark.parametrize(("changes", "error", "name"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_named(changes, error, name, squash):
    op = rlox_gpu.sample_squashed_gaussian if squash else rlox_gpu.sample_gaussian
    arguments = {"mean": torch.zeros(3, 2), "log_std": torch.zeros(2), "seed": 0, "step": 0}
    arguments |= changes
    with pytest.raises(error, match=f"^{name}"):
        op(arguments.pop("mean"), arguments.pop("log_std"), **arguments)
