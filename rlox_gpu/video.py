"""Videos of a policy at work."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from rlox_gpu._checks import integer, positive_number
from rlox_gpu.envs import make_vec
from rlox_gpu.envs.tasks import TASKS
from rlox_gpu.envs.wrappers.base import device_of

_NEEDS = {".gif": "PIL", ".mp4": "imageio_ffmpeg"}
_DEFAULT_FPS = 30


def record_video(
    env: VectorEnv[Any, Any, Any] | str,
    policy: Any,
    path: str | Path,
    *,
    num_episodes: int = 1,
    max_steps: int = 10_000,
    seed: int | None = None,
    fps: float | None = None,
    **params: Any,
) -> Path:
    """Play episodes and write what happens to an mp4 or GIF file.

    Parameters
    ----------
    env
        The id of a native or any other Gymnasium environment, of which one is made; or a vector
        environment with ``render_mode="rgb_array"``, whose first picture is taken and which stays
        open. In the same-step mode the state that ends an episode is never drawn.
    policy
        An object with ``predict``, such as :class:`rlox_gpu.PPO` or an algorithm of SB3, asked for
        its most likely actions; a function from observations ``(N, *obs_shape)`` to ``N`` actions;
        or None for random actions.
    path
        Ends in ``.mp4`` or ``.gif``; overwritten.
    num_episodes
        Episodes of the pictured environment, at least 1.
    max_steps
        Steps after which the video ends in any case.
    seed
        Of the first reset.
    fps
        Pictures per second; None for the environment's own. A GIF counts hundredths of a second.
    **params
        Keywords for making the environment where ``env`` is an id.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ImportError
        If a library for the kind of file is missing; the message names the extra.
    TypeError, ValueError
        If an argument is not as above.
    """
    path = _checked_path(path)
    if integer("num_episodes", num_episodes, 1 << 31) == 0:
        raise ValueError("num_episodes: expected at least 1, got 0")
    integer("max_steps", max_steps, 1 << 31)
    act = _actions_of(policy)
    if isinstance(env, str):
        with closing(_make(env, params)) as made:
            return _record(made, act, path, num_episodes, max_steps, seed, fps)
    _check_env(env, params)
    return _record(env, act, path, num_episodes, max_steps, seed, fps)


def _checked_path(path: str | Path) -> Path:
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in _NEEDS:
        raise ValueError(f"path: expected a name that ends in .mp4 or .gif, got {str(path)!r}")
    try:
        importlib.import_module(_NEEDS[kind])
    except ImportError as error:
        raise ImportError(
            f"record_video needs {_NEEDS[kind]} for {kind} files, which cannot be imported "
            f"({error}); install it with `pip install rlox-gpu[video]`"
        ) from error
    return path


def _make(env_id: str, params: dict[str, Any]) -> VectorEnv[Any, Any, Any]:
    if env_id in TASKS:
        return make_vec(env_id, 1, render_mode="rgb_array", **params)
    return gym.make_vec(env_id, 1, vectorization_mode="sync", render_mode="rgb_array", **params)


def _check_env(env: Any, params: dict[str, Any]) -> None:
    if not isinstance(env, VectorEnv):
        raise TypeError(f"env: expected an id or a vector environment, got {type(env).__name__}")
    if params:
        raise TypeError(f"{next(iter(params))}: expected only where env is an id")
    mode = env.unwrapped.render_mode
    if mode != "rgb_array":
        raise ValueError(f"env: expected render_mode='rgb_array', got {mode!r}")


def _actions_of(policy: Any) -> Callable[[Any], Any] | None:
    if policy is None:
        return None
    if hasattr(policy, "predict"):

        def predicted(obs: Any) -> Any:
            actions = policy.predict(obs, deterministic=True)
            # SB3 gives the state of a recurrent policy as well.
            return actions[0] if isinstance(actions, tuple) else actions

        return predicted
    if not callable(policy):
        raise TypeError(
            f"policy: expected a function, an object with predict or None, got {policy!r}"
        )
    function: Callable[[Any], Any] = policy
    return function


def _record(
    env: VectorEnv[Any, Any, Any],
    act: Callable[[Any], Any] | None,
    path: Path,
    num_episodes: int,
    max_steps: int,
    seed: int | None,
    fps: float | None,
) -> Path:
    rate = env.metadata.get("render_fps", _DEFAULT_FPS) if fps is None else fps
    frames = _play(env, act, num_episodes, max_steps, seed)
    write = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    write(path, frames, positive_number("fps", rate))
    return path


def _play(
    env: VectorEnv[Any, Any, Any],
    act: Callable[[Any], Any] | None,
    num_episodes: int,
    max_steps: int,
    seed: int | None,
) -> Iterator[NDArray[np.uint8]]:
    """Yield the picture of each moment until enough episodes have ended."""
    pictured = getattr(env.unwrapped, "_render_envs", (0,))[0]
    if act is None:
        env.action_space.seed(seed)
    obs, _ = env.reset(seed=seed)
    yield _picture(env)
    for _ in range(max_steps):
        obs, _, terminated, truncated, _ = env.step(_actions(env, act, obs))
        yield _picture(env)
        ended = terminated | truncated
        if ended[pictured]:
            num_episodes -= 1
            if num_episodes == 0:
                return
        if env.metadata["autoreset_mode"] is AutoresetMode.DISABLED and ended.any():
            obs, _ = env.reset(options={"reset_mask": ended})
            if ended[pictured]:
                yield _picture(env)


def _actions(env: VectorEnv[Any, Any, Any], act: Callable[[Any], Any] | None, obs: Any) -> Any:
    if act is not None:
        return act(obs)
    actions, device = env.action_space.sample(), device_of(env)
    if device is None:
        return actions
    import torch

    return torch.as_tensor(actions, device=device)


def _picture(env: VectorEnv[Any, Any, Any]) -> NDArray[np.uint8]:
    frames: Any = env.render()
    return np.asarray(frames[0])


def _write_gif(path: Path, frames: Iterator[NDArray[np.uint8]], fps: float) -> None:
    from PIL import Image

    first, *rest = (Image.fromarray(frame).quantize() for frame in frames)
    hundredths = max(round(100 / fps), 1)
    first.save(
        path,
        save_all=True,
        append_images=rest,
        duration=[10 * hundredths] * (1 + len(rest)),
        loop=0,
    )


def _write_mp4(path: Path, frames: Iterator[NDArray[np.uint8]], fps: float) -> None:
    import imageio_ffmpeg

    first = next(frames)
    height, width, _ = first.shape
    # Of pictures with an odd side the encoder gets all but the last line.
    size = (width - width % 2, height - height % 2)
    writer = imageio_ffmpeg.write_frames(str(path), size, fps=fps, macro_block_size=2)
    writer.send(None)
    with closing(writer):
        for frame in itertools.chain([first], frames):
            writer.send(np.ascontiguousarray(frame[: size[1], : size[0]]))
