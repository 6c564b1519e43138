"""The policy losses on the CPU: numbers, gradients, identities, torch's machinery, bad input."""

import math

import numpy as np
import policy_losses_kernel_cases as cases
import pytest
import torch
from fake_device import run_on_fake_device
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_losses_inputs import (
    DTYPES,
    doubled,
    gradients,
    grpo_formula,
    make_grpo_inputs,
    make_ppo_inputs,
    ppo_formula,
)
from policy_losses_reference import grpo_reference, ppo_reference
from torch_inputs import with_layout

import rlox_gpu

for _name, _check in vars(cases).copy().items():
    if _name.startswith("check_"):
        globals()["test_" + _name.removeprefix("check_")] = _check


@pytest.fixture
def device():
    return "cpu"


def _arrays(inputs):
    return {name: x.numpy() for name, x in inputs.items()}


# -- numbers and gradients -------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 80),
    actions=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
    masked=st.booleans(),
    clip_eps=st.floats(0.01, 0.5),
    vf_coef=st.floats(0, 2),
    ent_coef=st.floats(0, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_ppo_matches_reference(count, actions, dtype, masked, clip_eps, vf_coef, ent_coef, seed):
    inputs = make_ppo_inputs(seed, count, actions, dtype, masked=masked)
    options = {"clip_eps": clip_eps, "vf_coef": vf_coef, "ent_coef": ent_coef}
    result = rlox_gpu.ppo_loss(**inputs, **options)
    arrays = {k: x.double().numpy() for k, x in inputs.items()}
    expected = ppo_reference(**arrays | {"actions": inputs["actions"].numpy()}, **options)
    # A ratio on the very edge of the interval may count either way: not the last number.
    cases.assert_terms(result[:5], expected[:5], dtype)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 6),
    length=st.integers(0, 150),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    options=st.fixed_dictionaries(
        {
            "clip_eps_low": st.none() | st.floats(0.01, 0.5),
            "clip_eps_high": st.none() | st.floats(0.01, 0.5),
            "kl_coef": st.floats(0, 1),
            "kl_kind": st.sampled_from(["k1", "k2", "k3"]),
            "ratio_level": st.sampled_from(["token", "sequence"]),
        }
    ),
    aggregation=st.sampled_from(["grpo", "dr_grpo", "dapo"]),
    masked=st.booleans(),
    per_token=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_grpo_matches_reference(rows, length, dtype, options, aggregation, masked, per_token, seed):
    masked = masked and rows > 0
    inputs = make_grpo_inputs(seed, rows, length, dtype, masked=masked, per_token=per_token)
    options |= {"aggregation": aggregation}
    if aggregation == "dr_grpo":
        options["max_tokens"] = 77
    result = rlox_gpu.grpo_loss(**inputs, **options)
    if rows:
        expected = grpo_reference(**{k: x.double().numpy() for k, x in inputs.items()}, **options)
        cases.assert_terms(result[:3], expected[:3], dtype)
    else:
        assert [float(x) for x in result] == [0.0] * 4


@pytest.mark.parametrize("kind", ["numpy", "dlpack"])
def test_other_arrays_get_the_same_numbers(kind):
    class Foreign:
        """An array of another library, as DLPack sees it."""

        def __init__(self, x):
            self.x, self.shape, self.dtype, self.ndim = x, x.shape, x.dtype, x.ndim

        def __dlpack__(self, **options):
            return self.x.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.x.__dlpack_device__()

    wrap = (lambda x: x) if kind == "numpy" else Foreign
    for op, inputs in (
        (rlox_gpu.ppo_loss, make_ppo_inputs(0, 50, 4)),
        (rlox_gpu.grpo_loss, make_grpo_inputs(0, 5, 20)),
    ):
        inputs["mask"] = inputs["mask"].to(torch.uint8)
        got = op(**{k: wrap(x) for k, x in _arrays(inputs).items()})
        assert all(isinstance(x, np.ndarray) and x.shape == () for x in got)
        assert [float(x) for x in got] == [float(x) for x in op(**inputs)]


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_numpy_results_have_the_dtype_of_sums(dtype):
    inputs = {k: x.numpy() for k, x in make_ppo_inputs(0, 9, 3, masked=False).items()}
    inputs = {k: x.astype(dtype) if x.dtype == np.float32 else x for k, x in inputs.items()}
    expected = np.float64 if dtype is np.float64 else np.float32
    assert {x.dtype for x in rlox_gpu.ppo_loss(**inputs)} == {np.dtype(expected)}


@pytest.mark.parametrize("layout", ["transposed", "strided"])
def test_other_layouts_give_the_same_bits(layout):
    for op, inputs, leaves in (
        (rlox_gpu.ppo_loss, make_ppo_inputs(1, 50, 4), ("logits", "values")),
        (rlox_gpu.grpo_loss, make_grpo_inputs(1, 5, 20, per_token=True), ("logprobs",)),
    ):
        moved = {k: with_layout(x, layout) for k, x in inputs.items()}
        assert [x.item() for x in op(**moved)] == [x.item() for x in op(**inputs)]
        found, expected = (gradients(op, x, leaves) for x in (moved, inputs))
        assert all(map(torch.equal, found, expected))


def test_leading_shapes_change_nothing():
    inputs = make_ppo_inputs(2, 60, 4)
    folded = {k: x.reshape(5, 12, *x.shape[1:]) for k, x in inputs.items()}
    leaves = ("logits", "values")
    assert rlox_gpu.ppo_loss(**folded).loss == rlox_gpu.ppo_loss(**inputs).loss
    found = gradients(rlox_gpu.ppo_loss, folded, leaves)
    expected = gradients(rlox_gpu.ppo_loss, inputs, leaves)
    for got, want in zip(found, expected, strict=True):
        assert torch.equal(got.reshape(want.shape), want)


@pytest.mark.parametrize("flags", [torch.uint8, torch.int64, torch.float32])
def test_masks_of_any_dtype(flags):
    inputs = make_ppo_inputs(3, 60, 4)
    expected = rlox_gpu.ppo_loss(**inputs).loss
    inputs["mask"] = inputs["mask"].to(flags) * 2
    assert rlox_gpu.ppo_loss(**inputs).loss == expected


def test_nothing_valid_is_zero():
    ppo, grpo = make_ppo_inputs(4, 20, 3), make_grpo_inputs(4, 4, 6)
    for op, inputs, leaves in (
        (rlox_gpu.ppo_loss, ppo, ("logits", "values")),
        (rlox_gpu.grpo_loss, grpo, ("logprobs",)),
    ):
        inputs["mask"] = torch.zeros_like(inputs["mask"])
        assert [x.item() for x in op(**inputs)] == [0.0] * len(op(**inputs))
        assert not any(x.any() for x in gradients(op, inputs, leaves))
        empty = {k: x[:0] for k, x in inputs.items()}
        assert [x.item() for x in op(**empty)] == [0.0] * len(op(**empty))
        assert all(x.numel() == 0 for x in gradients(op, empty, leaves))


def test_results_do_not_depend_on_threads():
    inputs = make_ppo_inputs(5, 30_000, 4)
    found = rlox_gpu.ppo_loss(**inputs)
    for _ in range(3):
        assert rlox_gpu.ppo_loss(**inputs) == found


def test_formulas_pass_gradcheck():
    inputs = doubled(make_ppo_inputs(6, 7, 3))
    leaves = [inputs.pop(name).requires_grad_() for name in ("logits", "values")]
    assert torch.autograd.gradcheck(
        lambda logits, values: ppo_formula(logits=logits, values=values, **inputs), leaves
    )
    inputs = doubled(make_grpo_inputs(6, 4, 5))
    logprobs = inputs.pop("logprobs").requires_grad_()
    for options in cases.VARIANTS.values():
        assert torch.autograd.gradcheck(
            lambda x, options=options: grpo_formula(logprobs=x, **inputs, **options), [logprobs]
        )


# -- identities ------------------------------------------------------------------------------


def test_at_ratio_one_the_gradient_is_the_policy_gradient():
    inputs = make_grpo_inputs(7, 4, 6, torch.float64, masked=False, reference=False)
    inputs["old_logprobs"] = inputs["logprobs"]
    for level in ("token", "sequence"):
        (found,) = gradients(rlox_gpu.grpo_loss, inputs, ("logprobs",), ratio_level=level)
        expected = -3 * inputs["advantages"][:, None].expand(4, 6) / 24
        torch.testing.assert_close(found, expected)


def test_sequences_of_one_token_know_no_ratio_levels():
    inputs = make_grpo_inputs(8, 9, 1, torch.float64, masked=False)
    results = [
        rlox_gpu.grpo_loss(**inputs, ratio_level=level, aggregation=way)
        for level in ("token", "sequence")
        for way in ("grpo", "dapo")
    ]
    assert all(torch.equal(r.loss, results[0].loss) for r in results)


def test_k3_is_never_negative_and_zero_at_the_reference():
    inputs = make_grpo_inputs(9, 9, 30)
    assert rlox_gpu.grpo_loss(**inputs).kl > 0
    inputs["ref_logprobs"] = inputs["logprobs"]
    assert rlox_gpu.grpo_loss(**inputs).kl == 0


def test_padding_changes_nothing():
    inputs = make_grpo_inputs(10, 4, 30)
    padded = {
        k: torch.nn.functional.pad(x.float(), (0, 70), value=0 if k == "mask" else torch.nan)
        if x.ndim == 2
        else x
        for k, x in inputs.items()
    }
    for options in cases.VARIANTS.values():
        (want,) = gradients(rlox_gpu.grpo_loss, inputs, ("logprobs",), **options)
        (got,) = gradients(rlox_gpu.grpo_loss, padded, ("logprobs",), **options)
        torch.testing.assert_close(got[:, :30], want)
        assert not got[:, 30:].any()


def test_an_unused_reference_cannot_spoil_the_loss():
    inputs = make_grpo_inputs(11, 4, 30, masked=False)
    inputs["ref_logprobs"][0, 0] = torch.inf
    (found,) = gradients(rlox_gpu.grpo_loss, inputs, ("logprobs",))
    assert found.isfinite().all()
    assert rlox_gpu.grpo_loss(**inputs).loss.isfinite()


def test_a_nan_shows_in_loss_and_gradient():
    inputs = make_ppo_inputs(12, 9, 3, masked=False)
    inputs["advantages"][4] = torch.nan
    assert rlox_gpu.ppo_loss(**inputs).loss.isnan()
    logits, values = gradients(rlox_gpu.ppo_loss, inputs, ("logits", "values"))
    assert logits[4].isnan().all()
    assert logits[torch.arange(9) != 4].isfinite().all()
    assert values.isfinite().all()


# -- torch's machinery -----------------------------------------------------------------------


def _positional(inputs, *names):
    return [inputs.get(name) for name in names]


def _op_calls():
    ppo = ("logits", "actions", "old_log_probs", "advantages", "returns", "values", "old_values")
    grpo = ("logprobs", "old_logprobs", "advantages", "ref_logprobs", "mask")
    for masked in (False, True):
        inputs = make_ppo_inputs(13, 9, 3, masked=masked)
        for name in ("logits", "values"):
            inputs[name].nan_to_num_().requires_grad_()
        yield "ppo_loss", (*_positional(inputs, *ppo, "mask"), 0.2, 0.5, 0.01)
        inputs = make_grpo_inputs(13, 4, 5, masked=masked)
        inputs["logprobs"].nan_to_num_().requires_grad_()
        yield "grpo_loss", (*_positional(inputs, *grpo), 0.8, 1.2, 0.1, 2, False, 0, 1.0)
    yield "scaled", (torch.ones(3, 4), torch.ones(3), torch.tensor(2.0))


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_ops_pass_opcheck():
    make = make_ppo_inputs(13, 9, 3)
    rlox_gpu.ppo_loss(**make)
    for name, arguments in _op_calls():
        torch.library.opcheck(getattr(torch.ops.rlox_gpu, name).default, arguments)


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_without_a_graph_break(backend):
    torch.compiler.reset()
    ppo, grpo = make_ppo_inputs(14, 9, 3), make_grpo_inputs(14, 4, 5)
    leaves = ppo["logits"].requires_grad_(), grpo["logprobs"].requires_grad_()

    def both(ppo, grpo):
        terms = rlox_gpu.grpo_loss(**grpo, clip_eps_high=None, kl_coef=0.1)
        return rlox_gpu.ppo_loss(**ppo).loss + 2 * terms.loss, terms.kl

    compiled = torch.compile(both, backend=backend, fullgraph=True)
    for found, expected in zip(compiled(ppo, grpo), both(ppo, grpo), strict=True):
        torch.testing.assert_close(found, expected)
    found, expected = (torch.autograd.grad(f(ppo, grpo)[0], leaves) for f in (compiled, both))
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want)


def test_only_the_loss_has_a_graph():
    inputs = make_ppo_inputs(15, 9, 3)
    inputs["logits"].requires_grad_()
    inputs["advantages"].requires_grad_()
    loss, *parts = rlox_gpu.ppo_loss(**inputs)
    assert loss.requires_grad
    assert not any(part.requires_grad for part in parts)
    loss.backward()
    assert inputs["advantages"].grad is None


def _losses_on_fake_device():
    import torch

    import rlox_gpu

    logits = torch.randn(16, 4, device="gpu", requires_grad=True)
    values = torch.randn(16, device="gpu", requires_grad=True)
    actions = torch.zeros(16, dtype=torch.int64, device="gpu")
    column = torch.randn(16, device="gpu")
    terms = rlox_gpu.ppo_loss(logits, actions, column, column, column, values, old_values=column)
    terms.loss.backward()
    assert logits.grad.device.type == values.grad.device.type == "gpu"
    logprobs = torch.randn(4, 8, device="gpu", requires_grad=True)
    mask = torch.ones(4, 8, device="gpu")
    terms = rlox_gpu.grpo_loss(logprobs, logprobs, torch.randn(4, device="gpu"), mask=mask)
    terms.loss.backward()
    assert logprobs.grad.shape == (4, 8)
    assert terms.clip_fraction.device.type == "gpu"


def test_losses_run_on_a_device_that_does_not_exist():
    run_on_fake_device(_losses_on_fake_device)


# -- bad input -------------------------------------------------------------------------------

_BAD_PPO = {
    "logits list": ({"logits": [0.0]}, TypeError, "logits"),
    "logits dtype": ({"logits": torch.zeros(6, 3).long()}, TypeError, "logits"),
    "logits without actions": ({"logits": torch.zeros(6, 0)}, ValueError, "logits"),
    "logits 0-d": ({"logits": torch.tensor(0.0)}, ValueError, "logits"),
    "actions shape": ({"actions": torch.zeros(5).long()}, ValueError, "actions"),
    "actions dtype": ({"actions": torch.zeros(6).int()}, TypeError, "actions"),
    "actions numpy": ({"actions": np.zeros(6, np.int64)}, TypeError, "actions"),
    "old_log_probs None": ({"old_log_probs": None}, TypeError, "old_log_probs"),
    "advantages shape": ({"advantages": torch.zeros(6, 1)}, ValueError, "advantages"),
    "returns dtype": ({"returns": torch.zeros(6).double()}, TypeError, "returns"),
    "values device": ({"values": torch.zeros(6, device="meta")}, ValueError, "values"),
    "old_values shape": ({"old_values": torch.zeros(())}, ValueError, "old_values"),
    "mask shape": ({"mask": torch.zeros(6, 3)}, ValueError, "mask"),
    "mask dtype": ({"mask": torch.zeros(6) * 1j}, TypeError, "mask"),
    "clip_eps negative": ({"clip_eps": -0.1}, ValueError, "clip_eps"),
    "vf_coef NaN": ({"vf_coef": math.nan}, ValueError, "vf_coef"),
    "ent_coef tensor": ({"ent_coef": torch.tensor(0.1)}, TypeError, "ent_coef"),
}
_BAD_GRPO = {
    "logprobs 1-d": ({"logprobs": torch.zeros(6)}, ValueError, "logprobs"),
    "logprobs dtype": ({"logprobs": torch.zeros(4, 6).int()}, TypeError, "logprobs"),
    "old_logprobs shape": ({"old_logprobs": torch.zeros(4, 5)}, ValueError, "old_logprobs"),
    "advantages shape": ({"advantages": torch.zeros(6)}, ValueError, "advantages"),
    "advantages text": ({"advantages": "1"}, TypeError, "advantages"),
    "mask shape": ({"mask": torch.zeros(4)}, ValueError, "mask"),
    "reference dtype": ({"ref_logprobs": torch.zeros(4, 6).half()}, TypeError, "ref_logprobs"),
    "no reference": ({"kl_coef": 0.1}, ValueError, "ref_logprobs"),
    "kl_kind": ({"kl_kind": "k4"}, ValueError, "kl_kind"),
    "ratio_level": ({"ratio_level": None}, TypeError, "ratio_level"),
    "aggregation": ({"aggregation": "mean"}, ValueError, "aggregation"),
    "max_tokens missing": ({"aggregation": "dr_grpo"}, ValueError, "max_tokens"),
    "max_tokens of no use": ({"max_tokens": 5}, ValueError, "max_tokens"),
    "max_tokens zero": ({"aggregation": "dr_grpo", "max_tokens": 0}, ValueError, "max_tokens"),
    "clip_eps_low": ({"clip_eps_low": -1.0}, ValueError, "clip_eps_low"),
    "clip_eps_high": ({"clip_eps_high": "wide"}, TypeError, "clip_eps_high"),
}


@pytest.mark.parametrize(("changes", "error", "name"), _BAD_PPO.values(), ids=_BAD_PPO)
def test_bad_ppo_input_is_named(changes, error, name):
    with pytest.raises(error, match=name):
        rlox_gpu.ppo_loss(**(make_ppo_inputs(0, 6, 3, masked=False) | changes))


@pytest.mark.parametrize(("changes", "error", "name"), _BAD_GRPO.values(), ids=_BAD_GRPO)
def test_bad_grpo_input_is_named(changes, error, name):
    inputs = make_grpo_inputs(0, 4, 6, masked=False, reference=False)
    with pytest.raises(error, match=name):
        rlox_gpu.grpo_loss(**(inputs | changes))
