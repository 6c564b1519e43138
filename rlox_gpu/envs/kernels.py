"""Steps and resets of a batch of environments as torch operators.

``rlox_gpu::env_step``, ``env_rollout``, ``env_rollout_random`` and ``env_reset`` write into tensors
that the caller owns; on the CPU they run in Rust, elsewhere as CUDA kernels. The functions here
call the backend directly when the tensors are plain, and go through the operators when they are
not (fake tensors, subclasses, compilation).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlox_gpu import _rust
from rlox_gpu._dispatch import is_plain_call, register, same_device
from rlox_gpu.envs import cuda
from rlox_gpu.envs.base import Rules
from rlox_gpu.envs.parameters import OwnRules


class EnvState(NamedTuple):
    """The whole state of a batch of N environments; clones of these tensors are a snapshot.

    Attributes
    ----------
    state
        float32 or int32 ``(N, state_size)``.
    elapsed
        int32 ``(N,)``, steps since the episode began.
    episode
        int32 ``(N,)``, number of the episode, the bits of an unsigned number.
    seed
        int64 ``(N,)``, the bits of an unsigned number.
    ended
        bool ``(N,)``, the episode has ended and no new one has begun.
    episode_return
        float32 ``(N,)``, rewards since the episode began.
    """

    state: Tensor
    elapsed: Tensor
    episode: Tensor
    seed: Tensor
    ended: Tensor
    episode_return: Tensor


class StepBuffers(NamedTuple):
    """Where the results of a step go: contiguous tensors, slices of rollout storage for example.

    Attributes
    ----------
    obs
        float32 ``(N, obs_size)``; on CUDA devices its address is a multiple of 16 bytes, or of the
        largest power of two that divides the size of one observation, if that is less.
    rewards
        float32 ``(N,)``.
    terminated, truncated
        bool ``(N,)``.
    final_obs
        float32 ``(N, obs_size)`` or None: the last observation of an episode, written only where
        the same step began the next one.
    episode_return
        float32 ``(N,)`` or None: the return of the episode that ended, 0 elsewhere.
    episode_length
        int32 ``(N,)`` or None: the length of the episode that ended, 0 elsewhere.
    """

    obs: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Tensor | None = None
    episode_return: Tensor | None = None
    episode_length: Tensor | None = None


def step(
    rules: Rules,
    state: EnvState,
    actions: Tensor,
    out: StepBuffers,
    own: OwnRules | None = None,
) -> None:
    """Step every environment; all tensors are on one device, contiguous and of the right types.

    ``own`` holds constants and step limits of each environment, in place of those in ``rules``.

    Raises
    ------
    ValueError
        On the CPU, if an action is out of range; no environment has then moved.
    """
    if is_plain_call(actions, *out):
        _launch_step(rules, state, actions, out, own)
    else:
        _env_step(*rules, *state, actions, *out, *(own or ()))


def rollout(
    rules: Rules,
    state: EnvState,
    actions: Tensor,
    out: StepBuffers,
    own: OwnRules | None = None,
) -> None:
    """Take a step for each row of ``actions``; all results have a row per step.

    Raises
    ------
    ValueError
        On the CPU, if an action is out of range; no environment has then moved.
    """
    if is_plain_call(actions, *out):
        _launch_rollout(rules, state, len(actions), actions, False, out, own)
    else:
        _env_rollout(*rules, *state, actions, *out, *(own or ()))


def rollout_random(
    rules: Rules,
    state: EnvState,
    num_steps: int,
    actions: Tensor | None,
    out: StepBuffers,
    own: OwnRules | None = None,
) -> None:
    """Take ``num_steps`` random steps; the actions are written to ``actions`` if it is not None."""
    if is_plain_call(actions, *out):
        _launch_rollout(rules, state, num_steps, actions, True, out, own)
    else:
        _env_rollout_random(*rules, *state, num_steps, actions, *out, *(own or ()))


def reset(
    rules: Rules,
    state: EnvState,
    mask: Tensor | None,
    obs: Tensor,
    own: OwnRules | None = None,
) -> None:
    """Begin new episodes, everywhere or where ``mask`` is set, and copy all observations."""
    if is_plain_call(mask, obs):
        _launch_reset(rules, state, mask, obs, own)
    else:
        _env_reset(*rules, *state, mask, obs, *(own or ()))


def _launch_step(
    rules: Rules, state: EnvState, actions: Tensor, out: StepBuffers, own: OwnRules | None
) -> None:
    num_envs = actions.shape[0]
    if cuda.runs_kernels(actions.device):
        _check_aligned("out.obs", out.obs)
        _check_aligned("out.final_obs", out.final_obs)
        arguments = (*_kernel_rules(rules), num_envs, *state, actions, *out)
        _launch(rules, own, "env_step", num_envs, arguments, actions.device)
        return
    _native(rules).step(
        num_envs, _addresses(state, own), actions.data_ptr(), [_address(t) for t in out]
    )


def _launch_rollout(
    rules: Rules,
    state: EnvState,
    num_steps: int,
    actions: Tensor | None,
    drawn: bool,
    out: StepBuffers,
    own: OwnRules | None,
) -> None:
    num_envs, device = len(state.elapsed), out.obs.device
    if cuda.runs_kernels(device):
        _check_aligned("out.obs", out.obs)
        _check_aligned("out.final_obs", out.final_obs)
        numbers = (*_kernel_rules(rules), num_envs, num_steps)
        kernel = "env_rollout_random" if drawn else "env_rollout"
        _launch(rules, own, kernel, num_envs, (*numbers, *state, actions, *out), device)
        return
    _native(rules).rollout(
        num_envs,
        num_steps,
        _addresses(state, own),
        _address(actions),
        drawn,
        [_address(t) for t in out],
    )


def _launch_reset(
    rules: Rules, state: EnvState, mask: Tensor | None, obs: Tensor, own: OwnRules | None
) -> None:
    num_envs = obs.shape[0]
    if cuda.runs_kernels(obs.device):
        arguments = (*_kernel_rules(rules), num_envs, *state, mask, obs)
        _launch(rules, own, "env_reset", num_envs, arguments, obs.device)
        return
    _native(rules).reset(num_envs, _addresses(state, own), _address(mask), obs.data_ptr())


def _launch(
    rules: Rules,
    own: OwnRules | None,
    kernel: str,
    num_envs: int,
    arguments: tuple[cuda.Argument, ...],
    device: torch.device,
) -> None:
    module = cuda.compiled_module(rules.task, device, own is not None)
    arguments = (*arguments, *(own or ()))
    module.launch(kernel, cuda.grid_size(num_envs), cuda.BLOCK, arguments, device)


def _check_aligned(name: str, tensor: Tensor | None) -> None:
    if tensor is None:
        return
    row = tensor.shape[-1] * tensor.element_size()
    alignment = min(row & -row, 16)
    if tensor.data_ptr() % alignment:
        raise ValueError(
            f"{name} must start at a multiple of {alignment} bytes, as any tensor that torch "
            "allocates does"
        )


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _addresses(state: EnvState, own: OwnRules | None) -> list[int]:
    return [*(t.data_ptr() for t in state), *map(_address, own or (None, None))]


@functools.lru_cache(maxsize=256)
def _native(rules: Rules) -> _rust.EnvBatch:
    return _rust.EnvBatch(*rules)


@functools.lru_cache(maxsize=256)
def _kernel_rules(rules: Rules) -> tuple[np.ndarray, int, int]:
    struct = np.dtype([(f"f{i}", np.float32) for i in range(len(rules.params))])
    params = np.array([rules.params], dtype=struct)
    return params, rules.autoreset_mode, rules.max_episode_steps


_RULES = "str task, float[] params, int autoreset_mode, int max_episode_steps"
_STATE = (
    "Tensor(a!) state, Tensor(b!) elapsed, Tensor(c!) episode, Tensor seed, Tensor(d!) ended, "
    "Tensor(e!) episode_return"
)
_OUT = (
    "Tensor(f!) obs, Tensor(g!) rewards, Tensor(h!) terminated, Tensor(i!) truncated, "
    "Tensor(j!)? final_obs, Tensor(k!)? final_return, Tensor(l!)? final_length"
)
_OWN = "Tensor? own_params=None, Tensor? own_limits=None"


def _step_body(*arguments: Any) -> None:
    rules, state, (actions, *rest) = _split(arguments)
    _launch_step(rules, state, actions, StepBuffers(*rest[:7]), _own(rest[7:]))


def _rollout_body(*arguments: Any) -> None:
    rules, state, (actions, *rest) = _split(arguments)
    out, own = StepBuffers(*rest[:7]), _own(rest[7:])
    _launch_rollout(rules, state, len(actions), actions, False, out, own)


def _rollout_random_body(*arguments: Any) -> None:
    rules, state, (num_steps, actions, *rest) = _split(arguments)
    out, own = StepBuffers(*rest[:7]), _own(rest[7:])
    _launch_rollout(rules, state, num_steps, actions, True, out, own)


def _reset_body(*arguments: Any) -> None:
    rules, state, (mask, obs, *own) = _split(arguments)
    _launch_reset(rules, state, mask, obs, _own(own))


def _split(arguments: Sequence[Any]) -> tuple[Rules, EnvState, Sequence[Any]]:
    task, params, autoreset_mode, max_episode_steps, *tensors = arguments
    rules = Rules(task, tuple(params), autoreset_mode, max_episode_steps)
    return rules, EnvState(*tensors[:6]), tensors[6:]


def _own(tensors: Sequence[Tensor | None]) -> OwnRules | None:
    params, limits = tensors or (None, None)
    return None if params is None else OwnRules(params, limits)


def _fake(
    task: str,
    params: list[float],
    autoreset_mode: int,
    max_episode_steps: int,
    *arguments: Any,
) -> None:
    same_device(*(a for a in arguments if not isinstance(a, int)))


_env_step = register(
    f"env_step({_RULES}, {_STATE}, Tensor actions, {_OUT}, {_OWN}) -> ()",
    cpu=_step_body,
    cuda=_step_body,
    fake=_fake,
)
_env_rollout = register(
    f"env_rollout({_RULES}, {_STATE}, Tensor actions, {_OUT}, {_OWN}) -> ()",
    cpu=_rollout_body,
    cuda=_rollout_body,
    fake=_fake,
)
_env_rollout_random = register(
    f"env_rollout_random({_RULES}, {_STATE}, SymInt num_steps, Tensor(m!)? actions, {_OUT}, {_OWN})"
    " -> ()",
    cpu=_rollout_random_body,
    cuda=_rollout_random_body,
    fake=_fake,
)
_env_reset = register(
    f"env_reset({_RULES}, {_STATE}, Tensor? mask, Tensor(f!) obs, {_OWN}) -> ()",
    cpu=_reset_body,
    cuda=_reset_body,
    fake=_fake,
)
