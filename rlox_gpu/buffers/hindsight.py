"""Replay with goals that were reached later: hindsight experience replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _rust
from .._checks import described, nonnegative
from ._common import Common
from ._specs import Specs

if TYPE_CHECKING:
    from typing_extensions import Self

_GOALS = ("achieved_goal", "desired_goal")


class HERBuffer(Common, _rust.ReplayStore):
    """A ring of transitions towards goals, some of which are replaced by what was reached.

    The "future" strategy of Andrychowicz et al., "Hindsight experience replay", NeurIPS 2017
    (https://arxiv.org/abs/1707.01495): a share of a sample gets as desired goal what a transition
    of the same episode achieves, drawn uniformly from the sampled one on, and the reward that it
    has with that goal.

    Observations are dicts with the keys ``"observation"``, ``"achieved_goal"`` and
    ``"desired_goal"`` of Gymnasium's goal environments (others may be there too).

    Parameters
    ----------
    capacity, act_dim, obs_dtype, act_dtype, num_envs, seed
        As for :class:`rlox_gpu.ReplayBuffer`.
    obs_dim : dict
        Sizes or shapes of the parts of an observation; the two goals have the same.
    reward_fn : callable
        ``reward_fn(achieved_goal, desired_goal) -> rewards``, on arrays ``(K, *shape)``, ``(K,)``.
    goals_per_step : float
        How many replaced goals there are for each original one: a share of
        ``goals_per_step / (1 + goals_per_step)`` of a sample is relabelled.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.

    Notes
    -----
    Relabelling leaves ``terminated`` as it is: goal environments do not terminate where the goal
    is reached. ``reward_fn`` is the caller's own and is not kept in files.
    """

    kind = "HERBuffer"

    def __new__(
        cls,
        capacity: int,
        obs_dim: Mapping[str, Any],
        act_dim: Any,
        reward_fn: Callable[[Any, Any], Any],
        *,
        goals_per_step: float = 4.0,
        obs_dtype: Any = np.float32,
        act_dtype: Any = np.float32,
        num_envs: int = 1,
        seed: int | None = None,
    ) -> Self:
        """Make an empty buffer."""
        if not isinstance(obs_dim, Mapping):
            raise TypeError(f"obs_dim: expected a dict of sizes, got {described(obs_dim)}")
        missing = [key for key in _GOALS if key not in obs_dim]
        if missing:
            raise ValueError(f"obs_dim: expected the keys {', '.join(_GOALS)}, {missing} missing")
        if not callable(reward_fn):
            raise TypeError(f"reward_fn: expected a function, got {described(reward_fn)}")
        specs = Specs(
            capacity, obs_dim, act_dim, obs_dtype, act_dtype, num_envs, False, 1, 1.0, seed
        )
        shapes = {key: (dtype, shape) for key, dtype, shape in specs.parts}
        if shapes["achieved_goal"] != shapes["desired_goal"]:
            raise ValueError("obs_dim: expected goals of the same shape and dtype")
        goals = nonnegative("goals_per_step", goals_per_step)
        made = super().__new__(cls, *specs.positional())
        made._settings = {**specs.settings(), "goals_per_step": goals_per_step}
        made._reward_fn = reward_fn
        made._share = 1.0 if goals == np.inf else goals / (1.0 + goals)
        return made

    _reward_fn: Callable[[Any, Any], Any]
    _share: float

    def sample(  # type: ignore[override] # no out: rows are relabelled in arrays of its own
        self, batch_size: int, seed: int | None = None
    ) -> dict[str, Any]:
        """Draw transitions and relabel a share of them.

        Arguments and results are those of :meth:`rlox_gpu.ReplayBuffer.sample`, and
        ``"relabelled"``, bool ``(B,)``.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range, the buffer is empty, or
            ``reward_fn`` returns another shape than it should.
        """
        sample, later, chosen = self.sample_with_later(batch_size, self._share, seed)
        goals = later["next_obs"]["achieved_goal"][chosen]
        for which in ("obs", "next_obs"):
            sample[which]["desired_goal"][chosen] = goals
        sample["relabelled"] = chosen
        if len(goals):
            achieved = sample["next_obs"]["achieved_goal"][chosen]
            rewards = np.asarray(self._reward_fn(achieved, goals))
            if rewards.shape != (len(goals),):
                raise ValueError(
                    f"reward_fn: expected rewards of shape ({len(goals)},), got {rewards.shape}"
                )
            sample["rewards"][chosen] = rewards
        return sample

    @classmethod
    def _remade(cls, settings: dict[str, Any], options: dict[str, Any]) -> Self:
        own = ("n_step", "gamma", "deduplicate")
        return cls(**{k: v for k, v in settings.items() if k not in own}, **options)
