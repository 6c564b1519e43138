"""sample_categorical: values, draws, gradients, layouts, torch integration, bad input."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from fake_device import run_on_fake_device
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_cases import DTYPES, assert_categorical, assert_frequencies, make_logits, sample
from sampling_reference import categorical_gradient_reference, categorical_reference

import rlox_gpu
from rlox_gpu import _dispatch


class Exported:
    """An array of a library that is neither NumPy nor torch."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 6, 63, 64, 65, 1000])
@pytest.mark.parametrize("rows", [1, 63, 64, 1000])
def test_categorical_matches_reference(rows, classes, dtype):
    if rows * classes > 100_000:
        rows = 100
    logits = make_logits(rows + classes, rows, classes, dtype=dtype)
    assert_categorical(sample(logits), logits, 3, 5)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(["plain", "transposed", "strided", "expanded", "flipped"]),
    numpy=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**32 - 1),
)
def test_categorical_of_any_layout(shape, dtype, layout, numpy, seed, step):
    logits = make_logits(len(shape), *shape, dtype=dtype)
    if layout == "transposed":
        logits = logits.transpose(0, -1)
    elif layout == "strided":
        logits = torch.stack([logits, logits], -1)[..., 0]
    elif layout == "expanded":
        logits = logits.expand(3, *shape)
    if not numpy or dtype is torch.bfloat16:
        assert_categorical(sample(logits, seed, step), logits, seed, step)
        return
    array = logits.numpy()
    if layout == "flipped":
        array = array[..., ::-1]
        logits = logits.flip(-1)
    result = sample(array, np.uint64(seed), np.int64(step))
    assert all(type(x) is np.ndarray for x in result)
    as_tensors = rlox_gpu.CategoricalSample(*map(torch.from_numpy, result))
    assert_categorical(as_tensors, logits, seed, step)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
def test_no_rows_give_no_draws(shape):
    for logits in (torch.zeros(shape), np.zeros(shape, np.float32)):
        for part in sample(logits):
            assert tuple(part.shape) == shape[:-1]


def test_arrays_of_other_libraries_come_in_through_dlpack():
    logits = make_logits(0, 5, 4)
    result = sample(Exported(logits.numpy()))
    np.testing.assert_array_equal(np.asarray(result.actions), sample(logits).actions.numpy())


def test_numpy_needs_no_torch():
    code = (
        "import sys, numpy as np, rlox_gpu\n"
        "rlox_gpu.sample_categorical(np.zeros((3, 2)), seed=0, step=0)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("classes", [2, 6, 1000])
def test_a_million_draws_have_the_right_frequencies(classes):
    rows = 1_000_000 if classes < 100 else 20_000
    calls = 1_000_000 // rows
    logits = make_logits(1, classes, scale=1.0)
    counts = np.zeros(classes)
    for step in range(calls):
        actions = sample(logits.expand(rows, classes), seed=17, step=step).actions
        counts += np.bincount(actions.numpy(), minlength=classes)
    expected = torch.softmax(logits.double(), -1).numpy() * counts.sum()
    assert_frequencies(counts, expected)


def test_rare_classes_are_drawn_as_often_as_they_should_be():
    # Probabilities of 1e-4 and 1e-6: a million draws, Poisson counts of 100 and 1.
    logits = torch.tensor([1 - 1.01e-4, 1e-4, 1e-6], dtype=torch.float64).log().float()
    actions = sample(logits.expand(1_000_000, 3)).actions
    first, second = ((actions == v).sum().item() for v in (1, 2))
    assert 55 < first < 155
    assert second < 9


@pytest.mark.parametrize(("rows", "steps"), [(1, 40_000), (40_000, 1)])
def test_rows_and_steps_are_independent(rows, steps):
    logits = torch.zeros(rows, 4)
    draws = torch.cat([sample(logits, step=step).actions for step in range(steps)])
    pairs = np.bincount((draws[:-1] * 4 + draws[1:]).numpy(), minlength=16)
    assert_frequencies(pairs, (len(draws) - 1) / 16)
    other = torch.cat([sample(logits, seed=4, step=step).actions for step in range(steps)])
    both = np.bincount((draws * 4 + other).numpy(), minlength=16)
    assert_frequencies(both, len(draws) / 16)


def test_a_draw_depends_on_its_row_alone():
    logits = make_logits(2, 300, 5)
    whole = sample(logits).actions
    assert torch.equal(sample(logits[:77]).actions, whole[:77])
    assert torch.equal(sample(logits.reshape(3, 100, 5)).actions.flatten(), whole)
    assert not torch.equal(sample(logits, step=6).actions, whole)
    assert torch.equal(sample(logits, step=torch.tensor(5)).actions, whole)


def test_large_batches_are_shared_among_threads_without_a_trace():
    logits = make_logits(3, 30_000, 6)
    whole = sample(logits)
    parts = [sample(logits[:count]) for count in (1, 1000, 5000)]
    for part in parts:
        for got, want in zip(part, whole, strict=True):
            assert torch.equal(got, want[: len(got)])


@pytest.mark.parametrize("classes", [3, 300])
def test_negative_infinity_is_never_drawn(classes):
    logits = make_logits(4, 2000, classes)
    logits[:, 0] = logits[:, -1] = -torch.inf
    result = sample(logits)
    assert (result.actions > 0).all()
    assert (result.actions < classes - 1).all()
    assert result.log_prob.isfinite().all()
    assert result.entropy.isfinite().all()


def test_one_possible_class_is_certain():
    logits = torch.full((50, 7), -torch.inf)
    logits[:, 4] = -1e30
    actions, log_prob, entropy = sample(logits)
    assert (actions == 4).all()
    assert (log_prob == 0).all()
    assert (entropy == 0).all()


@pytest.mark.parametrize("classes", [4, 200])
def test_a_row_that_is_no_distribution_spoils_nothing_else(classes):
    logits = make_logits(5, 6, classes)
    clean = sample(logits)
    logits[1] = -torch.inf
    logits[2, 1] = torch.nan
    logits[3, 2] = torch.inf
    result = sample(logits)
    bad = torch.tensor([False, True, True, True, False, False])
    for got, want in zip(result, clean, strict=True):
        assert torch.equal(got[~bad], want[~bad])
    assert result.log_prob[bad].isnan().all()
    assert result.entropy[bad].isnan().all()
    assert ((result.actions >= 0) & (result.actions < classes)).all()


def test_large_logits_lose_no_precision_in_log_prob():
    logits = make_logits(6, 100, 5)
    result = sample(logits + 4096)
    wanted = torch.distributions.Categorical(logits=(logits + 4096).double())
    torch.testing.assert_close(
        result.log_prob.double(), wanted.log_prob(result.actions), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(result.entropy.double(), wanted.entropy(), rtol=1e-6, atol=1e-6)


def _torch_log_prob_and_entropy(logits, actions):
    distribution = torch.distributions.Categorical(logits=logits, validate_args=False)
    return distribution.log_prob(actions), distribution.entropy()


def test_reference_passes_gradcheck_and_agrees_with_torch():
    logits = make_logits(7, 4, 5, dtype=torch.float64).requires_grad_()
    actions = sample(logits).actions
    assert torch.autograd.gradcheck(lambda x: _torch_log_prob_and_entropy(x, actions), logits)
    gradients = np.random.default_rng(1).standard_normal((2, 4))
    parts = _torch_log_prob_and_entropy(logits, actions)
    torch.autograd.backward(parts, [torch.tensor(g) for g in gradients])
    wanted = categorical_gradient_reference(logits.detach().numpy(), actions, *gradients)
    np.testing.assert_allclose(logits.grad.numpy(), wanted, rtol=1e-12, atol=1e-12)


def test_kernel_passes_gradcheck():
    logits = make_logits(8, 4, 5, dtype=torch.float64).requires_grad_()

    # A small step changes no action: their leads are far larger.
    assert categorical_reference(logits.detach().numpy(), 3, 5)[3].min() > 1e-4
    assert torch.autograd.gradcheck(lambda x: sample(x)[1:], logits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 3), (3, 1), (2, 700), (4, 2, 9)])
def test_gradient_matches_reference(shape, dtype):
    logits = make_logits(9, *shape, dtype=dtype)
    leaf = logits.clone().requires_grad_()
    actions, log_prob, entropy = sample(leaf.transpose(0, 0))
    gradients = np.random.default_rng(2).standard_normal((2, actions.numel()))
    of_parts = [torch.tensor(g).to(log_prob).view(actions.shape) for g in gradients]
    torch.autograd.backward([log_prob, entropy], of_parts)
    flat = logits.double().reshape(-1, shape[-1]).numpy()
    wanted = categorical_gradient_reference(flat, actions.flatten(), *gradients)
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 2e-5}.get(dtype, 1e-12)
    got = leaf.grad.double().reshape(flat.shape).numpy()
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def test_actions_are_no_part_of_the_graph():
    logits = make_logits(10, 4, 5).requires_grad_()
    result = sample(logits)
    assert not result.actions.requires_grad
    assert result.log_prob.requires_grad
    assert result.entropy.requires_grad
    with torch.no_grad():
        assert not sample(logits).log_prob.requires_grad
    result.log_prob.sum().backward()
    assert logits.grad.sum().abs() < 1e-5


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("step_at", [None, torch.tensor(7)])
def test_ops_pass_opcheck(step_at):
    logits = make_logits(11, 4, 3, 5).requires_grad_()
    result = sample(logits)
    op = torch.ops.rlox_gpu.sample_categorical.default
    torch.library.opcheck(op, (logits, -1, 3, step_at))
    saved = [x.detach() for x in (result.log_prob, result.entropy, result.actions)]
    torch.library.opcheck(
        torch.ops.rlox_gpu.sample_categorical_backward.default,
        (logits.detach(), *saved, torch.ones(4, 3), torch.ones(4, 3)),
    )


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_without_a_graph_break(backend):
    def loss(logits, step):
        actions, log_prob, entropy = sample(logits, seed=2**64 - 1, step=step)
        return actions, (log_prob * 2 + entropy).sum()

    torch.compiler.reset()
    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    for rows in (4, 7):
        logits = [make_logits(12, rows, 5).requires_grad_() for _ in range(2)]
        step = torch.tensor(rows)
        results = [f(x, step) for f, x in zip((compiled, loss), logits, strict=True)]
        for actions, total in results:
            assert torch.equal(actions, results[1][0])
            total.backward()
        torch.testing.assert_close(logits[0].grad, logits[1].grad)


def _on_fake_device():
    import pytest
    import torch

    import rlox_gpu

    logits = torch.randn(6, 4, 3, device="gpu", requires_grad=True)
    step = torch.zeros((), dtype=torch.int64, device="gpu")
    result = rlox_gpu.sample_categorical(logits, seed=1, step=step)
    assert all(x.device.type == "gpu" and x.shape == (6, 4) for x in result)
    assert result.actions.dtype is torch.int64
    (result.log_prob.sum() + result.entropy.sum()).backward()
    assert logits.grad.shape == logits.shape
    with pytest.raises(ValueError, match=r"step.*cpu"):
        rlox_gpu.sample_categorical(logits, seed=1, step=torch.zeros((), dtype=torch.int64))


def test_runs_on_a_device_that_does_not_exist():
    run_on_fake_device(_on_fake_device)


def test_forced_triton_reaches_the_kernel(monkeypatch):
    from rlox_gpu.kernels import categorical as kernels

    calls = []
    monkeypatch.setattr(kernels, "launch_sample", lambda *args: calls.append(args))
    with _dispatch.force_triton():
        sample(torch.zeros(3, 2), seed=2**64 - 1)
        torch.ops.rlox_gpu.sample_categorical(torch.zeros(3, 2), -1, 5, None)
    assert [args[4:] for args in calls] == [(2**64 - 1, 5, None)] * 2


BAD_CALLS = {
    "list": ({"logits": [0.0, 1.0]}, TypeError, "logits"),
    "integers": ({"logits": torch.zeros(3, 2, dtype=torch.int64)}, TypeError, "logits"),
    "numpy integers": ({"logits": np.zeros((3, 2), np.int64)}, TypeError, "logits"),
    "no dimension": ({"logits": torch.tensor(1.0)}, ValueError, "logits"),
    "no class": ({"logits": torch.zeros(3, 0)}, ValueError, "logits"),
    "numpy no class": ({"logits": np.zeros((3, 0))}, ValueError, "logits"),
    "seed negative": ({"seed": -1}, ValueError, "seed"),
    "seed large": ({"seed": 2**64}, ValueError, "seed"),
    "seed float": ({"seed": 1.0}, TypeError, "seed"),
    "seed tensor": ({"seed": torch.tensor(1)}, TypeError, "seed"),
    "step large": ({"step": 2**32}, ValueError, "step"),
    "step text": ({"step": "0"}, TypeError, "step"),
    "step vector": ({"step": torch.zeros(1, dtype=torch.int64)}, ValueError, "step"),
    "step float": ({"step": torch.tensor(1.0)}, TypeError, "step"),
    "step elsewhere": (
        {"step": torch.zeros((), dtype=torch.int64, device="meta")},
        ValueError,
        "step",
    ),
    "step tensor with NumPy": (
        {"logits": np.zeros((3, 2)), "step": torch.tensor(1)},
        TypeError,
        "step",
    ),
}


@pytest.mark.parametrize(("changes", "error", "name"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_named(changes, error, name):
    arguments = {"logits": torch.zeros(3, 2), "seed": 0, "step": 0} | changes
    with pytest.raises(error, match=f"^{name}"):
        rlox_gpu.sample_categorical(arguments.pop("logits"), **arguments)
