"""Replay buffers: transitions kept in Rust, sampled into contiguous arrays.

See :class:`rlox_gpu.ReplayBuffer` and :class:`rlox_gpu.PrioritizedReplayBuffer`.
"""
