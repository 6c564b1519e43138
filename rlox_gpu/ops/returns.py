"""Return and advantage estimators: conventions, and generalised advantage estimation.

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

Values are float16, bfloat16, float32 or float64 (all of one dtype, which the results have);
half-precision input is accumulated in float32. Flags are bool, integers or floats: set means
nonzero.

The recurrence
--------------
::

    next_value[t] = 0                if terminated[t]
                    final_values[t]  else if truncated[t]
                    last_values      else if t is the last step
                    values[t + 1]    else
    delta[t]      = rewards[t] + gamma * next_value[t] - values[t]
    advantages[t] = delta[t] + gamma * gae_lambda * advantages[t + 1]
                    (the second term only where the episode goes on after t)
    returns[t]    = advantages[t] + values[t]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import _rust

_gae_torch: Callable[..., tuple[Any, Any]] | None = None


class GAE(NamedTuple):
    """What :func:`gae` returns.

    ``moments`` is None: its place is kept so that unpacking stays the same once the moments of
    the advantages can be asked for.
    """

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
    gamma: float = 0.99,
    gae_lambda: float = 0.95,
    time_dim: int = 0,
    out: tuple[Any, Any] | None = None,
) -> GAE:
    """Generalised advantage estimation: exponentially weighted sums of temporal differences.

    ``A[t] = delta[t] + gamma * gae_lambda * A[t + 1]``; the module's docstring has the whole
    recurrence and the conventions.

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
    gamma, gae_lambda : float
        Discount factor and trace decay, plain numbers in [0, 1].
    time_dim : int
        0 for ``[T, N]``, -1 (or 1) for ``[N, T]``.
    out : pair of arrays, optional
        Where to write ``(advantages, returns)``: like ``values``, sharing no memory with another
        argument.

    Returns
    -------
    GAE
        ``advantages`` and ``returns`` of the shape, dtype, device and array kind of the input:
        NumPy arrays, torch tensors, or the arrays of another library that speaks DLPack (CuPy,
        JAX; NumPy arrays or torch tensors where it offers no way back). They are constants to
        autograd, as the policy gradient wants them, even where ``values`` require grad.

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
    call = _rust.gae if type(rewards) is np.ndarray else _gae_for(rewards)
    advantages, returns = call(
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
    return GAE(advantages, returns, None)


def _gae_for(rewards: Any) -> Callable[..., tuple[Any, Any]]:
    """The implementation for the kind of ``rewards``."""
    global _gae_torch
    torch = sys.modules.get("torch")
    if torch is not None and (type(rewards) is torch.Tensor or isinstance(rewards, torch.Tensor)):
        if _gae_torch is None:
            from ._returns_torch import gae as found

            _gae_torch = found
        return _gae_torch
    if isinstance(rewards, np.ndarray):
        return _rust.gae
    from ._dlpack import through_dlpack

    return through_dlpack(rewards, _rust.gae)
