"""Random steps from extreme states, with extreme actions and parameters, on every native task.

``python tests/fuzz_environments.py [--steps 10000000]``. A result that is not finite counts as
wrong unless Gymnasium's environment gives one too from the same state, or goes beyond float32.
It prints a line per task and ends with status 1 if something was wrong.
"""

import argparse
import sys
import warnings
from unittest import mock

import numpy as np
from env_tasks import CASES
from gymnasium.envs.classic_control import acrobot

NUM_ENVS = 4096
STEPS_PER_ENV = 64
LARGEST = 1e6
# A Runge-Kutta step squares its slopes. Where they become so large, rounding decides how large, and
# what is left of float32's range is soon used up.
BEYOND_FLOAT32 = 1e25


def wrap(x, low, high):
    """Gymnasium's subtracts turn after turn, which never ends for what is large."""
    return (x - low) % (high - low) + low


def extreme_params(case, rng):
    """Each environment's own: up to a hundred times or a hundredth of the defaults."""
    task = case.make().task
    params = {}
    for name, default in task.defaults.items():
        if isinstance(default, bool):
            params[name] = rng.random(NUM_ENVS) < 0.5
        else:
            params[name] = default * 10.0 ** rng.uniform(-2, 2, NUM_ENVS)
        if name in task.shares:
            params[name] = np.minimum(params[name], 1.0)
    return params


def extreme_actions(case, rng):
    actions = case.actions(rng, NUM_ENVS)
    if actions.dtype == np.float32:
        actions *= (10.0 ** rng.uniform(-30, 15, actions.shape)).astype(np.float32)
    return actions


def reference_of(case):
    """Gymnasium's environment; ``largest`` is the largest slope of an Acrobot's step."""
    reference = case.make_reference()
    reference.reset(seed=0)
    reference.largest = 0.0
    if hasattr(reference, "_dsdt"):
        slopes = reference._dsdt

        def recorded(state):
            result = slopes(state)
            reference.largest = max(reference.largest, *map(abs, result))
            return result

        reference._dsdt = recorded
    return reference


def cancels(params):
    """Whether an Acrobot's links are so unequal that its equations divide by 0 in float32."""
    if "LINK_MOI" not in params:
        return False
    moi, m1, m2 = (params[f"LINK_{name}"] for name in ("MOI", "MASS_1", "MASS_2"))
    l1, lc1, lc2 = (params[f"LINK_{name}"] for name in ("LENGTH_1", "COM_POS_1", "COM_POS_2"))
    cosine = m2 * l1 * lc2 * np.linspace(-1, 1, 2001)
    d1 = m1 * lc1**2 + m2 * (l1**2 + lc2**2) + 2 * moi + 2 * cosine
    d2 = m2 * lc2**2 + moi + cosine
    whole = m2 * lc2**2 + moi
    return (np.abs(whole - d2**2 / d1) < 1e-6 * whole).any()


def gymnasium_fails_too(reference, params, state, action):
    for name, value in params.items():
        setattr(reference, name, value.item())
    reference.state, reference.largest = state.astype(np.float64), 0.0
    with warnings.catch_warnings(), mock.patch.object(acrobot, "wrap", wrap):
        warnings.simplefilter("ignore")
        obs, reward, *_ = reference.step(action if action.ndim else int(action))
        finite = np.isfinite(np.append(obs, reward).astype(np.float32)).all()
    return not finite or reference.largest > BEYOND_FLOAT32 or cancels(params)


def fuzz(case, num_steps, rng):
    """Steps taken, results that are not finite, and how many of those Gymnasium does not give."""
    taken = failed = wrong = 0
    reference = reference_of(case)
    while taken < num_steps:
        params = extreme_params(case, rng)
        env = case.make(NUM_ENVS, autoreset_mode="SameStep", **params)
        env.reset(seed=int(rng.integers(2**31)))
        for _ in range(STEPS_PER_ENV):
            states = env._arrays.state
            if case.cells is None:
                states *= (10.0 ** rng.uniform(-3, 3, states.shape)).astype(states.dtype)
                np.nan_to_num(states, copy=False)
                np.clip(states, -LARGEST, LARGEST, out=states)
            else:
                states[:] = case.states(rng, NUM_ENVS)
            before, actions = states.copy(), extreme_actions(case, rng)
            obs, rewards, terminated, truncated, infos = env.step(actions)
            final = obs.copy()
            ended = terminated | truncated
            final[ended] = infos["final_obs"][ended] if ended.any() else final[ended]
            bad = ~(np.isfinite(final).all(axis=1) & np.isfinite(rewards))
            for i in np.flatnonzero(bad):
                own = {name: value[i] for name, value in params.items()}
                wrong += not gymnasium_fails_too(reference, own, before[i], actions[i])
            failed += bad.sum()
            taken += NUM_ENVS
            if taken >= num_steps:
                break
        # A rollout of many steps, whatever becomes of the states.
        env.rollout_random(16)
        taken += 16 * NUM_ENVS
        env.close()
    return taken, int(failed), int(wrong)


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    total = 0
    for name, case in CASES.items():
        rng = np.random.default_rng(arguments.seed)
        fuzz(case, 1, rng)
        before = resident_bytes()
        taken, failed, wrong = fuzz(case, arguments.steps, rng)
        grown = (resident_bytes() - before) / 2**20
        print(
            f"{name}: {taken:,} steps, {failed} not finite, {wrong} of them only ours, "
            f"memory {grown:+.1f} MiB",
            flush=True,
        )
        total += wrong
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
