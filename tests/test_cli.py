import io
import json
import sys

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from rlox_gpu import cli
from rlox_gpu.backends import backends, versions
from rlox_gpu.callbacks import checkpoint_files
from rlox_gpu.config import TrainingConfig, tuned
from rlox_gpu.logging import JSONLinesLogger, TensorBoardLogger, read_metrics
from rlox_gpu.plotting import plot_learning_curve
from rlox_gpu.progress import ProgressCallback
from rlox_gpu.runs import default_run_dir, find_checkpoint
from rlox_gpu.trainer import Trainer, train_from_config

FAST = ["--device", "cpu", "--eval-episodes", "2", "--set", "n_epochs=1"]


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def fail(monkeypatch, capsys, *arguments):
    """Run as the shell does; return the exit status and what was printed."""
    monkeypatch.setattr(sys, "argv", ["rlox-gpu", *map(str, arguments)])
    output = io.StringIO()
    monkeypatch.setattr(cli, "console", Console(file=output, soft_wrap=True))
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code, output.getvalue() + capsys.readouterr().err


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["--env", "CartPole-v1", "--steps", "2048", "--seed", "4", "--eval-freq", "1024"]
    result = call("train", "ppo", *arguments, *FAST, "--run-dir", folder)
    assert result.exit_code == 0, result.output
    return folder


def test_train_leaves_a_whole_run_folder(run_dir):
    plan = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert plan["hyperparameters"] == {**tuned("ppo", "CartPole-v1"), "n_epochs": 1}
    assert (plan["seed"], plan["total_timesteps"]) == (4, 2048)
    rows = read_metrics(run_dir / "metrics.jsonl")
    assert [row["step"] for row in rows if "policy_loss" in row] == list(range(256, 2049, 256))
    assert [row["step"] for row in rows if "eval_mean_reward" in row] == [1024, 2048]
    assert (run_dir / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((run_dir / "tensorboard").glob("events*"))
    assert [p.name for p in checkpoint_files(run_dir / "checkpoints")] == [
        "step_000000002048.safetensors"
    ]


def test_train_prints_the_settings_it_uses(tmp_path):
    result = call(
        "train",
        "ppo",
        "--env",
        "CartPole-v1",
        "--steps",
        256,
        *FAST,
        "--run-dir",
        tmp_path / "r",
        "--set",
        "learning_rate=5e-4",
        "--n-envs",
        4,
    )
    for text in ("gamma = 0.98", "learning_rate = 0.0005", "n_envs = 4", "evaluation: mean return"):
        assert text in result.output


def test_evaluate_takes_a_run_or_a_checkpoint(run_dir):
    for path in (run_dir, find_checkpoint(run_dir)):
        result = call("evaluate", path, "--episodes", 3, "--device", "cpu")
        assert result.exit_code == 0
        assert "3 episodes: mean return" in result.output


def test_info_names_versions_and_reasons():
    result = call("info")
    assert result.exit_code == 0
    assert versions()["torch"] in result.output
    for name, problem in backends().items():
        assert f"{name}: {'works' if problem is None else ''}" in result.output.replace("\n", "")
    assert backends()["cpu: array ops and environments in Rust"] is None


def test_a_missed_target_is_exit_status_1(tmp_path):
    arguments = ["--env", "CartPole-v1", "--steps", "256", "--target", "499", *FAST]
    result = call("train", "ppo", *arguments, "--run-dir", tmp_path / "r")
    assert result.exit_code == 1
    assert "not reached" in result.output


def test_a_reached_target_stops_early(tmp_path):
    arguments = ["--env", "CartPole-v1", "--steps", "25600", "--target", "5", "--eval-freq", "256"]
    result = call("train", "ppo", *arguments, *FAST, "--run-dir", tmp_path / "r")
    assert result.exit_code == 0
    assert find_checkpoint(tmp_path / "r").name == "step_000000000256.safetensors"


@pytest.mark.parametrize("kept", [0, 1], ids=["from-the-start", "from-a-checkpoint"])
def test_resume_goes_on_to_the_end(tmp_path, kept):
    plan = {
        "algorithm": "ppo",
        "env_id": "CartPole-v1",
        "total_timesteps": 1024,
        "device": "cpu",
        "hyperparameters": {"n_steps": 16, "n_epochs": 1},
        "eval_freq": 0,
        "checkpoint_freq": 128,
    }
    train_from_config({**plan, "run_dir": str(tmp_path / "whole")})
    folder = tmp_path / "part"
    train_from_config({**plan, "run_dir": str(folder)})
    for path in checkpoint_files(folder / "checkpoints")[kept:]:
        path.unlink()
    (folder / "checkpoints" / ".step.1.partial").touch()
    assert call("train", "ppo", "--resume", "--run-dir", folder).exit_code == 0
    assert not list((folder / "checkpoints").glob(".*"))
    for kind in ("whole", "part"):
        rows = read_metrics(tmp_path / kind / "metrics.jsonl")
        assert [row["step"] for row in rows] == list(range(128, 1025, 128))
    a, b = (
        Trainer.from_checkpoint(find_checkpoint(tmp_path / k), device="cpu").algorithm.flat.data
        for k in ("whole", "part")
    )
    assert a.equal(b)


def test_config_files_and_options_combine(tmp_path):
    (tmp_path / "plan.toml").write_text(
        'env_id = "CartPole-v1"\ntotal_timesteps = 512\nseed = 9\n'
        "[hyperparameters]\nn_steps = 16\nn_epochs = 1\n"
    )
    folder = tmp_path / "r"
    result = call(
        "train", "ppo", "--config", tmp_path / "plan.toml", "--seed", 3, *FAST, "--run-dir", folder
    )
    assert result.exit_code == 0, result.output
    plan = TrainingConfig.from_yaml(folder / "config.yaml")
    assert (plan.seed, plan.total_timesteps, plan.hyperparameters["n_steps"]) == (3, 512, 16)
    assert plan.hyperparameters["gamma"] == 0.98


def test_environments_without_tuned_settings_use_the_defaults(tmp_path):
    result = call(
        "train",
        "ppo",
        "--env",
        "Acrobot-v1",
        "--steps",
        64,
        "--eval-freq",
        0,
        "--set",
        "n_steps=8",
        "--set",
        "n_epochs=1",
        "--device",
        "cpu",
        "--run-dir",
        tmp_path / "r",
    )
    assert result.exit_code == 0, result.output


ENV = ["--env", "CartPole-v1"]
WRONG = {
    "no env": (["train", "ppo"], "--env"),
    "algorithm": (["train", "pp", *ENV], "algorithm"),
    "env": (["train", "ppo", "--env", "Nope-v1"], "env_id"),
    "steps": (["train", "ppo", *ENV, "--steps", "0"], "total_timesteps"),
    "setting": (["train", "ppo", *ENV, "--set", "gama=0.9"], "did you mean 'gamma'"),
    "setting form": (["train", "ppo", *ENV, "--set", "gamma"], "name=value"),
    "setting value": (["train", "ppo", *ENV, "--set", "gamma=high"], "gamma"),
    "device": (["train", "ppo", *ENV, "--device", "gpux"], "device"),
    "config": (["train", "ppo", *ENV, "--config", "none.yaml"], "none.yaml"),
    "resume": (["train", "ppo", "--resume"], "--run-dir"),
    "resume nothing": (["train", "ppo", "--resume", "--run-dir", "none"], "no run"),
    "resume more": (["train", "ppo", "--resume", "--run-dir", "x", "--seed", "1"], "config.yaml"),
    "evaluate": (["evaluate", "none"], "none"),
    "unknown option": (["train", "ppo", "--stepz", "3"], "--stepz"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_calls_end_in_one_line(case, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments, message = WRONG[case]
    code, output = fail(monkeypatch, capsys, *arguments)
    assert code == 2
    assert message in output
    assert "Traceback" not in output


def test_a_folder_with_a_run_is_not_overwritten(run_dir, monkeypatch, capsys):
    before = (run_dir / "metrics.jsonl").read_text()
    code, output = fail(
        monkeypatch, capsys, "train", "ppo", "--env", "CartPole-v1", "--run-dir", run_dir
    )
    assert code == 2
    assert "already holds a run" in output
    assert (run_dir / "metrics.jsonl").read_text() == before


def test_default_run_folders_say_what_is_run():
    path = default_run_dir(TrainingConfig("ppo", "a/B-v1", seed=7))
    assert path.parent.name == "runs"
    assert path.name.startswith("ppo-a_B-v1-seed7-")


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_steps_speed_return_and_time_left(terminal, monkeypatch):
    monkeypatch.setattr("rlox_gpu.progress.PLAIN_INTERVAL", 0.0)
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120)
    plan = {
        "algorithm": "ppo",
        "env_id": "CartPole-v1",
        "total_timesteps": 512,
        "device": "cpu",
        "hyperparameters": {"n_steps": 32, "n_epochs": 1},
        "eval_freq": 256,
        "eval_episodes": 2,
    }
    train_from_config(plan, callbacks=[ProgressCallback(console)])
    shown = output.getvalue()
    assert "512/512 steps" in shown
    assert "steps/s" in shown
    assert "return" in shown
    assert "evaluation" in shown
    assert ("s left" in shown) or terminal


def test_missing_optional_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        TensorBoardLogger(tmp_path)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        plot_learning_curve(tmp_path / "m", tmp_path / "p")


def test_a_run_does_without_optional_packages(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    told = []
    plan = {
        "algorithm": "ppo",
        "env_id": "CartPole-v1",
        "total_timesteps": 64,
        "device": "cpu",
        "hyperparameters": {"n_steps": 8},
        "eval_freq": 0,
        "run_dir": str(tmp_path / "r"),
    }
    train_from_config(plan, report=told.append)
    assert len(told) == 2
    assert (tmp_path / "r" / "metrics.jsonl").exists()
    assert not (tmp_path / "r" / "learning_curve.png").exists()


def test_metrics_survive_a_line_cut_short(tmp_path):
    path = tmp_path / "m.jsonl"
    logger = JSONLinesLogger(path)
    logger.log(1, {"a": 1.0})
    logger.log(2, {"a": float("nan")})
    logger.close()
    assert [json.loads(line) for line in path.read_text().splitlines()][1] == {"step": 2, "a": None}
    path.write_text(path.read_text() + '{"step": 3, "a')
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    resumed = JSONLinesLogger(path, keep_until=1)
    resumed.log(2, {"a": 5.0})
    resumed.close()
    assert read_metrics(path) == [{"step": 1, "a": 1.0}, {"step": 2, "a": 5.0}]
