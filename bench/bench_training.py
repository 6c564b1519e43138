"""PPO on CartPole-v1, environment steps per second, at the settings SB3's zoo tuned."""

import numpy as np
import pytest
from harness import Job, Provider, Work, cases, need, need_compiler, synchronize

ENV_ID = "CartPole-v1"
NUM_ENVS, NUM_STEPS, NUM_EPOCHS, MINIBATCH = 8, 32, 20, 256
LEARNING_RATE, CLIP, GAMMA, LAMBDA = 1e-3, 0.2, 0.98, 0.8
ITERATIONS, ROUNDS = 8, 9
TIMESTEPS = ITERATIONS * NUM_ENVS * NUM_STEPS
CHECKED_TIMESTEPS = 8192
# A random policy lasts 22 steps; after the checked run every implementation is well above.
LEARNT_RETURN = 40.0

JOB = Job(
    name="PPO CartPole 8x32, 20 epochs of 256",
    group="training",
    items=TIMESTEPS,
    unit="env steps",
)


def check_learns(mean_return):
    assert np.isfinite(mean_return)
    assert mean_return > LEARNT_RETURN, f"mean return {mean_return} after training"


def ours(device):
    from rlox_gpu import PPO
    from rlox_gpu.config import tuned

    need_compiler(device)

    def make():
        settings = tuned("ppo", ENV_ID)
        return PPO(ENV_ID, seed=0, device=device, **settings)

    def train(agent):
        agent.train(TIMESTEPS)
        synchronize(device)

    def check():
        check_learns(make().train(CHECKED_TIMESTEPS)["mean_reward"])

    return Work(train, check, rounds=ROUNDS, setup=lambda: ((make(),), {}))


def stable_baselines3(device):
    sb3 = need("stable_baselines3")
    from stable_baselines3.common.env_util import make_vec_env

    def make():
        return sb3.PPO(
            "MlpPolicy",
            make_vec_env(ENV_ID, NUM_ENVS, seed=0),
            n_steps=NUM_STEPS,
            batch_size=MINIBATCH,
            n_epochs=NUM_EPOCHS,
            gamma=GAMMA,
            gae_lambda=LAMBDA,
            ent_coef=0.0,
            learning_rate=lambda left: LEARNING_RATE * left,
            clip_range=lambda left: CLIP * left,
            policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
            device=device,
            seed=0,
        )

    def train(agent):
        agent.learn(TIMESTEPS)
        synchronize(device)

    def check():
        agent = make().learn(CHECKED_TIMESTEPS)
        check_learns(np.mean([episode["r"] for episode in agent.ep_info_buffer]))

    return Work(train, check, rounds=ROUNDS, setup=lambda: ((make(),), {}))


@pytest.mark.parametrize(
    ("job", "provider", "device"),
    cases(
        [JOB],
        [
            Provider("rlox-gpu PPO", ours, ("cpu", "cuda"), ours=True, needs=("torch",)),
            Provider("SB3 PPO", stable_baselines3, ("cpu", "cuda")),
        ],
    ),
)
def bench_ppo(check_then_time, job, provider, device):
    check_then_time(job, provider, device)
