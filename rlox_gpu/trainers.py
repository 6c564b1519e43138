"""One trainer per algorithm, as in rlox; :class:`~rlox_gpu.trainer.Trainer` does the work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rlox_gpu.callbacks import Callback
from rlox_gpu.config import Config
from rlox_gpu.trainer import Trainer


class PPOTrainer(Trainer):
    """``Trainer("ppo", ...)``.

    Parameters
    ----------
    env : str
        A native or a Gymnasium id.
    config : mapping or Config, optional
        Settings by the names of :class:`~rlox_gpu.config.PPOConfig`.
    callbacks, logger, seed
        As for :class:`~rlox_gpu.algorithms.ppo.PPO`.
    **overrides
        Settings that count before ``config``; also ``policy`` and ``device``.
    """

    def __init__(
        self,
        env: str,
        config: Mapping[str, Any] | Config | None = None,
        callbacks: Iterable[Callback] | None = None,
        logger: Any = None,
        seed: int = 42,
        **overrides: Any,
    ) -> None:
        super().__init__("ppo", env, config, callbacks, logger, seed, **overrides)
