"""What the wrappers share: arrays of either face, autoreset modes, saved states."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

if TYPE_CHECKING:
    from rlox_gpu.envs.kernels import StepBuffers

    _Wrapper = VectorWrapper[Any, Any, Any, Any, Any]
else:
    # Which Gymnasium made generic after 1.1.
    _Wrapper = VectorWrapper


class Step(NamedTuple):
    """The results of a step on their way out, in the order in which ``step`` gives them."""

    obs: Any
    rewards: Any
    terminated: Any
    truncated: Any
    infos: dict[str, Any]


class StatefulWrapper(_Wrapper):
    """Base of the wrappers that remember something of each environment.

    Arrays are NumPy's, or torch tensors where the wrapped environment has an attribute ``device``.
    In the same-step mode ``infos["final_obs"]`` is one array ``(N, *obs_shape)``, zeros where no
    episode ended, as the native environments give it.

    Parameters
    ----------
    env
        A vector environment whose metadata tell its autoreset mode.

    Attributes
    ----------
    device
        Where the tensors are; None for NumPy arrays.

    Raises
    ------
    TypeError
        If ``env`` is no vector environment.
    ValueError
        If its metadata lack ``"autoreset_mode"``.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        if not isinstance(env, VectorEnv):
            raise TypeError(f"env: expected a vector environment, got {type(env).__name__}")
        super().__init__(env)
        mode = env.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise ValueError(
                "env: expected a gymnasium.vector.AutoresetMode as metadata['autoreset_mode'], "
                f"got {mode!r}"
            )
        self._same_step = mode is AutoresetMode.SAME_STEP
        self._rests = mode is AutoresetMode.DISABLED
        self.device = device_of(env)
        self._xp: Any = np if self.device is None else importlib.import_module("torch")
        # Environments whose next step is no step of an episode: their episode has ended, and in
        # this step they are reset or, with autoreset disabled, rest.
        self._idle = self._zeros((self.num_envs,), "bool")

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes, everywhere or where ``options["reset_mask"]`` is set.

        Raises
        ------
        TypeError
            If the environment's arrays are of another kind than its ``device`` says.
        """
        # A copy: some of Gymnasium's environments take the mask out of what they are given.
        options = dict(options) if isinstance(options, Mapping) else options
        mask = options.get("reset_mask") if isinstance(options, dict) else None
        obs, infos = self.env.reset(seed=seed, options=options)
        if isinstance(obs, np.ndarray) is not (self.device is None):
            raise TypeError(
                f"env: expected {'NumPy arrays' if self.device is None else 'tensors'} from an "
                f"environment whose device is {self.device}, got {type(obs).__name__}"
            )
        mask = self._as_mask(mask)
        self._idle &= ~mask
        return self._begin(obs, mask), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every environment; see the wrapped environment for actions and results."""
        step = Step(*self.env.step(actions))
        ended = step.terminated | step.truncated
        result = self._advance(step, ended)
        if self._rests:
            self._idle |= ended
        elif not self._same_step:
            self._idle[...] = ended
        return tuple(result)

    def step_into(self, actions: Any, out: StepBuffers) -> None:
        """Step, on tensors, and copy the results where the caller wants them.

        As ``TensorVectorEnv.step_into``, so that the package's collectors take wrapped
        environments; episode statistics are those of ``infos["episode"]``.
        """
        obs, rewards, terminated, truncated, infos = self.step(actions)
        out.obs.copy_(obs)
        out.rewards.copy_(rewards)
        out.terminated.copy_(terminated)
        out.truncated.copy_(truncated)
        if out.final_obs is not None and self._same_step:
            ended = self._rows(infos["_final_obs"], out.final_obs)
            out.final_obs.copy_(self._xp.where(ended, infos["final_obs"], out.final_obs))
        if out.episode_return is not None:
            out.episode_return.copy_(infos["episode"]["r"])
        if out.episode_length is not None:
            out.episode_length.copy_(infos["episode"]["l"])

    def state_dict(self) -> dict[str, Any]:
        """Copy the wrapper's state, and under names with ``env.`` that of what it wraps.

        The state of environments that have no ``state_dict`` is left out.
        """
        state = {name: copied(value) for name, value in self._state().items()}
        if hasattr(self.env, "state_dict"):
            state |= {f"env.{name}": value for name, value in self.env.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that ``state_dict`` gave, on this or another device.

        Raises
        ------
        ValueError
            If ``state`` lacks an entry or one has another shape or dtype.
        """
        own = self._state()
        missing = [name for name in own if name not in state]
        if missing:
            raise ValueError(f"state lacks {', '.join(missing)}")
        for name, value in own.items():
            given = state[name]
            if given.shape != value.shape or given.dtype != value.dtype:
                raise ValueError(
                    f"state[{name!r}] must be {value.dtype} {tuple(value.shape)}, "
                    f"got {given.dtype} {tuple(given.shape)}"
                )
        if hasattr(self.env, "load_state_dict"):
            inner = {name[4:]: value for name, value in state.items() if name.startswith("env.")}
            self.env.load_state_dict(inner)
        for name, value in own.items():
            value[...] = state[name]

    @abstractmethod
    def _begin(self, obs: Any, mask: Any) -> Any:
        """Begin episodes where ``mask`` is set; return the observations to give."""

    @abstractmethod
    def _advance(self, step: Step, ended: Any) -> Step:
        """Take a step; ``self._idle`` is still that of before."""

    def _state(self) -> dict[str, Any]:
        """The arrays that make up the wrapper's state, by name.

        They are written in place: a CUDA graph of a step then goes on from replay to replay.
        """
        return {"idle": self._idle}

    def _zeros(self, shape: tuple[int, ...], dtype: str) -> Any:
        dtype = getattr(self._xp, dtype)
        if self.device is None:
            return np.zeros(shape, dtype)
        return self._xp.zeros(shape, dtype=dtype, device=self.device)

    def _as_mask(self, mask: Any) -> Any:
        if mask is None:
            return ~self._zeros((self.num_envs,), "bool")
        return mask if self.device is None else self._xp.as_tensor(mask, device=self.device)

    def _rows(self, mask: Any, like: Any) -> Any:
        """``mask (N,)`` in a shape that broadcasts against ``like (N, ...)``."""
        return mask.reshape(-1, *(1,) * (like.ndim - 1))

    def _final_obs(self, step: Step) -> Any:
        """The last observations of the episodes that this step ended and reset, or None.

        ``(N, *obs_shape)``, zeros elsewhere; None only where no episode ended.
        """
        final = step.infos.get("final_obs") if self._same_step else None
        if not isinstance(final, np.ndarray) or final.dtype != object:
            return final
        # Gymnasium's own environments give an array of arrays and Nones.
        dense = np.zeros_like(step.obs)
        for i in np.flatnonzero(step.infos["_final_obs"]):
            dense[i] = final[i]
        return dense


def copied(array: Any) -> Any:
    """A copy of an array or a tensor."""
    return array.copy() if isinstance(array, np.ndarray) else array.clone()


def device_of(env: Any) -> Any:
    """The attribute ``device`` of an environment or of what it wraps; None if there is none."""
    while True:
        device = getattr(env, "device", None)
        if device is not None or not isinstance(env, VectorWrapper):
            return device
        env = env.env
