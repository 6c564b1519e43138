"""One way to train any algorithm: the :class:`Trainer`, and whole runs with a folder of results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rlox_gpu.algorithms.ppo import PPO
from rlox_gpu.callbacks import Callback
from rlox_gpu.checkpoint import read_checkpoint
from rlox_gpu.config import Config, TrainingConfig, config_class, read_settings

ALGORITHMS: dict[str, type[PPO]] = {"ppo": PPO}


class Trainer:
    """Trains an algorithm, chosen by its name, on an environment.

    Parameters
    ----------
    algorithm : str
        ``"ppo"``.
    env : str
        A native or a Gymnasium id.
    config : mapping or Config, optional
        Settings of the algorithm.
    callbacks, logger
        As for the algorithm.
    seed : int
        Determines the run.
    **overrides
        Settings that count before ``config``; also ``policy`` and ``device``.

    Raises
    ------
    TypeError, ValueError
        If the algorithm, a setting or the environment is wrong; see the algorithm.
    """

    def __init__(
        self,
        algorithm: str,
        env: str,
        config: Mapping[str, Any] | Config | None = None,
        callbacks: Iterable[Callback] | None = None,
        logger: Any = None,
        seed: int = 42,
        **overrides: Any,
    ) -> None:
        settings = _settings(config)
        self.algorithm = _algorithm_class(algorithm)(
            env, seed=seed, logger=logger, callbacks=callbacks, **{**settings, **overrides}
        )

    @property
    def env(self) -> str:
        """The id of the environment."""
        return self.algorithm.env_id

    def train(self, total_timesteps: int, *, resume: bool = False) -> dict[str, float]:
        """Train; see the algorithm's ``train``."""
        return self.algorithm.train(total_timesteps, resume=resume)

    def predict(self, obs: Any, deterministic: bool = True) -> Any:
        """Return actions; see the algorithm's ``predict``."""
        return self.algorithm.predict(obs, deterministic)

    def evaluate(self, n_episodes: int = 10, seed: int = 0) -> dict[str, float]:
        """Run episodes with the deterministic policy; see the algorithm's ``evaluate``."""
        return self.algorithm.evaluate(n_episodes, seed)

    def save(self, path: str | Path) -> None:
        """Write a checkpoint."""
        self.algorithm.save(path)

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, algorithm: str | None = None, env: str | None = None, **kwargs: Any
    ) -> Trainer:
        """Return a trainer that goes on from a checkpoint.

        Parameters
        ----------
        path : str or Path
            Written by ``save``.
        algorithm : str, optional
            Checked against the checkpoint's, which counts by itself.
        env : str, optional
            Go on in another environment.
        **kwargs
            ``policy``, ``logger``, ``callbacks``, ``device`` as for the algorithm.

        Raises
        ------
        FileNotFoundError, ValueError
            If the file is missing, damaged or of another algorithm.
        """
        name = algorithm or str(read_checkpoint(path)[1].get("algorithm"))
        trainer = Trainer.__new__(cls)
        trainer.algorithm = _algorithm_class(name).from_checkpoint(path, env, **kwargs)
        return trainer


def _algorithm_class(name: str) -> type[PPO]:
    if not isinstance(name, str):
        raise TypeError(f"algorithm: expected a name, got {name!r}")
    config_class(name)
    return ALGORITHMS[name.lower()]


def _settings(config: Mapping[str, Any] | Config | None) -> dict[str, Any]:
    if config is None:
        return {}
    if isinstance(config, Config):
        return config.to_dict()
    if not isinstance(config, Mapping):
        raise TypeError(f"config: expected a mapping or a Config, got {type(config).__name__}")
    return dict(config)


def train_from_config(
    config: TrainingConfig | Mapping[str, Any] | str | Path,
    *,
    resume: bool = False,
    callbacks: Iterable[Callback] = (),
    report: Callable[[str], None] = lambda message: None,
) -> dict[str, float]:
    """Train as a :class:`~rlox_gpu.config.TrainingConfig` says.

    Parameters
    ----------
    config : TrainingConfig, mapping, or path of a YAML or TOML file
        What to do.
    resume : bool
        Go on from the newest checkpoint in ``run_dir``, or from the start if there is none.
    callbacks : iterable of Callback
        In addition to those that evaluate and save.
    report : callable
        Told in a sentence what could not be done because a package is missing.

    Returns
    -------
    dict of str to float
        What ``train`` returns; with evaluations also the last one's, as ``eval_mean_reward`` and
        so on.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        If the settings are wrong, ``run_dir`` already holds a run, or there is nothing to resume.
    """
    from rlox_gpu.runs import run

    return run(_training_config(config), resume=resume, callbacks=callbacks, report=report)


def _training_config(config: TrainingConfig | Mapping[str, Any] | str | Path) -> TrainingConfig:
    if isinstance(config, TrainingConfig):
        return config
    values = read_settings(config) if isinstance(config, (str, Path)) else config
    return TrainingConfig.from_dict(values)
