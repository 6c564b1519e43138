"""gae on torch tensors: both paths into it, compilation, transforms, bad input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_inputs import assert_close, make_torch_inputs, with_layout, with_rows

import rlox_gpu

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
FLAG_DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]


@settings(max_examples=80, deadline=None)
@given(
    num_steps=st.integers(1, 70),
    num_envs=st.none() | st.integers(1, 40),
    dtype=st.sampled_from(DTYPES),
    flag_dtype=st.sampled_from(FLAG_DTYPES),
    layouts=st.lists(st.sampled_from(["plain", "transposed", "strided"]), min_size=6, max_size=6),
    rows=st.booleans(),
    truncation=st.booleans(),
    gamma=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_gae_matches_reference(
    num_steps,
    num_envs,
    dtype,
    flag_dtype,
    layouts,
    rows,
    truncation,
    gamma,
    gae_lambda,
    seed,
):
    inputs = make_torch_inputs(
        seed, num_steps, num_envs, dtype, flag_dtype, truncation=truncation, end_rate=0.2
    )
    options = {"gamma": gamma, "gae_lambda": gae_lambda}
    if rows:
        inputs, options["time_dim"] = with_rows(inputs), -1
    laid_out = {
        k: with_layout(v, layout) for (k, v), layout in zip(inputs.items(), layouts, strict=False)
    }
    assert_close(rlox_gpu.gae(**laid_out, **options), inputs, **options)


@pytest.mark.parametrize("num_envs", [None, 1, 63, 64])
@pytest.mark.parametrize("num_steps", [1, 63, 64, 1000])
def test_gae_matches_reference_at_awkward_sizes(num_steps, num_envs):
    inputs = make_torch_inputs(1, num_steps, num_envs)
    assert_close(rlox_gpu.gae(**inputs), inputs)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_gae_of_nothing_is_nothing(shape):
    empty = torch.zeros(shape)
    result = rlox_gpu.gae(empty, empty, empty, torch.zeros(shape[1]))
    assert result.advantages.shape == result.returns.shape == torch.Size(shape)


def test_single_trajectory_takes_a_number_for_last_values():
    inputs = make_torch_inputs(2, 20)
    expected = rlox_gpu.gae(**inputs)
    inputs["last_values"] = float(inputs["last_values"])
    assert torch.equal(rlox_gpu.gae(**inputs).advantages, expected.advantages)


@pytest.mark.parametrize("layout", ["plain", "transposed", "strided"])
def test_out_is_written_and_returned(layout):
    inputs = make_torch_inputs(3, 20, 5)
    out = tuple(with_layout(torch.full((20, 5), torch.nan), layout) for _ in range(2))
    result = rlox_gpu.gae(**inputs, out=out)
    assert result.advantages is out[0]
    assert result.returns is out[1]
    assert_close(result, inputs)


def test_results_are_constants_where_nothing_requires_grad():
    inputs = make_torch_inputs(4, 20, 5)
    expected = rlox_gpu.gae(**inputs)
    values = torch.nn.Parameter(inputs.pop("values"))
    assert not expected.advantages.requires_grad
    with torch.no_grad():
        result = rlox_gpu.gae(values=values, **inputs)
    assert not result.returns.requires_grad
    assert torch.equal(result.advantages, expected.advantages)
    assert rlox_gpu.gae(values=values, **inputs).advantages.requires_grad


def test_autocast_changes_nothing():
    inputs = make_torch_inputs(5, 20, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = rlox_gpu.gae(**inputs)
    assert_close(result, inputs)


def test_results_keep_the_values_dtype_and_shape_under_a_default_dtype():
    inputs = make_torch_inputs(6, 20, 5)
    torch.set_default_dtype(torch.float64)
    try:
        assert rlox_gpu.gae(**inputs).advantages.dtype is torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def _positional(inputs):
    names = ("rewards", "values", "terminated", "last_values", "truncated", "final_values")
    return *(inputs.get(name) for name in names), *[None] * 5, 0.99, 0.95


@pytest.mark.parametrize("truncation", [True, False])
@pytest.mark.parametrize("rows", [True, False])
def test_ops_pass_opcheck(truncation, rows):
    inputs = make_torch_inputs(7, 9, 5, truncation=truncation)
    rlox_gpu.gae(**inputs)
    inputs = with_rows(inputs) if rows else inputs
    time_dim = 1 if rows else 0
    torch.library.opcheck(torch.ops.rlox_gpu.gae.default, (*_positional(inputs), time_dim))
    out = torch.empty_like(inputs["values"]), torch.empty_like(inputs["values"])
    torch.library.opcheck(
        torch.ops.rlox_gpu.gae_out.default, (*_positional(inputs), time_dim, *out)
    )


class _Tagged(torch.Tensor):
    """A subclass: it must go through torch's dispatcher."""


def test_subclasses_and_modes_take_the_op():
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Listener(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    inputs = make_torch_inputs(8, 9, 5)
    expected = rlox_gpu.gae(**inputs).advantages
    with Listener():
        listened = rlox_gpu.gae(**inputs).advantages
    assert torch.ops.rlox_gpu.gae.default in seen
    assert torch.equal(listened, expected)
    tagged = rlox_gpu.gae(**{k: v.as_subclass(_Tagged) for k, v in inputs.items()})
    assert type(tagged.advantages) is _Tagged
    assert torch.equal(tagged.advantages.as_subclass(torch.Tensor), expected)


def _whitened(inputs):
    advantages = rlox_gpu.gae(**inputs, gamma=0.9).advantages
    return (advantages - advantages.mean()) / advantages.std()


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiles_without_a_graph_break(backend):
    torch.compiler.reset()
    compiled = torch.compile(_whitened, backend=backend, fullgraph=True)
    for num_steps in (9, 12):
        inputs = make_torch_inputs(9, num_steps, 5)
        torch.testing.assert_close(compiled(inputs), _whitened(inputs))


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compiles_with_out():
    def into(inputs, out):
        rlox_gpu.gae(**inputs, out=out)
        return out[0] * 2

    torch.compiler.reset()
    inputs = make_torch_inputs(10, 9, 5)
    out = torch.empty(9, 5), torch.empty(9, 5)
    doubled = torch.compile(into, backend="aot_eager", fullgraph=True)(inputs, out)
    assert_close((*out, None), inputs)
    torch.testing.assert_close(doubled, out[0] * 2)


def test_first_call_may_be_a_compiled_one():
    import subprocess
    import sys

    code = (
        "import torch, rlox_gpu\n"
        "f = torch.compile(lambda *a: rlox_gpu.gae(*a).returns, backend='eager', fullgraph=True)\n"
        "assert f(torch.ones(3, 2), torch.ones(3, 2), torch.ones(3, 2), torch.ones(2)).sum() == 6"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_vmap_over_rollouts():
    rollouts = [make_torch_inputs(seed, 9, 5) for seed in range(3)]
    stacked = {k: torch.stack([r[k] for r in rollouts]) for k in rollouts[0]}
    mapped = torch.func.vmap(lambda x: rlox_gpu.gae(**x).advantages)(stacked)
    for got, inputs in zip(mapped, rollouts, strict=True):
        assert torch.equal(got, rlox_gpu.gae(**inputs).advantages)


def _f32(*shape):
    return torch.zeros(shape)


BAD_CALLS = {
    "rewards 3-d": ({"rewards": _f32(6, 4, 1)}, ValueError, "rewards"),
    "rewards 0-d": ({"rewards": torch.tensor(1.0)}, ValueError, "rewards"),
    "rewards dtype": ({"rewards": torch.zeros(6, 4, dtype=torch.int64)}, TypeError, "rewards"),
    "rewards complex": ({"rewards": torch.zeros(6, 4) * 1j}, TypeError, "rewards"),
    "values shape": ({"values": _f32(6, 5)}, ValueError, "values"),
    "values dtype": ({"values": _f32(6, 4).double()}, TypeError, "values"),
    "values numpy": ({"values": _f32(6, 4).numpy()}, TypeError, "values"),
    "values device": ({"values": torch.zeros(6, 4, device="meta")}, ValueError, "values"),
    "terminated shape": ({"terminated": _f32(5, 4)}, ValueError, "terminated"),
    "terminated dtype": ({"terminated": torch.zeros(6, 4) * 1j}, TypeError, "terminated"),
    "terminated None": ({"terminated": None}, TypeError, "terminated"),
    "last_values shape": ({"last_values": _f32(6)}, ValueError, "last_values"),
    "last_values number": ({"last_values": 0.0}, ValueError, "last_values"),
    "last_values text": ({"last_values": "0"}, TypeError, "last_values"),
    "truncated alone": ({"truncated": _f32(6, 4)}, ValueError, "final_values"),
    "final_values alone": ({"final_values": _f32(6, 4)}, ValueError, "truncated"),
    "final_values shape": (
        {"truncated": _f32(6, 4), "final_values": _f32(4)},
        ValueError,
        "final_values",
    ),
    "gamma tensor": ({"gamma": torch.full((5,), 0.99)}, ValueError, "gamma"),
    "gamma dtype": ({"gamma": torch.tensor(0.99).double()}, TypeError, "gamma"),
    "gamma NaN": ({"gamma": float("nan")}, ValueError, "gamma"),
    "gamma bool": ({"gamma": True}, TypeError, "gamma"),
    "lambda above one": ({"gae_lambda": 2}, ValueError, "gae_lambda"),
    "time_dim 2": ({"time_dim": 2}, ValueError, "time_dim"),
    "time_dim None": ({"time_dim": None}, ValueError, "time_dim"),
    "out tensor": ({"out": _f32(2, 6, 4)}, TypeError, "out"),
    "out of three": ({"out": (_f32(6, 4),) * 3}, TypeError, "out"),
    "out shape": ({"out": (_f32(6, 4), _f32(4, 6))}, ValueError, r"out\[1\]"),
    "out dtype": ({"out": (_f32(6, 4).half(), _f32(6, 4))}, TypeError, r"out\[0\]"),
    "out expanded": ({"out": (_f32(4).expand(6, 4), _f32(6, 4))}, ValueError, r"out\[0\]"),
}


@pytest.mark.parametrize(("changes", "error", "name"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_named(changes, error, name):
    inputs = make_torch_inputs(0, 6, 4, truncation=False)
    with pytest.raises(error, match=name):
        rlox_gpu.gae(**(inputs | changes))


def test_out_must_not_share_memory():
    inputs = make_torch_inputs(0, 6, 4, truncation=False)
    both = torch.empty(6, 4)
    with pytest.raises(ValueError, match=r"out\[1\].*out\[0\]"):
        rlox_gpu.gae(**inputs, out=(both, both))
    with pytest.raises(ValueError, match=r"out\[0\].*rewards"):
        rlox_gpu.gae(**inputs, out=(inputs["rewards"], both))
    halves = torch.empty(2, 6, 4)
    rlox_gpu.gae(**inputs, out=(halves[0], halves[1]))


def test_a_single_trajectory_has_no_second_axis():
    inputs = make_torch_inputs(0, 6, truncation=False)
    with pytest.raises(ValueError, match="time_dim"):
        rlox_gpu.gae(**inputs, time_dim=1)


def test_the_raw_op_checks_too():
    inputs = make_torch_inputs(0, 6, 4, truncation=False)
    rlox_gpu.gae(**inputs)
    inputs["values"] = inputs["values"][:3]
    with pytest.raises(ValueError, match="values"):
        torch.ops.rlox_gpu.gae(*_positional(inputs), 0)
