"""Policies: what the collectors ask for actions and the losses for probabilities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rlox_gpu import actor_critic
from rlox_gpu.networks import tanh_mlp
from rlox_gpu.parameters import FlatModule


class ActorCritic(Protocol):
    """What a policy of one's own needs to train with PPO (an ``nn.Module`` with these methods)."""

    def get_action_value(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return sampled actions, their log-probabilities ``(B,)`` and values ``(B,)``."""
        ...

    def get_value(self, obs: Tensor) -> Tensor:
        """Return values ``(B,)``."""
        ...

    def get_logprob_and_entropy(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of ``actions`` and the entropies, both ``(B,)``."""
        ...

    def act(self, obs: Tensor) -> Tensor:
        """Return the most likely actions."""
        ...


class Sample(NamedTuple):
    """Actions with what the policy thought of them, ``(B,)`` each."""

    actions: Tensor
    log_probs: Tensor
    values: Tensor


class DiscretePolicy(FlatModule):
    """Categorical actor and a critic, two separate tanh networks with two hidden layers each.

    Parameters
    ----------
    obs_dim : int
        Entries of an observation.
    n_actions : int
        Number of actions, 0 to ``n_actions - 1``.
    hidden : int
        Units of each hidden layer.
    seed : int, optional
        Seed of the weights; they are then the same on every device. Default: torch's generator.
    device : optional
        Where the parameters live.

    Raises
    ------
    ValueError
        If a size is not positive.

    Notes
    -----
    The parameters are views of one flat f32 tensor (``policy.flat``), each at a multiple of 16
    elements, equal parts of actor and critic side by side.
    """

    rebuilt = ("flat", "weights", "gradients")

    def __init__(
        self,
        obs_dim: int,
        n_actions: int,
        hidden: int = 64,
        *,
        seed: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("obs_dim", obs_dim), ("n_actions", n_actions), ("hidden", hidden)):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name}: expected a positive integer, got {size!r}")
        self.obs_dim, self.n_actions, self.hidden = obs_dim, n_actions, hidden
        generator = None if seed is None else torch.Generator("cpu").manual_seed(seed)
        sizes = (obs_dim, hidden, hidden)
        self.actor = tanh_mlp(
            (*sizes, n_actions), output_gain=0.01, generator=generator, device=device
        )
        self.critic = tanh_mlp((*sizes, 1), output_gain=1.0, generator=generator, device=device)
        self.flatten()

    def flatten(self) -> None:
        """Bring the parameters (back) into one flat tensor."""
        super().flatten()
        self.weights = actor_critic.weights_of(self.flat, self.flat.data)
        self.gradients = actor_critic.weights_of(self.flat, self.flat.grad)

    def flat_order(self) -> Iterable[str]:
        """Return the parameter names in the order of their offsets."""
        return actor_critic.flat_order()

    def get_action_and_logprob(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Sample actions; return them and their log-probabilities, both ``(B,)``."""
        sample = self.get_action_value(obs)
        return sample[0], sample[1]

    def get_value(self, obs: Tensor) -> Tensor:
        """Return values ``(B,)``."""
        values: Tensor = self.critic(self._checked(obs)).squeeze(-1)
        return values

    def get_action_value(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sample actions by torch's generator; return them, log-probabilities and values."""
        obs = self._checked(obs)
        uniforms = torch.rand(len(obs), device=obs.device)
        logits = self.actor(obs)
        actions, log_probs = sample_categorical(logits, uniforms)
        return actions, log_probs, self.critic(obs).squeeze(-1)

    def get_logprob_and_entropy(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of ``actions (B,)`` and the entropies, both ``(B,)``."""
        log_probs = torch.log_softmax(self.actor(self._checked(obs)), -1)
        chosen = log_probs.gather(-1, actions.long().reshape(-1, 1)).squeeze(-1)
        return chosen, -(log_probs.exp() * log_probs).sum(-1)

    def act(self, obs: Tensor) -> Tensor:
        """Return the most likely actions ``(B,)``."""
        return self.actor(self._checked(obs)).argmax(-1)  # type: ignore[no-any-return]

    @torch.no_grad()
    def sample(self, obs: Tensor, uniforms: Tensor) -> Sample:
        """Return the actions that the numbers ``uniforms (B,)`` in [0, 1) choose.

        One pass through both networks, without gradients: what collection uses, so that a
        rollout depends on nothing but the weights, the observations and the given numbers.
        """
        logits, values, _ = actor_critic.forward(self.weights, obs)
        return Sample(*sample_categorical(logits, uniforms), values)

    def _checked(self, obs: Tensor) -> Tensor:
        if obs.ndim != 2 or obs.shape[1] != self.obs_dim:
            raise ValueError(f"obs: expected shape (B, {self.obs_dim}), got {tuple(obs.shape)}")
        return obs


def sample_categorical(logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(actions, log_probs)`` by inversion of the distribution function.

    ``actions[b]`` is the number of classes whose cumulative probability is at most
    ``uniforms[b]``; ``logits`` is ``(B, A)``, the results are int64 ``(B,)`` and ``(B,)``.
    """
    log_probs = torch.log_softmax(logits, -1)
    # Without the last class: rounding could leave its cumulative probability below a draw.
    cumulative = log_probs.detach()[:, :-1].exp().cumsum(-1)
    actions = (uniforms.unsqueeze(-1) >= cumulative).sum(-1)
    return actions, log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def policy_for_spaces(observation_space: Any, action_space: Any, **kwargs: Any) -> DiscretePolicy:
    """Return the standard policy for a pair of single-environment spaces.

    Raises
    ------
    ValueError
        If the observation is not a flat box or the action not a finite choice.
    """
    return DiscretePolicy(*discrete_sizes(observation_space, action_space), **kwargs)


def check_fits(policy: Any, observation_space: Any, action_space: Any) -> None:
    """Raise ValueError if ``policy`` is a standard one and was made for other spaces."""
    if not isinstance(policy, DiscretePolicy):
        return
    obs_dim, n_actions = discrete_sizes(observation_space, action_space)
    if (policy.obs_dim, policy.n_actions) != (obs_dim, n_actions):
        raise ValueError(
            f"policy: expected {obs_dim} observation entries and {n_actions} actions for this "
            f"environment, got {policy.obs_dim} and {policy.n_actions}"
        )


def discrete_sizes(observation_space: Any, action_space: Any) -> tuple[int, int]:
    """Return the numbers of observation entries and actions that the standard policy needs.

    Raises
    ------
    ValueError
        If the observation is not a flat box or the action not a finite choice.
    """
    from gymnasium import spaces

    if not isinstance(observation_space, spaces.Box) or len(observation_space.shape) != 1:
        raise ValueError(
            f"env_id: the standard policy takes a Box of one dimension as observation, "
            f"got {observation_space}; pass a policy of your own"
        )
    if not isinstance(action_space, spaces.Discrete):
        raise ValueError(
            f"env_id: PPO's standard policy takes a Discrete action space, got {action_space}"
        )
    if action_space.start != 0:
        raise ValueError(f"env_id: actions from 0 expected, got {action_space}")
    return observation_space.shape[0], int(action_space.n)
