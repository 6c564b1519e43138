"""Token divergences with the names, argument order and layouts of rlox.

Both of its functions are kept as they are, and neither is what its name suggests for sampled
tokens. For the usual estimates, with masks and gradients, call :func:`rlox_gpu.token_kl`.

Arguments may be anything that ``numpy.asarray`` takes, or torch tensors on any device; results per
sequence are of the kind and on the device of ``log_probs_policy``.
"""

from __future__ import annotations

import operator
import sys
from typing import Any

import numpy as np

from .kl import token_kl


def compute_token_kl(log_probs_policy: Any, log_probs_ref: Any) -> float:
    """``sum(exp(p) (p - q))`` in float64.

    This is KL(policy || reference) if the arguments are the log-probabilities of *all* outcomes of
    one distribution; for those of sampled tokens it is no divergence.

    Parameters
    ----------
    log_probs_policy, log_probs_ref : array, ``(T,)``
        Log-probabilities p and q.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    return _single(_weighted, log_probs_policy, log_probs_ref, "float64")


def compute_token_kl_f32(log_probs_policy: Any, log_probs_ref: Any) -> float:
    """:func:`compute_token_kl` in float32."""
    return _single(_weighted, log_probs_policy, log_probs_ref, "float32")


def compute_token_kl_schulman(log_probs_policy: Any, log_probs_ref: Any) -> float:
    """``sum(exp(p - q) - 1 - (p - q))`` in float64.

    Schulman's estimate with the ratio the other way round than usual: unbiased for
    KL(reference || policy) if the *reference* drew the tokens. For tokens of the policy it is
    ``token_kl(log_probs_policy, log_probs_ref, kind="k3", reduction="sum")`` that estimates
    KL(policy || reference).

    Parameters
    ----------
    log_probs_policy, log_probs_ref : array, ``(T,)``
        Log-probabilities p and q of the tokens.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    return _single(_schulman, log_probs_policy, log_probs_ref, "float64")


def compute_token_kl_schulman_f32(log_probs_policy: Any, log_probs_ref: Any) -> float:
    """:func:`compute_token_kl_schulman` in float32."""
    return _single(_schulman, log_probs_policy, log_probs_ref, "float32")


def compute_batch_token_kl(log_probs_policy: Any, log_probs_ref: Any, seq_len: int) -> Any:
    """:func:`compute_token_kl` of each sequence.

    Parameters
    ----------
    log_probs_policy, log_probs_ref : array, ``(B * seq_len,)``
        One sequence after the other.
    seq_len : int
        Length of a sequence.

    Returns
    -------
    array
        ``(B,)``, float64.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    return _batched(_weighted, log_probs_policy, log_probs_ref, seq_len, "float64")


def compute_batch_token_kl_f32(log_probs_policy: Any, log_probs_ref: Any, seq_len: int) -> Any:
    """:func:`compute_batch_token_kl` in float32."""
    return _batched(_weighted, log_probs_policy, log_probs_ref, seq_len, "float32")


def compute_batch_token_kl_schulman(log_probs_policy: Any, log_probs_ref: Any, seq_len: int) -> Any:
    """:func:`compute_token_kl_schulman` of each sequence; the rest as in its plain form."""
    return _batched(_schulman, log_probs_policy, log_probs_ref, seq_len, "float64")


def compute_batch_token_kl_schulman_f32(
    log_probs_policy: Any, log_probs_ref: Any, seq_len: int
) -> Any:
    """:func:`compute_batch_token_kl_schulman` in float32."""
    return _batched(_schulman, log_probs_policy, log_probs_ref, seq_len, "float32")


def _weighted(policy: Any, ref: Any) -> Any:
    weights = np.exp(policy) if isinstance(policy, np.ndarray) else policy.exp()
    return token_kl(policy, ref, kind="k1", ratio=weights, reduction="sequence")


def _schulman(policy: Any, ref: Any) -> Any:
    return token_kl(ref, policy, kind="k3", reduction="sequence")


def _single(estimate: Any, policy: Any, ref: Any, dtype: str) -> float:
    return float(estimate(*_arrays(policy, ref, dtype)))


def _batched(estimate: Any, policy: Any, ref: Any, seq_len: int, dtype: str) -> Any:
    policy, ref = _arrays(policy, ref, dtype)
    try:
        length = operator.index(seq_len)
    except TypeError:
        raise TypeError(f"seq_len: expected an int, got {type(seq_len).__name__}") from None
    if length < 1 or policy.shape[0] % length:
        raise ValueError(
            f"seq_len: expected a divisor of the {policy.shape[0]} log-probabilities, got {length}"
        )
    return estimate(policy.reshape(-1, length), ref.reshape(-1, length))


def _arrays(policy: Any, ref: Any, dtype: str) -> tuple[Any, Any]:
    """Both, flat and of one dtype: tensors beside a tensor, arrays beside anything else."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(policy, torch.Tensor):
        real = getattr(torch, dtype)
        policy = policy.detach().to(real)
        ref = torch.as_tensor(ref, dtype=real, device=policy.device).detach()
    else:
        policy = _array("log_probs_policy", policy, dtype)
        ref = _array("log_probs_ref", ref, dtype)
    if policy.ndim != 1:
        raise ValueError(
            f"log_probs_policy: expected one dimension, got shape {tuple(policy.shape)}"
        )
    if tuple(ref.shape) != tuple(policy.shape):
        raise ValueError(
            f"log_probs_ref: expected shape {tuple(policy.shape)}, got {tuple(ref.shape)}"
        )
    return policy, ref


def _array(name: str, x: Any, dtype: str) -> Any:
    try:
        return np.asarray(x, dtype)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: expected an array of numbers, got {x!r:.60}") from None
