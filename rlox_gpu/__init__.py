"""Reinforcement learning on the GPU, and on the CPU in Rust: one API, the input decides.

Names are imported on first use, so ``import rlox_gpu`` loads neither torch nor triton nor cupy.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "DPOPair": "ops.packing",
    "GAE": "ops.returns",
    "RunningStats": "ops.running_stats",
    "RunningStatsVec": "ops.running_stats",
    "VarLenStore": "ops.packing",
    "VTrace": "ops.traces",
    "GRPOTerms": "ops.policy_losses",
    "PPOTerms": "ops.policy_losses",
    "compute_gae": "ops.compat",
    "compute_gae_batched": "ops.compat",
    "compute_gae_batched_f32": "ops.compat",
    "compute_batch_group_advantages": "ops.compat_groups",
    "compute_group_advantages": "ops.compat_groups",
    "group_advantages": "ops.groups",
    "merge_moments": "ops.statistics",
    "normalize": "ops.statistics",
    "pack_sequences": "ops.packing",
    "update_moments": "ops.statistics",
    "compute_vtrace": "ops.compat",
    "discounted_returns": "ops.returns",
    "eligibility_traces": "ops.traces",
    "compute_token_kl": "ops.compat_kl",
    "compute_token_kl_f32": "ops.compat_kl",
    "compute_token_kl_schulman": "ops.compat_kl",
    "compute_token_kl_schulman_f32": "ops.compat_kl",
    "compute_batch_token_kl": "ops.compat_kl",
    "compute_batch_token_kl_f32": "ops.compat_kl",
    "compute_batch_token_kl_schulman": "ops.compat_kl",
    "compute_batch_token_kl_schulman_f32": "ops.compat_kl",
    "gae": "ops.returns",
    "n_step_returns": "ops.returns",
    "retrace": "ops.traces",
    "td_lambda_returns": "ops.returns",
    "vtrace": "ops.traces",
    "TokenLogprobs": "ops.logprobs",
    "linear_token_logprobs": "ops.logprobs",
    "token_logprobs": "ops.logprobs",
    "gaussian_ppo_loss": "ops.policy_losses",
    "grpo_loss": "ops.policy_losses",
    "ppo_loss": "ops.policy_losses",
    "CategoricalSample": "ops.sampling",
    "GaussianSample": "ops.sampling",
    "sample_categorical": "ops.sampling",
    "sample_gaussian": "ops.sampling",
    "sample_squashed_gaussian": "ops.sampling",
    "full_kl": "ops.kl",
    "token_kl": "ops.kl",
    "DPOLoss": "ops.preferences",
    "dpo_loss": "ops.preferences",
    "CartPole": "envs.rlox_api",
    "VecEnv": "envs.rlox_api",
    "GymVecEnv": "envs.gymnasium",
    "make_vec": "envs",
    "DiscretePolicy": "policies",
    "RolloutCollector": "collectors",
    "record_video": "video",
    "RolloutBatch": "batch",
    "RolloutBuffer": "buffers.rollout",
    "PPOLoss": "losses",
    "HERBuffer": "buffers.hindsight",
    "MmapReplayBuffer": "buffers.mapped",
    "OfflineDatasetBuffer": "buffers.offline",
    "PrioritizedReplayBuffer": "buffers.replay",
    "ReplayBuffer": "buffers.replay",
    "PPO": "algorithms.ppo",
    "PPOTrainer": "trainers",
    "Trainer": "trainer",
    "PPOConfig": "config",
    "TrainingConfig": "config",
    "train_from_config": "trainer",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


if "gymnasium" in sys.modules:
    # gymnasium.make_vec("rlox_gpu:rlox_gpu/CartPole-v1", ...) loads this package to find the id.
    importlib.import_module("rlox_gpu.envs")
