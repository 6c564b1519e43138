"""Wrong calls end in an exception that names the argument, and change nothing."""

import functools

import numpy as np
import pytest
import torch
from env_cases import ENV_ID, assert_unchanged

import rlox_gpu
from rlox_gpu.envs.array import NumpyVectorEnv
from rlox_gpu.envs.tensor import TensorVectorEnv

CONSTRUCTION = {
    "unknown id": (ValueError, r"'Pong-v5' is not a native.*GymVecEnv", {"id": "Pong-v5"}),
    "id of another type": (TypeError, "id must be a string", {"id": 5}),
    "no environments": (ValueError, "num_envs must be at least 1", {"num_envs": 0}),
    "negative environments": (ValueError, "num_envs must be at least 1", {"num_envs": -3}),
    "fractional environments": (TypeError, "num_envs must be an integer", {"num_envs": 2.5}),
    "bool environments": (TypeError, "num_envs must be an integer", {"num_envs": True}),
    "unknown mode": (ValueError, "autoreset_mode must be", {"autoreset_mode": "Sometimes"}),
    "zero limit": (ValueError, "max_episode_steps must be", {"max_episode_steps": 0}),
    "fractional limit": (TypeError, "max_episode_steps must be", {"max_episode_steps": 1.5}),
    "unknown parameter": (TypeError, "unknown parameter 'mass'", {"mass": 1.0}),
    "parameter of another type": (TypeError, "gravity must be a number", {"gravity": "9.8"}),
    "NaN parameter": (ValueError, "gravity must be a number other than NaN", {"gravity": np.nan}),
    "zero length": (ValueError, "length must be positive", {"length": 0.0}),
    "flag of another type": (TypeError, "sutton_barto_reward", {"sutton_barto_reward": 1}),
    "unknown render mode": (ValueError, "render_mode", {"render_mode": "human"}),
    "render index": (ValueError, "render_envs", {"render_envs": [0, 4]}),
}


@pytest.mark.parametrize("device", ["cpu", "tensor"])
@pytest.mark.parametrize("case", CONSTRUCTION)
def test_construction(case, device):
    error, message, wrong = CONSTRUCTION[case]
    arguments = {"id": ENV_ID, "num_envs": 4} | wrong
    env_id, num_envs = arguments.pop("id"), arguments.pop("num_envs")
    make = rlox_gpu.make_vec
    if device == "tensor":
        make = functools.partial(TensorVectorEnv, device="cpu")
    with pytest.raises(error, match=message):
        make(env_id, num_envs, **arguments)


RESET = {
    "fractional seed": (TypeError, "seed must be an integer", {"seed": 1.0}),
    "text seed": (TypeError, "seed must be an integer", {"seed": "1"}),
    "negative seed": (ValueError, "seed must be between", {"seed": -1}),
    "too large a seed": (ValueError, "seed must be between", {"seed": 2**64}),
    "too few seeds": (ValueError, "seed must have one entry per environment", {"seed": [1, 2]}),
    "a wrong seed among others": (TypeError, r"seed\[2\] must be", {"seed": [1, 2, 0.5, 4]}),
    "options of another type": (TypeError, "options must be a dict", {"options": [1]}),
    "unknown option": (ValueError, "'mask'", {"options": {"mask": np.ones(4, bool)}}),
    "mask of another type": (TypeError, "reset_mask", {"options": {"reset_mask": [True] * 4}}),
    "mask of another dtype": (TypeError, "reset_mask", {"options": {"reset_mask": np.ones(4)}}),
    "mask of another shape": (
        ValueError,
        "reset_mask",
        {"options": {"reset_mask": np.ones(3, bool)}},
    ),
    "bound of another type": (ValueError, r"options\['low'\]", {"options": {"low": "a"}}),
    "infinite bound": (ValueError, r"options\['high'\]", {"options": {"high": np.inf}}),
    "bounds in the wrong order": (ValueError, "must not be above", {"options": {"low": 1.0}}),
}


@pytest.mark.parametrize("face", ["numpy", "tensor"])
@pytest.mark.parametrize("case", RESET)
def test_reset(case, face):
    error, message, wrong = RESET[case]
    env = NumpyVectorEnv(ENV_ID, 4) if face == "numpy" else TensorVectorEnv(ENV_ID, 4, device="cpu")
    env.reset(seed=0)
    before = env.state_dict()
    with pytest.raises(error, match=message):
        env.reset(**wrong)
    assert_unchanged(env, before)


def test_an_empty_mask_is_refused():
    env = NumpyVectorEnv(ENV_ID, 4)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="at least one environment"):
        env.reset(options={"reset_mask": np.zeros(4, bool)})


ACTIONS = {
    "floats": (TypeError, np.zeros(4)),
    "bools": (TypeError, np.zeros(4, bool)),
    "text": (TypeError, np.array(["a"] * 4)),
    "none": (TypeError, None),
    "too many": (ValueError, np.zeros(5, np.int64)),
    "too few": (ValueError, np.zeros(3, np.int64)),
    "two dimensions": (ValueError, np.zeros((4, 1), np.int64)),
    "ragged": (ValueError, [[0], [1, 0]]),
    "above the range": (ValueError, np.array([0, 1, 2, 0])),
    "below the range": (ValueError, np.array([0, 1, 0, -1])),
    "empty": (ValueError, np.zeros(0, np.int64)),
}


@pytest.mark.parametrize("case", ACTIONS)
def test_actions_as_arrays(case):
    error, actions = ACTIONS[case]
    env = NumpyVectorEnv(ENV_ID, 4)
    env.reset(seed=0)
    before = env.state_dict()
    with pytest.raises(error, match="actions"):
        env.step(actions)
    assert_unchanged(env, before)


TENSOR_ACTIONS = {
    "floats": (TypeError, torch.zeros(4)),
    "array": (TypeError, np.zeros(4, np.int64)),
    "shape": (ValueError, torch.zeros(5, dtype=torch.int64)),
    "above the range": (ValueError, torch.tensor([0, 0, 2, 0])),
    "another device": (ValueError, torch.zeros(4, dtype=torch.int64, device="meta")),
}


@pytest.mark.parametrize("case", TENSOR_ACTIONS)
def test_actions_as_tensors(case):
    error, actions = TENSOR_ACTIONS[case]
    env = TensorVectorEnv(ENV_ID, 4, device="cpu")
    env.reset(seed=0)
    before = env.state_dict()
    with pytest.raises(error, match="actions"):
        env.step(actions)
    assert_unchanged(env, before)


def test_actions_of_step_into_are_not_copied():
    env = TensorVectorEnv(ENV_ID, 4, device="cpu")
    env.reset(seed=0)
    out = env.make_buffers()
    with pytest.raises(ValueError, match="actions must be contiguous"):
        env.step_into(torch.zeros(8, dtype=torch.int64)[::2], out)
    with pytest.raises(TypeError, match=r"actions must have dtype torch\.int64"):
        env.step_into(torch.zeros(4, dtype=torch.int32), out)


BUFFERS = {
    "obs": torch.zeros(4, 3),
    "rewards": torch.zeros(4, dtype=torch.float64),
    "terminated": torch.zeros(4, dtype=torch.uint8),
    "truncated": torch.zeros(8, dtype=torch.bool)[::2],
    "final_obs": torch.zeros(4, 4, device="meta"),
    "episode_return": np.zeros(4, np.float32),
    "episode_length": torch.zeros(4, dtype=torch.int64),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_buffers(name):
    env = TensorVectorEnv(ENV_ID, 4, device="cpu")
    env.reset(seed=0)
    out = env.make_buffers()._replace(**{name: BUFFERS[name]})
    with pytest.raises((TypeError, ValueError), match=rf"out\.{name} must"):
        env.step_into(torch.zeros(4, dtype=torch.int64), out)


@pytest.mark.parametrize("face", ["numpy", "tensor"])
def test_foreign_snapshots(face):
    make = (
        (lambda n: NumpyVectorEnv(ENV_ID, n))
        if face == "numpy"
        else (lambda n: TensorVectorEnv(ENV_ID, n, device="cpu"))
    )
    env, other = make(4), make(5)
    other.reset(seed=0)
    with pytest.raises(ValueError, match=r"state\['state'\] must be .*\(4, 4\)"):
        env.load_state_dict(other.state_dict())
    snapshot = make(4).state_dict()
    del snapshot["seed"]
    with pytest.raises(ValueError, match="state lacks seed"):
        env.load_state_dict(snapshot)
    snapshot = make(4).state_dict()
    snapshot["elapsed"] = snapshot["state"]
    with pytest.raises(ValueError, match=r"state\['elapsed'\] must be"):
        env.load_state_dict(snapshot)


def test_one_environment_is_stepped_by_one_thread_at_a_time():
    """The Rust object refuses a second call while the first runs without the GIL."""
    import threading

    env = NumpyVectorEnv(ENV_ID, 200_000)
    env.reset(seed=0)
    actions = np.zeros(200_000, np.int64)
    errors = []

    def run():
        try:
            for _ in range(20):
                env.step(actions)
        except RuntimeError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("borrowed" in error for error in errors)
    assert (env._arrays.elapsed >= 0).all()
