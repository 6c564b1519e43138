import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import time

import pytest
import torch
from linear_policy import Linear
from safetensors.torch import save_file

from rlox_gpu import PPO, Trainer
from rlox_gpu.callbacks import Callback, CheckpointCallback, checkpoint_files
from rlox_gpu.checkpoint import read_checkpoint, write_checkpoint

SMALL = {"n_envs": 4, "n_steps": 16, "n_epochs": 2, "batch_size": 32, "device": "cpu"}


def small(**changes):
    return PPO("CartPole-v1", seed=5, **{**SMALL, **changes})


def assert_same_state(a, b):
    assert torch.equal(a.flat.data, b.flat.data)
    assert torch.equal(a.adam.exp_avg, b.adam.exp_avg)
    assert torch.equal(a.adam.exp_avg_sq, b.adam.exp_avg_sq)
    assert (a.adam.step, a.iteration, a.timesteps) == (b.adam.step, b.iteration, b.timesteps)
    assert a.episodes.entries() == b.episodes.entries()
    assert a.config == b.config
    assert torch.equal(a.storage.obs[-1], b.storage.obs[-1])


def test_tensors_and_values_are_read_back(tmp_path):
    tensors = {"a": torch.arange(6).view(2, 3), "b": torch.rand(3).t(), "c": torch.tensor(True)}
    values = {"name": "x", "list": [1, 2.5, None], "nested": {"k": False}}
    write_checkpoint(tmp_path / "f", tensors, values)
    found, back = read_checkpoint(tmp_path / "f")
    assert back == values
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[k], v) for k, v in tensors.items())
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_views_of_one_tensor_are_stored_apart(tmp_path):
    base = torch.arange(10.0)
    write_checkpoint(tmp_path / "f", {"a": base[:5], "b": base[3:]}, {})
    tensors, _ = read_checkpoint(tmp_path / "f")
    assert torch.equal(tensors["b"], base[3:])


class StopAt(Callback):
    def __init__(self, iteration):
        self.iteration = iteration

    def on_iteration(self, algorithm, metrics):
        return algorithm.iteration < self.iteration


def test_a_saved_run_goes_on_bit_for_bit(tmp_path):
    straight = small()
    straight.train(64 * 6)
    first = small(callbacks=[StopAt(3)])
    first.train(64 * 6)
    assert first.iteration == 3
    first.save(tmp_path / "c")
    second = PPO.from_checkpoint(tmp_path / "c", device="cpu")
    assert_same_state(first, second)
    second.train(64 * 6, resume=True)
    assert_same_state(straight, second)


def test_a_fresh_algorithm_can_be_saved(tmp_path):
    fresh = small()
    fresh.save(tmp_path / "c")
    loaded = PPO.from_checkpoint(tmp_path / "c", device="cpu")
    fresh.train(128)
    loaded.train(128)
    assert_same_state(fresh, loaded)


def test_training_on_after_loading_starts_a_new_schedule(tmp_path):
    ppo = small()
    ppo.train(128)
    ppo.save(tmp_path / "c")
    loaded = Trainer.from_checkpoint(tmp_path / "c", device="cpu").algorithm
    for each in (ppo, loaded):
        each.train(128)
        assert each.timesteps == 256
        assert each.schedule.start == 2
    assert_same_state(ppo, loaded)


def test_another_environment_starts_new_episodes(tmp_path):
    ppo = small()
    ppo.train(64)
    ppo.save(tmp_path / "c")
    other = PPO.from_checkpoint(tmp_path / "c", "CartPole-v0", device="cpu")
    assert other.env_id == "CartPole-v0"
    assert torch.equal(other.flat.data, ppo.flat.data)
    other.train(64)


def test_gymnasium_environments_restart_their_episodes(tmp_path):
    ppo = PPO("tests/Acrobot-v1", seed=1, **SMALL)
    ppo.train(64)
    ppo.save(tmp_path / "c")
    runs = [PPO.from_checkpoint(tmp_path / "c", device="cpu") for _ in range(2)]
    for run in runs:
        run.train(64)
    assert torch.equal(runs[0].flat.data, runs[1].flat.data)


def test_a_policy_of_ones_own_is_saved_and_needs_to_be_given_back(tmp_path):
    ppo = small(policy=Linear())
    ppo.train(64)
    ppo.save(tmp_path / "c")
    with pytest.raises(ValueError, match="policy of your own"):
        PPO.from_checkpoint(tmp_path / "c")
    loaded = PPO.from_checkpoint(tmp_path / "c", policy=Linear(), device="cpu")
    assert_same_state(ppo, loaded)
    with pytest.raises(ValueError, match="does not fit"):
        PPO.from_checkpoint(tmp_path / "c", policy=Linear(3), device="cpu")


def foreign_files(tmp_path):
    small().save(tmp_path / "good")
    good = (tmp_path / "good").read_bytes()
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    write_checkpoint(tmp_path / "sac", {}, {"algorithm": "sac"})
    bomb = pickle.dumps(torch.zeros(1))
    header = json.dumps({"__metadata__": {"format": "else"}}).encode()
    return {
        "empty": b"",
        "truncated": good[:-1],
        "half": good[: len(good) // 2],
        "header": good[:20],
        "longer": good + b"x",
        "pickle": bomb,
        "text": b"not a checkpoint at all",
        "foreign": (tmp_path / "foreign").read_bytes(),
        "other": struct.pack("<Q", len(header)) + header,
        "sac": (tmp_path / "sac").read_bytes(),
    }


@pytest.mark.parametrize(
    "kind",
    ["empty", "truncated", "half", "header", "longer", "pickle", "text", "foreign", "other", "sac"],
)
def test_a_damaged_or_foreign_file_is_refused_by_name(tmp_path, kind):
    path = tmp_path / f"{kind}.safetensors"
    path.write_bytes(foreign_files(tmp_path)[kind])
    with pytest.raises(ValueError, match=f"{kind}.safetensors"):
        PPO.from_checkpoint(path)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        PPO.from_checkpoint(tmp_path / "none")
    with pytest.raises(ValueError, match="a folder"):
        PPO.from_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError):
        small().save(tmp_path / "no" / "folder")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    ppo = small()
    ppo.save(tmp_path / "c")
    before = (tmp_path / "c").read_bytes()
    ppo.train(64)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        ppo.save(tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_the_callback_keeps_the_newest_files(tmp_path):
    ppo = small(callbacks=[CheckpointCallback(tmp_path / "c", save_freq=128, keep=2)])
    ppo.train(64 * 9)
    names = [p.name for p in checkpoint_files(tmp_path / "c")]
    assert names == ["step_000000000512.safetensors", "step_000000000576.safetensors"]


RUN = """
import sys
from rlox_gpu.trainer import train_from_config
plan = dict(algorithm="ppo", env_id="CartPole-v1", seed=3, total_timesteps={steps}, device="cpu",
            eval_freq=1024, eval_episodes=3, checkpoint_freq=512, run_dir=sys.argv[1],
            hyperparameters=dict(n_envs=4, n_steps=32, n_epochs=4, batch_size=64))
train_from_config(plan, resume=len(sys.argv) > 2)
"""


def test_a_killed_run_ends_with_the_same_weights(tmp_path):
    steps = 128 * 100
    program = RUN.format(steps=steps)
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "whole")], check=True, timeout=300
    )
    killed = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", program, str(killed)])
    deadline = time.monotonic() + 120
    while len(checkpoint_files(killed / "checkpoints")) < 2:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = checkpoint_files(killed / "checkpoints")[-1].name
    assert reached < f"step_{steps:012d}"
    command = [sys.executable, "-c", program, str(killed), "resume"]
    subprocess.run(command, check=True, timeout=300)

    name = f"step_{steps:012d}.safetensors"
    whole, resumed = (
        read_checkpoint(tmp_path / k / "checkpoints" / name) for k in ("whole", "killed")
    )
    assert whole[1] == resumed[1]
    assert whole[0].keys() == resumed[0].keys()
    for key, tensor in whole[0].items():
        assert torch.equal(tensor, resumed[0][key]), key
    rows = [
        [json.loads(line) for line in (tmp_path / k / "metrics.jsonl").read_text().splitlines()]
        for k in ("whole", "killed")
    ]
    for row in (*rows[0], *rows[1]):
        row.pop("steps_per_second", None)
    assert rows[0] == rows[1]
