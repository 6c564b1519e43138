"""Draws in float64 NumPy, from the words of the reference generator."""

import numpy as np
from random_reference import philox_reference

CATEGORICAL_STREAM = 3
GAUSSIAN_STREAM = 4


def words_reference(rows, width, seed, step, stream):
    """``[rows, width]`` words: a row takes whole groups of four."""
    groups = -(-width // 4)
    words = philox_reference(seed, np.arange(rows * groups), step, stream)
    return np.stack(words, axis=1).reshape(rows, 4 * groups)[:, :width]


def exponential_reference(words):
    """``-ln(1 - w)``, ``w`` the middle of the word's cell; the last cells end at 1 - 2**-24."""
    middle = (words.astype(np.float64) + 0.5) * 2.0**-32
    return -np.log1p(-np.minimum(middle, 1 - 2.0**-24))


def categorical_reference(logits, seed, step):
    """Actions, log-probabilities, entropies, and how far each winner was ahead."""
    x = np.asarray(logits, np.float64)
    shape, classes = x.shape[:-1], x.shape[-1]
    x = x.reshape(-1, classes)
    words = words_reference(len(x), classes, seed, step, CATEGORICAL_STREAM)
    scores = x - np.log(exponential_reference(words))
    actions = scores.argmax(-1)
    with np.errstate(invalid="ignore"):
        lead = np.diff(np.sort(scores, -1)[:, -2:], axis=-1).reshape(len(x), -1)
    log_p = log_softmax(x)
    p = np.exp(log_p)
    entropy = -(p * np.maximum(log_p, -1e4)).sum(-1)
    log_prob = np.take_along_axis(log_p, actions[:, None], -1)[:, 0]
    lead = lead[:, 0] if classes > 1 else np.full(len(x), np.inf)
    return tuple(part.reshape(shape) for part in (actions, log_prob, entropy, lead))


def log_softmax(x):
    peak = x.max(-1, keepdims=True)
    return x - peak - np.log(np.exp(x - peak).sum(-1, keepdims=True))


def categorical_gradient_reference(logits, actions, log_prob_gradients, entropy_gradients):
    """Gradient of the logits ``[R, V]``."""
    log_p = log_softmax(np.asarray(logits, np.float64))
    p = np.exp(log_p)
    log_p = np.maximum(log_p, -1e4)  # times zero, which negative infinity cannot be
    entropy = -(p * log_p).sum(-1, keepdims=True)
    hot = np.arange(p.shape[-1]) == np.asarray(actions)[:, None]
    through_entropy = -p * (log_p + entropy)
    return log_prob_gradients[:, None] * (hot - p) + entropy_gradients[:, None] * through_entropy


def normals_reference(rows, width, seed, step):
    """``[rows, width]`` standard normal numbers by the method of Box and Muller."""
    padded = -(-width // 4) * 4
    words = words_reference(rows, padded, seed, step, GAUSSIAN_STREAM)
    radius = np.sqrt(2 * exponential_reference(words[:, 0::2]))
    turn = words[:, 1::2]
    # Two bits choose a quarter of the circle around 0, 90, 180 or 270 degrees.
    angle = (turn & 0x3FFFFFFF) / 2.0**30 - 0.5 + (turn >> 30)
    pairs = np.stack([radius * np.cos(angle * np.pi / 2), radius * np.sin(angle * np.pi / 2)], -1)
    return pairs.reshape(rows, padded)[:, :width]


def gaussian_reference(mean, log_std, noise, *, squash):
    """Actions and log-probabilities of float64 tensors: differentiable by torch."""
    x = mean + log_std.exp() * noise
    log_prob = (-0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)
    if not squash:
        return x, log_prob
    softplus = (-2 * x).exp().log1p()
    return x.tanh(), log_prob - (2 * (np.log(2) - x - softplus)).sum(-1)
