"""Every estimator with its reference, and inputs of every kind for them."""

from dataclasses import dataclass

import numpy as np
import reference
from factories import make_gae_inputs

import rlox_gpu


@dataclass(frozen=True)
class Estimator:
    """``steps`` are the arrays with one value per transition, ``numbers`` a call's options."""

    name: str
    steps: tuple
    numbers: dict
    trace: str | None = None
    boundary: str = "last_values"

    def call(self, **arguments):
        """The results of the public function, as a tuple."""
        results = getattr(rlox_gpu, self.name)(**arguments)
        if not isinstance(results, tuple):
            return (results,)
        return results[:2]

    def reference(self, **arguments):
        """What they should be."""
        results = getattr(reference, f"{self.name}_reference")(**arguments)
        return tuple(results) if isinstance(results, (list, tuple)) else (results,)


ESTIMATORS = [
    Estimator("gae", ("rewards", "values"), {"gae_lambda": 0.9}, "gae_lambda"),
    Estimator("discounted_returns", ("rewards",), {}),
    Estimator("td_lambda_returns", ("rewards", "values"), {"td_lambda": 0.9}, "td_lambda"),
    Estimator("n_step_returns", ("rewards", "values"), {"n": 3}),
    Estimator("vtrace", ("log_rhos", "rewards", "values"), {"rho_bar": 1.2, "c_bar": 0.9}),
    Estimator(
        "retrace",
        ("log_rhos", "rewards", "q_values", "values"),
        {"retrace_lambda": 0.9},
        "retrace_lambda",
    ),
    Estimator("eligibility_traces", ("x",), {"trace_lambda": 0.9}, "trace_lambda", "initial"),
]
NAMED = {estimator.name: estimator for estimator in ESTIMATORS}


def make_inputs(
    rng, estimator, num_steps, num_envs=None, dtype=np.float32, *, sequences=None, **options
):
    """Keyword arguments of an estimator; with ``sequences`` packed ones, one of them empty."""
    made = make_gae_inputs(rng, num_steps, num_envs, dtype, **options)
    shape = made["rewards"].shape
    for name in ("q_values", "x"):
        made[name] = rng.standard_normal(shape).astype(dtype)
    made["log_rhos"] = (0.5 * rng.standard_normal(shape)).astype(dtype)
    if sequences is not None:
        cuts = np.sort(rng.integers(0, num_steps + 1, sequences - 1))
        made["cu_seqlens"] = np.concatenate([[0], cuts, [num_steps]]).astype(np.int32)
        made["last_values"] = rng.standard_normal(sequences).astype(dtype)
    made["initial"] = made["last_values"]
    names = (*estimator.steps, "terminated", estimator.boundary, "truncated", "cu_seqlens")
    if estimator.boundary == "last_values":
        names = (*names, "final_values")
    return {name: made[name] for name in names if name in made} | estimator.numbers


def with_rates(rng, inputs, estimator, shapes):
    """Discounts, and traces where there are some, as arrays that broadcast to the steps."""
    dtype = inputs[estimator.steps[0]].dtype
    rates = {"gamma": shapes[0], estimator.trace: shapes[1]}
    made = {
        name: (0.8 + 0.2 * rng.random(shape)).astype(dtype)
        for name, shape in rates.items()
        if name is not None
    }
    return inputs | made


def poisoned(inputs, estimator, valid):
    """NaN in every step that does not exist, and flags of all sorts."""
    dirty = dict(inputs)
    for name in (*estimator.steps, "final_values"):
        if name in dirty:
            dirty[name] = np.where(valid, dirty[name], np.nan).astype(dirty[name].dtype)
    for name in ("terminated", "truncated"):
        if name in dirty:
            dirty[name] = np.where(valid, dirty[name], True)
    return dirty


def transposed(inputs):
    """The same inputs as contiguous ``[N, T]`` arrays."""
    moved = {}
    for name, value in inputs.items():
        wide = isinstance(value, np.ndarray) and value.ndim == 2
        moved[name] = np.ascontiguousarray(value.T) if wide else value
    return moved
