"""The policy losses as readable float64 loops over samples: what every backend is compared with."""

import numpy as np


def ppo_reference(
    logits,
    actions,
    old_log_probs,
    advantages,
    returns,
    values,
    old_values=None,
    mask=None,
    clip_eps=0.2,
    vf_coef=0.5,
    ent_coef=0.01,
):
    """The six numbers of PPO's loss of a categorical policy (Schulman et al., 2017)."""
    log_probs, entropies = [], []
    for row, action in zip(_f64(logits).reshape(-1, np.shape(logits)[-1]), np.ravel(actions)):
        with np.errstate(divide="ignore", invalid="ignore"):
            log_p = row - row.max() - np.log(np.exp(row - row.max()).sum())
            p = np.exp(log_p)
            log_probs.append(log_p[action] if 0 <= action < len(row) else np.nan)
            entropies.append(-sum(p[a] * log_p[a] for a in range(len(row)) if p[a] != 0))
    columns = (old_log_probs, advantages, returns, values, old_values, mask)
    return _ppo_means(log_probs, entropies, columns, clip_eps, vf_coef, ent_coef)


def _ppo_means(log_probs, entropies, columns, clip_eps, vf_coef, ent_coef):
    old_log_probs, advantages, returns, values, old_values, mask = (
        None if x is None else np.ravel(_f64(x)) for x in columns
    )
    rows = []
    for i, log_prob in enumerate(log_probs):
        if mask is not None and mask[i] == 0:
            continue
        ratio = np.exp(log_prob - old_log_probs[i])
        clipped = np.clip(ratio, 1 - clip_eps, 1 + clip_eps)
        policy = -min(ratio * advantages[i], clipped * advantages[i])
        error = (values[i] - returns[i]) ** 2
        if old_values is not None:
            near = old_values[i] + np.clip(values[i] - old_values[i], -clip_eps, clip_eps)
            error = max(error, (near - returns[i]) ** 2)
        divergence = ratio - 1 - np.log(ratio)
        rows.append((policy, error / 2, entropies[i], divergence, abs(ratio - 1) > clip_eps))
    means = np.mean(rows, axis=0) if rows else np.zeros(5)
    loss = means[0] + vf_coef * means[1] - ent_coef * means[2]
    return np.array([loss, *means])


def _f64(x):
    return np.asarray(x).astype(np.float64)
