"""Log-probabilities of tokens under a softmax, from logits or from hidden states.

``logprob = log softmax(logits / temperature)[token]``, and on request the entropy
``-sum(p log p)`` of the same distribution, in one pass over the vocabulary.

The sums are formed in float32, in float64 for float64 logits, and the results have that dtype:
float16 and bfloat16 logits give float32 results, since the ratio of two policies is the exponential
of a difference of log-probabilities, which three digits would spoil.

A logit of negative infinity excludes a token: its log-probability is negative infinity, it adds
nothing to the entropy, and its gradient is zero. NaN or positive infinity in a row, and a row that
excludes all tokens, give NaN in that row and nowhere else.

Tokens have to be in ``[0, V)``, padding included: give padding any valid token, zero say, and mask
what comes out. On the CPU another token is a ValueError. On a GPU, where looking would wait for the
device, its log-probability is NaN; memory outside the logits is never read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ._kinds import implementation


class TokenLogprobs(NamedTuple):
    """What the ops of this module return with ``return_entropy=True``."""

    logprobs: Any
    entropies: Any


def token_logprobs(
    logits: Any, tokens: Any, *, temperature: float = 1.0, return_entropy: bool = False
) -> Any:
    """Log-probabilities of ``tokens`` under ``softmax(logits / temperature)``.

    The logits are read once, by the backward pass once more, which writes their gradient; no
    other array of their size exists. Logits whose last dimension is contiguous are taken as they
    lie if the others form at most two strides, ``logits[:, :-1]`` included; others are copied.

    Parameters
    ----------
    logits : array, ``[..., V]``
        Unnormalised log-probabilities; float16, bfloat16, float32 or float64.
    tokens : array, ``[...]``
        Chosen tokens; any integer dtype (another than int64 is converted).
    temperature : float
        What the logits are divided by: a plain number from 1e-30 to 1e30.
    return_entropy : bool
        Whether the entropies are wanted too.

    Returns
    -------
    array, ``[...]``, or TokenLogprobs
        Log-probabilities, in nats and at most zero; with ``return_entropy`` the pair
        ``(logprobs, entropies)``. float32, float64 for float64 logits; of the kind and on the
        device of the logits. Both are differentiable in torch logits, once.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or dtype.
    ValueError
        If a shape, a device, the temperature or (on the CPU) a token does not fit.

    References
    ----------
    Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018,
    https://arxiv.org/abs/1805.02867.
    """
    call = implementation("logits", logits, "logprobs", "token_logprobs")
    logprobs, entropies = call(logits, tokens, temperature, bool(return_entropy))
    return TokenLogprobs(logprobs, entropies) if return_entropy else logprobs


def linear_token_logprobs(
    hidden: Any,
    weight: Any,
    tokens: Any,
    *,
    bias: Any = None,
    temperature: float = 1.0,
    return_entropy: bool = False,
) -> Any:
    """:func:`token_logprobs` of ``hidden @ weight.T + bias``, whose logits never exist as a whole.

    They are formed in chunks of at most 1,024 rows and 8,192 tokens of the vocabulary: 32 MiB in
    float32, 16 MiB in bfloat16. The backward pass forms them again, and one more chunk for their
    gradient: four matrix products in all, against three with stored logits. A chunk is
    rounded to the dtype of ``hidden``, as a linear layer rounds its output (NumPy float16 is
    multiplied in float32). Gradients are summed over chunks in float32, in float64 for float64:
    beside the gradients themselves this takes one array of the size of ``hidden`` and one of
    ``[8192, H]``. Autocast changes nothing.

    Parameters
    ----------
    hidden : array, ``[..., H]``
        Inputs of the last layer; float16, bfloat16, float32 or float64.
    weight : array, ``[V, H]``
        Its weight, of the same dtype.
    tokens : array, ``[...]``
        Chosen tokens; any integer dtype.
    bias : array, ``[V]``, optional
        Its bias, of the same dtype.
    temperature, return_entropy
        As in :func:`token_logprobs`.

    Returns
    -------
    array, ``[...]``, or TokenLogprobs
        As :func:`token_logprobs`; differentiable in torch ``hidden``, ``weight`` and ``bias``.

    Raises
    ------
    TypeError, ValueError
        As :func:`token_logprobs`.

    References
    ----------
    Wijmans et al., "Cut your losses in large-vocabulary language models", 2024,
    https://arxiv.org/abs/2411.09009, and Liger Kernel, https://github.com/linkedin/Liger-Kernel:
    the idea of recomputing logits instead of keeping them.
    """
    call = implementation("hidden", hidden, "logprobs", "linear_token_logprobs")
    logprobs, entropies = call(hidden, weight, tokens, bias, temperature, bool(return_entropy))
    return TokenLogprobs(logprobs, entropies) if return_entropy else logprobs
