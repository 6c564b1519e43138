"""The sampling ops on NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _rust
from .._checks import SEEDS, WORDS, integer
from ._arguments import FLOATS, address, dtype_name
from ._sampling_checks import check_gaussian, check_rows

_Array = NDArray[Any]


def sample_categorical(logits: _Array, *, seed: Any, step: Any) -> tuple[_Array, _Array, _Array]:
    """``rlox_gpu.sample_categorical`` for NumPy arrays."""
    check_rows("logits", logits)
    seed, step = integer("seed", seed, SEEDS), integer("step", step, WORDS)
    shape = logits.shape[:-1]
    lines = _lines(logits)
    actions = np.empty(shape, np.int64)
    log_prob = np.empty(shape, _real(logits))
    entropy = np.empty(shape, _real(logits))
    _rust.sample_categorical_raw(
        _place(lines),
        lines.shape[0],
        lines.shape[1],
        FLOATS[dtype_name(logits)],
        address(log_prob),
        address(entropy),
        address(actions),
        seed,
        step,
    )
    return actions, log_prob, entropy


def sample_gaussian(mean: _Array, log_std: Any, *, seed: Any, step: Any) -> tuple[_Array, _Array]:
    """``rlox_gpu.sample_gaussian`` for NumPy arrays."""
    return _gaussian(mean, log_std, seed, step, squash=False)


def sample_squashed_gaussian(
    mean: _Array, log_std: Any, *, seed: Any, step: Any
) -> tuple[_Array, _Array]:
    """``rlox_gpu.sample_squashed_gaussian`` for NumPy arrays."""
    return _gaussian(mean, log_std, seed, step, squash=True)


def _gaussian(
    mean: _Array, log_std: Any, seed: Any, step: Any, *, squash: bool
) -> tuple[_Array, _Array]:
    check_gaussian(mean, log_std)
    seed, step = integer("seed", seed, SEEDS), integer("step", step, WORDS)
    actions = np.empty(mean.shape, mean.dtype)
    log_prob = np.empty(mean.shape[:-1], _real(mean))
    lines, log_stds = _lines(mean), _lines(np.broadcast_to(log_std, mean.shape))
    _rust.sample_gaussian_raw(
        _place(lines),
        _place(log_stds),
        _place(_lines(actions)),
        lines.shape[0],
        lines.shape[1],
        FLOATS[dtype_name(mean)],
        address(log_prob),
        seed,
        step,
        squash,
    )
    return actions, log_prob


def _real(x: _Array) -> type[np.floating[Any]]:
    return np.float64 if x.dtype == np.float64 else np.float32


def _lines(x: _Array) -> _Array:
    """``x`` with its leading dimensions as one; a copy only where strides do not allow a view."""
    lines = x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
    # Fields of records may lie at places that are no multiple of their size.
    whole = all(stride % x.itemsize == 0 for stride in lines.strides)
    return lines if whole else np.ascontiguousarray(lines)


def _place(lines: _Array) -> tuple[int, int, int]:
    row, column = (stride // lines.itemsize for stride in lines.strides)
    return address(lines), row, column
