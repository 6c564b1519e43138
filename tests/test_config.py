import pytest
import yaml

from rlox_gpu import PPOConfig, TrainingConfig
from rlox_gpu.config import TUNED, check_number, config_class, read_settings, tuned


def test_defaults_are_the_documented_ones():
    assert PPOConfig().to_dict() == {
        "n_envs": 8,
        "n_steps": 128,
        "n_epochs": 4,
        "batch_size": 256,
        "learning_rate": 2.5e-4,
        "clip_eps": 0.2,
        "vf_coef": 0.5,
        "ent_coef": 0.01,
        "max_grad_norm": 0.5,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "normalize_advantages": True,
        "clip_vloss": True,
        "anneal_lr": True,
        "anneal_clip": False,
    }


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("n_envs", 0, ValueError),
        ("n_steps", 1.5, TypeError),
        ("n_epochs", True, TypeError),
        ("batch_size", -4, ValueError),
        ("learning_rate", 0.0, ValueError),
        ("learning_rate", "fast", TypeError),
        ("clip_eps", float("nan"), ValueError),
        ("vf_coef", -0.1, ValueError),
        ("ent_coef", float("inf"), ValueError),
        ("max_grad_norm", 0, ValueError),
        ("gamma", 1.01, ValueError),
        ("gae_lambda", -0.01, ValueError),
        ("normalize_advantages", 1, TypeError),
        ("anneal_lr", "yes", TypeError),
    ],
)
def test_a_wrong_value_is_refused_by_name(name, value, error):
    with pytest.raises(error, match=f"^{name}: expected"):
        PPOConfig(**{name: value})


def test_an_unknown_name_is_refused_with_a_suggestion_and_the_list():
    with pytest.raises(
        TypeError, match=r"'learning_rat'.*did you mean 'learning_rate'.*gae_lambda"
    ):
        PPOConfig.from_dict({"learning_rat": 1e-3})


def test_yaml_and_toml_and_dict_say_the_same(tmp_path):
    (tmp_path / "a.yaml").write_text("n_steps: 64\nlearning_rate: 0.001\nanneal_lr: false\n")
    (tmp_path / "a.toml").write_text("n_steps = 64\nlearning_rate = 0.001\nanneal_lr = false\n")
    expected = PPOConfig(n_steps=64, learning_rate=0.001, anneal_lr=False)
    assert PPOConfig.from_yaml(tmp_path / "a.yaml") == expected
    assert PPOConfig.from_toml(tmp_path / "a.toml") == expected
    assert PPOConfig.from_dict(expected.to_dict()) == expected


def test_what_was_written_is_read_back(tmp_path):
    config = TrainingConfig("ppo", "CartPole-v1", hyperparameters=tuned("ppo", "CartPole-v1"))
    config.to_yaml(tmp_path / "run.yaml")
    assert TrainingConfig.from_yaml(tmp_path / "run.yaml") == config


@pytest.mark.parametrize(
    ("text", "suffix", "message"),
    [
        ("a: [", ".yaml", "cannot read"),
        ("a = ", ".toml", "cannot read"),
        ("- 1", ".yaml", "not a mapping"),
        ("{}", ".json", "expected a .yaml"),
    ],
    ids=["yaml", "toml", "list", "suffix"],
)
def test_unreadable_files_are_refused_by_name(tmp_path, text, suffix, message):
    path = tmp_path / f"settings{suffix}"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_settings(path)
    assert "settings" in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        TrainingConfig.from_yaml(tmp_path / "no.yaml")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"algorithm": "pppo"}, ValueError, "algorithm: expected one of"),
        ({"env_id": 3}, TypeError, "env_id"),
        ({"total_timesteps": 0}, ValueError, "total_timesteps"),
        ({"seed": -1}, ValueError, "seed"),
        ({"eval_freq": -1}, ValueError, "eval_freq"),
        ({"target_return": float("nan")}, ValueError, "target_return"),
        ({"target_return": 1.0, "eval_freq": 0}, ValueError, "eval_freq"),
        ({"hyperparameters": {"n_step": 3}}, TypeError, "did you mean 'n_steps'"),
        ({"n_envs": 0}, ValueError, "n_envs"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_training_config_is_checked(changes, error, message):
    with pytest.raises(error, match=message):
        TrainingConfig(**{"algorithm": "ppo", "env_id": "CartPole-v1", **changes})


def test_n_envs_stands_beside_or_in_the_hyperparameters():
    config = TrainingConfig("ppo", "CartPole-v1", hyperparameters={"n_envs": 3, "n_steps": 5})
    assert config.algorithm_settings() == {"n_envs": 3, "n_steps": 5}
    config = TrainingConfig("ppo", "x", n_envs=4, hyperparameters={"n_envs": 3})
    assert config.algorithm_settings() == {"n_envs": 4}


def test_tuned_settings_are_valid_and_a_copy():
    for algorithm, env_id in TUNED:
        settings = tuned(algorithm, env_id)
        config_class(algorithm).from_dict(settings)
        settings.clear()
        assert tuned(algorithm, env_id)


def test_unknown_tuned_settings_list_what_there_is():
    with pytest.raises(ValueError, match=r"'CartPole-v1'"):
        tuned("ppo", "CartPole-v7")


def test_bounds_are_named():
    with pytest.raises(ValueError, match=r"x: expected a finite number >= 0 and <= 1, got 2"):
        check_number("x", 2, least=0.0, most=1.0)


def test_config_files_are_plain_yaml(tmp_path):
    PPOConfig().to_yaml(tmp_path / "c.yaml")
    assert yaml.safe_load((tmp_path / "c.yaml").read_text())["n_steps"] == 128
