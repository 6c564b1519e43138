"""Vector environments: native tasks on NumPy arrays or on torch tensors of any device."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode, VectorEnv

from rlox_gpu.envs import plugin

__all__ = ["make_vec"]

plugin.register()


def make_vec(
    id: str,
    num_envs: int,
    *,
    device: Any = "cpu",
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    max_episode_steps: Any = None,
    **params: Any,
) -> VectorEnv[Any, Any, Any]:
    """Make many copies of a native environment.

    Parameters
    ----------
    id
        A native Gymnasium id, for example ``"CartPole-v1"`` or ``"Pendulum-v1"``; any other is
        answered with the list of them.
    num_envs
        Number of environments N.
    device
        ``"cpu"`` gives an environment on NumPy arrays; any other device (``"cuda"``,
        ``"cuda:1"``, a ``torch.device``) one on torch tensors of that device.
    autoreset_mode
        When an environment begins its next episode; see ``gymnasium.vector.AutoresetMode``.
    max_episode_steps
        Steps after which an episode is truncated, or one such number per environment; None for
        the task's own limit, -1 for none.
    **params
        The task's parameters by Gymnasium's names, each a number or an array of one per
        environment ``(N,)``, and the keywords of the environment that ``device`` selects.

    Returns
    -------
    gymnasium.vector.VectorEnv
        A ``NumpyVectorEnv`` or a ``TensorVectorEnv``.

    Raises
    ------
    ValueError
        If ``id`` is not native, or an argument is out of range.
    TypeError
        If an argument has the wrong type or a parameter is unknown.
    RuntimeError
        If ``device`` needs something that is not installed.
    """
    common: dict[str, Any] = {
        "autoreset_mode": autoreset_mode,
        "max_episode_steps": max_episode_steps,
    }
    if str(device) == "cpu":
        from rlox_gpu.envs.array import NumpyVectorEnv

        return NumpyVectorEnv(id, num_envs, **common, **params)
    from rlox_gpu.envs.tensor import TensorVectorEnv

    return TensorVectorEnv(id, num_envs, device=device, **common, **params)
