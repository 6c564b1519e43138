"""Hooks into training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CHECKPOINT_SUFFIX = ".safetensors"


class Callback:
    """Base of callbacks: override what is needed.

    ``algorithm`` is the running algorithm, with ``timesteps``, ``iteration`` and ``policy``.
    """

    def on_training_start(self, algorithm: Any, total_timesteps: int) -> None:
        """Run before the first iteration of a call of ``train``."""

    def on_iteration(self, algorithm: Any, metrics: Mapping[str, float]) -> bool | None:
        """Run after every iteration; return False to stop the training."""

    def on_evaluation(self, algorithm: Any, result: Mapping[str, float]) -> bool | None:
        """Run after an evaluation that a callback made; return False to stop the training."""

    def on_training_end(self, algorithm: Any, result: Mapping[str, float]) -> None:
        """Run when a call of ``train`` ends."""


class CallbackList(Callback):
    """Several callbacks as one; each is run even if an earlier one asks to stop."""

    def __init__(self, callbacks: Iterable[Callback] | None = None) -> None:
        self.callbacks = list(callbacks or ())
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"callbacks: expected Callback objects, got {callback!r}")

    def on_training_start(self, algorithm: Any, total_timesteps: int) -> None:
        """Run each."""
        for callback in self.callbacks:
            callback.on_training_start(algorithm, total_timesteps)

    def on_iteration(self, algorithm: Any, metrics: Mapping[str, float]) -> bool:
        """Run each; False if one of them says so."""
        answers = [callback.on_iteration(algorithm, metrics) for callback in self.callbacks]
        return all(answer is not False for answer in answers)

    def on_evaluation(self, algorithm: Any, result: Mapping[str, float]) -> bool:
        """Run each; False if one of them says so."""
        answers = [callback.on_evaluation(algorithm, result) for callback in self.callbacks]
        return all(answer is not False for answer in answers)

    def on_training_end(self, algorithm: Any, result: Mapping[str, float]) -> None:
        """Run each."""
        for callback in self.callbacks:
            callback.on_training_end(algorithm, result)


class EvalCallback(Callback):
    """Evaluates the deterministic policy from time to time, and may stop the training.

    Parameters
    ----------
    eval_freq : int
        Environment steps between evaluations; one is made whenever a multiple is passed.
    n_episodes : int
        Episodes of an evaluation.
    target_return : float, optional
        Stop as soon as the mean return reaches this.
    seed : int
        Determines the evaluation's initial states, the same ones each time.

    Attributes
    ----------
    result : dict of str to float or None
        The latest evaluation.
    reached : bool
        Whether the latest evaluation reached the target.

    Raises
    ------
    ValueError
        If ``eval_freq`` or ``n_episodes`` is not positive.
    """

    def __init__(
        self,
        eval_freq: int = 10_000,
        n_episodes: int = 20,
        *,
        target_return: float | None = None,
        seed: int = 0,
    ) -> None:
        for name, value in (("eval_freq", eval_freq), ("n_episodes", n_episodes)):
            if value < 1:
                raise ValueError(f"{name}: expected a positive integer, got {value!r}")
        self.eval_freq, self.n_episodes = eval_freq, n_episodes
        self.target_return, self.seed = target_return, seed
        self.result: dict[str, float] | None = None
        self._evaluated_at = -1

    @property
    def reached(self) -> bool:
        """Whether the latest evaluation reached the target."""
        if self.target_return is None or self.result is None:
            return False
        return self.result["mean_reward"] >= self.target_return

    def on_iteration(self, algorithm: Any, metrics: Mapping[str, float]) -> bool | None:
        """Evaluate if it is time; False once the target is reached."""
        if not _passes_multiple(algorithm, self.eval_freq):
            return None
        return self.evaluate(algorithm)

    def on_training_end(self, algorithm: Any, result: Mapping[str, float]) -> None:
        """Evaluate the final policy, unless that has just been done."""
        if self._evaluated_at != algorithm.timesteps:
            self.evaluate(algorithm)

    def evaluate(self, algorithm: Any) -> bool:
        """Evaluate now, log it and tell the other callbacks; False if training should stop."""
        self.result = algorithm.evaluate(self.n_episodes, self.seed)
        self._evaluated_at = algorithm.timesteps
        if algorithm.logger is not None:
            named = {f"eval_{name}": value for name, value in self.result.items()}
            algorithm.logger.log(algorithm.timesteps, named)
        wanted = algorithm.callbacks.on_evaluation(algorithm, self.result)
        return bool(wanted) and not self.reached


class CheckpointCallback(Callback):
    """Saves the algorithm from time to time and at the end of training.

    Parameters
    ----------
    folder : str or Path
        Where the files go, ``step_<timesteps>.safetensors``; made if need be.
    save_freq : int
        Environment steps between files; 0 for the end of training alone.
    keep : int
        How many of the newest files stay.

    Raises
    ------
    ValueError
        If ``save_freq`` is negative or ``keep`` is not positive.
    """

    def __init__(self, folder: str | Path, save_freq: int = 10_000, keep: int = 3) -> None:
        if save_freq < 0:
            raise ValueError(f"save_freq: expected an integer >= 0, got {save_freq!r}")
        if keep < 1:
            raise ValueError(f"keep: expected a positive integer, got {keep!r}")
        self.folder, self.save_freq, self.keep = Path(folder), save_freq, keep

    def on_iteration(self, algorithm: Any, metrics: Mapping[str, float]) -> None:
        """Save if it is time."""
        if self.save_freq and _passes_multiple(algorithm, self.save_freq):
            self.save(algorithm)

    def on_training_end(self, algorithm: Any, result: Mapping[str, float]) -> None:
        """Save the final state."""
        self.save(algorithm)

    def save(self, algorithm: Any) -> None:
        """Save now and remove what is too old."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"step_{algorithm.timesteps:012d}{CHECKPOINT_SUFFIX}"
        algorithm.save(self.folder / name)
        for old in checkpoint_files(self.folder)[: -self.keep]:
            old.unlink(missing_ok=True)


def checkpoint_files(folder: str | Path) -> list[Path]:
    """Return the files of a :class:`CheckpointCallback`, oldest first."""
    return sorted(Path(folder).glob(f"step_*{CHECKPOINT_SUFFIX}"))


def _passes_multiple(algorithm: Any, interval: int) -> bool:
    """Whether the last iteration went over a multiple of ``interval`` steps.

    A function of the step count alone, so that a resumed run acts where the first one would have.
    """
    before = algorithm.timesteps - algorithm.steps_per_iteration
    return bool(algorithm.timesteps // interval > before // interval)
