"""Our vector environments as Stable-Baselines3's; importing this module imports SB3."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from rlox_gpu.envs import make_vec
from rlox_gpu.envs.base import NativeVectorEnv
from rlox_gpu.envs.wrappers import RecordEpisodeStatistics
from rlox_gpu.envs.wrappers.base import device_of

try:
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env.base_vec_env import VecEnv
except ImportError as error:
    raise ImportError(
        f"rlox_gpu.envs.sb3 needs Stable-Baselines3, which cannot be imported ({error}); "
        "install it with `pip install rlox-gpu[sb3]`"
    ) from error

Indices = int | Iterable[int] | None
# What SB3 asks each environment for is that of one, not of the batch.
_SINGLE = {
    "observation_space": "single_observation_space",
    "action_space": "single_action_space",
}


def make_sb3_vec_env(
    env_id: str, n_envs: int = 1, seed: int | None = None, *, device: Any = "cpu", **arguments: Any
) -> SB3VecEnv:
    """Make native environments for SB3, as its ``make_vec_env`` does with Gymnasium's.

    Parameters
    ----------
    env_id
        A native id.
    n_envs
        Number of environments.
    seed
        Environment i begins from ``seed + i`` at the first reset; None for random seeds.
    device, **arguments
        As for :func:`rlox_gpu.make_vec`, ``render_mode`` and the task's parameters for example.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; see :func:`rlox_gpu.make_vec`.
    """
    env = make_vec(
        env_id, n_envs, device=device, autoreset_mode=AutoresetMode.SAME_STEP, **arguments
    )
    adapter = SB3VecEnv(env)
    if seed is not None:
        adapter.seed(seed)
    return adapter


class SB3VecEnv(VecEnv):  # type: ignore[misc]
    """A vector environment for SB3's algorithms and ``VecEnvWrapper`` classes.

    Observations, rewards and ``dones`` are NumPy arrays, copied to the host where the environment
    is on a device. ``infos`` hold ``"TimeLimit.truncated"`` for every environment and, where an
    episode ended, ``"terminal_observation"`` and what SB3's ``Monitor`` gives: ``"episode"`` with
    return, length and seconds since the environments were made. Rewards in it are the
    environment's own, whatever wraps this adapter.

    The environments are one object: ``get_attr`` gives its attribute to each, or entry i of an
    array over environments; ``set_attr`` and ``env_method`` take all environments or none.

    Parameters
    ----------
    env
        Native or wrapped, with ``autoreset_mode="SameStep"``.

    Attributes
    ----------
    env
        The same.

    Raises
    ------
    TypeError
        If ``env`` is no vector environment.
    ValueError
        If it resets in another step than the one that ends an episode.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        if not isinstance(env, VectorEnv):
            raise TypeError(f"env: expected a vector environment, got {type(env).__name__}")
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"env: expected autoreset_mode='SameStep', got {mode}")
        self.env = env
        self._device = device_of(env)
        self._actions: Any = None
        self._made_at = time.time()
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> NDArray[Any]:
        """Begin new episodes from the seeds and options that were set since the last reset.

        Raises
        ------
        ValueError
            If ``set_options`` has given different options to different environments.
        """
        options = self._options[0]
        if any(other != options for other in self._options):
            raise ValueError("options: expected the same for all environments")
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        obs, _ = self.env.reset(seed=seeds, options=options or None)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        return _on_host(obs)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
        """Step; see the environment's ``step`` for what it raises."""
        obs, rewards, terminated, truncated, infos = self.env.step(self._on_device(self._actions))
        terminated, truncated = _on_host(terminated), _on_host(truncated)
        dones = terminated | truncated
        # Each its own dict: SB3's wrappers write into them.
        per_env: list[dict[str, Any]] = [
            {"TimeLimit.truncated": cut} for cut in (truncated & ~terminated).tolist()
        ]
        if dones.any():
            self._describe_ends(np.flatnonzero(dones), infos, per_env)
        return _on_host(obs), _on_host(rewards), dones, per_env

    def _describe_ends(
        self, ended: NDArray[Any], infos: dict[str, Any], per_env: list[dict[str, Any]]
    ) -> None:
        final = _on_host(infos["final_obs"])
        for i in ended:
            per_env[i]["terminal_observation"] = np.array(final[i])
        if "episode" in infos:
            seconds = round(time.time() - self._made_at, 6)
            returns, lengths = (_on_host(infos["episode"][name]) for name in ("r", "l"))
            for i in ended:
                per_env[i]["episode"] = {
                    "r": round(float(returns[i]), 6),
                    "l": int(lengths[i]),
                    "t": seconds,
                }

    def _on_device(self, actions: Any) -> Any:
        if self._device is None:
            return actions
        import torch

        return torch.as_tensor(actions, device=self._device)

    def close(self) -> None:
        """Release the environments."""
        self.env.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Frames of the environments that ``render_envs`` chose when they were made."""
        frames: Any = self.env.render()
        return frames or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute or a task's parameter for each environment.

        Raises
        ------
        AttributeError
            If neither a wrapper nor the environment has it.
        """
        value = self._find(attr_name)
        return self._share(value, indices)

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute of the environments, all at once.

        Raises
        ------
        AttributeError
            If it is a parameter of the task, which is fixed when the environments are made.
        ValueError
            If ``indices`` leaves out an environment.
        """
        self._check_all("set_attr", indices)
        native = self.env.unwrapped
        if isinstance(native, NativeVectorEnv) and attr_name in native.params:
            raise AttributeError(
                f"{attr_name} is fixed when the environments are made: "
                f"make_sb3_vec_env(..., {attr_name}={value!r})"
            )
        for layer in self._layers():
            if hasattr(layer, attr_name):
                setattr(layer, attr_name, value)
                return
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the environments once; each gets the result, or its entry of it.

        Raises
        ------
        AttributeError
            If there is no such method.
        ValueError
            If ``indices`` leaves out an environment.
        """
        self._check_all("env_method", indices)
        method = self._find(method_name)
        return self._share(method(*method_args, **method_kwargs), indices)

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Indices = None) -> list[bool]:
        """Whether ``wrapper_class`` is around the environments.

        True for SB3's ``Monitor`` where the environments record episodes: infos hold the same
        ``"episode"`` then, and SB3 need not add one.
        """
        if wrapper_class is Monitor:
            wrapper_class = RecordEpisodeStatistics
            native = self.env.unwrapped
            found = getattr(native, "_episode_statistics", isinstance(native, NativeVectorEnv))
        else:
            found = False
        found = found or any(isinstance(layer, wrapper_class) for layer in self._layers())
        return self._share(found, indices)

    def _layers(self) -> Iterator[VectorEnv[Any, Any, Any]]:
        layer: Any = self.env
        while isinstance(layer, VectorWrapper):
            yield layer
            layer = layer.env
        yield layer

    def _find(self, name: str) -> Any:
        name = _SINGLE.get(name, name)
        for layer in self._layers():
            if hasattr(layer, name):
                return getattr(layer, name)
        params = getattr(self.env.unwrapped, "params", {})
        if name in params:
            return params[name]
        raise AttributeError(f"{self.env!r} has no attribute {name!r}")

    def _share(self, value: Any, indices: Indices) -> list[Any]:
        chosen = list(self._get_indices(indices))
        sequence = isinstance(value, tuple) or hasattr(value, "ndim")
        if sequence and np.ndim(value) > 0 and len(value) == self.num_envs:
            return [value[i] for i in chosen]
        return [value] * len(chosen)

    def _check_all(self, name: str, indices: Indices) -> None:
        chosen = set(self._get_indices(indices))
        if chosen != set(range(self.num_envs)):
            raise ValueError(
                f"indices: expected all environments, which are one object, got {sorted(chosen)}; "
                f"{name} cannot treat them apart"
            )


def _on_host(x: Any) -> NDArray[Any]:
    return x if isinstance(x, np.ndarray) else np.asarray(x.cpu())
