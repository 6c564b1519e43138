"""Off-policy estimators, and eligibility traces; conventions as in :mod:`.returns`."""

from __future__ import annotations

from typing import Any, NamedTuple

from ._returns_call import arrays_of, estimate
from ._returns_specs import ELIGIBILITY_TRACES, RETRACE, VTRACE


class VTrace(NamedTuple):
    """What :func:`vtrace` returns."""

    vs: Any
    pg_advantages: Any


def vtrace(
    log_rhos: Any,
    rewards: Any,
    values: Any,
    terminated: Any,
    last_values: Any,
    *,
    truncated: Any = None,
    final_values: Any = None,
    gamma: Any = 0.99,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    mask: Any = None,
    lengths: Any = None,
    cu_seqlens: Any = None,
    time_dim: int = 0,
    out: tuple[Any, Any] | None = None,
) -> VTrace:
    """V-trace: value targets and policy-gradient advantages from another policy's experience.

    ::

        rho[t]           = min(rho_bar, exp(log_rhos[t])),   c[t] = min(c_bar, exp(log_rhos[t]))
        delta[t]         = rho[t] (rewards[t] + gamma V'[t] - values[t])
        vs[t]            = values[t] + delta[t] + gamma c[t] (vs[t + 1] - values[t + 1])
                           (the last term unless cut[t])
        pg_advantages[t] = rho[t] (rewards[t] + gamma vs[t + 1] - values[t])
                           (with V'[t] for vs[t + 1] where cut and at the last step)

    Both are constants in the losses that they were made for: call under ``torch.no_grad()``, or
    detach ``log_rhos`` and ``values``, where these require grad.

    Parameters
    ----------
    log_rhos : array, ``[T, N]``
        Logarithms of the importance ratios, target policy over behaviour policy.
    rewards, values, terminated, last_values, truncated, final_values, gamma, mask, lengths, \
    cu_seqlens, time_dim
        As for :func:`rlox_gpu.gae`.
    rho_bar, c_bar : float
        Upper bounds of the ratios, at least 0; infinity leaves them as they are.
    out : pair of arrays, optional
        Where to write ``(vs, pg_advantages)``.

    Returns
    -------
    VTrace
        ``vs`` and ``pg_advantages``, like ``values``.

    Raises
    ------
    TypeError, ValueError
        As for :func:`rlox_gpu.gae`.

    References
    ----------
    Espeholt et al., "IMPALA: scalable distributed deep-RL with importance weighted actor-learner
    architectures", ICML 2018, https://arxiv.org/abs/1802.01561.
    """
    steps = {"log_rhos": log_rhos, "rewards": rewards, "values": values}
    boundary = "last_values", last_values
    arrays = arrays_of(
        steps, terminated, boundary, truncated, final_values, mask, lengths, cu_seqlens
    )
    numbers = {"gamma": gamma, "rho_bar": rho_bar, "c_bar": c_bar}
    return VTrace(*estimate(VTRACE, arrays, numbers, time_dim, out))


def retrace(
    log_rhos: Any,
    rewards: Any,
    q_values: Any,
    values: Any,
    terminated: Any,
    last_values: Any,
    *,
    truncated: Any = None,
    final_values: Any = None,
    gamma: Any = 0.99,
    retrace_lambda: Any = 0.95,
    mask: Any = None,
    lengths: Any = None,
    cu_seqlens: Any = None,
    time_dim: int = 0,
    out: Any = None,
) -> Any:
    """Retrace(lambda): targets of action values from another policy's experience.

    ::

        c[t]       = retrace_lambda min(1, exp(log_rhos[t]))
        x[t]       = rewards[t] + gamma V'[t] - q_values[t] + gamma c[t + 1] x[t + 1]
                     (the last term unless cut[t])
        targets[t] = q_values[t] + x[t]

    Parameters
    ----------
    log_rhos : array, ``[T, N]``
        Logarithms of the importance ratios, target policy over behaviour policy.
    q_values : array, ``[T, N]``
        Values of the actions that were taken.
    values : array, ``[T, N]``
        Expected action values under the target policy; ``last_values`` and ``final_values`` too.
    rewards, terminated, last_values, truncated, final_values, gamma, mask, lengths, cu_seqlens, \
    time_dim
        As for :func:`rlox_gpu.gae`.
    retrace_lambda : float or array
        Trace decay.
    out : array, optional
        Where to write the targets.

    Returns
    -------
    array
        Targets, like ``q_values``.

    Raises
    ------
    TypeError, ValueError
        As for :func:`rlox_gpu.gae`.

    References
    ----------
    Munos et al., "Safe and efficient off-policy reinforcement learning", NeurIPS 2016,
    https://arxiv.org/abs/1606.02647.
    """
    steps = {"log_rhos": log_rhos, "rewards": rewards, "q_values": q_values, "values": values}
    boundary = "last_values", last_values
    arrays = arrays_of(
        steps, terminated, boundary, truncated, final_values, mask, lengths, cu_seqlens
    )
    numbers = {"gamma": gamma, "retrace_lambda": retrace_lambda}
    out = None if out is None else (out,)
    return estimate(RETRACE, arrays, numbers, time_dim, out)[0]


def eligibility_traces(
    x: Any,
    terminated: Any,
    *,
    truncated: Any = None,
    gamma: Any = 0.99,
    trace_lambda: Any = 0.95,
    initial: Any = None,
    mask: Any = None,
    lengths: Any = None,
    cu_seqlens: Any = None,
    time_dim: int = 0,
    out: Any = None,
) -> Any:
    """Accumulating eligibility traces, forward in time.

    ``traces[t] = x[t] + gamma[t - 1] trace_lambda[t - 1] traces[t - 1]``, the second term unless
    ``cut[t - 1]``. The map from ``x`` to the traces is the transpose of the one from temporal
    differences to the advantages of :func:`rlox_gpu.gae`.

    Parameters
    ----------
    x : array, ``[T, N]``
        What each step adds to its trace: a feature, or a gradient.
    terminated, truncated, gamma, mask, lengths, cu_seqlens, time_dim
        As for :func:`rlox_gpu.gae`; ``truncated`` needs no final values.
    trace_lambda : float or array
        Trace decay.
    initial : array, ``[N]``, optional
        What the first step is handed, discounted already; a number when the arrays are ``[T]``.
    out : array, optional
        Where to write the traces.

    Returns
    -------
    array
        Traces, like ``x``.

    Raises
    ------
    TypeError, ValueError
        As for :func:`rlox_gpu.gae`.

    References
    ----------
    Sutton and Barto, "Reinforcement learning: an introduction", 2nd edition, section 12.2,
    http://incompleteideas.net/book/the-book-2nd.html.
    """
    boundary = "initial", initial
    arrays = arrays_of({"x": x}, terminated, boundary, truncated, None, mask, lengths, cu_seqlens)
    numbers = {"gamma": gamma, "trace_lambda": trace_lambda}
    out = None if out is None else (out,)
    return estimate(ELIGIBILITY_TRACES, arrays, numbers, time_dim, out)[0]
