"""Array functions with the names, argument order and layouts of rlox.

They know a single ``dones``, which is ``terminated`` of :func:`rlox_gpu.gae`: an episode that was
cut short by a time limit is treated as if it had ended for good. Where that matters, call
:func:`rlox_gpu.gae` with ``truncated`` and ``final_values``.

Arguments may be anything that ``numpy.asarray`` takes, or torch tensors on any device; the results
are of the kind and on the device of ``rewards``, and constants to autograd. Arrays of the result's
dtype are not copied.
"""

from __future__ import annotations

import operator
import re
import sys
from typing import Any

import numpy as np

from .. import _rust
from .traces import vtrace

# What the core calls some of the arguments, and what they are called here.
_NAMES = {"terminated": "dones", "gae_lambda": "lam"}
_VTRACE_NAMES = {"terminated": "dones", "last_values": "bootstrap_value"}
_SINGLE_NAMES = {**_NAMES, "last_values": "last_value"}


def compute_gae(
    rewards: Any, values: Any, dones: Any, last_value: Any, gamma: float, lam: float
) -> tuple[Any, Any]:
    """Generalised advantage estimation for one trajectory, in float64.

    Parameters
    ----------
    rewards, values : array, ``(T,)``
        Rewards, and values of the observations that were acted on.
    dones : array, ``(T,)``
        Nonzero (bool, integer or float) where an episode ended.
    last_value : float
        Value of the observation after the last step.
    gamma, lam : float
        Discount factor and trace decay, in [0, 1].

    Returns
    -------
    tuple
        ``(advantages, returns)``, float64 ``(T,)``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.

    References
    ----------
    Schulman et al., "High-dimensional continuous control using generalized advantage estimation",
    ICLR 2016, https://arxiv.org/abs/1506.02438.
    """
    try:
        if _is_tensor(rewards):
            return _of_tensors(rewards, values, dones, last_value, gamma, lam, "float64")
        rewards = _array("rewards", rewards, np.float64)
        if rewards.ndim != 1:
            raise ValueError(f"rewards must have shape (T,), not {rewards.shape}")
        values = _array("values", values, np.float64)
        dones = _array("dones", dones)
        return _rust.gae(rewards, values, dones, last_value, None, None, gamma, lam, 0, None)
    except (TypeError, ValueError) as error:
        raise _renamed(error, _SINGLE_NAMES) from None


def compute_gae_batched(
    rewards: Any,
    values: Any,
    dones: Any,
    last_values: Any,
    n_steps: int,
    gamma: float,
    lam: float,
) -> tuple[Any, Any]:
    """Generalised advantage estimation for several trajectories of one length, in float64.

    Parameters
    ----------
    rewards, values, dones : array, ``(n_envs * n_steps,)``
        As in :func:`compute_gae`, one trajectory after the other.
    last_values : array, ``(n_envs,)``
        Values of the observations after the last steps.
    n_steps : int
        Length of a trajectory.
    gamma, lam : float
        Discount factor and trace decay, in [0, 1].

    Returns
    -------
    tuple
        ``(advantages, returns)``, float64, laid out like ``rewards``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    return _batched(rewards, values, dones, last_values, n_steps, gamma, lam, "float64")


def compute_gae_batched_f32(
    rewards: Any,
    values: Any,
    dones: Any,
    last_values: Any,
    n_steps: int,
    gamma: float,
    lam: float,
) -> tuple[Any, Any]:
    """:func:`compute_gae_batched` in float32."""
    return _batched(rewards, values, dones, last_values, n_steps, gamma, lam, "float32")


def compute_vtrace(
    log_rhos: Any,
    rewards: Any,
    values: Any,
    dones: Any,
    bootstrap_value: float,
    gamma: float,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> tuple[Any, Any]:
    """V-trace targets and policy-gradient advantages for one trajectory, in float32.

    Parameters
    ----------
    log_rhos, rewards, values : array, ``(T,)``
        Logarithms of the importance ratios, rewards, and values of the observations acted on.
    dones : array, ``(T,)``
        Nonzero (bool, integer or float) where an episode ended.
    bootstrap_value : float
        Value of the observation after the last step.
    gamma : float
        Discount factor, in [0, 1].
    rho_bar, c_bar : float
        Upper bounds of the ratios.

    Returns
    -------
    tuple
        ``(vs, pg_advantages)``, float32 ``(T,)``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.

    References
    ----------
    Espeholt et al., "IMPALA: scalable distributed deep-RL with importance weighted actor-learner
    architectures", ICML 2018, https://arxiv.org/abs/1802.01561.
    """
    arrays = {"log_rhos": log_rhos, "rewards": rewards, "values": values}
    rates: dict[str, Any] = {"gamma": gamma, "rho_bar": rho_bar, "c_bar": c_bar}
    try:
        if not _is_tensor(rewards):
            steps = {name: _array(name, x, np.float32) for name, x in arrays.items()}
            flags = _array("dones", dones)
            result = vtrace(**steps, terminated=flags, last_values=bootstrap_value, **rates)
            return result.vs, result.pg_advantages
        import torch

        device = rewards.device
        steps = {k: torch.as_tensor(x).to(device, torch.float32) for k, x in arrays.items()}
        flags = torch.as_tensor(dones, device=device)
        with torch.no_grad():
            result = vtrace(**steps, terminated=flags, last_values=bootstrap_value, **rates)
        return result.vs, result.pg_advantages
    except (TypeError, ValueError) as error:
        raise _renamed(error, _VTRACE_NAMES) from None


def _batched(
    rewards: Any,
    values: Any,
    dones: Any,
    last_values: Any,
    n_steps: int,
    gamma: float,
    lam: float,
    dtype: str,
) -> tuple[Any, Any]:
    try:
        if _is_tensor(rewards):
            return _of_tensors(rewards, values, dones, last_values, gamma, lam, dtype, n_steps)
        last_values = _array("last_values", last_values, dtype)
        shape = _batch_shape(last_values, n_steps)
        advantages, returns = _rust.gae(
            _folded("rewards", _array("rewards", rewards, dtype), shape),
            _folded("values", _array("values", values, dtype), shape),
            _folded("dones", _array("dones", dones), shape),
            last_values,
            None,
            None,
            gamma,
            lam,
            -1,
            None,
        )
    except (TypeError, ValueError) as error:
        raise _renamed(error, _NAMES) from None
    return advantages.reshape(-1), returns.reshape(-1)


def _of_tensors(
    rewards: Any,
    values: Any,
    dones: Any,
    last_values: Any,
    gamma: float,
    lam: float,
    dtype: str,
    n_steps: int | None = None,
) -> tuple[Any, Any]:
    """The same on the device of ``rewards``; ``n_steps`` None stands for one trajectory."""
    import torch

    from .returns import gae

    real = getattr(torch, dtype)
    rewards = rewards.to(real)
    values = torch.as_tensor(values, dtype=real, device=rewards.device)
    dones = torch.as_tensor(dones, device=rewards.device)
    last_values = torch.as_tensor(last_values, dtype=real, device=rewards.device)
    if n_steps is None:
        if rewards.ndim != 1:
            raise ValueError(f"rewards must have shape (T,), not {tuple(rewards.shape)}")
        with torch.no_grad():
            result = gae(rewards, values, dones, last_values, gamma=gamma, gae_lambda=lam)
        return result.advantages, result.returns
    shape = _batch_shape(last_values, n_steps)
    with torch.no_grad():
        result = gae(
            _folded("rewards", rewards, shape),
            _folded("values", values, shape),
            _folded("dones", dones, shape),
            last_values,
            gamma=gamma,
            gae_lambda=lam,
            time_dim=-1,
        )
    return result.advantages.reshape(-1), result.returns.reshape(-1)


def _is_tensor(x: Any) -> bool:
    if type(x) is np.ndarray:
        return False
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _array(name: str, x: Any, dtype: Any = None) -> Any:
    if type(x) is np.ndarray and (dtype is None or x.dtype == dtype):
        return x
    try:
        return np.asarray(x, dtype)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name} does not convert to an array: {error}") from None


def _batch_shape(last_values: Any, n_steps: int) -> tuple[int, int]:
    try:
        steps = operator.index(n_steps)
    except TypeError:
        raise TypeError(f"n_steps must be an int, not {type(n_steps).__name__}") from None
    if steps < 1:
        raise ValueError(f"n_steps must be at least 1, not {steps}")
    if last_values.ndim != 1:
        raise ValueError(f"last_values must have shape (n_envs,), not {tuple(last_values.shape)}")
    return len(last_values), steps


def _folded(name: str, x: Any, shape: tuple[int, int]) -> Any:
    if tuple(x.shape) != (shape[0] * shape[1],):
        raise ValueError(
            f"{name} must have shape ({shape[0] * shape[1]},), last_values times n_steps "
            f"({shape[0]} x {shape[1]}), not {tuple(x.shape)}"
        )
    return x.reshape(shape)


def _renamed(error: Exception, names: dict[str, str]) -> Exception:
    """The error with the arguments called what they are called here."""
    pattern = r"\b(" + "|".join(names) + r")\b"
    message = re.sub(pattern, lambda found: names[found[0]], str(error))
    return TypeError(message) if isinstance(error, TypeError) else ValueError(message)
