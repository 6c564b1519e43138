"""The CuPy launcher against a module that records what CuPy would be asked to do."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from env_cases import ENV_ID

from rlox_gpu.envs import cuda, kernels
from rlox_gpu.envs.cuda import SOURCE, CupyModule, use_launcher
from rlox_gpu.envs.tensor import TensorVectorEnv, check_device


class FakeCupy:
    """Records modules, contexts and launches; a launch notes which contexts surround it."""

    def __init__(self):
        self.log = []
        self.open = []
        self.cuda = SimpleNamespace(
            Device=lambda index: self._context("device", index),
            ExternalStream=lambda pointer, index: self._context("stream", pointer, index),
        )

    def _context(self, *what):
        fake = self

        class Context:
            def __enter__(self):
                fake.open.append(what)

            def __exit__(self, *error):
                fake.open.remove(what)

        return Context()

    def RawModule(self, code, options, backend):
        self.log.append(("compile", code, options, backend))
        return SimpleNamespace(get_function=self._function)

    def _function(self, name):
        self.log.append(("function", name))
        return lambda grid, block, args: self.log.append(
            ("launch", name, grid, block, args, list(self.open))
        )


@pytest.fixture
def cupy(monkeypatch):
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    stream = SimpleNamespace(cuda_stream=1234, device_index=1)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    return fake


def launches(cupy):
    return [entry[1:] for entry in cupy.log if entry[0] == "launch"]


def test_the_source_is_compiled_without_contraction(cupy):
    CupyModule(SOURCE, (*cuda.OPTIONS, *cuda.task_options("CartPole")))
    (kind, code, options, backend), *_ = cupy.log
    assert (kind, backend) == ("compile", "nvrtc")
    assert code == SOURCE.read_text()
    assert {"--fmad=false", "--prec-div=true", "-DRLOX_TASK=CartPole"} <= set(options)
    assert '-DRLOX_TASK_HEADER="cartpole.cuh"' in options
    assert f"-I{SOURCE.parent}" in options


def test_arguments_become_what_cupy_understands(cupy):
    module = CupyModule(SOURCE, ())
    params = np.zeros(1, dtype=[("a", np.float32), ("b", np.float32)])
    tensor = torch.zeros(3)
    device = torch.device("cuda", 1)
    module.launch("kernel", 7, 128, (params, 5, tensor, None), device)
    ((name, grid, block, arguments, contexts),) = launches(cupy)
    assert (name, grid, block) == ("kernel", (7,), (128,))
    assert arguments[0] is params
    assert type(arguments[1]) is np.int32
    assert arguments[1:] == (5, tensor.data_ptr(), 0)
    assert contexts == [("device", 1), ("stream", 1234, 1)]
    assert cupy.open == []


def test_the_current_stream_is_read_at_every_launch(cupy, monkeypatch):
    module = CupyModule(SOURCE, ())
    for pointer in (10, 20):
        stream = SimpleNamespace(cuda_stream=pointer, device_index=0)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device, s=stream: s)
        module.launch("kernel", 1, 128, (), torch.device("cuda", 0))
    assert [entry[-1][1] for entry in launches(cupy)] == [("stream", 10, 0), ("stream", 20, 0)]
    assert cupy.log.count(("function", "kernel")) == 1


def test_a_step_and_a_reset_pass_their_arguments_in_the_kernels_order(cupy):
    """CPU tensors stand for the device's: the fake launches nothing."""
    with use_launcher(CupyModule):
        env = TensorVectorEnv(ENV_ID, 200, device="cpu", autoreset_mode="SameStep")
        obs, _ = env.reset(seed=0)
        out = env.make_buffers()._replace(episode_length=None)
        actions = torch.zeros(200, dtype=torch.int64)
        env.step_into(actions, out)
    reset, step = launches(cupy)
    state = [tensor.data_ptr() for tensor in env._state]
    assert reset[:3] == ("env_reset", (2,), (128,))
    assert list(reset[3][1:]) == [1, 500, 200, *state, 0, obs.data_ptr()]
    assert step[:3] == ("env_step", (2,), (128,))
    results = [0 if t is None else t.data_ptr() for t in out]
    assert list(step[3][1:]) == [1, 500, 200, *state, actions.data_ptr(), *results]
    for arguments in (reset[3], step[3]):
        assert arguments[0].nbytes == 13 * 4
        assert arguments[0].tobytes() == np.float32(env._batch_rules.params).tobytes()
    assert sum(entry[0] == "compile" for entry in cupy.log) == 1


def test_every_device_gets_its_own_module(cupy):
    with use_launcher(CupyModule):
        first = cuda.compiled_module("CartPole", torch.device("cuda", 0))
        assert cuda.compiled_module("CartPole", torch.device("cuda", 0)) is first
        assert cuda.compiled_module("CartPole", torch.device("cuda", 1)) is not first


def test_a_launcher_ends_with_its_block():
    cpu = torch.device("cpu")
    assert not cuda.runs_kernels(cpu)
    with use_launcher(CupyModule):
        assert cuda.runs_kernels(cpu)
    assert not cuda.runs_kernels(cpu)
    assert cuda.runs_kernels(torch.device("cuda"))


def test_observations_off_their_alignment_are_refused(cupy):
    with use_launcher(CupyModule):
        env = TensorVectorEnv(ENV_ID, 4, device="cpu")
        env.reset(seed=0)
        out = env.make_buffers()
        shifted = torch.zeros(17)[1:].view(4, 4)
        with pytest.raises(ValueError, match=r"out\.obs must start at a multiple of 16 bytes"):
            env.step_into(torch.zeros(4, dtype=torch.int64), out._replace(obs=shifted))


def test_missing_cupy_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"pip install rlox-gpu\[cuda1\d\]"):
        CupyModule(SOURCE, ())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RuntimeError, match="CuPy"):
        check_device("cuda:0")


def test_a_missing_cuda_device_is_explained(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"device='cpu'"):
        check_device("cuda")


def test_a_device_without_an_index_is_the_current_one(monkeypatch, cupy):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert check_device("cuda") == torch.device("cuda", 3)
    assert check_device(torch.device("cuda", 1)) == torch.device("cuda", 1)


def test_kernel_names_and_parameters_match_the_source():
    source = SOURCE.read_text()
    counts = {"env_step": 4 + 6 + 1 + 7, "env_reset": 4 + 6 + 2}
    counts |= dict.fromkeys(("env_rollout", "env_rollout_random"), 5 + 6 + 1 + 7)
    for kernel, arguments in counts.items():
        declaration = source.split(f"{kernel}(")[1].split(")")[0]
        assert declaration.count(",") + 1 == arguments
    assert kernels.StepBuffers._fields[4:] == ("final_obs", "episode_return", "episode_length")
