"""A whole PPO iteration away from the ordinary CPU path: without data, and in the simulator."""

import ptxsim
import pytest
import torch
from fake_device import run_on_fake_device
from simulated_cuda import SimulatedModule

from rlox_gpu import PPO
from rlox_gpu._dispatch import force_triton
from rlox_gpu.envs.cuda import use_launcher


def standard_policy_iterates():
    import torch

    from rlox_gpu import PPO
    from rlox_gpu.algorithms.ppo import ITERATION_METRICS

    ppo = PPO("CartPole-v1", device="gpu", n_envs=8, n_steps=16, n_epochs=3, batch_size=48)
    assert ppo.flat.data.device.type == "gpu"
    for _ in range(3):
        metrics = ppo.iterate()
    assert metrics.shape == (len(ITERATION_METRICS),)
    for tensor in (metrics, *ppo.adam.__dict__.values(), *vars(ppo.storage).values()):
        if isinstance(tensor, torch.Tensor):
            assert tensor.device.type == "gpu"
    assert ppo.timesteps == 3 * 128


def policy_of_ones_own_iterates():
    import torch
    from torch import nn

    from rlox_gpu import PPO

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.actor, self.critic = nn.Linear(4, 2), nn.Linear(4, 1)

        def to(self, device):
            return self  # it was made there

        def get_value(self, obs):
            return self.critic(obs).squeeze(-1)

        def get_action_value(self, obs):
            log_p = self.actor(obs).log_softmax(-1)
            actions = log_p.argmax(-1)
            return actions, log_p.gather(-1, actions[:, None])[:, 0], self.get_value(obs)

        def get_logprob_and_entropy(self, obs, actions):
            log_p = self.actor(obs).log_softmax(-1)
            chosen = log_p.gather(-1, actions[:, None])[:, 0]
            return chosen, -(log_p.exp() * log_p).sum(-1)

    with torch.device("gpu"):
        policy = Own()
    ppo = PPO("CartPole-v1", policy=policy, device="gpu", n_envs=8, n_steps=16, batch_size=32)
    assert ppo.iterate().device.type == "gpu"


def a_host_sync_would_be_noticed():
    import pytest
    from torch._subclasses.fake_tensor import DataDependentOutputException

    from rlox_gpu import PPO

    metrics = PPO("CartPole-v1", device="gpu", n_envs=8, n_steps=4).iterate()
    with pytest.raises(DataDependentOutputException):
        metrics[0].item()


@pytest.mark.parametrize(
    "body",
    [standard_policy_iterates, policy_of_ones_own_iterates, a_host_sync_would_be_noticed],
    ids=lambda body: body.__name__,
)
def test_iteration_on_a_device_without_data(body):
    run_on_fake_device(body)


SETTINGS = {"n_envs": 6, "n_steps": 8, "n_epochs": 2, "batch_size": 24, "device": "cpu"}


@pytest.fixture(scope="module")
def simulated():
    """Two iterations with the CUDA environment kernels and the Triton kernels simulated."""
    pytest.importorskip("triton")
    # Episodes end inside the rollouts: after at most three steps.
    plain = PPO("CartPole-v1", seed=1, **SETTINGS)
    other = PPO("CartPole-v1", seed=1, **SETTINGS)
    for ppo in (plain, other):
        shorten(ppo)
    plain.iterate()
    plain.iterate()
    with use_launcher(SimulatedModule), force_triton(), ptxsim.triton_driver(arch=90) as sim:
        other.iterate()
        other.iterate()
    return plain, other, sim


def shorten(ppo):
    from rlox_gpu.envs.tensor import TensorVectorEnv

    ppo.env = TensorVectorEnv(
        "CartPole-v1", 6, device="cpu", autoreset_mode="SameStep", max_episode_steps=3
    )


def test_simulated_environments_give_the_same_bits(simulated):
    plain, other, _ = simulated
    for name in ("obs", "actions", "rewards", "terminated", "truncated", "final_obs"):
        assert torch.equal(getattr(plain.storage, name), getattr(other.storage, name)), name
    for name in ("episode_returns", "episode_lengths"):
        assert torch.equal(getattr(plain.storage, name), getattr(other.storage, name)), name
    assert plain.storage.truncated.sum() == 6 * 2 + 6


def test_simulated_training_ends_with_the_same_weights(simulated):
    plain, other, _ = simulated
    torch.testing.assert_close(other.flat.data, plain.flat.data, rtol=0, atol=1e-5)
    assert not torch.equal(plain.flat.data, PPO("CartPole-v1", seed=1, **SETTINGS).flat.data)


def test_the_kernels_ran_in_the_simulator(simulated):
    _, _, sim = simulated
    names = {launch.kernel for launch in sim.launches}
    assert any("time_major" in name for name in names), names
    assert any("uniform" in name for name in names), names
    assert any("permutation" in name for name in names), names


@pytest.mark.gpu
def test_training_on_cuda_equals_the_cpu_at_first():
    ppos = [
        PPO("CartPole-v1", seed=1, **{**SETTINGS, "n_envs": 64, "device": device})
        for device in ("cpu", "cuda")
    ]
    for ppo in ppos:
        ppo.iterate()
    a, b = (ppo.storage for ppo in ppos)
    assert torch.equal(a.actions, b.actions.cpu())
    assert torch.equal(a.obs, b.obs.cpu())
    torch.testing.assert_close(ppos[0].flat.data, ppos[1].flat.data.cpu(), rtol=0, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.slow
def test_cuda_solves_cartpole():
    from rlox_gpu.config import tuned

    ppo = PPO("CartPole-v1", seed=0, device="cuda", **tuned("ppo", "CartPole-v1"))
    ppo.train(100_000)
    assert ppo.evaluate(20)["mean_reward"] >= 475
