"""The estimators as data: what each reads, which numbers it takes, what it gives.

Every implementation takes the arrays of a call in one order: ``steps``, then ``terminated``, the
boundary, ``truncated``, ``final_values``, ``mask``, ``lengths``, ``cu_seqlens``; None stands for
one that is not given.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """One estimator.

    ``steps`` are its arrays with one value per transition, the first of which sets shape, dtype
    and device; ``boundary`` is what a trajectory starts from or ends with. ``code`` is what the
    compiled core calls it.
    """

    name: str
    code: int
    steps: tuple[str, ...]
    numbers: tuple[str, ...]
    results: tuple[str, ...]
    boundary: str = "last_values"


# Numbers in [0, 1] that may be arrays instead.
DISCOUNTS = frozenset({"gamma", "gae_lambda", "td_lambda", "retrace_lambda", "trace_lambda"})

GAE = Spec("gae", 0, ("rewards", "values"), ("gamma", "gae_lambda"), ("advantages", "returns"))
GAE_MOMENTS = Spec("gae_moments", 7, GAE.steps, GAE.numbers, (*GAE.results, "moments"))
DISCOUNTED_RETURNS = Spec("discounted_returns", 1, ("rewards",), ("gamma",), ("returns",))
TD_LAMBDA_RETURNS = Spec(
    "td_lambda_returns", 2, ("rewards", "values"), ("gamma", "td_lambda"), ("returns",)
)
N_STEP_RETURNS = Spec("n_step_returns", 3, ("rewards", "values"), ("gamma", "n"), ("returns",))
VTRACE = Spec(
    "vtrace",
    4,
    ("log_rhos", "rewards", "values"),
    ("gamma", "rho_bar", "c_bar"),
    ("vs", "pg_advantages"),
)
RETRACE = Spec(
    "retrace",
    5,
    ("log_rhos", "rewards", "q_values", "values"),
    ("gamma", "retrace_lambda"),
    ("targets",),
)
ELIGIBILITY_TRACES = Spec(
    "eligibility_traces", 6, ("x",), ("gamma", "trace_lambda"), ("traces",), "initial"
)
SPECS = (
    GAE,
    GAE_MOMENTS,
    DISCOUNTED_RETURNS,
    TD_LAMBDA_RETURNS,
    N_STEP_RETURNS,
    VTRACE,
    RETRACE,
    ELIGIBILITY_TRACES,
)
