"""A live line about a running training."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rlox_gpu.callbacks import Callback

PLAIN_INTERVAL = 5.0  # seconds between lines where there is no terminal


class ProgressCallback(Callback):
    """Shows steps, steps per second, mean return and the time left.

    On a terminal one line that changes, elsewhere a plain line every few seconds.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where to write; default: standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._progress: Progress | None = None
        self._evaluation = ""

    def on_training_start(self, algorithm: Any, total_timesteps: int) -> None:
        """Begin to measure."""
        self._begun = self._shown = time.perf_counter()
        self._first, self._total = algorithm.timesteps, total_timesteps
        self._start = algorithm.schedule.start * algorithm.steps_per_iteration
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.completed:,}/{task.total:,} steps"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[speed]}  {task.fields[reward]}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._progress.add_task("", total=total_timesteps, speed="", reward="")
            self._progress.start()

    def on_iteration(self, algorithm: Any, metrics: Mapping[str, float]) -> None:
        """Show the state of things."""
        now = time.perf_counter()
        speed = (algorithm.timesteps - self._first) / (now - self._begun)
        reward = self._reward(metrics["mean_reward"])
        done = algorithm.timesteps - self._start
        if self._progress is not None:
            task = self._progress.task_ids[0]
            self._progress.update(
                task, completed=done, speed=f"{speed:,.0f} steps/s", reward=reward
            )
        elif now - self._shown >= PLAIN_INTERVAL:
            self._shown = now
            left = (self._total - done) / speed
            self.console.print(
                f"{done:,}/{self._total:,} steps  {speed:,.0f} steps/s  {reward}  {left:.0f} s left"
            )

    def on_evaluation(self, algorithm: Any, result: Mapping[str, float]) -> None:
        """Remember the evaluation for the line."""
        self._evaluation = f", evaluation {result['mean_reward']:.1f}"

    def on_training_end(self, algorithm: Any, result: Mapping[str, float]) -> None:
        """Show the last state."""
        self.close()
        seconds = time.perf_counter() - self._begun
        done = algorithm.timesteps - self._start
        speed = (algorithm.timesteps - self._first) / seconds
        self.console.print(
            f"{done:,} steps in {seconds:.1f} s ({speed:,.0f} steps/s), "
            f"{self._reward(result['mean_reward'])}"
        )

    def close(self) -> None:
        """Give the terminal back; needed by itself only if the training was interrupted."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _reward(self, mean: float) -> str:
        shown = "no episode finished yet" if math.isnan(mean) else f"return {mean:.1f}"
        return shown + self._evaluation
