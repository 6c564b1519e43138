"""PPO's checkpoints: everything from which a run goes on bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from rlox_gpu.algorithms.common import EpisodeWindow
from rlox_gpu.checkpoint import (
    read_checkpoint,
    split_state,
    with_prefix,
    without_prefix,
    write_checkpoint,
)
from rlox_gpu.policies import DiscretePolicy

if TYPE_CHECKING:
    from rlox_gpu.algorithms.ppo import PPO


@dataclass(frozen=True)
class SavedPPO:
    """A checkpoint that has been read."""

    path: Path
    tensors: dict[str, Tensor]
    values: dict[str, Any]

    @property
    def env_id(self) -> str:
        """The environment that was trained on."""
        return self.values["env_id"]  # type: ignore[no-any-return]

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.values["seed"]  # type: ignore[no-any-return]

    @property
    def config(self) -> dict[str, Any]:
        """The settings, ``n_envs`` included."""
        return self.values["config"]  # type: ignore[no-any-return]


def save(ppo: PPO, path: str | Path) -> None:
    """Write the state of ``ppo`` to ``path``."""
    env_tensors, env_values = split_state(_env_state(ppo.env))
    write_checkpoint(
        path,
        {
            **with_prefix("policy", ppo.policy.state_dict()),
            **with_prefix("env", env_tensors),
            "adam.exp_avg": ppo.adam.exp_avg,
            "adam.exp_avg_sq": ppo.adam.exp_avg_sq,
            "obs": ppo.storage.obs[-1],
        },
        {
            "algorithm": ppo.name,
            "env_id": ppo.env_id,
            "seed": ppo.seed,
            "config": ppo.config.to_dict(),
            "standard_policy": type(ppo.policy) is DiscretePolicy,
            "env": env_values,
            "adam_step": ppo.adam.step,
            "iteration": ppo.iteration,
            "timesteps": ppo.timesteps,
            "schedule": [ppo.schedule.start, ppo.schedule.count],
            "episodes": ppo.episodes.entries(),
        },
    )


def _env_state(env: Any) -> dict[str, Any]:
    """Return the state of a native environment, nothing for one that cannot be saved."""
    return dict(env.state_dict()) if hasattr(env, "state_dict") else {}


def load(path: str | Path) -> SavedPPO:
    """Read a checkpoint.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not one of PPO's.
    """
    tensors, values = read_checkpoint(path)
    if values.get("algorithm") != "ppo":
        raise ValueError(f"{path}: a checkpoint of {values.get('algorithm')!r}, not of 'ppo'")
    return SavedPPO(Path(path), tensors, values)


def policy_for(state: SavedPPO, policy: nn.Module | None) -> nn.Module | None:
    """Return the policy to build PPO with: the given one, or a standard one as it was saved."""
    if policy is not None:
        return policy
    if not state.values["standard_policy"]:
        raise ValueError(f"policy: {state.path} holds a policy of your own; pass one like it")
    weights = without_prefix("policy", state.tensors)
    n_actions, hidden = weights["actor.4.weight"].shape
    return DiscretePolicy(weights["actor.0.weight"].shape[1], n_actions, hidden)


def restore(ppo: PPO, state: SavedPPO, *, with_env: bool) -> None:
    """Bring a fresh ``ppo`` to the saved state.

    Raises
    ------
    ValueError
        If the saved tensors do not fit the policy or the environment.
    """
    tensors, values = state.tensors, state.values
    try:
        ppo.policy.load_state_dict(without_prefix("policy", tensors))
        ppo.adam.exp_avg.copy_(tensors["adam.exp_avg"])
        ppo.adam.exp_avg_sq.copy_(tensors["adam.exp_avg_sq"])
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"policy: {state.path} does not fit it: {error}") from error
    ppo.adam.step = values["adam_step"]
    ppo.iteration, ppo.timesteps = values["iteration"], values["timesteps"]
    ppo.schedule = type(ppo.schedule)(*values["schedule"])
    ppo.episodes = EpisodeWindow(values["episodes"])
    if with_env and hasattr(ppo.env, "load_state_dict") and ppo.iteration:
        env_tensors = without_prefix("env", tensors)
        ppo.env.load_state_dict({**env_tensors, **values["env"]})
        ppo.resume_episodes(tensors["obs"])
