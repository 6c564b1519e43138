"""A policy that is none of ours."""

import torch
from torch import nn


class Linear(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.actor, self.critic = nn.Linear(width, 2), nn.Linear(width, 1)
        self.register_buffer("offset", torch.ones(()))

    def get_value(self, obs):
        return self.critic(obs)[:, 0]

    def get_action_value(self, obs):
        d = torch.distributions.Categorical(logits=self.actor(obs))
        actions = d.sample()
        return actions, d.log_prob(actions), self.get_value(obs)

    def get_logprob_and_entropy(self, obs, actions):
        d = torch.distributions.Categorical(logits=self.actor(obs))
        return d.log_prob(actions), d.entropy()

    def act(self, obs):
        return self.actor(obs).argmax(-1)
