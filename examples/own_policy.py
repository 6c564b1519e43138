"""PPO with a network of one's own: actor and critic on shared features."""

import torch
from torch import Tensor, nn

from rlox_gpu import PPO


class SharedFeatures(nn.Module):
    """What PPO asks of a policy are these four methods."""

    def __init__(self, obs_dim: int, n_actions: int, width: int = 64) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(obs_dim, width), nn.Tanh())
        self.logits = nn.Linear(width, n_actions)
        self.value = nn.Linear(width, 1)

    def _distribution(self, obs: Tensor) -> torch.distributions.Categorical:
        return torch.distributions.Categorical(logits=self.logits(self.features(obs)))

    def get_value(self, obs: Tensor) -> Tensor:
        return self.value(self.features(obs)).squeeze(-1)

    def get_action_value(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        distribution = self._distribution(obs)
        actions = distribution.sample()
        return actions, distribution.log_prob(actions), self.get_value(obs)

    def get_logprob_and_entropy(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        distribution = self._distribution(obs)
        return distribution.log_prob(actions), distribution.entropy()

    def act(self, obs: Tensor) -> Tensor:
        return self.logits(self.features(obs)).argmax(-1)


torch.manual_seed(0)
ppo = PPO(
    "CartPole-v1",
    seed=0,
    policy=SharedFeatures(4, 2),
    n_steps=32,
    n_epochs=10,
    learning_rate=2e-3,
    gamma=0.98,
    gae_lambda=0.9,
)
ppo.train(20_000)
print(f"evaluation: mean return {ppo.evaluate(20)['mean_reward']:.1f}")
