"""The replay buffers of off-policy learning.

Samples are pure functions of a seed: words of Philox4x32-10 (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", SC 2011), the same for every number of threads. A buffer may be used
from several threads at once: a call sees all of a transition or nothing of it.
"""

from __future__ import annotations

from abc import ABCMeta
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _rust
from .._checks import finite_number
from ._common import Common
from ._specs import Specs

if TYPE_CHECKING:
    from typing_extensions import Self


def _beyond_host(device: Any) -> Any:
    """``device`` as a torch.device if it is one whose tensors do not lie in host memory."""
    if device is None:
        return None
    import torch

    from .._dispatch import runs_in_rust

    try:
        found = torch.device(device)
    except (TypeError, RuntimeError) as error:
        raise type(error)(f"device: expected a torch device, got {device!r} ({error})") from error
    return None if runs_in_rust(found) else found


class ReplayBuffer(Common, _rust.ReplayStore, metaclass=ABCMeta):
    """A ring of transitions, sampled uniformly with replacement.

    Parameters
    ----------
    capacity : int
        Transitions that are kept; the oldest are overwritten.
    obs_dim : int, shape, or dict of these
        Numbers of an observation, or its shape, ``()`` for a single number. A dict has one for
        each key of dict observations.
    act_dim : int or shape
        The same of an action.
    obs_dtype, act_dtype : dtype
        How they are stored and sampled: bool, an integer or a float of at most 64 bits. For dict
        observations one for all, or a dict.
    num_envs : int
        Environments whose transitions the buffer keeps apart: their order matters to ``n_step``,
        ``sample_sequences`` and ``deduplicate``.
    deduplicate : bool
        Store an observation once that is the next observation of one transition and the
        observation of the environment's following one, which halves the memory. Whether it is, the
        contents decide: what is sampled is always what was pushed.
    n_step : int
        Transitions whose rewards a sample adds up, see ``sample``.
    gamma : float
        Discount of each further reward; of no effect if ``n_step`` is 1.
    seed : int, optional
        Determines the samples that are drawn without a seed of their own; from the operating
        system if not given.
    device : torch.device or str, optional
        Where the transitions are kept. On a CUDA device they are torch tensors, and so are
        samples; the same seeds give the same samples. In host memory, the default, samples are
        NumPy arrays.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.
    RuntimeError
        If there is no such device.

    Notes
    -----
    Rewards are kept as float32. NumPy arrays that are contiguous and of the stored dtype, and CPU
    tensors like that, are read where they are; others are converted first. A conversion that would
    lose something (fractions to integers, integers out of range) is refused.
    """

    kind = "ReplayBuffer"

    def __new__(
        cls,
        capacity: int,
        obs_dim: Any,
        act_dim: Any,
        *,
        obs_dtype: Any = np.float32,
        act_dtype: Any = np.float32,
        num_envs: int = 1,
        deduplicate: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
        seed: int | None = None,
        device: Any = None,
    ) -> Self:
        """Make an empty buffer."""
        specs = Specs(
            capacity,
            obs_dim,
            act_dim,
            obs_dtype,
            act_dtype,
            num_envs,
            deduplicate,
            n_step,
            gamma,
            seed,
        )
        if (there := _beyond_host(device)) is not None:
            from .on_device import DeviceReplayBuffer

            ReplayBuffer.register(DeviceReplayBuffer)
            return DeviceReplayBuffer(specs, there)  # type: ignore[return-value]
        made = super().__new__(cls, *specs.positional())
        made._settings = specs.settings()
        return made


class PrioritizedReplayBuffer(Common, _rust.PrioritizedStore, metaclass=ABCMeta):
    """A ring of transitions, sampled in proportion to ``priority ** alpha``.

    Proportional prioritisation with stratified draws (Schaul et al., "Prioritized experience
    replay", ICLR 2016, https://arxiv.org/abs/1511.05952). Samples have two more entries:
    ``"weights"``, float32 ``(B,)``, the importance weights ``(n P(i)) ** -beta`` divided by the
    largest that any transition in the buffer has, and ``"indices"``, uint64 ``(B,)``, to be given
    to ``update_priorities``.

    Parameters
    ----------
    capacity, obs_dim, act_dim, obs_dtype, act_dtype, num_envs, deduplicate, n_step, gamma
        As for :class:`ReplayBuffer`, and so are ``seed`` and ``device``.
    alpha : float
        How much priorities count: 0 is uniform. Applied once, when a priority is set.
    beta : float
        How much of the bias the weights take back: 1 is all of it. See ``set_beta``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.

    Notes
    -----
    Weights are summed in float64, always from the weights themselves, so that no error builds up.
    A transition of priority zero is never drawn. One that is pushed without a priority gets the
    largest so far, 1 at first.
    """

    kind = "PrioritizedReplayBuffer"
    _row_options = ("envs", "priorities")

    def __new__(
        cls,
        capacity: int,
        obs_dim: Any,
        act_dim: Any,
        alpha: float = 0.6,
        beta: float = 0.4,
        *,
        obs_dtype: Any = np.float32,
        act_dtype: Any = np.float32,
        num_envs: int = 1,
        deduplicate: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
        seed: int | None = None,
        device: Any = None,
    ) -> Self:
        """Make an empty buffer."""
        specs = Specs(
            capacity,
            obs_dim,
            act_dim,
            obs_dtype,
            act_dtype,
            num_envs,
            deduplicate,
            n_step,
            gamma,
            seed,
        )
        alpha, beta = finite_number("alpha", alpha), finite_number("beta", beta)
        if (there := _beyond_host(device)) is not None:
            from .prioritized_on_device import DevicePrioritizedReplayBuffer

            PrioritizedReplayBuffer.register(DevicePrioritizedReplayBuffer)
            return DevicePrioritizedReplayBuffer(  # type: ignore[return-value]
                specs, there, alpha, beta
            )
        made = super().__new__(cls, *specs.positional(alpha, beta))
        made._settings = {**specs.settings(), "alpha": alpha}
        return made

    def _changed_settings(self) -> dict[str, Any]:
        return {"beta": self.beta}
