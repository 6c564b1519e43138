"""Observations in other libraries, without a copy."""

import numpy as np
import pytest
import torch

from rlox_gpu import make_vec
from rlox_gpu.envs.tensor import TensorVectorEnv


def step_of_tensors(device="cpu"):
    env = TensorVectorEnv("CartPole-v1", 8, device=device, autoreset_mode="SameStep")
    env.reset(seed=0)
    *results, infos = env.step(torch.ones(8, dtype=torch.int64, device=device))
    return env, [*results, infos["final_obs"], *infos["episode"].values()]


def test_numpy_sees_the_tensors():
    for tensor in step_of_tensors()[1]:
        view = np.from_dlpack(tensor)
        assert view.ctypes.data == tensor.data_ptr()
        np.testing.assert_array_equal(view, tensor.numpy())


def test_torch_sees_the_arrays():
    env = make_vec("CartPole-v1", 8)
    env.reset(seed=0)
    for array in env.step(np.ones(8, np.int64))[:4]:
        view = torch.from_dlpack(array)
        assert view.data_ptr() == array.ctypes.data


def test_jax_sees_both():
    jax = pytest.importorskip("jax")
    env = make_vec("CartPole-v1", 8)
    obs, _ = env.reset(seed=0)
    np.testing.assert_array_equal(np.asarray(jax.dlpack.from_dlpack(obs)), obs)
    env, (obs, *_) = step_of_tensors()
    np.testing.assert_array_equal(np.asarray(jax.dlpack.from_dlpack(obs)), obs.numpy())
    actions = torch.from_dlpack(jax.numpy.zeros(8, "int32"))
    assert env.step(actions)[0].shape == (8, 4)


@pytest.mark.gpu
def test_cupy_sees_the_tensors_and_gives_actions():
    cupy = pytest.importorskip("cupy")
    env, results = step_of_tensors("cuda")
    for tensor in results:
        view = cupy.from_dlpack(tensor)
        assert view.data.ptr == tensor.data_ptr()
    actions = torch.from_dlpack(cupy.zeros(8, "int64"))
    assert env.step(actions)[0].shape == (8, 4)
