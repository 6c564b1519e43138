"""dpo_loss on arrays and tensors: against the reference, through torch, bad input."""

import numpy as np
import pytest
import torch
from fake_device import run_on_fake_device
from hypothesis import given, settings
from hypothesis import strategies as st
from preferences_inputs import DTYPES, LOSSES, REDUCTIONS, assert_dpo_close, make_logps
from preferences_kernel_cases import (
    check_dpo_loss_and_gradients,
    check_dpo_loss_dtypes,
    check_dpo_loss_far_from_zero,
    check_dpo_loss_of_no_pairs,
)
from preferences_reference import dpo_reference, dpo_torch

import rlox_gpu
from rlox_gpu import dpo_loss


@pytest.fixture
def device():
    return "cpu"


test_dpo_loss_and_gradients = check_dpo_loss_and_gradients
test_dpo_loss_dtypes = check_dpo_loss_dtypes
test_dpo_loss_far_from_zero = check_dpo_loss_far_from_zero
test_dpo_loss_of_no_pairs = check_dpo_loss_of_no_pairs


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.sampled_from([0, 1, 63, 64, 1000]),
    dtype=st.sampled_from(DTYPES),
    loss=st.sampled_from(LOSSES),
    reduction=st.sampled_from(REDUCTIONS),
    beta=st.sampled_from([0.01, 0.1, 1.0]),
    step=st.sampled_from([1, 2, -1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_losses_match_the_reference(pairs, dtype, loss, reduction, beta, step, seed):
    logps = make_logps(seed, pairs, dtype)
    options = {
        "loss_type": loss[0],
        "label_smoothing": loss[1],
        "reduction": reduction,
        "beta": beta,
    }
    if dtype not in (torch.float16, torch.bfloat16):
        arrays = [np.repeat(x.numpy(), abs(step))[:: abs(step)][::step] for x in logps]
        result = dpo_loss(*arrays, **options)
        expected = dpo_reference(*(x.astype(np.float64) for x in arrays), **options)
        for got, want in zip(result, expected, strict=True):
            assert isinstance(got, np.ndarray)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    if not (dtype is torch.float16 and loss[0] == "ipo"):
        result = dpo_loss(*logps, **options)
        if reduction != "sum" or dtype.itemsize > 2:
            assert_dpo_close(result, logps, **options)


def test_a_hand_computed_pair():
    # h = (-1 - -3) - (-2 - -2) = 2.
    logps = [np.array([x]) for x in (-1.0, -3.0, -2.0, -2.0)]
    loss, chosen, rejected = dpo_loss(*logps, beta=0.5)
    assert loss == pytest.approx(np.log1p(np.exp(-1.0)))
    assert (chosen[0], rejected[0]) == (0.5, -0.5)
    assert dpo_loss(*logps, beta=0.25, loss_type="hinge").loss == 0.5
    assert dpo_loss(*logps, beta=0.25, loss_type="ipo").loss == 0.0


def test_an_undecided_policy_loses_log_2():
    logps = [torch.full((5,), -3.0) for _ in range(4)]
    assert dpo_loss(*logps).loss == pytest.approx(np.log(2))


def test_rewards_are_constants_and_the_gradient_is_checked():
    logps = [x.requires_grad_() for x in make_logps(2, 6, torch.float64)]
    result = dpo_loss(*logps)
    assert result.loss.requires_grad
    assert not result.chosen_rewards.requires_grad
    for loss_type, smoothing in LOSSES:
        options = {"loss_type": loss_type, "label_smoothing": smoothing}
        for function in (dpo_torch, lambda *x, **o: dpo_loss(*x, **o).loss):
            assert torch.autograd.gradcheck(lambda *x, f=function, o=options: f(*x, **o), logps)


def test_only_the_policy_may_want_gradients():
    logps = make_logps(3, 6)
    logps[0].requires_grad_()
    dpo_loss(*logps).loss.backward()
    assert logps[0].grad is not None
    assert logps[3].grad is None


def test_arrays_of_records_are_taken():
    records = np.zeros(9, np.dtype([("flag", "u1"), *((name, "f4") for name in "abcd")]))
    logps = make_logps(4, 9)
    for name, x in zip("abcd", logps, strict=True):
        records[name] = x.numpy()
    result = dpo_loss(*(records[name] for name in "abcd"))
    assert result.loss == dpo_loss(*logps).loss


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_ops_pass_opcheck():
    logps = [x.requires_grad_() for x in make_logps(5, 6)]
    dpo_loss(*logps)
    for reduction in range(3):
        torch.library.opcheck(torch.ops.rlox_gpu.dpo_loss.default, (*logps, 0, 0.1, 0.1, reduction))
    torch.library.opcheck(
        torch.ops.rlox_gpu.dpo_loss_backward.default,
        (torch.ones(6), torch.ones(6), torch.float32),
    )


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_without_a_graph_break(backend):
    def loss(*logps):
        return dpo_loss(*logps, label_smoothing=0.1).loss * 2

    torch.compiler.reset()
    grads = []
    for function in (loss, torch.compile(loss, backend=backend, fullgraph=True)):
        logps = make_logps(6, 7)
        logps[0].requires_grad_()
        function(*logps).backward()
        grads.append(logps[0].grad)
    torch.testing.assert_close(*grads)


def _on_fake_device():
    import torch

    import rlox_gpu

    logps = [torch.randn(5, device="gpu", requires_grad=True) for _ in range(4)]
    result = rlox_gpu.dpo_loss(*logps)
    assert result.loss.device.type == result.chosen_rewards.device.type == "gpu"
    result.loss.backward()
    assert logps[0].grad.device.type == "gpu"


def test_runs_on_a_device_that_does_not_exist():
    run_on_fake_device(_on_fake_device)


X = torch.zeros(3)
BAD_CALLS = {
    "list": ({"policy_chosen_logps": [0.0]}, TypeError, "policy_chosen_logps"),
    "matrix": ({"policy_chosen_logps": torch.zeros(3, 1)}, ValueError, "policy_chosen_logps"),
    "integers": ({"policy_chosen_logps": torch.zeros(3).int()}, TypeError, "policy_chosen_logps"),
    "shape": ({"policy_rejected_logps": torch.zeros(4)}, ValueError, "policy_rejected_logps"),
    "dtype": ({"ref_chosen_logps": X.double()}, TypeError, "ref_chosen_logps"),
    "device": ({"ref_rejected_logps": X.to("meta")}, ValueError, "ref_rejected_logps"),
    "beta zero": ({"beta": 0}, ValueError, "beta"),
    "beta NaN": ({"beta": float("nan")}, ValueError, "beta"),
    "beta text": ({"beta": "0.1"}, TypeError, "beta"),
    "smoothing": ({"label_smoothing": 1.5}, ValueError, "label_smoothing"),
    "smoothed hinge": (
        {"label_smoothing": 0.1, "loss_type": "hinge"},
        ValueError,
        "label_smoothing: expected 0 for loss_type 'hinge'",
    ),
    "loss_type": ({"loss_type": "dpo"}, ValueError, "loss_type: expected one of sigmoid"),
    "reduction": ({"reduction": "sequence"}, ValueError, "reduction"),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_named(changes, error, message):
    names = ("policy_chosen_logps", "policy_rejected_logps", "ref_chosen_logps")
    logps = dict.fromkeys((*names, "ref_rejected_logps"), X)
    with pytest.raises(error, match=message):
        rlox_gpu.dpo_loss(**(logps | changes))
