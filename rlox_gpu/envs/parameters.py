"""Parameters and step limits: a number for all environments, or an array with one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rlox_gpu.envs.tasks import Task

NO_LIMIT = 2**31 - 1


class OwnRules(NamedTuple):
    """Constants and step limits of each environment, as kernels take them: arrays or tensors.

    Attributes
    ----------
    params
        float32 ``(constants, N)``, what ``Task.pack`` gives, a row per constant.
    limits
        int32 ``(N,)``, steps after which an episode is truncated.
    """

    params: Any
    limits: Any


def resolve_params(task: Task, overrides: Mapping[str, Any], num_envs: int) -> dict[str, Any]:
    """Complete a task's parameters from its defaults.

    Returns
    -------
    dict
        By name a number or a flag, or an array float64 or bool ``(num_envs,)``.

    Raises
    ------
    TypeError
        If a name is unknown to the task or a value is not a number.
    ValueError
        If an array has another shape, a number is NaN, or one that must be positive is not.
    """
    unknown = sorted(set(overrides) - set(task.defaults))
    if unknown:
        raise TypeError(
            f"unknown parameter {unknown[0]!r}; {task.name} has {', '.join(task.defaults)}"
        )
    params: dict[str, Any] = dict(task.defaults)
    for name, value in overrides.items():
        params[name] = _check_param(name, value, task, num_envs)
    return params


def _check_param(name: str, value: Any, task: Task, num_envs: int) -> Any:
    flag = isinstance(task.defaults[name], bool)
    kinds, what = ("b", "a bool") if flag else ("fiu", "a number")
    array = as_numbers(value)
    if array is None or array.dtype.kind not in kinds:
        raise TypeError(f"{name} must be {what}, or {num_envs} of them, got {value!r}")
    check_one_each(name, array, num_envs)
    if flag:
        return array if array.ndim else bool(array)
    numbers = array.astype(np.float64)
    positive = name in task.positive
    # As a kernel will see it: what rounds to 0 in float32 is not positive either.
    with np.errstate(over="ignore"):
        wrong = np.isnan(numbers) | (positive & (numbers.astype(np.float32) <= 0))
    share = name in task.shares
    wrong |= share & ((numbers < 0) | (numbers > 1))
    if wrong.any():
        kind = "positive" if positive else "a number other than NaN"
        kind = "between 0 and 1" if share else kind
        raise ValueError(f"{name} must be {kind}, got {describe_first(numbers, wrong)}")
    return numbers if numbers.ndim else float(numbers)


def check_max_episode_steps(steps: Any, default: int, num_envs: int = 1) -> Any:
    """Check a step limit, or one per environment; None is the task's own and -1 none.

    Returns
    -------
    int or numpy.ndarray
        int32 ``(num_envs,)`` where an array came.
    """
    if steps is None:
        return default
    array = as_numbers(steps)
    if array is None or array.dtype.kind not in "iu":
        raise TypeError(f"max_episode_steps must be an integer or None, got {steps!r}")
    check_one_each("max_episode_steps", array, num_envs)
    wrong = (array != -1) & ((array < 1) | (array > NO_LIMIT))
    if wrong.any():
        raise ValueError(
            f"max_episode_steps must be -1 (no limit) or between 1 and {NO_LIMIT}, "
            f"got {describe_first(array, wrong)}"
        )
    limits = np.where(array == -1, NO_LIMIT, array).astype(np.int32)
    return limits if limits.ndim else int(limits)


def as_numbers(value: Any) -> npt.NDArray[Any] | None:
    """Copy a number, a sequence, an array or a tensor; None if it is something else."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    scalar = isinstance(value, (bool, int, float, np.number, np.bool_))
    listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    if not (scalar or listed or isinstance(value, np.ndarray)):
        return None
    try:
        return np.array(value)
    except ValueError:
        return None


def check_one_each(name: str, array: npt.NDArray[Any], num_envs: int) -> None:
    """Check that an array holds a number per environment."""
    if array.ndim and array.shape != (num_envs,):
        raise ValueError(f"{name} must be a number or have shape ({num_envs},), got {array.shape}")


def describe_first(array: npt.NDArray[Any], wrong: npt.NDArray[np.bool_]) -> str:
    """Name the first wrong number and, in an array, its index."""
    index = int(np.flatnonzero(wrong)[0])
    return f"{array.flat[index]}" + (f" at index {index}" if array.ndim else "")


def envelope(params: Mapping[str, Any]) -> dict[str, Any]:
    """Give numbers whose spaces hold those of all environments: the largest, or lowest minimum."""
    return {
        name: value
        if np.ndim(value) == 0
        else value.min()
        if name.startswith("min_")
        else value.max()
        for name, value in params.items()
    }


def params_of(params: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Give the parameters of one environment."""
    return {
        name: value if np.ndim(value) == 0 else value[index].item()
        for name, value in params.items()
    }


def own_rules(
    task: Task, params: Mapping[str, Any], limits: Any, bounds: tuple[float, ...], num_envs: int
) -> OwnRules | None:
    """Give the constants and limits of each environment; None where all of them are shared."""
    if not any(np.ndim(value) for value in (*params.values(), limits)):
        return None
    rows = [np.broadcast_to(number, num_envs) for number in task.pack(params, *bounds)]
    limits = np.broadcast_to(np.asarray(limits, np.int32), num_envs)
    return OwnRules(np.stack(rows).astype(np.float32), np.array(limits))
