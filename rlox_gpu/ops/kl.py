"""Kullback-Leibler divergences of a policy from a reference.

From log-probabilities of sampled tokens, ``d = logprob - ref_logprob``::

    k1 = d               k2 = d^2 / 2               k3 = exp(-d) - 1 + d

Which of them estimates what depends on who drew the tokens:

* drawn from the policy: k1 and k3 are unbiased estimates of KL(policy || reference). k1 has the
  larger variance and may be negative; k3 never is. k2 is biased, by little where the two
  distributions are close.
* drawn from the reference: ``-k1``, and k3 with its two arguments exchanged, are unbiased
  estimates of KL(reference || policy).
* drawn from a third distribution, such as the policy of some updates ago: multiplied by
  ``ratio = exp(logprob - sampling_logprob)``, k1 and k3 are unbiased estimates of
  KL(policy || reference) again.

Unbiased values do not make unbiased gradients, for the gradient of the sampling itself is missing.
With tokens from the policy, the mean gradient of k1 is zero, that of k2 is the gradient of
KL(policy || reference), and that of k3 the gradient of KL(reference || policy). A ``ratio`` that
carries a gradient supplies what is missing: with it, k1 and k3 have the gradient of
KL(policy || reference), on policy (where its value is one) as off policy.

Where the logits of both are at hand nothing has to be estimated: :func:`full_kl` is the divergence
itself, and so is its gradient.

References: Schulman, "Approximating KL divergence", 2020, http://joschu.net/blog/kl-approx.html.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _rust
from .._checks import choice
from ._kinds import implementation, is_tensor, loaded
from ._kl_arguments import KINDS, REDUCTIONS


def token_kl(
    logprobs: Any,
    ref_logprobs: Any,
    *,
    kind: str = "k3",
    ratio: Any = None,
    mask: Any = None,
    reduction: str = "none",
) -> Any:
    """Estimate KL(policy || reference) from the log-probabilities of sampled tokens.

    The module's docstring says which kind is unbiased for tokens of which distribution, and what
    its gradient is.

    Parameters
    ----------
    logprobs, ref_logprobs : array, any shape
        Natural log-probabilities of the tokens under the policy and under the reference; float16,
        bfloat16, float32 or float64, both alike. Half precision is computed in float32.
    kind : str
        ``"k1"``: ``logprob - ref_logprob``; ``"k2"``: half its square; ``"k3"``:
        ``exp(ref - logprob) - 1 - (ref - logprob)``, evaluated so that it keeps its digits where
        the two are close and is never negative.
    ratio : array, optional
        Importance ratios that the estimates are multiplied with, like ``logprobs``; a ratio per
        sequence is expanded first.
    mask : array, optional
        Bool, integer or float, of the shape of ``logprobs``: tokens where it is zero give zero,
        whatever is there, NaN included.
    reduction : str
        ``"none"``: an estimate per token. ``"sum"``, ``"mean"``: of all tokens that the mask
        leaves (the mean of none is zero). ``"sequence"``: sums over the last dimension.

    Returns
    -------
    array
        Of the kind, dtype and device of ``logprobs``, and contiguous; shaped like it, without its
        last dimension (``"sequence"``), or without any. Sums are accumulated in float32 or better
        and do not depend on the number of threads. Torch tensors carry gradients to ``logprobs``,
        ``ref_logprobs`` and ``ratio``. Where both log-probabilities are minus infinity the
        estimate is NaN.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or dtype.
    ValueError
        If a shape or device does not fit, or ``kind`` or ``reduction`` is none of those above.

    References
    ----------
    Schulman, "Approximating KL divergence", 2020, http://joschu.net/blog/kl-approx.html.
    """
    # Memory moves the plain ones, and little of it: what is asked in between shows.
    plain = ratio is None and mask is None and type(reduction) is str and reduction == "none"
    if plain and type(kind) is str and kind in KINDS:
        found = None
        if type(logprobs) is np.ndarray:
            found = _rust.token_kl_of_arrays(logprobs, ref_logprobs, KINDS[kind])
        elif is_tensor(logprobs):
            found = loaded("_kl_torch", "token_kl_at_once")(logprobs, ref_logprobs, KINDS[kind])
        if found is not None:
            return found
    kind_code = choice("kind", kind, KINDS)
    reduction_code = choice("reduction", reduction, REDUCTIONS)
    call = implementation("logprobs", logprobs, "kl", "token_kl")
    return call(
        logprobs=logprobs,
        ref_logprobs=ref_logprobs,
        ratio=ratio,
        mask=mask,
        kind=kind_code,
        reduction=reduction_code,
    )


def full_kl(
    logits: Any,
    ref_logits: Any,
    *,
    temperature: float = 1.0,
    mask: Any = None,
    reduction: str = "none",
) -> Any:
    """KL(policy || reference) of categorical distributions, over the whole vocabulary.

    ``sum(p (log p - log q))`` with ``p = softmax(logits / temperature)`` and ``q`` likewise of
    ``ref_logits``. The logits of both are read once, by the backward pass once more, which writes
    the gradients that are wanted; no other array of their size exists. Logits whose last dimension
    is contiguous are taken as they lie if the others form at most two strides; others are copied.
    With the two exchanged it is KL(reference || policy).

    Parameters
    ----------
    logits, ref_logits : array, ``[..., V]``
        Unnormalised log-probabilities of the policy and of the reference; float16, bfloat16,
        float32 or float64, both alike.
    temperature : float
        What the logits of both are divided by: a plain number from 1e-30 to 1e30.
    mask : array, ``[...]``, optional
        Bool, integer or float: tokens where it is zero give zero and have gradients of zero,
        whatever their logits are, NaN included; these are not even read.
    reduction : str
        As in :func:`token_kl`: ``"none"``, ``"sum"``, ``"mean"`` or ``"sequence"``.

    Returns
    -------
    array
        In nats and never negative; ``[...]``, without its last dimension (``"sequence"``), or
        without any. float32, float64 for float64 logits, in which the sums are formed too; of the
        kind and on the device of ``logits``. Differentiable in torch ``logits`` and
        ``ref_logits``, once.

        A logit of negative infinity excludes a token. One that the policy excludes adds nothing.
        One that the reference alone excludes makes the divergence infinite, and the gradient of
        the policy's logits NaN; that of the reference's stays what it is, ``q - p``. NaN or
        positive infinity among the logits of a token, or all of a distribution excluded, give NaN
        there and nowhere else.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or dtype.
    ValueError
        If a shape, a device or the temperature does not fit, or ``reduction`` is none of those
        above.

    References
    ----------
    Kullback and Leibler, "On information and sufficiency", 1951; Milakov and Gimelshein, "Online
    normalizer calculation for softmax", 2018, https://arxiv.org/abs/1805.02867.
    """
    reduction_code = choice("reduction", reduction, REDUCTIONS)
    call = implementation("logits", logits, "full_kl", "full_kl")
    return call(
        logits=logits,
        ref_logits=ref_logits,
        temperature=temperature,
        mask=mask,
        reduction=reduction_code,
    )
