"""An environment whose every number says where it comes from."""

import torch
from gymnasium import spaces


class CountingEnv:
    """Environment i plays episodes of ``lengths[i]`` steps.

    The observation is (i, episode, step); the reward of step k is ``1000 i + 10 episode + k`` (k
    from 1). Episodes end by termination in even environments and by truncation in odd ones.
    """

    def __init__(self, lengths):
        self.lengths = torch.tensor(lengths, dtype=torch.int32)
        self.num_envs = len(lengths)
        self.single_observation_space = spaces.Box(0, 1e9, (3,))
        self.single_action_space = spaces.Discrete(2)
        self.index = torch.arange(self.num_envs)
        self.actions = []

    def reset(self, *, seed=None):
        self.seed = seed
        self.episode = torch.zeros(self.num_envs, dtype=torch.int64)
        self.step = torch.zeros(self.num_envs, dtype=torch.int64)
        self.total = torch.zeros(self.num_envs)
        return self._obs(), {}

    def _obs(self):
        return torch.stack((self.index, self.episode, self.step), 1).float()

    def step_into(self, actions, out):
        self.actions.append(actions.clone())
        self.step += 1
        rewards = 1000.0 * self.index + 10 * self.episode + self.step
        self.total += rewards
        ended = self.step == self.lengths
        out.rewards.copy_(rewards)
        out.terminated.copy_(ended & (self.index % 2 == 0))
        out.truncated.copy_(ended & (self.index % 2 == 1))
        out.final_obs[ended] = self._obs()[ended]
        out.episode_return.copy_(torch.where(ended, self.total, 0.0))
        out.episode_length.copy_(torch.where(ended, self.step, 0))
        self.total[ended] = 0
        self.episode[ended] += 1
        self.step[ended] = 0
        out.obs.copy_(self._obs())

    def close(self):
        self.closed = True


class LinearValue(torch.nn.Module):
    """A policy whose value of (i, episode, step) is ``100 i + 10 episode + step``."""

    weight = torch.tensor([100.0, 10.0, 1.0])

    def get_value(self, obs):
        return obs @ self.weight

    def get_action_value(self, obs):
        actions = (obs[:, 2] % 2).long()
        return actions, -0.1 * obs[:, 0] - 0.01 * obs[:, 2], self.get_value(obs)
