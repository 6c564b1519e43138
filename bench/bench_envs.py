"""Stepping CartPole-v1: ours in each of its faces, rlox, Gymnasium's native vector env."""

import functools
import multiprocessing
import os

import numpy as np
import pytest
from harness import Job, Provider, Work, cases, need, need_compiler, synchronize

ENV_ID = "CartPole-v1"
SIZES = (1, 16, 256, 4096, 65536)
SEED = 0
# Actions are drawn before the clock starts; a call steps once with each of these rows.
STEPS_PER_CALL = {1: 256, 16: 256, 256: 128, 4096: 32, 65536: 8}
CHECKED_STEPS = 8
OBS_BYTES, ACTION_BYTES, REWARD_BYTES, FLAG_BYTES = 16, 8, 4, 2


def job_of(num_envs):
    nbytes = 2 * OBS_BYTES + ACTION_BYTES + REWARD_BYTES + FLAG_BYTES
    return Job(
        name=f"CartPole n={num_envs}",
        group="envs",
        items=num_envs,
        unit="env steps",
        nbytes=nbytes * num_envs,
        traffic=f"{nbytes} B/step: state in and out, int64 action, f32 reward, two flags",
    )


JOBS = {f"CartPole n={num_envs}": num_envs for num_envs in SIZES}


@functools.cache
def actions_of(num_envs):
    rng = np.random.default_rng(SEED)
    return rng.integers(0, 2, (STEPS_PER_CALL[num_envs], num_envs), dtype=np.int64)


def cartpole_reference(state, action):
    """One Euler step of CartPole in float64 (Barto, Sutton & Anderson, 1983): ``[N, 4]``."""
    _, x_dot, theta, theta_dot = np.asarray(state, np.float64).T
    force = np.where(action == 1, 10.0, -10.0)
    sine, cosine = np.sin(theta), np.cos(theta)
    push = (force + 0.05 * theta_dot**2 * sine) / 1.1
    theta_acc = (9.8 * sine - cosine * push) / (0.5 * (4.0 / 3.0 - 0.1 * cosine**2 / 1.1))
    x_acc = push - 0.05 * theta_acc * cosine / 1.1
    rates = np.stack([x_dot, x_acc, theta_dot, theta_acc], axis=-1)
    return np.asarray(state, np.float64) + 0.02 * rates


def check_steps(reset, step, num_envs):
    """Compare the first steps of every running episode with the float64 equations of motion."""
    obs, running = np.array(reset()), np.ones(num_envs, bool)
    for action in actions_of(num_envs)[:CHECKED_STEPS]:
        want = cartpole_reference(obs, action)
        obs, rewards, terminated, truncated = (np.array(part) for part in step(action))
        running &= ~(terminated | truncated).astype(bool)
        np.testing.assert_allclose(obs[running], want[running], rtol=1e-4, atol=1e-5)
        assert (rewards[running] == 1.0).all()
    assert running.any(), "no episode lasted long enough to be checked"


def stepping(step, num_envs, rows, device="cpu"):
    """The timed call: one step with each pre-drawn row of actions."""

    def call():
        for row in rows:
            step(row)
        synchronize(device)

    return call, len(rows)


def gymnasium_face(env, num_envs):
    def check():
        check_steps(lambda: env.reset(seed=SEED)[0], lambda action: env.step(action)[:4], num_envs)

    call, calls = stepping(env.step, num_envs, list(actions_of(num_envs)))
    return Work(call, check, calls)


def ours_make_vec(num_envs, device):
    import rlox_gpu

    return gymnasium_face(rlox_gpu.make_vec(ENV_ID, num_envs), num_envs)


def ours_tensors(num_envs, device):
    import torch

    from rlox_gpu.envs.tensor import TensorVectorEnv

    need_compiler(device)
    env = TensorVectorEnv(ENV_ID, num_envs, device=device)

    def on_device(action):
        return torch.as_tensor(action).to(device)

    def check():
        check_steps(
            lambda: env.reset(seed=SEED)[0].cpu().numpy(),
            lambda action: [part.cpu().numpy() for part in env.step(on_device(action))[:4]],
            num_envs,
        )

    rows = [on_device(row) for row in actions_of(num_envs)]
    call, calls = stepping(env.step, num_envs, rows, device)
    return Work(call, check, calls)


def step_all(env, num_envs, rows):
    names = ("obs", "rewards", "terminated", "truncated")

    def step(action):
        result = env.step_all(action)
        return [result[name] for name in names]

    call, calls = stepping(env.step_all, num_envs, rows)
    return Work(call, lambda: check_steps(env.reset_all, step, num_envs), calls)


def ours_step_all(num_envs, device):
    import rlox_gpu

    return step_all(rlox_gpu.VecEnv(num_envs, seed=SEED), num_envs, list(actions_of(num_envs)))


def rlox_step_all(num_envs, device):
    rlox = need("rlox")
    # Of the forms it takes (list, uint32, int64) the one it takes fastest.
    rows = list(actions_of(num_envs).astype(np.uint32))
    return step_all(rlox.VecEnv(num_envs, seed=SEED), num_envs, rows)


def gymnasium_native(num_envs, device):
    import gymnasium

    env = gymnasium.make_vec(ENV_ID, num_envs=num_envs, vectorization_mode="vector_entry_point")
    return gymnasium_face(env, num_envs)


PROVIDERS = [
    Provider("rlox-gpu make_vec", ours_make_vec, ours=True),
    Provider("rlox-gpu VecEnv", ours_step_all, ours=True),
    Provider("rlox-gpu tensors", ours_tensors, ("cpu", "cuda"), ours=True, needs=("torch",)),
    Provider("rlox VecEnv", rlox_step_all, needs=("rlox",)),
    Provider("gymnasium native", gymnasium_native),
]
CASES = [case for num_envs in SIZES for case in cases([job_of(num_envs)], PROVIDERS)]


@pytest.mark.parametrize(("job", "provider", "device"), CASES)
def bench_step(check_then_time, job, provider, device):
    check_then_time(job, provider, device, JOBS[job.name])


def one_env(make_env, first_reset, step):
    """An unbatched env stepped through pre-drawn actions and reset by its caller."""
    env = make_env()
    actions = [int(action) for action in actions_of(1)[:, 0]]

    def call():
        for action in actions:
            if step(env, action)[2]:
                env.reset()

    def check():
        def batched(action):
            obs, reward, done = step(env, int(action[0]))
            return [obs], [reward], [done], [False]

        check_steps(lambda: [first_reset(env)], batched, 1)

    return Work(call, check, len(actions))


def _from_dict(env, action):
    result = env.step(action)
    return result["obs"], result["reward"], result["terminated"] or result["truncated"]


def ours_single(device):
    import rlox_gpu

    return one_env(lambda: rlox_gpu.CartPole(seed=SEED), lambda env: env.reset(), _from_dict)


def rlox_single(device):
    rlox = need("rlox")
    return one_env(lambda: rlox.CartPole(seed=SEED), lambda env: env.reset(), _from_dict)


def gymnasium_single(device):
    import gymnasium

    def step(env, action):
        obs, reward, terminated, truncated, _ = env.step(action)
        return obs, reward, terminated or truncated

    return one_env(lambda: gymnasium.make(ENV_ID), lambda env: env.reset(seed=SEED)[0], step)


SINGLE = Job(name="CartPole object", group="envs", items=1, unit="env steps")


@pytest.mark.parametrize(
    ("job", "provider", "device"),
    cases(
        [SINGLE],
        [
            Provider("rlox-gpu CartPole", ours_single, ours=True),
            Provider("rlox CartPole", rlox_single, needs=("rlox",)),
            Provider("gymnasium.make", gymnasium_single),
        ],
    ),
)
def bench_single(check_then_time, job, provider, device):
    check_then_time(job, provider, device)


# Steps per call, and what each call writes: actions are drawn inside it.
ROLLOUTS = {f"CartPole random rollout n={n}": (n, k) for n, k in ((256, 128), (65536, 8))}


def rollout_job(name):
    num_envs, num_steps = ROLLOUTS[name]
    nbytes = OBS_BYTES + ACTION_BYTES + REWARD_BYTES + FLAG_BYTES
    return Job(
        name=name,
        group="envs",
        items=num_envs * num_steps,
        unit="env steps",
        nbytes=nbytes * num_envs * num_steps,
        traffic=f"{nbytes} B/step: observation, int64 action, f32 reward, two flags",
    )


def check_rollout(env, result):
    """Replay the rollout's actions by single steps from where it began."""
    for t, action in enumerate(result.actions[:CHECKED_STEPS]):
        step = env.step(action)[:4]
        for part, want in zip(result[:4], step, strict=False):
            np.testing.assert_array_equal(part[t], want)


def make_rollout_env(num_envs):
    import rlox_gpu

    env = rlox_gpu.make_vec(ENV_ID, num_envs, autoreset_mode="SameStep")
    env.reset(seed=SEED)
    return env


def ours_rollout_random(shape, device):
    num_envs, num_steps = shape
    env, other = make_rollout_env(num_envs), make_rollout_env(num_envs)
    out = env.make_rollout(num_steps, actions=True)
    out = out._replace(final_obs=None, episode_return=None, episode_length=None)
    return Work(
        lambda: env.rollout_random(num_steps, out=out),
        lambda: check_rollout(other, env.rollout_random(num_steps, out=out)),
    )


def ours_steps_with_random_actions(shape, device):
    """Single steps, each with actions that NumPy draws before it."""
    num_envs, num_steps = shape
    env, rng = make_rollout_env(num_envs), np.random.default_rng(SEED)

    def call():
        for _ in range(num_steps):
            env.step(rng.integers(0, 2, num_envs))

    return Work(call, lambda: None)


def _roll_in_child(connection, shape):
    work = ours_rollout_random(shape, "cpu")
    work.check()
    connection.send("ready")
    while connection.recv():
        work.call()
        connection.send("done")


def rollout_by_two_threads(shape, device):
    """The threads are counted when a process first needs them, so this runs in one of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    os.environ["RLOX_GPU_NUM_THREADS"] = "2"
    try:
        context.Process(target=_roll_in_child, args=(theirs, shape), daemon=True).start()
    finally:
        os.environ["RLOX_GPU_NUM_THREADS"] = "1"
    if ours.recv() != "ready":
        raise RuntimeError("the child failed")

    def call():
        ours.send(True)
        ours.recv()

    return Work(call, lambda: None)


ROLLOUT_PROVIDERS = [
    Provider("rlox-gpu rollout_random", ours_rollout_random, ours=True),
    Provider("rlox-gpu rollout_random, 2 threads", rollout_by_two_threads, ours=True),
    Provider("rlox-gpu make_vec, step by step", ours_steps_with_random_actions, ours=True),
]


@pytest.mark.parametrize(
    ("job", "provider", "device"), cases(map(rollout_job, ROLLOUTS), ROLLOUT_PROVIDERS)
)
def bench_rollout(check_then_time, job, provider, device):
    check_then_time(job, provider, device, ROLLOUTS[job.name])
