"""Draws from distributions, with their log-probabilities: the same on the CPU and on a GPU.

Every draw is a pure function of ``seed``, ``step`` and the row's place in the batch: words of
Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turned into
noise by arithmetic that every device rounds the same way. Another batch, or the next step of the
same one, takes another ``step``; two calls with the same ``seed`` and ``step`` see the same noise.

``step`` is a number, or a zero-dimensional integer tensor on the device of the arguments (its low
32 bits count): a captured CUDA graph reads it at each replay, so a graph that adds one to it draws
afresh each time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ._kinds import implementation


class CategoricalSample(NamedTuple):
    """What :func:`sample_categorical` returns, each of the shape of the logits without the last."""

    actions: Any
    log_prob: Any
    entropy: Any


def sample_categorical(logits: Any, *, seed: int, step: Any) -> CategoricalSample:
    """Draw a class from each row of ``logits``, in one pass.

    The action is the first class with the largest ``logits + noise``, noise being standard Gumbel
    numbers made of 32 random bits each: classes of probability 1e-9 are still drawn as often as
    they should be.

    Parameters
    ----------
    logits : array, ``[..., V]``, float16, bfloat16, float32 or float64
        Unnormalised log-probabilities. Those of negative infinity are never drawn.
    seed : int
        Key, in [0, 2**64).
    step : int or tensor
        Counter, in [0, 2**32), or a tensor that holds it (see the module's docstring).

    Returns
    -------
    CategoricalSample
        ``actions`` (int64), the ``log_prob`` of each, and the ``entropy`` of each row in nats, both
        float32 (float64 for float64 logits). Arrays of the kind and on the device of ``logits``.
        ``log_prob`` and ``entropy`` are differentiable with respect to ``logits``, actions are not.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or dtype.
    ValueError
        If ``logits`` has no class, or a number or the tensor ``step`` does not fit.

    Notes
    -----
    Actions are the same on every device and for all launch shapes; log-probabilities and entropies
    agree to rounding. A row with NaN, with positive infinity or without any finite logit is no
    distribution: its log-probability and entropy are NaN, its action is still a class. Logits are
    best within some thousands of zero: noise is added as they are, in their own precision (float32
    for half types), and that of a logit of 2**16 keeps 7 bits after the point.

    References
    ----------
    The Gumbel-max method: Maddison, Tarlow and Minka, "A* sampling", NeurIPS 2014,
    https://arxiv.org/abs/1411.0030.
    """
    call = implementation("logits", logits, "sampling", "sample_categorical")
    return CategoricalSample(*call(logits, seed=seed, step=step))


class GaussianSample(NamedTuple):
    """What :func:`sample_gaussian` and :func:`sample_squashed_gaussian` return."""

    actions: Any
    log_prob: Any


def sample_gaussian(mean: Any, log_std: Any, *, seed: int, step: Any) -> GaussianSample:
    """Draw ``mean + exp(log_std) * noise``, noise being standard normal, in one pass.

    Parameters
    ----------
    mean : array, ``[..., D]``, float16, bfloat16, float32 or float64
        Means of the D independent entries of an action.
    log_std : array, ``[D]`` or ``[..., D]``
        Natural logarithms of their standard deviations, of the dtype of ``mean``.
    seed : int
        Key, in [0, 2**64).
    step : int or tensor
        Counter, in [0, 2**32), or a tensor that holds it (see the module's docstring).

    Returns
    -------
    GaussianSample
        ``actions``, ``[..., D]`` in the dtype of ``mean``, and their ``log_prob``, ``[...]`` in
        float32 (float64 for float64). Arrays of the kind and on the device of ``mean``. Both are
        differentiable with respect to ``mean`` and ``log_std`` by reparameterisation: the noise is
        held fixed, and the gradient of ``log_prob`` contains the way through the actions. (For a
        policy gradient take the log-probabilities of stored actions instead.)

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or dtype.
    ValueError
        If a shape, a device, a number or the tensor ``step`` does not fit.

    Notes
    -----
    The noise is float32, the same on every device, made of 32 random bits for the length and 32
    for the angle of a pair (Box and Muller, "A note on the generation of random normal deviates",
    1958); none is larger than 6.8. Actions are the same bits on every device for float16, bfloat16
    and float32, and agree to rounding for float64. ``log_prob`` is that of the action before it is
    rounded to its dtype. NaN stays in its own entry of ``actions`` and its row of ``log_prob``.
    """
    call = implementation("mean", mean, "sampling", "sample_gaussian")
    return GaussianSample(*call(mean, log_std, seed=seed, step=step))


def sample_squashed_gaussian(mean: Any, log_std: Any, *, seed: int, step: Any) -> GaussianSample:
    """Draw ``tanh(mean + exp(log_std) * noise)``, as soft actor-critic does, in one pass.

    All is as for :func:`sample_gaussian`, except that the actions lie in [-1, 1] and ``log_prob``
    is less by the logarithm of tanh's slope at x = mean + exp(log_std) * noise, summed over D::

        ln(1 - tanh(x)**2) = 2 (ln 2 - x - softplus(-2 x))

    which stays exact where tanh has rounded to one. (Haarnoja et al., "Soft actor-critic algorithms
    and applications", 2018, https://arxiv.org/abs/1812.05905.) An action is within 2e-7 of the
    exact tanh in float32.
    """
    call = implementation("mean", mean, "sampling", "sample_squashed_gaussian")
    return GaussianSample(*call(mean, log_std, seed=seed, step=step))
