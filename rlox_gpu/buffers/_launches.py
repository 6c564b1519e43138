"""The launches of buffers on a device, as torch ops: what listens to torch sees them too."""

from __future__ import annotations

from typing import Any

import torch

from .. import _dispatch
from .._checks import SEEDS
from ..ops.random import signed

Tensors = list[torch.Tensor]
# Counters, errors, next slots, steps, tails.
State = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
# A seed, and whether it is a sample's own.
Draw = tuple[int, bool]

_STATE = (
    "Tensor(a!) counters, Tensor(b!) errors, Tensor(c!) next_slot, Tensor(d!) step, "
    "Tensor(e!) tails, Tensor(f!)[] fields"
)


def push(state: State, fields: Tensors, rows: Tensors, num_envs: int, link: bool) -> None:
    """Append contiguous ``rows [B, ...]``, at most as many as there are slots."""
    launch = _push if _dispatch.is_plain_call(*rows) else _push_op
    launch(*state, fields, rows, num_envs, link)


def store_once(
    state: State,
    fields: Tensors,
    frames: Tensors,
    breaks: Tensors,
    whose: torch.Tensor | None,
    obs: Tensors,
    next_obs: Tensors,
) -> None:
    """Store the next observations of contiguous rows, before :func:`push` stores the others."""
    launch = _frames if _dispatch.is_plain_call(*obs, *next_obs) else _frames_op
    launch(*state, fields, frames, breaks, whose, obs, next_obs)


def sample(
    state: State,
    fields: Tensors,
    tree: Tensors | None,
    slots: torch.Tensor | None,
    next_frame: torch.Tensor | None,
    breaks: Tensors,
    results: Tensors,
    extra: tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None],
    draw: Draw,
    n_step: int,
    gamma: float,
) -> None:
    """Fill ``results``, one for each field, and discounts, weights and indices."""
    launch = _sample if _dispatch.is_plain_call(*results) else _sample_op
    seed, seeded = draw
    drawn = (tree, slots, next_frame, breaks)
    launch(*state, fields, *drawn, results, *extra, signed(seed), seeded, n_step, gamma)


def draw_sequences(
    state: State, fields: Tensors, slots: torch.Tensor, stride: int, draw: Draw
) -> None:
    """Write the slots of uniformly drawn sequences to int64 ``slots [B, L]``."""
    launch = _sequences if _dispatch.is_plain_call(slots) else _sequences_op
    seed, seeded = draw
    launch(*state, fields, slots, stride, signed(seed), seeded)


def update(
    state: State,
    fields: Tensors,
    tree: Tensors,
    owners: torch.Tensor,
    indices: torch.Tensor | None,
    priorities: torch.Tensor | None,
    count: int,
    alpha: float,
) -> None:
    """Set the priorities of ``indices``, or of the newest ``count`` transitions."""
    plain = _dispatch.is_plain_call(indices, priorities, owners)
    launch = _update if plain else _update_op
    launch(*state, fields, tree, owners, indices, priorities, count, alpha)


def _ring(counters: Any, errors: Any, next_slot: Any, step: Any, tails: Any, fields: Any) -> Any:
    from ..kernels.replay import Ring

    return Ring(counters, errors, tuple(fields), next_slot, step, tails)


def _push(*arguments: Any) -> None:
    from ..kernels.replay_pushes import launch_push

    *state, rows, num_envs, link = arguments
    launch_push(_ring(*state), rows, num_envs, link=link)


def _frames(*arguments: Any) -> None:
    from ..kernels.replay_frames import Frames, launch_frames

    *state, frames, breaks, whose, obs, next_obs = arguments
    launch_frames(_ring(*state), Frames(*frames), breaks, whose, obs, next_obs)


def _sample(*arguments: Any) -> None:
    from ..kernels.replay_samples import launch_sample

    state, drawn, (results, *extra, seed, seeded, n_step, gamma) = (
        arguments[:6],
        arguments[6:10],
        arguments[10:],
    )
    draw = (seed % SEEDS, seeded)
    launch_sample(_ring(*state), *drawn, results, tuple(extra), *draw, n_step, gamma)


def _sequences(*arguments: Any) -> None:
    from ..kernels.replay_sequences import launch_sequences

    *state, slots, stride, seed, seeded = arguments
    launch_sequences(_ring(*state), slots, stride, seed % SEEDS, seeded)


def _update(*arguments: Any) -> None:
    from ..kernels.replay_priorities import launch_update

    *state, tree, owners, indices, priorities, count, alpha = arguments
    launch_update(_ring(*state), tree, owners, indices, priorities, count, alpha)


def _no_result(*_: Any) -> None:
    return None


def _register(schema: str, body: Any) -> Any:
    return _dispatch.register(schema, cpu=body, cuda=body, fake=_no_result)


_push_op = _register(f"replay_push_({_STATE}, Tensor[] rows, int num_envs, bool link) -> ()", _push)
_frames_op = _register(
    f"replay_frames_({_STATE}, Tensor(g!)[] frames, Tensor(h!)[] breaks, Tensor? whose, "
    "Tensor[] obs, Tensor[] next_obs) -> ()",
    _frames,
)
_sample_op = _register(
    f"replay_sample_({_STATE}, Tensor[]? tree, Tensor? slots, Tensor? next_frame, "
    "Tensor[] breaks, Tensor(g!)[] results, "
    "Tensor(h!)? discounts, Tensor(i!)? weights, Tensor(j!)? indices, int seed, bool seeded, "
    "int n_step, float gamma) -> ()",
    _sample,
)
_update_op = _register(
    f"replay_update_({_STATE}, Tensor(g!)[] tree, Tensor(h!) owners, Tensor? indices, "
    "Tensor? priorities, int count, float alpha) -> ()",
    _update,
)
_sequences_op = _register(
    f"replay_sequences_({_STATE}, Tensor(g!) slots, int stride, int seed, bool seeded) -> ()",
    _sequences,
)
