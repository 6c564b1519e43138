"""Settings: of an algorithm, of a whole training run, and those known to work well.

Every dataclass here checks its values when it is made and can be read from a dict, a YAML file or
a TOML file. Names that do not exist are errors that say what was probably meant.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

C = TypeVar("C", bound="Config")


class Config:
    """Reading and writing that all settings share."""

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the settings."""
        return [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls: type[C], values: Mapping[str, Any]) -> C:
        """Return the settings in ``values``, defaults elsewhere.

        Raises
        ------
        TypeError
            If a name is unknown or a value has the wrong type.
        ValueError
            If a value is out of range.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"{cls.__name__}: expected a mapping, got {type(values).__name__}")
        check_names(values, cls.names(), cls.__name__)
        return cls(**values)

    @classmethod
    def from_yaml(cls: type[C], path: str | Path) -> C:
        """Return the settings in a YAML file."""
        return cls.from_dict(read_settings(path, "yaml"))

    @classmethod
    def from_toml(cls: type[C], path: str | Path) -> C:
        """Return the settings in a TOML file."""
        return cls.from_dict(read_settings(path, "toml"))

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as a dict."""
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]

    def to_yaml(self, path: str | Path) -> None:
        """Write all settings to a YAML file."""
        Path(path).write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")


@dataclass(frozen=True)
class PPOConfig(Config):
    """Settings of PPO.

    Attributes
    ----------
    n_envs, n_steps : int
        Environments, and steps in each per iteration.
    n_epochs, batch_size : int
        Passes over an iteration's transitions, and transitions per minibatch.
    learning_rate, max_grad_norm : float
        Adam's step size, and the norm that gradients are limited to.
    clip_eps, clip_vloss, vf_coef, ent_coef
        See :class:`~rlox_gpu.losses.PPOLoss`.
    gamma, gae_lambda : float
        Discount and trace decay.
    normalize_advantages : bool
        Whether each minibatch's advantages are brought to mean 0 and deviation 1.
    anneal_lr, anneal_clip : bool
        Whether the learning rate, the clip range, falls linearly to zero over a training run.
    """

    n_envs: int = 8
    n_steps: int = 128
    n_epochs: int = 4
    batch_size: int = 256
    learning_rate: float = 2.5e-4
    clip_eps: float = 0.2
    vf_coef: float = 0.5
    ent_coef: float = 0.01
    max_grad_norm: float = 0.5
    gamma: float = 0.99
    gae_lambda: float = 0.95
    normalize_advantages: bool = True
    clip_vloss: bool = True
    anneal_lr: bool = True
    anneal_clip: bool = False

    def __post_init__(self) -> None:
        for name in ("n_envs", "n_steps", "n_epochs", "batch_size"):
            check_count(name, getattr(self, name))
        for name in ("learning_rate", "clip_eps", "max_grad_norm"):
            check_number(name, getattr(self, name), above=0.0)
        for name in ("vf_coef", "ent_coef"):
            check_number(name, getattr(self, name), least=0.0)
        for name in ("gamma", "gae_lambda"):
            check_number(name, getattr(self, name), least=0.0, most=1.0)
        for name in ("normalize_advantages", "clip_vloss", "anneal_lr", "anneal_clip"):
            check_flag(name, getattr(self, name))


@dataclass(frozen=True)
class TrainingConfig(Config):
    """A whole training run: what is trained on what, how long, and what is kept.

    Attributes
    ----------
    algorithm, env_id : str
        ``"ppo"``, and a native or a Gymnasium id.
    total_timesteps : int
        Environment steps, all environments together.
    seed : int
        Determines the run.
    n_envs : int or None
        Environments; None for what ``hyperparameters`` or the algorithm's defaults say.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    hyperparameters : dict
        Settings of the algorithm that differ from its defaults.
    target_return : float or None
        Stop as soon as an evaluation reaches this mean return.
    eval_freq, eval_episodes : int
        Steps between evaluations (0: none), and episodes in each.
    checkpoint_freq : int
        Steps between checkpoints (0: only at the end).
    run_dir : str or None
        Folder for settings, metrics, checkpoints and plots; None keeps nothing.
    """

    algorithm: str
    env_id: str
    total_timesteps: int = 100_000
    seed: int = 42
    n_envs: int | None = None
    device: str = "auto"
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    target_return: float | None = None
    eval_freq: int = 10_000
    eval_episodes: int = 20
    checkpoint_freq: int = 10_000
    run_dir: str | None = None

    def __post_init__(self) -> None:
        for name in ("algorithm", "env_id", "device"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name}: expected a string, got {getattr(self, name)!r}")
        for name in ("total_timesteps", "eval_episodes"):
            check_count(name, getattr(self, name))
        for name in ("eval_freq", "checkpoint_freq"):
            check_count(name, getattr(self, name), least=0)
        check_seed(self.seed)
        if self.target_return is not None:
            check_number("target_return", self.target_return)
        if self.target_return is not None and not self.eval_freq:
            raise ValueError("eval_freq: expected a positive integer with target_return, got 0")
        config_class(self.algorithm).from_dict(self.algorithm_settings())

    def algorithm_settings(self) -> dict[str, Any]:
        """Return the algorithm's keyword arguments, ``n_envs`` included where it is given."""
        own = {} if self.n_envs is None else {"n_envs": self.n_envs}
        return {**self.hyperparameters, **own}


ALGORITHMS: dict[str, type[Config]] = {"ppo": PPOConfig}

TUNED: dict[tuple[str, str], dict[str, Any]] = {
    ("ppo", "CartPole-v1"): {
        "n_envs": 8,
        "n_steps": 32,
        "n_epochs": 20,
        "batch_size": 256,
        "learning_rate": 1e-3,
        "clip_eps": 0.2,
        "gamma": 0.98,
        "gae_lambda": 0.8,
        "ent_coef": 0.0,
        "clip_vloss": False,
        "anneal_lr": True,
        "anneal_clip": True,
    },
}


def tuned(algorithm: str, env_id: str) -> dict[str, Any]:
    """Return keyword arguments, ``n_envs`` included, that are known to work well.

    Raises
    ------
    ValueError
        If there are none for this pair; the message lists what there is.
    """
    settings = TUNED.get((str(algorithm).lower(), env_id))
    if settings is None:
        known = ", ".join(f"({name!r}, {env!r})" for name, env in TUNED)
        raise ValueError(f"no tuned settings for ({algorithm!r}, {env_id!r}); there are: {known}")
    return dict(settings)


def config_class(algorithm: str) -> type[Config]:
    """Return the settings class of an algorithm.

    Raises
    ------
    ValueError
        If there is no such algorithm.
    """
    try:
        return ALGORITHMS[algorithm.lower()]
    except KeyError:
        raise ValueError(
            f"algorithm: expected one of {sorted(ALGORITHMS)}, got {algorithm!r}"
        ) from None


def read_settings(path: str | Path, kind: str | None = None) -> dict[str, Any]:
    """Return the mapping in a YAML or TOML file; ``kind`` None goes by the file's suffix.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is neither, cannot be parsed or holds no mapping.
    """
    path = Path(path)
    kind = kind or {".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"config: expected a .yaml, .yml or .toml file, got {str(path)!r}")
    text = path.read_text(encoding="utf-8")
    try:
        values = yaml.safe_load(text) if kind == "yaml" else tomllib.loads(text)
    except (yaml.YAMLError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"config: cannot read {str(path)!r} as {kind}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"config: {str(path)!r} holds {type(values).__name__}, not a mapping")
    return values


def check_names(given: Iterable[str], valid: Iterable[str], owner: str) -> None:
    """Raise TypeError if a name in ``given`` is not in ``valid``, with what was likely meant."""
    valid = list(valid)
    for name in given:
        if name not in valid:
            near = difflib.get_close_matches(str(name), valid, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise TypeError(f"{owner}: unknown setting {name!r}{hint}; valid: {', '.join(valid)}")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected an integer >= {least}, got {value}")


def check_seed(seed: Any) -> None:
    """Raise unless ``seed`` is an integer that every generator takes."""
    check_count("seed", seed, least=0)
    if seed >= 2**63:
        raise ValueError(f"seed: expected an integer below 2**63, got {seed}")


def check_number(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
) -> None:
    """Raise unless ``value`` is a finite number, > ``above``, >= ``least`` and <= ``most``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not (math.isfinite(value) and value > above and least <= value <= most):
        bounds = [f"> {above:g}"] if above > -math.inf else []
        bounds += [f">= {least:g}"] if least > -math.inf else []
        bounds += [f"<= {most:g}"] if most < math.inf else []
        raise ValueError(
            f"{name}: expected a finite number {' and '.join(bounds)}".rstrip() + f", got {value!r}"
        )


def check_flag(name: str, value: Any) -> None:
    """Raise unless ``value`` is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
