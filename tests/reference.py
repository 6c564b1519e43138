"""The estimators as readable float64 NumPy loops: what every backend is compared with.

One trajectory at a time, one transition at a time. A masked step, padding included, is one that
does not exist: the loops see the others, side by side, and the results are zero there.

``rewards`` sets the shape: ``[T, N]`` (``time_dim=0``), ``[N, T]`` (``time_dim=-1`` or ``1``),
``[T]`` with a scalar ``last_values``, or packed ``[total]`` with ``cu_seqlens`` ``[B + 1]`` and
``last_values`` ``[B]``. Discounts, traces and masks broadcast to it. A nonzero flag is set.
"""

import itertools

import numpy as np


def gae_reference(
    rewards,
    values,
    terminated,
    last_values,
    truncated=None,
    final_values=None,
    gamma=0.99,
    gae_lambda=0.95,
    **where,
):
    """Advantages and returns of generalised advantage estimation (Schulman et al., 2016)."""

    def trajectory(last_value, rewards, values, terminated, truncated, final, gamma, lam):
        advantages, advantage = np.zeros_like(rewards), 0.0
        next_values, cut = _followed_by(values, terminated, truncated, final, last_value)
        for t in reversed(range(len(rewards))):
            delta = rewards[t] + gamma[t] * next_values[t] - values[t]
            advantage = delta + (0.0 if cut[t] else gamma[t] * lam[t] * advantage)
            advantages[t] = advantage
        return advantages, advantages + values

    steps = (rewards, values, terminated, truncated, final_values, gamma, gae_lambda)
    return _each_trajectory(trajectory, 2, last_values, steps, **where)


def discounted_returns_reference(
    rewards, terminated, last_values, truncated=None, final_values=None, gamma=0.99, **where
):
    """``G[t] = r[t] + gamma G[t + 1]``; what follows the last step is ``last_values``."""

    def trajectory(last_value, rewards, terminated, truncated, final, gamma):
        returns, total = np.zeros_like(rewards), last_value
        for t in reversed(range(len(rewards))):
            after = 0.0 if terminated[t] else final[t] if truncated[t] else total
            total = rewards[t] + gamma[t] * after
            returns[t] = total
        return (returns,)

    steps = (rewards, terminated, truncated, final_values, gamma)
    return _each_trajectory(trajectory, 1, last_values, steps, **where)[0]


def td_lambda_returns_reference(
    rewards,
    values,
    terminated,
    last_values,
    truncated=None,
    final_values=None,
    gamma=0.99,
    td_lambda=0.95,
    **where,
):
    """``G[t] = r[t] + gamma ((1 - lambda) V'[t] + lambda G[t + 1])`` (Sutton and Barto, 12.3)."""

    def trajectory(last_value, rewards, values, terminated, truncated, final, gamma, lam):
        returns, total = np.zeros_like(rewards), last_value
        next_values, cut = _followed_by(values, terminated, truncated, final, last_value)
        for t in reversed(range(len(rewards))):
            blend = (1 - lam[t]) * next_values[t] + lam[t] * (0.0 if cut[t] else total)
            total = rewards[t] + gamma[t] * (next_values[t] if cut[t] else blend)
            returns[t] = total
        return (returns,)

    steps = (rewards, values, terminated, truncated, final_values, gamma, td_lambda)
    return _each_trajectory(trajectory, 1, last_values, steps, **where)[0]


def n_step_returns_reference(
    rewards,
    values,
    terminated,
    last_values,
    truncated=None,
    final_values=None,
    n=1,
    gamma=0.99,
    **where,
):
    """At most ``n`` discounted rewards, then the value of the observation behind them."""

    def trajectory(last_value, rewards, values, terminated, truncated, final, gamma):
        returns = np.zeros_like(rewards)
        next_values, cut = _followed_by(values, terminated, truncated, final, last_value)
        for t in range(len(rewards)):
            discount = 1.0
            for k in range(t, min(t + n, len(rewards))):
                returns[t] += discount * rewards[k]
                discount *= gamma[k]
                if cut[k]:
                    break
            returns[t] += discount * next_values[k]
        return (returns,)

    steps = (rewards, values, terminated, truncated, final_values, gamma)
    return _each_trajectory(trajectory, 1, last_values, steps, **where)[0]


def vtrace_reference(
    log_rhos,
    rewards,
    values,
    terminated,
    last_values,
    truncated=None,
    final_values=None,
    gamma=0.99,
    rho_bar=1.0,
    c_bar=1.0,
    **where,
):
    """V-trace targets and policy-gradient advantages (Espeholt et al., 2018)."""

    def trajectory(last_value, log_rhos, rewards, values, terminated, truncated, final, gamma):
        targets, advantages, correction = np.zeros_like(rewards), np.zeros_like(rewards), 0.0
        next_values, cut = _followed_by(values, terminated, truncated, final, last_value)
        for t in reversed(range(len(rewards))):
            ratio = np.exp(log_rhos[t])
            rho, c = min(rho_bar, ratio), min(c_bar, ratio)
            ends = cut[t] or t + 1 == len(rewards)
            next_target = next_values[t] if ends else targets[t + 1]
            delta = rho * (rewards[t] + gamma[t] * next_values[t] - values[t])
            correction = delta + (0.0 if cut[t] else gamma[t] * c * correction)
            targets[t] = values[t] + correction
            advantages[t] = rho * (rewards[t] + gamma[t] * next_target - values[t])
        return targets, advantages

    steps = (log_rhos, rewards, values, terminated, truncated, final_values, gamma)
    return _each_trajectory(trajectory, 2, last_values, steps, like=rewards, **where)


def retrace_reference(
    log_rhos,
    rewards,
    q_values,
    values,
    terminated,
    last_values,
    truncated=None,
    final_values=None,
    gamma=0.99,
    retrace_lambda=0.95,
    **where,
):
    """Retrace(lambda) targets of action values (Munos et al., 2016).

    ``values`` are the expected action values under the target policy.
    """

    def trajectory(
        last_value, log_rhos, rewards, q, values, terminated, truncated, final, gamma, lam
    ):
        targets, correction, trace = np.zeros_like(rewards), 0.0, 0.0
        next_values, cut = _followed_by(values, terminated, truncated, final, last_value)
        for t in reversed(range(len(rewards))):
            delta = rewards[t] + gamma[t] * next_values[t] - q[t]
            correction = delta + (0.0 if cut[t] else gamma[t] * trace * correction)
            trace = lam[t] * min(1.0, np.exp(log_rhos[t]))
            targets[t] = q[t] + correction
        return (targets,)

    steps = (
        log_rhos,
        rewards,
        q_values,
        values,
        terminated,
        truncated,
        final_values,
        gamma,
        retrace_lambda,
    )
    return _each_trajectory(trajectory, 1, last_values, steps, like=rewards, **where)[0]


def eligibility_traces_reference(
    x, terminated, truncated=None, gamma=0.99, trace_lambda=0.95, initial=None, **where
):
    """``e[t] = x[t] + gamma[t - 1] lambda[t - 1] e[t - 1]``, forward in time.

    Nothing is carried over the end of an episode. ``initial`` ``[N]`` is what the first step is
    handed, already discounted.
    """

    def trajectory(initial, x, terminated, truncated, gamma, lam):
        traces, carried = np.zeros_like(x), initial
        for t in range(len(x)):
            traces[t] = x[t] + carried
            carried = 0.0 if terminated[t] or truncated[t] else gamma[t] * lam[t] * traces[t]
        return (traces,)

    steps = (x, terminated, truncated, gamma, trace_lambda)
    return _each_trajectory(trajectory, 1, initial, steps, **where)[0]


def moments_reference(advantages, valid):
    """Count, mean and sum of squared differences from the mean of the valid advantages."""
    chosen = advantages[valid]
    mean = chosen.mean() if len(chosen) else 0.0
    return len(chosen), mean, ((chosen - mean) ** 2).sum()


def valid_steps(shape, mask=None, lengths=None, cu_seqlens=None, time_dim=0):
    """Which elements of an array of this shape are steps of a trajectory, bool."""
    valid = np.zeros(np.prod(shape, dtype=int), bool)
    for steps in _trajectories(shape, mask, lengths, cu_seqlens, time_dim):
        valid[steps] = True
    return valid.reshape(shape)


def _followed_by(values, terminated, truncated, final_values, last_value):
    """The value that each step bootstraps from, and whether its trace is cut."""
    next_values = np.append(values[1:], last_value)
    cut = (terminated != 0) | (truncated != 0)
    for t in range(len(values)):
        if terminated[t]:
            next_values[t] = 0.0
        elif truncated[t]:
            next_values[t] = final_values[t]
    return next_values, cut


def _each_trajectory(
    estimate,
    count,
    last_values,
    steps,
    like=None,
    mask=None,
    lengths=None,
    cu_seqlens=None,
    time_dim=0,
):
    """``count`` float64 arrays: ``estimate(last_value, *arrays)`` of every trajectory.

    ``steps`` are arrays that broadcast to the shape of ``like`` (of the first one if not given),
    or None for zeros.
    """
    shape = np.shape(steps[0] if like is None else like)
    arrays = [
        np.broadcast_to(np.asarray(0.0 if x is None else x), shape).astype(np.float64).ravel()
        for x in steps
    ]
    trajectories = _trajectories(shape, mask, lengths, cu_seqlens, time_dim)
    if last_values is None:
        last_values = np.zeros(len(trajectories))
    last_values = np.asarray(last_values).astype(np.float64).reshape(-1)
    results = np.zeros((count, np.prod(shape, dtype=int)))
    for last_value, where in zip(last_values, trajectories, strict=True):
        results[:, where] = estimate(last_value, *(x[where] for x in arrays))
    return [result.reshape(shape) for result in results]


def _trajectories(shape, mask, lengths, cu_seqlens, time_dim):
    """For each trajectory where its steps lie, in order of time, as flat indices."""
    positions = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    if cu_seqlens is not None:
        bounds = np.asarray(cu_seqlens)
        lines = [positions[i:j] for i, j in itertools.pairwise(bounds)]
    elif len(shape) == 1:
        lines = [positions]
    else:
        lines = list(positions.T if time_dim == 0 else positions)
    if lengths is not None:
        counts = np.asarray(lengths).reshape(-1)
        lines = [line[:count] for line, count in zip(lines, counts, strict=True)]
    if mask is not None:
        chosen = np.broadcast_to(np.asarray(mask), shape).astype(np.float64).ravel() != 0
        lines = [line[chosen[line]] for line in lines]
    return lines
