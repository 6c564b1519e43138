"""Hooks into training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


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
