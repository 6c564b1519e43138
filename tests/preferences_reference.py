"""The preference losses in float64, as their papers write them."""

import numpy as np


def dpo_reference(
    policy_chosen_logps,
    policy_rejected_logps,
    ref_chosen_logps,
    ref_rejected_logps,
    beta=0.1,
    loss_type="sigmoid",
    label_smoothing=0.0,
    reduction="mean",
):
    """Loss and rewards (Rafailov et al., 2023; Azar et al., 2023), pair by pair."""
    losses = []
    pairs = zip(
        policy_chosen_logps,
        policy_rejected_logps,
        ref_chosen_logps,
        ref_rejected_logps,
        strict=True,
    )
    for policy_chosen, policy_rejected, ref_chosen, ref_rejected in pairs:
        h = (policy_chosen - policy_rejected) - (ref_chosen - ref_rejected)
        if loss_type == "sigmoid":
            right = np.logaddexp(0.0, -beta * h)
            wrong = np.logaddexp(0.0, beta * h)
            losses.append((1 - label_smoothing) * right + label_smoothing * wrong)
        elif loss_type == "hinge":
            losses.append(max(0.0, 1 - beta * h))
        else:
            losses.append((h - 1 / (2 * beta)) ** 2)
    losses = np.array(losses, np.float64)
    total = {"none": losses, "sum": losses.sum(), "mean": losses.sum() / max(1, len(losses))}
    chosen = beta * (np.asarray(policy_chosen_logps) - ref_chosen_logps)
    rejected = beta * (np.asarray(policy_rejected_logps) - ref_rejected_logps)
    return total[reduction], chosen, rejected


def dpo_torch(*logps, beta=0.1, loss_type="sigmoid", label_smoothing=0.0, reduction="mean"):
    """The loss from torch operations, to take gradients of."""
    import torch

    policy_chosen, policy_rejected, ref_chosen, ref_rejected = logps
    h = (policy_chosen - policy_rejected) - (ref_chosen - ref_rejected)
    logsigmoid = torch.nn.functional.logsigmoid
    losses = {
        "sigmoid": lambda: (
            -(1 - label_smoothing) * logsigmoid(beta * h) - label_smoothing * logsigmoid(-beta * h)
        ),
        "hinge": lambda: torch.relu(1 - beta * h),
        "ipo": lambda: (h - 1 / (2 * beta)) ** 2,
    }[loss_type]()
    return {"none": losses, "sum": losses.sum(), "mean": losses.mean()}[reduction]
