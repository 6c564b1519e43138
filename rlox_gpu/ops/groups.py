"""Group-relative advantages: each reward against the other rewards of its group."""

from __future__ import annotations

from typing import Any

from .._checks import choice, finite_number, integer
from ._kinds import implementation

BASELINES = {"mean": 0, "loo": 1}
SCALES = {"none": 0, "std": 1, "batch": 2}


def group_advantages(
    rewards: Any,
    *,
    group_size: int | None = None,
    group_ids: Any = None,
    baseline: str = "mean",
    scale: str = "std",
    ddof: int = 1,
    eps: float = 0.0,
    mask: Any = None,
    token_mask: Any = None,
) -> Any:
    """Advantage of each reward over a baseline formed by its group, in one launch on a GPU.

    ``(reward - baseline) / scale``. GRPO is the default (there with ``eps=1e-4``), Dr. GRPO is
    ``scale="none"``, RLOO is ``baseline="loo", scale="none"``.

    A constant group gives exact zeros whatever the scale, and so does a group of one. A reward
    that is masked counts nowhere, and its advantage is zero. A reward that is NaN or infinite
    counts nowhere either, and its own advantage is NaN: nobody else's is touched. What remains of
    a group is the group: with fewer than two rewards it gives zeros.

    Sums are formed in two passes over rewards that are shifted and scaled to [0, 1], in float32
    for half types and float32, in float64 for float64, so that neither a large offset nor very
    large or small rewards cost accuracy, as long as the dtype can hold the distance between the
    least and the greatest of a group. Results are constants of the autograd graph.

    Parameters
    ----------
    rewards : array, ``(P, K)`` or ``(P * K,)``
        float16, bfloat16, float32 or float64. A row is a group; in one dimension ``group_size``
        neighbours are, or what ``group_ids`` says.
    group_size : int, optional
        Rewards per group.
    group_ids : array of integers, shaped like ``rewards``, optional
        Rewards of equal id are a group: any numbers, in any order, groups of any sizes. On a GPU
        each block of rewards is compared with all others, so that unsorted ids cost time by the
        square of their number; sorted ones do not.
    baseline : {"mean", "loo"}
        The mean of the group, or of the others in the group (leave-one-out).
    scale : {"std", "none", "batch"}
        Divide by the standard deviation of the group's rewards, by nothing, or by the standard
        deviation of all rewards.
    ddof : {1, 0}
        The variance is divided by the number of rewards minus this: 1 for the sample's, 0 for
        the population's.
    eps : float
        Added to the standard deviation. Not needed against division by zero.
    mask : array of flags, shaped like ``rewards``, optional
        Nonzero where a reward counts.
    token_mask : array of flags, ``(*rewards.shape, T)``, optional
        Spread the advantages over tokens: the result has this shape, with the advantage of the
        sequence where a flag is set and zero elsewhere.

    Returns
    -------
    array
        Of the kind, dtype and device of ``rewards``, shaped like it or like ``token_mask``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.

    References
    ----------
    Shao et al., "DeepSeekMath" (GRPO), 2024, https://arxiv.org/abs/2402.03300. Liu et al.,
    "Understanding R1-Zero-like training" (Dr. GRPO), 2025, https://arxiv.org/abs/2503.20783.
    Ahmadian et al., "Back to basics" (RLOO), 2024, https://arxiv.org/abs/2402.14740. Scaling by
    the batch: Liu et al., "Tricks or traps?", 2025, https://arxiv.org/abs/2508.08221.
    """
    if group_size is not None:
        if group_ids is not None:
            raise ValueError("group_size: expected it or group_ids, got both")
        group_size = integer("group_size", group_size, 1 << 63)
    call = implementation("rewards", rewards, "groups", "group_advantages")
    return call(
        rewards,
        group_size,
        group_ids,
        mask,
        token_mask,
        bool(choice("baseline", baseline, BASELINES)),
        choice("scale", scale, SCALES),
        float(integer("ddof", ddof, 2)),
        finite_number("eps", eps),
        0.0,
    )
