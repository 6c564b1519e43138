"""Return and advantage estimators: the conventions, and the on-policy estimators.

Conventions
-----------
Everything is indexed by the transition ``t``: ``rewards[t]``, ``terminated[t]`` and
``truncated[t]`` are what ``step`` returned at ``t``, ``values[t]`` is the value of the observation
that step ``t`` acted on. ``last_values`` is the value of the observation after the last step.

Arrays are time-major ``[T, N]``; ``time_dim=-1`` takes row-major ``[N, T]``. Neither is copied,
and the results come back in the same form. A single trajectory is ``[T]`` with a scalar
``last_values``.

A *terminated* step bootstraps from nothing. A *truncated* step bootstraps from the value of its
final observation, ``final_values[t]``, never from the value of the reset observation that follows;
where both are set, terminated wins. Both cut the trace: nothing behind the end of an episode, NaN
and infinity included, reaches the steps before it. ``final_values[t]`` is used only where
``truncated[t]`` is set and ``terminated[t]`` is not, ``last_values`` only for episodes that are
still running at the end. With ``truncated`` and no ``final_values`` there is no right answer, and
the call is refused.

In formulas, ``V'[t]`` is the value that a step bootstraps from, and ``cut[t]`` says that its trace
ends::

    V'[t]  = 0                if terminated[t]
             final_values[t]  else if truncated[t]
             last_values      else if t is the last step
             values[t + 1]    else
    cut[t] = terminated[t] or truncated[t]

Values are float16, bfloat16, float32 or float64 (all of one dtype, which the results have);
half-precision input is accumulated in float32. Flags are bool, integers or floats: set means
nonzero.

Discounts and lambdas are numbers in [0, 1], or arrays of the values' dtype that broadcast to the
shape of the rewards; ``gamma[t]`` discounts what follows transition ``t``. The contents of such
arrays are not checked.

Ragged batches
--------------
A step that is *masked* out does not exist: values and traces pass over it from the step behind to
the step before, the results are zero there, and what lies beneath the mask, NaN included, changes
nothing. There are three ways to say it, and they agree:

* ``mask``, of the shape of the rewards: zero where the step does not exist;
* ``lengths`` ``[N]``, int32 or int64: trajectory ``n`` ends after ``lengths[n]`` steps, and
  ``last_values[n]`` is what follows them; may be combined with ``mask``;
* ``cu_seqlens`` ``[B + 1]``, int32 or int64, ascending from 0 to ``total``: arrays are ``[total]``,
  trajectory ``b`` takes the steps from ``cu_seqlens[b]`` on, ``last_values`` is ``[B]``. May be
  combined with ``mask``.

On the CPU the contents of ``lengths`` and ``cu_seqlens`` are checked; on another device they are
not, as that would wait for it.

Gradients
---------
Every result is differentiable with respect to all floating arguments; the backward pass is the
same recurrence in the other direction of time. Where a target is to be a constant, as in policy
gradients, call under ``torch.no_grad()`` or detach: tensors that require no grad also take the
shorter way, one launch. ``out`` is for constants only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import _rust
from ._kinds import is_tensor, loaded
from ._returns_call import arrays_of, estimate
from ._returns_specs import DISCOUNTED_RETURNS, GAE_MOMENTS, N_STEP_RETURNS, TD_LAMBDA_RETURNS
from ._returns_specs import GAE as _GAE


class GAE(NamedTuple):
    """What :func:`gae` returns; ``moments`` is None unless asked for."""

    advantages: Any
    returns: Any
    moments: Any


def gae(
    rewards: Any,
    values: Any,
    terminated: Any,
    last_values: Any,
    *,
    truncated: Any = None,
    final_values: Any = None,
    gamma: Any = 0.99,
    gae_lambda: Any = 0.95,
    mask: Any = None,
    lengths: Any = None,
    cu_seqlens: Any = None,
    time_dim: int = 0,
    moments: bool = False,
    out: tuple[Any, Any] | None = None,
) -> GAE:
    """Generalised advantage estimation: exponentially weighted sums of temporal differences.

    ::

        delta[t]      = rewards[t] + gamma V'[t] - values[t]
        advantages[t] = delta[t] + gamma gae_lambda advantages[t + 1]     (unless cut[t])
        returns[t]    = advantages[t] + values[t]

    The module's docstring has the conventions, ragged batches and gradients.

    Parameters
    ----------
    rewards, values : array, ``[T, N]``
        Rewards, and values of the observations that were acted on; one floating dtype.
    terminated : array, ``[T, N]``
        Nonzero where the episode ended in a terminal state.
    last_values : array, ``[N]``
        Values of the observations after the last step; a number when the arrays are ``[T]``.
    truncated, final_values : array, ``[T, N]``, optional
        Nonzero where the episode was cut short, and the values of the final observations there.
        Only together.
    gamma, gae_lambda : float or array
        Discount factor and trace decay.
    mask, lengths, cu_seqlens : array, optional
        Which steps exist.
    time_dim : int
        0 for ``[T, N]``, -1 (or 1) for ``[N, T]``.
    moments : bool
        Whether to return count, mean and sum of squared differences from the mean of the
        advantages of all steps that exist: float64 ``[3]``, what whitening needs. Zeros if there
        is none. They are constants to autograd.
    out : pair of arrays, optional
        Where to write ``(advantages, returns)``: like ``values``, sharing no memory with another
        argument. Not together with ``moments``.

    Returns
    -------
    GAE
        ``advantages``, ``returns`` and ``moments``, of the device and array kind of the input:
        NumPy arrays, torch tensors, or the arrays of another library that speaks DLPack (CuPy,
        JAX; NumPy arrays or torch tensors where it offers no way back).

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or dtype.
    ValueError
        If a shape, device or number does not fit, or only one of ``truncated`` and
        ``final_values`` is given.

    References
    ----------
    Schulman et al., "High-dimensional continuous control using generalized advantage estimation",
    ICLR 2016, https://arxiv.org/abs/1506.02438.
    """
    if mask is None and lengths is None and cu_seqlens is None and not moments:
        # The arguments of nearly every call on the CPU; small ones come by the million.
        found = None
        if type(rewards) is np.ndarray:
            if type(gamma) is not np.ndarray and type(gae_lambda) is not np.ndarray:
                found = _rust.gae(
                    rewards,
                    values,
                    terminated,
                    last_values,
                    truncated,
                    final_values,
                    gamma,
                    gae_lambda,
                    time_dim,
                    out,
                )
        elif is_tensor(rewards) and truncated is None and final_values is None and out is None:
            at_once = loaded("_returns_torch", "gae_at_once")
            found = at_once(rewards, values, terminated, last_values, gamma, gae_lambda, time_dim)
        if found is not None:
            return GAE(*found, None)
    if moments and out is not None:
        raise ValueError("out: expected None with moments, got one")
    steps = {"rewards": rewards, "values": values}
    boundary = "last_values", last_values
    arrays = arrays_of(
        steps, terminated, boundary, truncated, final_values, mask, lengths, cu_seqlens
    )
    numbers = {"gamma": gamma, "gae_lambda": gae_lambda}
    if moments:
        return GAE(*estimate(GAE_MOMENTS, arrays, numbers, time_dim, None))
    advantages, returns = estimate(_GAE, arrays, numbers, time_dim, out)
    return GAE(advantages, returns, None)


def discounted_returns(
    rewards: Any,
    terminated: Any,
    last_values: Any,
    *,
    truncated: Any = None,
    final_values: Any = None,
    gamma: Any = 0.99,
    mask: Any = None,
    lengths: Any = None,
    cu_seqlens: Any = None,
    time_dim: int = 0,
    out: Any = None,
) -> Any:
    """Discounted sums of rewards to the end of the episode.

    ``returns[t] = rewards[t] + gamma returns[t + 1]``; behind the last step and behind a
    truncation stand ``last_values`` and ``final_values``, behind a terminated step nothing. For
    plain sums of what was collected both are zeros.

    Parameters
    ----------
    rewards, terminated, last_values, truncated, final_values, gamma, mask, lengths, cu_seqlens, \
    time_dim
        As for :func:`gae`.
    out : array, optional
        Where to write the returns.

    Returns
    -------
    array
        Returns, like ``rewards``.

    Raises
    ------
    TypeError, ValueError
        As for :func:`gae`.

    References
    ----------
    Sutton and Barto, "Reinforcement learning: an introduction", 2nd edition, section 3.3,
    http://incompleteideas.net/book/the-book-2nd.html.
    """
    boundary = "last_values", last_values
    arrays = arrays_of(
        {"rewards": rewards},
        terminated,
        boundary,
        truncated,
        final_values,
        mask,
        lengths,
        cu_seqlens,
    )
    out = None if out is None else (out,)
    return estimate(DISCOUNTED_RETURNS, arrays, {"gamma": gamma}, time_dim, out)[0]


def td_lambda_returns(
    rewards: Any,
    values: Any,
    terminated: Any,
    last_values: Any,
    *,
    truncated: Any = None,
    final_values: Any = None,
    gamma: Any = 0.99,
    td_lambda: Any = 0.95,
    mask: Any = None,
    lengths: Any = None,
    cu_seqlens: Any = None,
    time_dim: int = 0,
    out: Any = None,
) -> Any:
    """TD(lambda) returns: lambda-weighted means of all n-step returns.

    ``returns[t] = rewards[t] + gamma ((1 - td_lambda) V'[t] + td_lambda returns[t + 1])``, and
    ``rewards[t] + gamma V'[t]`` where cut. They are the returns of :func:`gae` with the same
    lambda.

    Parameters
    ----------
    rewards, values, terminated, last_values, truncated, final_values, gamma, mask, lengths, \
    cu_seqlens, time_dim
        As for :func:`gae`.
    td_lambda : float or array
        Trace decay.
    out : array, optional
        Where to write the returns.

    Returns
    -------
    array
        Returns, like ``values``.

    Raises
    ------
    TypeError, ValueError
        As for :func:`gae`.

    References
    ----------
    Sutton and Barto, "Reinforcement learning: an introduction", 2nd edition, section 12.1,
    http://incompleteideas.net/book/the-book-2nd.html.
    """
    steps = {"rewards": rewards, "values": values}
    boundary = "last_values", last_values
    arrays = arrays_of(
        steps, terminated, boundary, truncated, final_values, mask, lengths, cu_seqlens
    )
    numbers = {"gamma": gamma, "td_lambda": td_lambda}
    out = None if out is None else (out,)
    return estimate(TD_LAMBDA_RETURNS, arrays, numbers, time_dim, out)[0]


def n_step_returns(
    rewards: Any,
    values: Any,
    terminated: Any,
    last_values: Any,
    *,
    n: int,
    truncated: Any = None,
    final_values: Any = None,
    gamma: Any = 0.99,
    mask: Any = None,
    lengths: Any = None,
    cu_seqlens: Any = None,
    time_dim: int = 0,
    out: Any = None,
) -> Any:
    """N-step returns: at most ``n`` discounted rewards, then the value of what follows them.

    ``returns[t] = rewards[t] + ... + gamma^(m-1) rewards[t + m - 1] + gamma^m V'[t + m - 1]``,
    where ``m`` is ``n``, or less if the episode or the rollout ends before. ``n = 1`` is
    TD(lambda) with lambda 0, and from ``n = T`` on it is lambda 1.

    Parameters
    ----------
    rewards, values, terminated, last_values, truncated, final_values, gamma, mask, lengths, \
    cu_seqlens, time_dim
        As for :func:`gae`.
    n : int
        Number of rewards, at least 1.
    out : array, optional
        Where to write the returns.

    Returns
    -------
    array
        Returns, like ``values``.

    Raises
    ------
    TypeError, ValueError
        As for :func:`gae`.

    References
    ----------
    Sutton and Barto, "Reinforcement learning: an introduction", 2nd edition, section 7.1,
    http://incompleteideas.net/book/the-book-2nd.html.
    """
    steps = {"rewards": rewards, "values": values}
    boundary = "last_values", last_values
    arrays = arrays_of(
        steps, terminated, boundary, truncated, final_values, mask, lengths, cu_seqlens
    )
    out = None if out is None else (out,)
    return estimate(N_STEP_RETURNS, arrays, {"gamma": gamma, "n": n}, time_dim, out)[0]
