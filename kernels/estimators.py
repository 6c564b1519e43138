"""What the estimators make of the one recurrence, in registers.

An estimator is two functions around ``y[t] = a[t] * y[t + 1] + b[t]``: its prologue makes ``a``
and ``b`` of a step, its epilogue makes the outputs of the step, ``y[t]`` and ``y[t + 1]``. Both
get the step as the tuple ``(reward, value, ended, cut_short, final, log_rho, q_value)`` (what an
estimator has no array for is zero), the value of the next observation, and the rates
``(gamma, lam, rho_bar, c_bar)``. Outputs nobody asked for are never computed.

Minimum traffic per element with floats of ``s`` bytes and flags of ``f``, all outputs wanted:

* ``GAE``: reward, value, flag; advantage, return: ``4 s + f`` (one output: ``3 s + f``, as for
  TD(lambda));
* ``DISCOUNTED``: reward, flag; return: ``2 s + f``;
* ``VTRACE``: reward, value, log ratio, flag; target, advantage: ``5 s + f``;
* ``RETRACE``: reward, value, log ratio, action value, flag; target: ``5 s + f``;
* ``TRACES``: term, flag; trace: ``2 s + f``;

with truncations ``f`` more, and where an estimator looks at the value of the final observation the
sector of 32 bytes that holds it. A mask is ``f`` more, a rate per step ``s``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import triton
import triton.language as tl

from .linear_scan import step

# Where a step has what.
REWARD = tl.constexpr(0)
VALUE = tl.constexpr(1)
ENDED = tl.constexpr(2)
CUT_SHORT = tl.constexpr(3)
FINAL = tl.constexpr(4)
LOG_RHO = tl.constexpr(5)
Q_VALUE = tl.constexpr(6)
MASK = tl.constexpr(7)


@triton.constexpr_function
def is_flag(k):
    """Whether the ``k``-th array is one of flags, which are read as they are stored."""
    return k in (2, 3, 7)


@triton.jit
def _bootstrap(x, next_value):
    """The value that follows the step, and whether the episode ends with it."""
    over = x[ENDED] != 0
    after = tl.where(x[CUT_SHORT] != 0, x[FINAL], next_value)
    return tl.where(over, 0.0, after), over | (x[CUT_SHORT] != 0)


@triton.jit
def _target(x, next_value, gamma):
    """``reward + gamma * bootstrap``, and whether the episode ends."""
    after, cut = _bootstrap(x, next_value)
    return x[REWARD] + gamma * after, cut


@triton.jit
def _clipped_ratio(x, bar):
    """``min(bar, exp(log_rho))``; NaN stays NaN."""
    ratio = tl.exp(x[LOG_RHO])
    return tl.where(ratio > bar, bar, ratio)


@triton.jit
def gae_prologue(x, next_value, rates):
    """``y`` is the advantage."""
    gamma, lam, _, _ = rates
    target, cut = _target(x, next_value, gamma)
    return tl.where(cut, 0.0, gamma * lam), target - x[VALUE]


@triton.jit
def gae_epilogue(x, next_value, rates, y, y_next):
    """Advantages, and returns that are advantage + value: the TD(lambda) returns."""
    return y, y + x[VALUE]


@triton.jit
def discounted_prologue(x, next_value, rates):
    """``y`` is the return itself, so a truncated step adds the value of its final observation."""
    gamma, _, _, _ = rates
    after, cut = _bootstrap(x, tl.zeros_like(x[REWARD]))
    return tl.where(cut, 0.0, gamma), x[REWARD] + tl.where(cut, gamma * after, 0.0)


@triton.jit
def identity_epilogue(x, next_value, rates, y, y_next):
    """``y`` is the result."""
    return y, y


@triton.jit
def vtrace_prologue(x, next_value, rates):
    """``y`` is ``vs - value``."""
    gamma, _, rho_bar, c_bar = rates
    target, cut = _target(x, next_value, gamma)
    decay = tl.where(cut, 0.0, gamma * _clipped_ratio(x, c_bar))
    return decay, _clipped_ratio(x, rho_bar) * (target - x[VALUE])


@triton.jit
def vtrace_epilogue(x, next_value, rates, y, y_next):
    """``vs``, and the policy-gradient advantages, which look at ``vs`` of the next step."""
    gamma, _, rho_bar, _ = rates
    target, _ = _target(x, y_next + next_value, gamma)
    return y + x[VALUE], _clipped_ratio(x, rho_bar) * (target - x[VALUE])


@triton.jit
def _retrace_error(x, next_value, gamma):
    target, cut = _target(x, next_value, gamma)
    return target - x[Q_VALUE], tl.where(cut, 0.0, gamma)


@triton.jit
def retrace_prologue(x, next_value, rates):
    """``y`` is the correction times the step's own trace, which is how its forerunner sees it."""
    gamma, lam, _, _ = rates
    error, discount = _retrace_error(x, next_value, gamma)
    trace = lam * _clipped_ratio(x, 1.0)
    return trace * discount, trace * error


@triton.jit
def retrace_epilogue(x, next_value, rates, y, y_next):
    """The corrected action value."""
    gamma, _, _, _ = rates
    error, discount = _retrace_error(x, next_value, gamma)
    target = x[Q_VALUE] + step(discount, error, y_next)
    return target, target


@triton.jit
def trace_prologue(x, next_value, rates):
    """``y`` is what the step hands on: its discounted trace, nothing when the episode ends."""
    gamma, lam, _, _ = rates
    decay = tl.where((x[ENDED] != 0) | (x[CUT_SHORT] != 0), 0.0, gamma * lam)
    return decay, tl.where(decay == 0, 0.0, decay * x[REWARD])


@triton.jit
def trace_epilogue(x, next_value, rates, y, y_next):
    """What the step was handed and its own."""
    trace = x[REWARD] + y_next
    return trace, trace


@dataclass(frozen=True)
class Estimator:
    """``forward`` in time or back; ``seeded``: the walk starts from ``last_values``, else zero."""

    prologue: Callable
    epilogue: Callable
    forward: bool = False
    seeded: bool = False


GAE = Estimator(gae_prologue, gae_epilogue)
DISCOUNTED = Estimator(discounted_prologue, identity_epilogue, seeded=True)
DISCOUNTED_FORWARD = Estimator(discounted_prologue, identity_epilogue, forward=True, seeded=True)
VTRACE = Estimator(vtrace_prologue, vtrace_epilogue)
RETRACE = Estimator(retrace_prologue, retrace_epilogue)
TRACES = Estimator(trace_prologue, trace_epilogue, forward=True, seeded=True)
