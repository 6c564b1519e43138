"""Run folders: a training run with its settings, metrics, checkpoints and learning curve.

A folder holds ``config.yaml``, ``metrics.jsonl``, ``checkpoints/step_*.safetensors``,
``tensorboard/`` and ``learning_curve.png``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rlox_gpu.callbacks import Callback, CheckpointCallback, EvalCallback, checkpoint_files
from rlox_gpu.config import TrainingConfig
from rlox_gpu.logging import JSONLinesLogger, Logger, LoggerList, TensorBoardLogger
from rlox_gpu.plotting import plot_learning_curve
from rlox_gpu.trainer import ALGORITHMS

CONFIG, METRICS, CHECKPOINTS = "config.yaml", "metrics.jsonl", "checkpoints"
TENSORBOARD, PICTURE = "tensorboard", "learning_curve.png"

Report = Callable[[str], None]


def default_run_dir(config: TrainingConfig, parent: str | Path = "runs") -> Path:
    """Return a folder name that says what is run, and when."""
    env = config.env_id.replace("/", "_")
    moment = time.strftime("%Y%m%d-%H%M%S")
    return Path(parent) / f"{config.algorithm}-{env}-seed{config.seed}-{moment}"


def find_checkpoint(path: str | Path) -> Path:
    """Return ``path`` if it is a file, or the newest checkpoint of the run folder ``path``.

    Raises
    ------
    FileNotFoundError
        If there is neither.
    """
    path = Path(path)
    if path.is_file():
        return path
    files = checkpoint_files(path / CHECKPOINTS)
    if not files:
        raise FileNotFoundError(f"{path}: neither a checkpoint nor a run folder with one")
    return files[-1]


def run(
    config: TrainingConfig, *, resume: bool, callbacks: Iterable[Callback], report: Report
) -> dict[str, float]:
    """Train as ``config`` says; see :func:`~rlox_gpu.trainer.train_from_config`."""
    folder = None if config.run_dir is None else Path(config.run_dir)
    if folder is not None:
        _prepare(folder, config, resume)
    elif resume:
        raise ValueError("run_dir: expected the folder of the run to resume, got None")
    hooks, evaluation = _hooks(config, folder)
    algorithm = _algorithm(config, _newest(folder) if resume else None, [*callbacks, *hooks])
    logger = _loggers(folder, algorithm.timesteps if resume else None, report)
    algorithm.logger = logger
    try:
        result: dict[str, float] = algorithm.train(config.total_timesteps, resume=resume)
    finally:
        logger.close()
    if folder is not None:
        _plot(folder, config, report)
    if evaluation is not None and evaluation.result is not None:
        result |= {f"eval_{name}": value for name, value in evaluation.result.items()}
    return result


def _prepare(folder: Path, config: TrainingConfig, resume: bool) -> None:
    if not resume:
        if (folder / CONFIG).exists():
            raise ValueError(
                f"run_dir: {str(folder)!r} already holds a run; resume it or choose another"
            )
        folder.mkdir(parents=True, exist_ok=True)
        config.to_yaml(folder / CONFIG)
    for partial in (folder / CHECKPOINTS).glob(".*.partial"):
        partial.unlink()  # a process was killed while it wrote


def _newest(folder: Path | None) -> Path | None:
    """Return the newest checkpoint; None in a run that was stopped before its first."""
    files = checkpoint_files(folder / CHECKPOINTS) if folder else []
    return files[-1] if files else None


def _hooks(
    config: TrainingConfig, folder: Path | None
) -> tuple[list[Callback], EvalCallback | None]:
    hooks: list[Callback] = []
    evaluation = None
    if config.eval_freq:
        evaluation = EvalCallback(
            config.eval_freq, config.eval_episodes, target_return=config.target_return
        )
        hooks.append(evaluation)
    if folder is not None:
        hooks.append(CheckpointCallback(folder / CHECKPOINTS, config.checkpoint_freq))
    return hooks, evaluation


def _algorithm(config: TrainingConfig, checkpoint: Path | None, callbacks: list[Callback]) -> Any:
    kind = ALGORITHMS[config.algorithm.lower()]
    if checkpoint is not None:
        return kind.from_checkpoint(checkpoint, callbacks=callbacks, device=config.device)
    settings = config.algorithm_settings()
    return kind(
        config.env_id, seed=config.seed, callbacks=callbacks, device=config.device, **settings
    )


def _loggers(folder: Path | None, keep_until: int | None, report: Report) -> LoggerList:
    if folder is None:
        return LoggerList([])
    loggers: list[Logger] = [JSONLinesLogger(folder / METRICS, keep_until=keep_until)]
    try:
        loggers.append(TensorBoardLogger(folder / TENSORBOARD, keep_until=keep_until))
    except ImportError as error:
        report(f"no TensorBoard events: {error}")
    return LoggerList(loggers)


def _plot(folder: Path, config: TrainingConfig, report: Report) -> None:
    title = f"{config.algorithm.upper()} on {config.env_id}, seed {config.seed}"
    try:
        plot_learning_curve(folder / METRICS, folder / PICTURE, title)
    except ImportError as error:
        report(f"no learning curve: {error}")
