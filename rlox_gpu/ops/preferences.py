"""Losses on pairs of a preferred (chosen) and a rejected answer to the same prompt.

With the log-ratio of the policy between the two answers, minus that of the reference::

    h = (policy_chosen - policy_rejected) - (ref_chosen - ref_rejected)

    sigmoid   -(1 - s) log sigmoid(beta h) - s log sigmoid(-beta h)     s = label_smoothing
    hinge     max(0, 1 - beta h)
    ipo       (h - 1 / (2 beta))^2
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .._checks import choice, unit_number
from ._kinds import implementation
from ._preferences_arguments import LOSS_TYPES, REDUCTIONS, positive_number


class DPOLoss(NamedTuple):
    """What :func:`dpo_loss` returns."""

    loss: Any
    chosen_rewards: Any
    rejected_rewards: Any


def dpo_loss(
    policy_chosen_logps: Any,
    policy_rejected_logps: Any,
    ref_chosen_logps: Any,
    ref_rejected_logps: Any,
    *,
    beta: float = 0.1,
    loss_type: str = "sigmoid",
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> DPOLoss:
    """Direct preference optimisation, from the log-probabilities of whole answers.

    The module's docstring has the losses.

    Parameters
    ----------
    policy_chosen_logps, policy_rejected_logps : array, ``[B]``
        Sums of the policy's log-probabilities over the tokens of the chosen and of the rejected
        answers (for ``"ipo"`` often means: its target depends on the scale). float16, bfloat16,
        float32 or float64, all four alike.
    ref_chosen_logps, ref_rejected_logps : array, ``[B]``
        The same under the reference.
    beta : float
        How strongly the reference holds: a positive, finite number.
    loss_type : str
        ``"sigmoid"`` (DPO), ``"hinge"`` (SLiC) or ``"ipo"``.
    label_smoothing : float
        Assumed share of wrong labels, in [0, 1]; only ``"sigmoid"`` takes one that is not zero
        (conservative DPO).
    reduction : str
        ``"mean"``, ``"sum"`` or ``"none"``: of the loss over the pairs. The mean of no pairs is
        zero.

    Returns
    -------
    DPOLoss
        ``loss``, a number or ``[B]``; ``chosen_rewards`` and ``rejected_rewards``, ``[B]``:
        ``beta`` times the log-ratio of policy and reference, constants to autograd. All of the
        kind, dtype and device of the input. Torch tensors carry gradients of the loss to all four
        inputs.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or dtype.
    ValueError
        If a shape, device, number or name does not fit.

    References
    ----------
    Rafailov et al., "Direct preference optimization", 2023, https://arxiv.org/abs/2305.18290;
    Zhao et al., "SLiC-HF", 2023, https://arxiv.org/abs/2305.10425; Azar et al., "A general
    theoretical paradigm to understand learning from human preferences", 2023,
    https://arxiv.org/abs/2310.12036; Mitchell, "A note on DPO with noisy preferences", 2023,
    https://ericmitchell.ai/cdpo.pdf.
    """
    kind = choice("loss_type", loss_type, LOSS_TYPES)
    reduction_code = choice("reduction", reduction, REDUCTIONS)
    smoothing = unit_number("label_smoothing", label_smoothing)
    if smoothing and loss_type != "sigmoid":
        raise ValueError(
            f"label_smoothing: expected 0 for loss_type {loss_type!r}, got {smoothing}"
        )
    call = implementation("policy_chosen_logps", policy_chosen_logps, "preferences", "dpo_loss")
    results = call(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        ref_chosen_logps=ref_chosen_logps,
        ref_rejected_logps=ref_rejected_logps,
        kind=kind,
        beta=positive_number("beta", beta),
        label_smoothing=smoothing,
        reduction=reduction_code,
    )
    return DPOLoss(*results)
