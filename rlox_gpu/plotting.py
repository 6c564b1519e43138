"""The learning curve of a run as a picture."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from rlox_gpu.logging import read_metrics


def plot_learning_curve(metrics: str | Path, picture: str | Path, title: str = "") -> None:
    """Draw training and evaluation returns over environment steps.

    Parameters
    ----------
    metrics : str or Path
        File written by :class:`~rlox_gpu.logging.JSONLinesLogger`.
    picture : str or Path
        PNG to write.
    title : str
        Above the axes.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError(
            "plot_learning_curve needs the package matplotlib: "
            "pip install matplotlib (or rlox-gpu[plot])"
        )
    from matplotlib.figure import Figure

    rows = read_metrics(metrics)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*_curve(rows, "mean_reward"), label="training, last 100 episodes")
    axes.plot(*_curve(rows, "eval_mean_reward"), "o-", label="evaluation, deterministic")
    axes.set(xlabel="environment steps", ylabel="episode return", title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(picture, dpi=120)


def _curve(rows: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]
