"""Vector environments on torch tensors of any device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from rlox_gpu.envs import cuda, kernels
from rlox_gpu.envs.base import random_seeds
from rlox_gpu.envs.kernels import EnvState, StepBuffers
from rlox_gpu.envs.parameters import OwnRules
from rlox_gpu.envs.rollouts import Rollout, RolloutVectorEnv

__all__ = ["EnvState", "Rollout", "StepBuffers", "TensorVectorEnv"]

_NO_EPISODE = -1


class TensorVectorEnv(RolloutVectorEnv):
    """A native task under Gymnasium's vector contract, on tensors of one device.

    Nothing in ``step`` and ``step_into`` waits for the device. On the CPU an action out of range
    raises; on a device, where asking would mean waiting, it is taken like action 0, and a
    continuous one that is not finite goes through the task's formulas as in Gymnasium. With
    autoreset disabled an environment whose episode has ended rests: steps leave it alone, with
    reward 0 and no flag.

    Parameters
    ----------
    env_id
        A native Gymnasium id, for example ``"CartPole-v1"``.
    num_envs
        Number of environments N.
    device
        Where the tensors are, ``"cpu"`` included.
    autoreset_mode
        When an environment begins its next episode; see ``gymnasium.vector.AutoresetMode``.
    max_episode_steps
        Steps after which an episode is truncated, or one such number per environment; None for
        the task's own limit, -1 for none.
    render_mode
        None or ``"rgb_array"``.
    render_envs
        Indices of the environments that ``render`` draws; None for all.
    **params
        The task's parameters by Gymnasium's names, for example ``gravity=1.6``: a number, or
        one per environment in a list, an array or a tensor ``(N,)``.

    Raises
    ------
    RuntimeError
        If ``device`` is a CUDA device and torch has none, or CuPy is missing.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int = 1,
        *,
        device: torch.device | str = "cuda",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: Any = None,
        render_mode: str | None = None,
        render_envs: Sequence[int] | None = None,
        **params: Any,
    ) -> None:
        super().__init__(
            env_id,
            num_envs,
            autoreset_mode,
            max_episode_steps,
            render_mode,
            render_envs,
            params,
        )
        self.device = check_device(device)
        self._same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        self._bounds: tuple[float, ...] = tuple(self.task.reset_options.values())
        self._action_dtype = _TENSOR_DTYPES[self.action_space.dtype]
        self._state = self._new_state()
        # With its index, which "cuda" alone does not say.
        self.device = self._state.state.device
        self._renew_rules()

    def _renew_rules(self) -> None:
        self._batch_rules = self._rules(*self._bounds)
        own = self._own_rules(*self._bounds)
        self._own = own and OwnRules(*(torch.from_numpy(a).to(self.device) for a in own))

    def _new_state(self) -> EnvState:
        n, device = self.num_envs, self.device
        state_dtype = _TENSOR_DTYPES[np.dtype(self.task.state_dtype)]
        return EnvState(
            state=torch.zeros((n, self.task.state_size), dtype=state_dtype, device=device),
            elapsed=torch.zeros(n, dtype=torch.int32, device=device),
            episode=torch.full((n,), _NO_EPISODE, dtype=torch.int32, device=device),
            seed=_as_int64(random_seeds(n), device),
            ended=torch.zeros(n, dtype=torch.bool, device=device),
            episode_return=torch.zeros(n, device=device),
        )

    def make_buffers(self, *leading: int) -> StepBuffers:
        """Allocate what ``step_into`` writes to, with leading dimensions if wanted.

        ``make_buffers(T)`` is storage for T steps; ``StepBuffers(*(b[t] for b in buffers))`` is
        its step t. ``final_obs`` is zeros, the rest uninitialised.
        """
        shape, device = (*leading, self.num_envs), self.device
        return StepBuffers(
            obs=torch.empty((*shape, self._obs_size), device=device),
            rewards=torch.empty(shape, device=device),
            terminated=torch.empty(shape, dtype=torch.bool, device=device),
            truncated=torch.empty(shape, dtype=torch.bool, device=device),
            final_obs=torch.zeros((*shape, self._obs_size), device=device),
            episode_return=torch.empty(shape, device=device),
            episode_length=torch.empty(shape, dtype=torch.int32, device=device),
        )

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Begin new episodes.

        Parameters
        ----------
        seed
            None to go on with the environments' own seeds; an integer, which seeds environment i
            with ``seed + i``; or one integer or None per environment.
        options
            ``"reset_mask"``: bool tensor or array ``(N,)``, the environments to reset. The bounds
            of the initial state under Gymnasium's names, also for the automatic resets until the
            next call: ``"low"`` and ``"high"``, in Pendulum ``"x_init"`` and ``"y_init"``.

        Returns
        -------
        tuple
            Observations of all environments, float32 ``(N, obs_size)``, and an empty dict.

        Raises
        ------
        gymnasium.error.ClosedEnvironmentError
            After ``close``.
        gymnasium.error.ResetNeeded
            If a mask is given before all environments have begun an episode.
        TypeError, ValueError
            If ``seed`` or ``options`` is not as above.
        """
        mask, bounds, seeds = self._reset_request(seed, options, self._as_mask)
        if seeds is not None:
            self._seed(*seeds, mask)
        if bounds != self._bounds:
            self._bounds = bounds
            self._renew_rules()
        obs = torch.empty((self.num_envs, self._obs_size), device=self.device)
        kernels.reset(self._batch_rules, self._state, mask, obs, self._own)
        self._ready = True
        return obs, {}

    def _seed(self, seeds: np.ndarray, given: np.ndarray, mask: Tensor | None) -> None:
        chosen = torch.from_numpy(given).to(self.device)
        if mask is not None:
            chosen = chosen & mask
        new = _as_int64(seeds, self.device)
        self._state.seed.copy_(torch.where(chosen, new, self._state.seed))
        self._state.episode.masked_fill_(chosen, _NO_EPISODE)

    def _as_mask(self, mask: Any) -> Tensor:
        if isinstance(mask, np.ndarray):
            mask = torch.from_numpy(mask)
        if not isinstance(mask, Tensor):
            raise TypeError(
                "options['reset_mask'] must be a tensor or a numpy array, "
                f"got {type(mask).__name__}"
            )
        if mask.dtype != torch.bool:
            raise TypeError(f"options['reset_mask'] must have dtype bool, got {mask.dtype}")
        if mask.shape != (self.num_envs,):
            raise ValueError(
                f"options['reset_mask'] must have shape ({self.num_envs},), got {tuple(mask.shape)}"
            )
        return mask.to(self.device).contiguous()

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Step every environment into fresh tensors.

        Parameters
        ----------
        actions
            Integers ``(N,)``, or numbers ``(N, 1)`` where actions are continuous, on the
            environment's device.

        Returns
        -------
        tuple
            Observations float32 ``(N, obs_size)``, rewards float32 ``(N,)``, terminated and
            truncated bool ``(N,)``, and infos. Infos always hold ``"episode"`` with ``"r"`` and
            ``"l"``, and, if environments are reset in the same step, the dense ``"final_obs"``
            (zeros where no episode ended), each with its mask: to leave them out where no episode
            ended would mean to wait for the device.

        Raises
        ------
        gymnasium.error.ResetNeeded
            Before the first reset.
        gymnasium.error.ClosedEnvironmentError
            After ``close``.
        TypeError, ValueError
            If ``actions`` has another dtype, shape or device, or, on the CPU, range.
        """
        actions = self._converted(actions)
        out = self.make_buffers()
        if not self._same_step:
            out = out._replace(final_obs=None)
        self.step_into(actions, out)
        ended = out.terminated | out.truncated
        infos: dict[str, Any] = {
            "episode": {"r": out.episode_return, "l": out.episode_length},
            "_episode": ended,
        }
        if self._same_step:
            infos |= {"final_obs": out.final_obs, "_final_obs": ended}
            infos |= {"final_info": {}, "_final_info": ended}
        return out.obs, out.rewards, out.terminated, out.truncated, infos

    def step_into(self, actions: Tensor, out: StepBuffers) -> None:
        """Step every environment and write the results where the caller wants them.

        Parameters
        ----------
        actions
            int64 ``(N,)``, or float32 ``(N, 1)`` where actions are continuous; contiguous, on the
            environment's device.
        out
            The tensors to write to; ``final_obs`` and the episode statistics may be None.

        Raises
        ------
        gymnasium.error.ResetNeeded
            Before the first reset.
        gymnasium.error.ClosedEnvironmentError
            After ``close``.
        TypeError, ValueError
            If a tensor has another dtype, shape, device or layout, or, on the CPU, an action is
            out of range; no environment has then moved.
        """
        self._check_ready()
        n = self.num_envs
        self._check("actions", actions, self._action_dtype, self._action_shape)
        wide = (n, self._obs_size)
        self._check("out.obs", out.obs, torch.float32, wide)
        self._check("out.rewards", out.rewards, torch.float32, (n,))
        self._check("out.terminated", out.terminated, torch.bool, (n,))
        self._check("out.truncated", out.truncated, torch.bool, (n,))
        if out.final_obs is not None:
            self._check("out.final_obs", out.final_obs, torch.float32, wide)
        if out.episode_return is not None:
            self._check("out.episode_return", out.episode_return, torch.float32, (n,))
        if out.episode_length is not None:
            self._check("out.episode_length", out.episode_length, torch.int32, (n,))
        kernels.step(self._batch_rules, self._state, actions, out, self._own)
        if self.render_mode is not None:
            self._remember_step(actions, self._state.episode, self._state.elapsed)

    def _check(self, name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
        if tensor.dtype is not dtype:
            raise TypeError(f"{name} must have dtype {dtype}, got {tensor.dtype}")
        if tensor.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
        if tensor.device != self.device:
            raise ValueError(f"{name} must be on {self.device}, got {tensor.device}")
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous, got strides {tensor.stride()}")

    def _check_ready(self) -> None:
        if not self._ready:
            self._raise_not_ready()

    def _converted(self, actions: Any) -> Any:
        if isinstance(actions, Tensor) and actions.dtype in _CONVERTED[self._action_dtype]:
            return actions.to(self._action_dtype).contiguous()
        return actions

    def _rollout_actions(self, actions: Any) -> Tensor:
        actions = self._converted(actions)
        shape = (*getattr(actions, "shape", ())[:1], *self._action_shape)
        self._check("actions", actions, self._action_dtype, shape)
        return cast(Tensor, actions)

    def _allocate(self, dtype: np.dtype[Any], shape: tuple[int, ...], zeros: bool) -> Tensor:
        allocate = torch.zeros if zeros else torch.empty
        return allocate(shape, dtype=_TENSOR_DTYPES[dtype], device=self.device)

    def _check_result(
        self, name: str, value: Any, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> None:
        self._check(name, value, _TENSOR_DTYPES[dtype], shape)

    def _roll(self, num_steps: int, actions: Any, drawn: bool, out: Rollout) -> None:
        rules, state, own = self._batch_rules, self._state, self._own
        results = StepBuffers(*out[:7])
        if drawn:
            kernels.rollout_random(rules, state, num_steps, actions, results, own)
        else:
            kernels.rollout(rules, state, actions, results, own)

    def state_dict(self) -> dict[str, Any]:
        """Copy the whole state: what ``load_state_dict`` needs to go on exactly from here."""
        tensors = {name: tensor.clone() for name, tensor in self._state._asdict().items()}
        return {
            **tensors,
            "params": {name: _as_saved(value) for name, value in self.params.items()},
            "max_episode_steps": _as_saved(self.max_episode_steps),
            "reset_bounds": self._bounds,
            "ready": self._ready,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that ``state_dict`` gave, on this or another device.

        Raises
        ------
        ValueError
            If ``state`` lacks an entry or comes from another task or number of environments.
        """
        self._check_open()
        names = (*EnvState._fields, "params", "max_episode_steps", "reset_bounds", "ready")
        missing = [name for name in names if name not in state]
        if missing:
            raise ValueError(f"state lacks {', '.join(missing)}")
        for name, tensor in self._state._asdict().items():
            value = state[name]
            if value.shape != tensor.shape or value.dtype != tensor.dtype:
                raise ValueError(
                    f"state[{name!r}] must be {tensor.dtype} {tuple(tensor.shape)}, "
                    f"got {value.dtype} {tuple(value.shape)}"
                )
        self._load_rules(state)
        for name, tensor in self._state._asdict().items():
            tensor.copy_(state[name])
        self._bounds = tuple(map(float, state["reset_bounds"]))
        self._renew_rules()
        self._ready = bool(state["ready"])

    def _states_to_draw(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, now = list(self._render_envs), self._state
        state, *moment = (x[rows].cpu().numpy() for x in (now.state, now.episode, now.elapsed))
        return state, moment[0], moment[1]


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_TENSOR_DTYPES = {
    np.dtype(np.int64): torch.int64,
    np.dtype(np.int32): torch.int32,
    np.dtype(np.float32): torch.float32,
    np.dtype(np.bool_): torch.bool,
}
# What `step` turns into a task's own type of action.
_CONVERTED = {torch.int64: _INTEGERS, torch.float32: (*_FLOATS, *_INTEGERS)}


def _as_saved(value: Any) -> Any:
    return torch.from_numpy(value.copy()) if np.ndim(value) else value


def _as_int64(seeds: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(seeds.view(np.int64)).to(device)


def check_device(device: torch.device | str) -> torch.device:
    """Resolve a device and check that environments can run on it.

    Raises
    ------
    RuntimeError
        If it is a CUDA device and there is none, or CuPy is missing.
    """
    device = torch.device(device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise RuntimeError(
                f"device {device} was asked for, but torch finds no CUDA device; install a CUDA "
                "build of torch and `pip install rlox-gpu[cuda13]`, or use device='cpu'"
            )
        cuda.import_cupy()
        if device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
    return device
