"""What the policy losses do alike for NumPy arrays and tensors: checks, and calls of the core."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import _rust
from .._checks import choice, finite_number
from ._arguments import FLAGS, FLOATS, address, check_dtype, check_like, dtype_name
from ._kl_arguments import KINDS

# old_log_probs, advantages, returns, values, old_values or None, mask or None
Columns = Sequence[Any]
Coefficients = tuple[float, float, float]
COLUMN_NAMES = ("old_log_probs", "advantages", "returns", "values", "old_values")


def ppo_coefficients(clip_eps: Any, vf_coef: Any, ent_coef: Any) -> Coefficients:
    """The three numbers as floats; TypeError or ValueError if one is none or out of range."""
    return (
        finite_number("clip_eps", clip_eps),
        finite_number("vf_coef", vf_coef),
        finite_number("ent_coef", ent_coef),
    )


def check_ppo(logits: Any, actions: Any, columns: Columns) -> None:
    """Raise unless the arrays of ``ppo_loss`` fit each other; ``logits`` sets the tone."""
    check_dtype("logits", logits, FLOATS)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(
            f"logits: expected shape [..., A] with at least one action, got {tuple(logits.shape)}"
        )
    shape = logits.shape[:-1]
    check_like("actions", actions, "logits", logits, dtypes=("int64",), shape=shape)
    _check_columns("logits", logits, shape, columns)


def check_gaussian(mean: Any, log_std: Any, actions: Any, columns: Columns) -> None:
    """Raise unless the arrays of ``gaussian_ppo_loss`` fit each other; ``mean`` sets the tone."""
    check_dtype("mean", mean, FLOATS)
    if mean.ndim == 0 or mean.shape[-1] == 0:
        raise ValueError(
            f"mean: expected shape [..., A] with at least one dimension of an action, got "
            f"{tuple(mean.shape)}"
        )
    shared = getattr(log_std, "ndim", mean.ndim) == 1
    check_like("log_std", log_std, "mean", mean, shape=mean.shape[-1:] if shared else mean.shape)
    check_like("actions", actions, "mean", mean)
    _check_columns("mean", mean, mean.shape[:-1], columns)


def is_shared(mean: Any, log_std: Any) -> bool:
    """Whether ``log_std`` is one row for all samples."""
    return bool(log_std.shape != mean.shape)


def _check_columns(like_name: str, like: Any, shape: Sequence[int], columns: Columns) -> None:
    *numbers, mask = columns
    for name, x in zip(COLUMN_NAMES, numbers, strict=True):
        if x is not None or name != "old_values":
            check_like(name, x, like_name, like, shape=shape)
    check_mask(mask, like_name, like, shape)


def check_mask(mask: Any, like_name: str, like: Any, shape: Sequence[int]) -> None:
    """Raise unless ``mask`` is None or flags of ``shape``, of the kind and device of ``like``."""
    if mask is not None:
        check_like("mask", mask, like_name, like, dtypes=FLAGS, shape=shape)


def real_name(x: Any) -> str:
    """The dtype that sums of numbers like ``x`` have."""
    return "float64" if dtype_name(x) == "float64" else "float32"


def ppo_into_rust(
    logits: Any,
    actions: Any,
    columns: Columns,
    gradient: Any | None,
    terms: tuple[Any, Any, Any],
    coefficients: Coefficients,
) -> None:
    """Write loss, parts ``[5]`` and scale ``[1]``, and the gradient if it is given.

    All arrays are contiguous, the mask is bool.
    """
    _rust.ppo_loss_raw(
        address(logits),
        address(actions),
        optional_addresses(columns),
        address_or_zero(gradient),
        optional_addresses(terms),
        math.prod(actions.shape),
        logits.shape[-1],
        FLOATS[dtype_name(logits)],
        coefficients,
    )


def gaussian_into_rust(
    policy: tuple[Any, Any, Any],
    columns: Columns,
    gradients: tuple[Any | None, Any | None],
    terms: tuple[Any, Any, Any],
    coefficients: Coefficients,
) -> None:
    """:func:`ppo_into_rust` for mean, ``log_std`` and actions.

    The second of the gradients is that of a ``log_std`` that all samples share.
    """
    mean, log_std, _ = policy
    _rust.gaussian_ppo_loss_raw(
        optional_addresses(policy),
        is_shared(mean, log_std),
        optional_addresses(columns),
        (address_or_zero(gradients[0]), address_or_zero(gradients[1])),
        optional_addresses(terms),
        math.prod(mean.shape[:-1]),
        mean.shape[-1],
        FLOATS[dtype_name(mean)],
        coefficients,
    )


def address_or_zero(x: Any) -> int:
    """The array's address, 0 for None."""
    return 0 if x is None else address(x)


def optional_addresses(arrays: Sequence[Any]) -> tuple[int, ...]:
    """The arrays' addresses, 0 for None."""
    return tuple(map(address_or_zero, arrays))


RATIO_LEVELS = {"token": False, "sequence": True}
AGGREGATIONS = {"grpo": 0, "dr_grpo": 1, "dapo": 2}


class GRPORules(NamedTuple):
    """The settings of ``grpo_loss`` as numbers; choices are places in their tuples."""

    low: float
    high: float
    kl_coef: float
    kl_kind: int
    per_sequence: bool
    aggregation: int
    max_tokens: float


def grpo_rules(
    clip: tuple[Any, Any], kl: tuple[Any, Any, Any], ratio_level: Any, aggregation: tuple[Any, Any]
) -> GRPORules:
    """The settings, checked; TypeError or ValueError names the one that does not fit."""
    below, above = (
        math.inf if x is None else finite_number(name, x)
        for name, x in zip(("clip_eps_low", "clip_eps_high"), clip, strict=True)
    )
    kl_coef, kl_kind, reference = finite_number("kl_coef", kl[0]), kl[1], kl[2]
    if kl_coef and reference is None:
        raise ValueError("ref_logprobs: expected an array where kl_coef is not zero, got None")
    way, max_tokens = choice("aggregation", aggregation[0], AGGREGATIONS), aggregation[1]
    if (way == AGGREGATIONS["dr_grpo"]) is (max_tokens is None):
        raise ValueError(
            f'max_tokens: expected a number for aggregation="dr_grpo" and only there, got '
            f"{max_tokens!r} for {aggregation[0]!r}"
        )
    tokens = 1.0 if max_tokens is None else finite_number("max_tokens", max_tokens)
    if not tokens:
        raise ValueError("max_tokens: expected a positive number, got 0")
    return GRPORules(
        1.0 - below,
        1.0 + above,
        kl_coef,
        choice("kl_kind", kl_kind, KINDS),
        bool(choice("ratio_level", ratio_level, RATIO_LEVELS)),
        way,
        tokens,
    )


def check_grpo(
    logprobs: Any, old_logprobs: Any, advantages: Any, ref_logprobs: Any, mask: Any
) -> None:
    """Raise unless the arrays of ``grpo_loss`` fit each other; ``logprobs`` sets the tone."""
    check_dtype("logprobs", logprobs, FLOATS)
    shape = tuple(logprobs.shape)
    if len(shape) != 2:
        raise ValueError(f"logprobs: expected shape [B, T], got {shape}")
    check_like("old_logprobs", old_logprobs, "logprobs", logprobs)
    per_token = getattr(advantages, "ndim", 1) == 2
    check_like(
        "advantages", advantages, "logprobs", logprobs, shape=shape if per_token else shape[:1]
    )
    if ref_logprobs is not None:
        check_like("ref_logprobs", ref_logprobs, "logprobs", logprobs)
    check_mask(mask, "logprobs", logprobs, shape)


def grpo_into_rust(
    arrays: Sequence[Any], gradient: Any | None, terms: tuple[Any, Any, Any], rules: GRPORules
) -> None:
    """Write loss, parts ``[3]`` and scale ``[B]``, and the gradient if it is given.

    ``arrays`` are log-probabilities, old ones, advantages, and the reference's and the mask or
    None; all are contiguous, the mask is bool.
    """
    low, high, kl_coef, kl_kind, per_sequence, aggregation, max_tokens = rules
    _rust.grpo_loss_raw(
        optional_addresses(arrays),
        arrays[2].ndim == 2,
        address_or_zero(gradient),
        optional_addresses(terms),
        tuple(arrays[0].shape),
        FLOATS[dtype_name(arrays[0])],
        (low, high),
        (kl_coef, kl_kind),
        per_sequence,
        (aggregation, max_tokens),
    )
