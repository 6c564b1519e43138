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
    rows = _f64(logits).reshape(-1, np.shape(logits)[-1])
    for row, action in zip(rows, np.ravel(actions), strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            log_p = row - row.max() - np.log(np.exp(row - row.max()).sum())
            p = np.exp(log_p)
            log_probs.append(log_p[action] if 0 <= action < len(row) else np.nan)
            entropies.append(-sum(p[a] * log_p[a] for a in range(len(row)) if p[a] != 0))
    columns = (old_log_probs, advantages, returns, values, old_values, mask)
    return _ppo_means(log_probs, entropies, columns, clip_eps, vf_coef, ent_coef)


def gaussian_ppo_reference(
    mean,
    log_std,
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
    """The same of a policy whose actions have independent Gaussian entries."""
    mean, actions = (_f64(x).reshape(-1, np.shape(mean)[-1]) for x in (mean, actions))
    log_probs, entropies = [], []
    for mu, s, a in zip(mean, np.broadcast_to(_f64(log_std), mean.shape), actions, strict=True):
        variance = np.exp(s) ** 2
        density = np.exp(-((a - mu) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
        log_probs.append(np.log(density).sum())
        entropies.append((np.log(2 * np.pi * np.e * variance) / 2).sum())
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


def grpo_reference(
    logprobs,
    old_logprobs,
    advantages,
    mask=None,
    ref_logprobs=None,
    clip_eps_low=0.2,
    clip_eps_high=0.2,
    kl_coef=0.0,
    kl_kind="k3",
    ratio_level="token",
    aggregation="grpo",
    max_tokens=None,
):
    """Loss, policy loss, KL and clip fraction of GRPO and its relatives, sequence by sequence."""
    low = -np.inf if clip_eps_low is None else 1 - clip_eps_low
    high = np.inf if clip_eps_high is None else 1 + clip_eps_high
    new, old, advantages = _f64(logprobs), _f64(old_logprobs), _f64(advantages)
    sequences = []
    for b in range(len(new)):
        valid = [t for t in range(new.shape[1]) if mask is None or mask[b, t] != 0]
        log_ratios = [new[b, t] - old[b, t] for t in valid]
        if ratio_level == "sequence" and valid:
            log_ratios = [np.mean(log_ratios)] * len(valid)
        tokens = []
        for t, log_ratio in zip(valid, log_ratios, strict=True):
            ratio, advantage = np.exp(log_ratio), advantages[b] if advantages.ndim == 1 else 0
            advantage = advantages[b, t] if advantages.ndim == 2 else advantage
            limited = np.clip(ratio, low, high) * advantage
            kl = 0.0
            if ref_logprobs is not None:
                kl = _estimate(new[b, t] - _f64(ref_logprobs)[b, t], kl_kind)
            tokens.append((-min(ratio * advantage, limited), kl, ratio * advantage > limited))
        sequences.append(np.array(tokens).reshape(-1, 3))
    count = max(sum(map(len, sequences)), 1)
    sums = [tokens.sum(0) for tokens in sequences] or [np.zeros(3)]
    clipped = np.sum(sums, axis=0)[2] / count
    if aggregation == "grpo":
        per_sequence = [x / max(len(s), 1) for x, s in zip(sums, sequences, strict=True)]
        policy, kl, _ = np.mean(per_sequence, axis=0)
    else:
        divisor = count if aggregation == "dapo" else len(new) * max_tokens
        policy, kl, _ = np.sum(sums, axis=0) / divisor
    return np.array([policy + kl_coef * kl, policy, kl, clipped])


def _estimate(d, kind):
    """Estimates of KL(policy || reference) at a token of the policy (Schulman, 2020)."""
    return {"k1": d, "k2": d**2 / 2, "k3": np.exp(-d) - 1 + d}[kind]
