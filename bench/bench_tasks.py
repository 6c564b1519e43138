"""Every task of classic control, thousands at a time, beside whoever else has it."""

import importlib

import numpy as np
import pytest
from harness import Job, LeftOut, Provider, Work, cases, need

NUM_ENVS = 4096
# Steps of one call; actions are drawn before the clock starts.
NUM_STEPS = 16
SEED = 0
TASKS = (
    "CartPole-v1",
    "Pendulum-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Acrobot-v1",
    "FrozenLake-v1",
)


def job_of(task):
    return Job(
        name=f"{task} n={NUM_ENVS}",
        group="tasks",
        items=NUM_ENVS,
        unit="env steps",
    )


def actions_of(space):
    """``NUM_STEPS`` rows of random actions of a single environment's ``space``."""
    rng = np.random.default_rng(SEED)
    shape = (NUM_STEPS, NUM_ENVS)
    if hasattr(space, "n"):
        return rng.integers(0, space.n, shape, dtype=np.int64)
    low, high = space.low, space.high
    return rng.uniform(low, high, (*shape, *space.shape)).astype(np.float32)


def check_step(obs, rewards, terminated, truncated):
    """One result for every environment, and all of them numbers."""
    assert len(obs) == NUM_ENVS
    assert np.isfinite(np.asarray(obs, np.float64)).all()
    assert np.shape(rewards) == np.shape(terminated) == np.shape(truncated) == (NUM_ENVS,)
    assert np.isfinite(np.asarray(rewards, np.float64)).all()


def stepping(env, reset, space):
    rows = list(actions_of(space))

    def call():
        for row in rows:
            env.step(row)

    def check():
        reset()
        for row in rows:
            check_step(*env.step(row)[:4])

    return Work(call, check, len(rows))


def ours(task, device):
    import rlox_gpu

    env = rlox_gpu.make_vec(task, NUM_ENVS)
    return stepping(env, lambda: env.reset(seed=SEED), env.single_action_space)


def gymnasium_fastest(task, device):
    """The task's own vector environment, or copies of it side by side in this process."""
    import gymnasium

    own = gymnasium.spec(task).vector_entry_point is not None
    mode = "vector_entry_point" if own else "sync"
    env = gymnasium.make_vec(task, NUM_ENVS, vectorization_mode=mode)
    return stepping(env, lambda: env.reset(seed=SEED), env.single_action_space)


def envpool_of_one_thread(task, device):
    envpool = need("envpool")
    try:
        env = envpool.make_gymnasium(task, num_envs=NUM_ENVS, num_threads=1, seed=SEED)
    except Exception as error:
        raise LeftOut(f"envpool does not make {task}: {error}") from error
    return stepping(env, env.reset, env.action_space)


def rlox_of_cartpole(task, device):
    rlox = need("rlox")
    if task != "CartPole-v1":
        raise LeftOut(f"rlox has no {task}")
    env = rlox.VecEnv(NUM_ENVS, seed=SEED)
    rng = np.random.default_rng(SEED)
    rows = list(rng.integers(0, 2, (NUM_STEPS, NUM_ENVS), dtype=np.uint32))

    def call():
        for row in rows:
            env.step_all(row)

    def check():
        env.reset_all()
        result = env.step_all(rows[0])
        check_step(*(result[name] for name in ("obs", "rewards", "terminated", "truncated")))

    return Work(call, check, len(rows))


def gymnax_scan(task, device):
    """All steps in one compiled scan, with automatic resets, on JAX's CPU device."""
    gymnax, jax = need("gymnax"), need("jax")
    try:
        env, params = gymnax.make(task)
    except ValueError as error:
        raise LeftOut(f"gymnax has no {task}: {error}") from error
    space = importlib.import_module("rlox_gpu").make_vec(task, 1).single_action_space
    actions = jax.numpy.asarray(actions_of(space))
    keys = jax.random.split(jax.random.key(SEED), NUM_ENVS)
    step_all = jax.vmap(env.step, in_axes=(0, 0, 0, None))

    def one(carry, action):
        state, keys = carry
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 1)
        # One flag of an end, or two, by gymnax's version.
        obs, state, reward, *ends, _ = step_all(keys, state, action, params)
        return (state, keys), (obs, reward, ends[0], ends[-1])

    _, state = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, params)
    run = jax.jit(lambda carry, actions: jax.lax.scan(one, carry, actions))
    carry = [(state, keys)]

    def call():
        carry[0], results = run(carry[0], actions)
        return jax.block_until_ready(results)

    def check():
        for step in zip(*call(), strict=True):
            check_step(*map(np.asarray, step))

    return Work(call, check, NUM_STEPS)


PROVIDERS = [
    Provider("rlox-gpu make_vec", ours, ours=True),
    Provider("gymnasium", gymnasium_fastest),
    Provider("envpool, 1 thread", envpool_of_one_thread, needs=("envpool",)),
    Provider("gymnax, jitted scan", gymnax_scan, needs=("gymnax", "jax")),
    Provider("rlox VecEnv", rlox_of_cartpole, needs=("rlox",)),
]


@pytest.mark.parametrize(("job", "provider", "device"), cases(map(job_of, TASKS), PROVIDERS))
def bench_task(check_then_time, job, provider, device):
    check_then_time(job, provider, device, job.name.partition(" ")[0])
