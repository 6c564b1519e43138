import math
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from linear_policy import Linear

from rlox_gpu import PPO, PPOConfig, PPOTrainer, Trainer, train_from_config
from rlox_gpu.adam import AdamState
from rlox_gpu.algorithms.common import EpisodeWindow, derive_seed, suitable_threads
from rlox_gpu.algorithms.ppo import Schedule
from rlox_gpu.algorithms.ppo_update import (
    UpdateSettings,
    autograd_gradient,
    explicit_gradient,
    gradient_for,
    update,
)
from rlox_gpu.batch import RolloutBatch
from rlox_gpu.callbacks import Callback, EvalCallback
from rlox_gpu.config import tuned
from rlox_gpu.losses import PPOLoss
from rlox_gpu.policies import DiscretePolicy

SMALL = {"n_envs": 4, "n_steps": 16, "n_epochs": 2, "batch_size": 32, "device": "cpu"}


class Recorder(Callback):
    def __init__(self, stop_after=None):
        self.events, self.stop_after = [], stop_after

    def on_training_start(self, algorithm, total_timesteps):
        self.events.append(("start", total_timesteps))

    def on_iteration(self, algorithm, metrics):
        self.events.append(("iteration", algorithm.timesteps))
        self.metrics = metrics
        return algorithm.iteration != self.stop_after

    def on_evaluation(self, algorithm, result):
        self.events.append(("evaluation", algorithm.timesteps))

    def on_training_end(self, algorithm, result):
        self.events.append(("end", result["timesteps"]))

    def log(self, step, metrics):
        self.events.append(("log", step))


def random_batch(n, seed=0):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g)

    actions = torch.randint(0, 2, (n,), generator=g)
    return RolloutBatch(
        normal(n, 4),
        actions,
        normal(n),
        actions > 2,
        normal(n) * 0.3 - 0.7,
        *(normal(n) for _ in "var"),
    )


@pytest.mark.slow
def test_tuned_settings_solve_cartpole():
    ppo = PPO("CartPole-v1", seed=0, device="cpu", **tuned("ppo", "CartPole-v1"))
    result = ppo.train(100_000)
    assert ppo.timesteps <= 100_000
    assert result["mean_reward"] > 300
    assert ppo.evaluate(20)["mean_reward"] >= 475


def test_both_gradients_agree_on_a_real_update():
    policies = [DiscretePolicy(4, 2, seed=0) for _ in range(2)]
    settings = UpdateSettings(3, 64, 1e-3, 0.5, True)
    batch, loss = random_batch(256), PPOLoss()
    results = []
    for policy, kind in zip(policies, (explicit_gradient, autograd_gradient), strict=True):
        policy.flat.data.mul_(1.5)
        arguments = (policy,) if kind is explicit_gradient else (policy, policy.flat)
        adam = AdamState.like(policy.flat.data)

        gradient = partial(kind, *arguments)
        results.append(update(batch, policy.flat, adam, gradient, loss, settings, seed=1, step=0))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(policies[0].flat.data, policies[1].flat.data, rtol=0, atol=2e-5)


def test_a_subclass_goes_through_autograd():
    class Own(DiscretePolicy):
        def get_value(self, obs):
            return super().get_value(obs) + 1

    for policy in (Own(4, 2, seed=0), DiscretePolicy(4, 2, seed=0)):
        batch = random_batch(8)
        gradient_for(policy, policy.flat)(batch, batch.advantages, PPOLoss(), False)
        found = policy.flat.grad.clone()
        autograd_gradient(policy, policy.flat, batch, batch.advantages, PPOLoss())
        torch.testing.assert_close(found, policy.flat.grad, rtol=1e-4, atol=1e-6)


def test_padding_between_parameters_stays_zero():
    ppo = PPO("CartPole-v1", seed=0, **SMALL, policy=DiscretePolicy(4, 2, hidden=5))
    ppo.train(256)
    flat = ppo.flat
    used = torch.zeros(len(flat.data), dtype=torch.bool)
    for name, parameter in flat.parameters.items():
        flat.view(used, name)[...] = True
        assert parameter.numel()
    assert not used.all()
    assert (flat.data[~used] == 0).all()
    assert (flat.grad[~used] == 0).all()


def test_an_update_improves_the_surrogate_and_the_values():
    policy = DiscretePolicy(4, 2, seed=0)
    batch = random_batch(256)
    log_probs = policy.get_logprob_and_entropy(batch.obs, batch.actions)[0].detach()
    columns = (batch.actions, log_probs, batch.advantages, batch.returns, batch.values)
    loss_fn = PPOLoss(clip_vloss=False)
    before, _ = loss_fn(policy, batch.obs, *columns)
    adam = AdamState.like(policy.flat.data)
    settings = UpdateSettings(20, 256, 1e-3, 0.5, False)
    batch = RolloutBatch(
        batch.obs,
        batch.actions,
        batch.rewards,
        batch.dones,
        log_probs,
        batch.values,
        batch.advantages,
        batch.returns,
    )
    update(
        batch,
        policy.flat,
        adam,
        gradient_for(policy, policy.flat),
        loss_fn,
        settings,
        seed=0,
        step=0,
    )
    after, metrics = loss_fn(policy, batch.obs, *columns)
    assert after < before - 0.02
    assert metrics["approx_kl"] > 0
    assert adam.step == 20


@pytest.mark.parametrize("policy", [None, "own"], ids=["standard", "own"])
def test_the_seed_determines_the_run(policy):
    def final(seed):
        torch.manual_seed(7)
        made = None if policy is None else Linear()
        ppo = PPO("CartPole-v1", seed=seed, policy=made, **SMALL)
        ppo.train(256)
        return ppo.flat.data

    assert torch.equal(final(1), final(1))
    assert not torch.equal(final(1), final(2))


def test_runs_with_neighbouring_seeds_share_no_environment():
    seeds = {derive_seed(s, "episodes") + i for s in range(50) for i in range(64)}
    assert len(seeds) == 50 * 64
    assert derive_seed(0, "weights") != derive_seed(0, "episodes")


def test_a_policy_of_ones_own_learns():
    ppo = PPO(
        "CartPole-v1",
        seed=0,
        policy=Linear(),
        device="cpu",
        n_steps=32,
        n_epochs=20,
        learning_rate=1e-2,
        gae_lambda=1.0,  # a linear critic knows little about CartPole
        max_grad_norm=10.0,
    )
    assert ppo.train(12_800)["mean_reward"] > 60


def test_gymnasium_environments_train():
    ppo = PPO("tests/Acrobot-v1", seed=0, **SMALL)
    result = ppo.train(64 * 40)
    assert result["timesteps"] == 64 * 40
    assert result["mean_reward"] <= -60
    assert ppo.predict(np.zeros(6)).shape == ()


def test_mean_reward_is_the_mean_return_of_finished_episodes():
    ppo = PPO("CartPole-v1", seed=0, **SMALL)
    assert math.isnan(ppo.train(64)["mean_reward"]) or ppo.episodes.entries()
    recorded = []
    for _ in range(20):
        ppo.iterate()
        ended = ppo.storage.terminated | ppo.storage.truncated
        recorded += ppo.storage.episode_lengths[ended].tolist()
    assert 10 < np.mean(recorded) < 60  # a fresh policy: about 22 steps, reward 1 each


def test_schedule_falls_towards_zero_and_ends():
    assert [Schedule(10, 4).remaining(i) for i in range(9, 15)] == [1.0, 1.0, 0.75, 0.5, 0.25, 1.0]


@pytest.mark.parametrize("annealed", [False, True])
def test_annealed_settings_follow_the_schedule(annealed, monkeypatch):
    seen = []

    def watch(batch, flat, adam, gradient, loss, settings, **counters):
        seen.append((settings.learning_rate, loss.clip_eps))
        return update(batch, flat, adam, gradient, loss, settings, **counters)

    monkeypatch.setattr("rlox_gpu.algorithms.ppo.update", watch)
    ppo = PPO("CartPole-v1", anneal_lr=annealed, anneal_clip=annealed, **SMALL)
    ppo.train(256)
    fractions = [1.0, 0.75, 0.5, 0.25] if annealed else [1.0] * 4
    assert seen == [pytest.approx((2.5e-4 * f, 0.2 * f)) for f in fractions]


@pytest.mark.parametrize(
    ("steps", "iterations"), [(1, 1), (64, 1), (127, 1), (128, 2), (300, 4)], ids=str
)
def test_whole_iterations_within_the_budget(steps, iterations):
    ppo = PPO("CartPole-v1", **SMALL)
    ppo.train(steps)
    assert (ppo.iteration, ppo.timesteps) == (iterations, 64 * iterations)


def test_callbacks_and_logger_are_called_in_order():
    recorder = Recorder(stop_after=3)
    evaluation = EvalCallback(eval_freq=128, n_episodes=2)
    PPO("CartPole-v1", logger=recorder, callbacks=[recorder, evaluation], **SMALL).train(640)
    assert recorder.events == [
        ("start", 640),
        ("log", 64),
        ("iteration", 64),
        ("log", 128),
        ("iteration", 128),
        ("log", 128),
        ("evaluation", 128),
        ("log", 192),
        ("iteration", 192),
        ("end", 192.0),
        ("log", 192),
        ("evaluation", 192),
    ]
    assert {"policy_loss", "approx_kl", "mean_reward", "steps_per_second"} <= set(recorder.metrics)
    assert all(isinstance(value, float) for value in recorder.metrics.values())


def test_training_stops_at_the_target():
    evaluation = EvalCallback(eval_freq=64, n_episodes=3, target_return=1.0)
    ppo = PPO("CartPole-v1", callbacks=[evaluation], **SMALL)
    ppo.train(6400)
    assert ppo.timesteps == 64
    assert evaluation.reached


def test_evaluation_does_not_disturb_training():
    plain = PPO("CartPole-v1", seed=0, **SMALL)
    watched = PPO("CartPole-v1", seed=0, callbacks=[EvalCallback(64, 2)], **SMALL)
    plain.train(256)
    watched.train(256)
    assert torch.equal(plain.flat.data, watched.flat.data)


def test_evaluate_counts_one_episode_per_environment():
    class Pusher(Linear):
        def act(self, obs):
            return torch.zeros(len(obs), dtype=torch.int64)

    ppo = PPO("CartPole-v1", policy=Pusher(), **SMALL)
    result = ppo.evaluate(50, seed=0)
    assert result["episodes"] == 50
    assert 8 <= result["min_reward"] <= result["mean_reward"] <= result["max_reward"] <= 11
    assert result["mean_length"] == result["mean_reward"]
    assert result == ppo.evaluate(50, seed=0)
    lengths = [len(episode(seed)) for seed in range(50)]
    assert abs(np.mean(lengths) - result["mean_reward"]) < 0.5


def episode(seed):
    env = gym.make("CartPole-v1")
    env.reset(seed=seed)
    steps = []
    while not steps or not steps[-1]:
        steps.append(env.step(0)[2])
    env.close()
    return steps


def test_predict_takes_one_or_many_of_any_kind():
    ppo = PPO("CartPole-v1", seed=0, **SMALL)
    one, many = np.ones(4), np.random.default_rng(0).normal(size=(5, 4))
    assert ppo.predict(one).shape == ()
    assert ppo.predict(one).dtype == np.int64
    assert ppo.predict(many.tolist()).tolist() == ppo.predict(many.astype(np.float32)).tolist()
    assert isinstance(ppo.predict(torch.from_numpy(many)), torch.Tensor)
    drawn = {int(ppo.predict(one, deterministic=False)) for _ in range(64)}
    assert drawn == {0, 1}
    assert len({int(ppo.predict(one)) for _ in range(8)}) == 1


def test_trainers_are_ppo_by_other_names():
    settings = {k: v for k, v in SMALL.items() if k != "device"}
    ppo = PPO("CartPole-v1", seed=3, **SMALL)
    trainers = [
        PPOTrainer("CartPole-v1", config=settings, seed=3, device="cpu"),
        Trainer("ppo", "CartPole-v1", config=PPOConfig(**settings), seed=3, device="cpu"),
        Trainer("PPO", "CartPole-v1", {"n_steps": 3}, seed=3, **SMALL),
    ]
    expected = ppo.train(128)
    expected.pop("steps_per_second")
    for trainer in trainers:
        result = trainer.train(128)
        result.pop("steps_per_second")
        assert result == pytest.approx(expected, nan_ok=True)
        assert torch.equal(trainer.algorithm.flat.data, ppo.flat.data)
        assert trainer.env == "CartPole-v1"
        assert trainer.predict(np.zeros((2, 4))).shape == (2,)
        assert trainer.evaluate(2)["episodes"] == 2


def test_train_from_config_takes_files_and_dicts(tmp_path):
    plan = {
        "algorithm": "ppo",
        "env_id": "CartPole-v1",
        "total_timesteps": 128,
        "device": "cpu",
        "hyperparameters": {"n_envs": 4, "n_steps": 16},
        "eval_episodes": 2,
    }
    result = train_from_config(plan)
    assert result["timesteps"] == 128
    assert result["eval_episodes"] == 2
    lines = [f"{k}: {v}" for k, v in plan.items() if k != "hyperparameters"]
    (tmp_path / "p.yaml").write_text(
        "\n".join([*lines, "hyperparameters: {n_envs: 4, n_steps: 16}"])
    )
    again = train_from_config(tmp_path / "p.yaml")
    assert again["mean_reward"] == pytest.approx(result["mean_reward"], nan_ok=True)


def test_threads_are_restored():
    before = torch.get_num_threads()

    def fail():
        with suitable_threads(10):
            assert torch.get_num_threads() == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.get_num_threads() == before
    with suitable_threads(2**40):
        assert torch.get_num_threads() == before


def test_the_window_holds_the_last_hundred_episodes():
    window = EpisodeWindow()
    assert math.isnan(window.means()["mean_reward"])
    window.add(60, 60, 600)
    window.add(0, 0, 0)
    window.add(60, 180, 60)
    assert window.means() == {"mean_reward": 2.0, "mean_length": 5.5}
    window.add(60, 60, 60)
    assert window.means() == {"mean_reward": 2.0, "mean_length": 1.0}
    assert EpisodeWindow(window.entries()).means() == window.means()


def cast_after_making():
    ppo = PPO("CartPole-v1", **SMALL)
    ppo.policy.double()
    return ppo


WRONG = {
    "unknown setting": (lambda: PPO("CartPole-v1", learning_rat=1), TypeError, "learning_rate"),
    "zero envs": (lambda: PPO("CartPole-v1", n_envs=0), ValueError, "n_envs"),
    "wrong type": (lambda: PPO("CartPole-v1", n_steps="many"), TypeError, "n_steps"),
    "gamma": (lambda: PPO("CartPole-v1", gamma=math.nan), ValueError, "gamma"),
    "seed": (lambda: PPO("CartPole-v1", seed=-1), ValueError, "seed"),
    "seed size": (lambda: PPO("CartPole-v1", seed=2**63), ValueError, "seed"),
    "policy size": (
        lambda: PPO("CartPole-v1", policy=DiscretePolicy(6, 2)),
        ValueError,
        "policy: expected 4",
    ),
    "policy cast": (lambda: cast_after_making().train(64), RuntimeError, "policy"),
    "seed type": (lambda: PPO("CartPole-v1", seed="a"), TypeError, "seed"),
    "env": (lambda: PPO("NoSuchEnv-v0"), ValueError, "env_id"),
    "env type": (lambda: PPO(3), TypeError, "env_id"),
    "box action": (lambda: PPO("Pendulum-v1"), ValueError, "Discrete action"),
    "discrete obs": (lambda: PPO("FrozenLake8x8-v1"), ValueError, "Box"),
    "device": (lambda: PPO("CartPole-v1", device="gpuu"), ValueError, "device"),
    "policy": (lambda: PPO("CartPole-v1", policy="mlp"), TypeError, "policy"),
    "empty policy": (lambda: PPO("CartPole-v1", policy=torch.nn.Tanh()), ValueError, "parameter"),
    "logger": (lambda: PPO("CartPole-v1", logger="tb"), TypeError, "logger"),
    "callback": (lambda: PPO("CartPole-v1", callbacks=[print]), TypeError, "callbacks"),
    "no steps": (lambda: PPO("CartPole-v1").train(0), ValueError, "total_timesteps"),
    "float steps": (lambda: PPO("CartPole-v1").train(1e5), TypeError, "total_timesteps"),
    "obs width": (lambda: PPO("CartPole-v1").predict(np.zeros(3)), ValueError, "obs"),
    "obs rank": (lambda: PPO("CartPole-v1").predict(np.zeros((2, 2, 4))), ValueError, "obs"),
    "obs nan": (lambda: PPO("CartPole-v1").predict([0, 0, 0, math.nan]), ValueError, "NaN"),
    "obs text": (lambda: PPO("CartPole-v1").predict(["a"] * 4), TypeError, "numbers"),
    "episodes": (lambda: PPO("CartPole-v1").evaluate(0), ValueError, "n_episodes"),
    "algorithm": (lambda: Trainer("dqqn", "CartPole-v1"), ValueError, "algorithm"),
    "algorithm type": (lambda: Trainer(PPO, "CartPole-v1"), TypeError, "algorithm"),
    "config type": (lambda: PPOTrainer("CartPole-v1", config=3), TypeError, "config"),
    "eval_freq": (lambda: EvalCallback(0), ValueError, "eval_freq"),
    "resume nothing": (
        lambda: train_from_config({"algorithm": "ppo", "env_id": "CartPole-v1"}, resume=True),
        ValueError,
        "run_dir",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_calls_name_the_argument(case):
    call, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        call()
