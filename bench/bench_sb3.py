"""CartPole-v1 behind Stable-Baselines3's VecEnv: ours and SB3's DummyVecEnv."""

import functools

import numpy as np
import pytest
from harness import Job, Provider, Work, cases, need

ENV_ID = "CartPole-v1"
SIZES = (8, 64)
STEPS_PER_CALL = 64
CHECKED_STEPS = 200

JOBS = {
    f"SB3 VecEnv CartPole n={num_envs}": Job(
        name=f"SB3 VecEnv CartPole n={num_envs}",
        group="sb3",
        items=num_envs,
        unit="env steps",
    )
    for num_envs in SIZES
}


@functools.cache
def actions_of(num_envs):
    return np.random.default_rng(0).integers(0, 2, (CHECKED_STEPS, num_envs))


def check_steps(env, num_envs):
    """Rewards of one, episodes that are as long as they return, and their final observations."""
    env.seed(0)
    assert env.reset().shape == (num_envs, 4)
    lengths = np.zeros(num_envs)
    ended = 0
    for actions in actions_of(num_envs):
        obs, rewards, dones, infos = env.step(actions)
        assert (rewards == 1).all()
        assert (np.abs(obs[dones]) <= 0.05).all()
        lengths += 1
        for i in np.flatnonzero(dones):
            ended += 1
            assert infos[i]["episode"]["l"] == infos[i]["episode"]["r"] == lengths[i]
            assert np.abs(infos[i]["terminal_observation"]).max() > 0.05
            lengths[i] = 0
    assert ended > num_envs


def stepping(env, num_envs):
    rows = list(actions_of(num_envs)[:STEPS_PER_CALL])

    def call():
        for row in rows:
            env.step(row)

    return Work(call, lambda: check_steps(env, num_envs), len(rows))


def ours(num_envs, device):
    need("stable_baselines3")
    from rlox_gpu.envs.sb3 import make_sb3_vec_env

    return stepping(make_sb3_vec_env(ENV_ID, num_envs), num_envs)


def dummy_vec_env(num_envs, device):
    need("stable_baselines3")
    from stable_baselines3.common.env_util import make_vec_env

    return stepping(make_vec_env(ENV_ID, num_envs), num_envs)


PROVIDERS = [
    Provider("rlox-gpu SB3VecEnv", ours, ours=True),
    Provider("SB3 DummyVecEnv", dummy_vec_env),
]


@pytest.mark.parametrize(("job", "provider", "device"), cases(JOBS.values(), PROVIDERS))
def bench_sb3_step(check_then_time, job, provider, device):
    check_then_time(job, provider, device, job.items)
