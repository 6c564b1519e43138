"""Launches of the estimators: one kernel each, every element moved once.

All are the recurrence of ``linear_scan`` with the prologue and epilogue of ``estimators``, in one
of three regimes that ``_launch.scan_regime`` picks. Every array is a ``[T, N]`` view of any
layout, ``last_values`` is ``[N]``. An output may be None, and is then not written. ``gamma`` and
lambda are numbers or tensors of any strides.

Ragged batches: ``mask`` ``[T, N]`` (zero: the step does not exist, its results are zero),
``lengths`` ``[N]`` integers (what lies beyond does not exist), or ``cu_seqlens`` ``[B + 1]``
integers over arrays ``[total, 1]`` with ``last_values`` ``[B]``.

Minimum traffic per element, with float size ``s`` and flag size ``f``: ``s`` for each floating
array read or written and ``f`` for each array of flags, and with truncations a sector of 32 bytes
where episodes were cut short. GAE in f32 with byte flags: 4 + 4 + 1 read, 4 + 4 written.
"""

import math
from dataclasses import dataclass

import torch
import triton.language as tl

from . import estimators
from ._launch import REGISTERS, Layout, Regime, scan_config, scan_regime
from ._layout import as_bytes, empty_in, fits, laid_out, layout_of
from ._runtime import current, sm_count
from .chunked import chunked_kernel
from .n_step import BLOCK as N_STEP_BLOCK
from .n_step import n_step_kernel
from .row_major import row_major_kernel
from .time_major import time_major_kernel

Rate = float | torch.Tensor


@dataclass(frozen=True)
class Ragged:
    """Which steps exist; by default all do."""

    mask: torch.Tensor | None = None
    lengths: torch.Tensor | None = None
    cu_seqlens: torch.Tensor | None = None


_WHOLE = Ragged()


def launch_gae(
    rewards: torch.Tensor,
    values: torch.Tensor,
    terminated: torch.Tensor,
    last_values: torch.Tensor,
    truncated: torch.Tensor | None,
    final_values: torch.Tensor | None,
    advantages: torch.Tensor | None,
    returns: torch.Tensor | None,
    gamma: Rate,
    gae_lambda: Rate,
    ragged: Ragged = _WHOLE,
    moments: torch.Tensor | None = None,
) -> None:
    """Write ``advantages`` and ``returns`` (alone these are the TD(lambda) returns).

    ``moments`` (float64 ``[3]``) receives count, mean and sum of squared differences from the
    mean of the advantages of all steps that exist.
    """
    inputs = (rewards, values, terminated, truncated, final_values, None, None)
    outputs = (advantages, returns)
    _launch(
        estimators.GAE, inputs, outputs, last_values, gamma, gae_lambda, ragged, moments=moments
    )


def launch_discounted_returns(
    rewards: torch.Tensor,
    terminated: torch.Tensor | None,
    last_values: torch.Tensor,
    truncated: torch.Tensor | None,
    final_values: torch.Tensor | None,
    returns: torch.Tensor,
    gamma: Rate,
    ragged: Ragged = _WHOLE,
) -> None:
    """Write ``returns``: discounted sums of rewards, bootstrapped where the episode goes on."""
    inputs = (rewards, None, terminated, truncated, final_values, None, None)
    _launch(estimators.DISCOUNTED, inputs, (returns, None), last_values, gamma, 1.0, ragged)


def launch_vtrace(
    log_rhos: torch.Tensor,
    rewards: torch.Tensor,
    values: torch.Tensor,
    terminated: torch.Tensor,
    last_values: torch.Tensor,
    truncated: torch.Tensor | None,
    final_values: torch.Tensor | None,
    vs: torch.Tensor | None,
    pg_advantages: torch.Tensor | None,
    gamma: Rate,
    rho_bar: float,
    c_bar: float,
    ragged: Ragged = _WHOLE,
) -> None:
    """Write the V-trace targets ``vs`` and the policy-gradient advantages."""
    inputs = (rewards, values, terminated, truncated, final_values, log_rhos, None)
    outputs = (vs, pg_advantages)
    _launch(estimators.VTRACE, inputs, outputs, last_values, gamma, 1.0, ragged, (rho_bar, c_bar))


def launch_retrace(
    log_rhos: torch.Tensor,
    rewards: torch.Tensor,
    q_values: torch.Tensor,
    values: torch.Tensor,
    terminated: torch.Tensor,
    last_values: torch.Tensor,
    truncated: torch.Tensor | None,
    final_values: torch.Tensor | None,
    targets: torch.Tensor,
    gamma: Rate,
    retrace_lambda: Rate,
    ragged: Ragged = _WHOLE,
) -> None:
    """Write the Retrace(lambda) ``targets`` of ``q_values``."""
    inputs = (rewards, values, terminated, truncated, final_values, log_rhos, q_values)
    outputs = (targets, None)
    _launch(estimators.RETRACE, inputs, outputs, last_values, gamma, retrace_lambda, ragged)


def launch_n_step_returns(
    rewards: torch.Tensor,
    values: torch.Tensor,
    terminated: torch.Tensor,
    last_values: torch.Tensor,
    truncated: torch.Tensor | None,
    final_values: torch.Tensor | None,
    returns: torch.Tensor,
    gamma: Rate,
    n: int,
    ragged: Ragged = _WHOLE,
) -> None:
    """Write ``returns``: at most ``n`` rewards and the value behind them; any strides."""
    inputs = (rewards, values, terminated, truncated, final_values, None, None, ragged.mask)
    num_steps, num_envs = rewards.shape
    sequences = num_envs if ragged.cu_seqlens is None else ragged.cu_seqlens.shape[0] - 1
    with current(rewards.device):
        n_step_kernel[(-(-rewards.numel() // N_STEP_BLOCK),)](
            tuple(None if x is None else as_bytes(x) for x in inputs),
            returns,
            last_values.contiguous(),
            *_extent(ragged),
            _array(gamma),
            num_steps,
            num_envs,
            tuple(map(_strides, inputs)),
            returns.stride(),
            _strides(gamma),
            int(n),
            sequences,
            sequences.bit_length(),
            _number(gamma),
            TIME_MAJOR=layout_of(rewards) is Layout.TIME_MAJOR,
            ACCUMULATOR=tl.float64 if rewards.dtype is torch.float64 else tl.float32,
            BLOCK=N_STEP_BLOCK,
            num_warps=4,
            enable_fp_fusion=True,
        )


def launch_eligibility_traces(
    x: torch.Tensor,
    terminated: torch.Tensor,
    truncated: torch.Tensor | None,
    initial: torch.Tensor | None,
    traces: torch.Tensor,
    gamma: Rate,
    trace_lambda: Rate,
    ragged: Ragged = _WHOLE,
) -> None:
    """Write ``traces``, forward in time; ``initial`` is what the first step is handed."""
    inputs = (x, None, terminated, truncated, None, None, None)
    _launch(estimators.TRACES, inputs, (traces, None), initial, gamma, trace_lambda, ragged)


def launch_linear_scan(
    a: torch.Tensor,
    b: torch.Tensor,
    initial: torch.Tensor | None,
    x: torch.Tensor,
    *,
    forward: bool = False,
    ragged: Ragged = _WHOLE,
) -> None:
    """Write ``x[t] = a[t] x[t + 1] + b[t]``, ``forward``: ``x[t] = a[t] x[t - 1] + b[t]``.

    ``initial`` stands behind the end that the walk starts from; where ``a`` is zero, nothing
    crosses.
    """
    estimator = estimators.DISCOUNTED_FORWARD if forward else estimators.DISCOUNTED
    inputs = (b, None, None, None, None, None, None)
    _launch(estimator, inputs, (x, None), initial, a, 1.0, ragged)


def _launch(estimator, inputs, outputs, last, gamma, lam, ragged, bars=(1.0, 1.0), moments=None):
    """Bring the arrays into one layout, launch, and bring the results into theirs."""
    rewards, values = inputs[:2]
    packed = ragged.cu_seqlens is not None
    layout = Layout.ROW_MAJOR if packed else layout_of(rewards if values is None else values)
    arrays = tuple(None if x is None else laid_out(x, layout) for x in (*inputs, ragged.mask))
    targets = tuple(x if x is None or fits(x, layout) else empty_in(x, layout) for x in outputs)
    _run(estimator, layout, arrays, targets, last, (gamma, lam), bars, ragged, moments)
    for output, target in zip(outputs, targets, strict=True):
        if output is not target:
            output.copy_(target)


def _run(estimator, layout, arrays, targets, last, rates, bars, ragged, moments):
    rewards = arrays[0]
    device, dtype = rewards.device, rewards.dtype
    num_steps, num_envs = rewards.shape
    lengths, bounds = _extent(ragged)
    time_major = layout is Layout.TIME_MAJOR
    # A stride that is never taken is passed as 0, which the compiler knows to be aligned.
    outer = 0 if time_major else 1
    strides = [
        0 if x is None or x.shape[outer] == 1 else x.stride(outer) for x in (*arrays, *targets)
    ]
    if bounds is not None:
        num_envs = bounds.shape[0] - 1
        regime, alignment = Regime.ROWS, 1
    else:
        regime = scan_regime(num_steps, num_envs, layout, sm_count(device))
        alignment = math.gcd(num_envs if time_major else num_steps, *strides)
    config = scan_config(
        regime,
        num_steps,
        num_envs,
        layout,
        rewards.element_size(),
        sm_count(device),
        alignment=alignment,
        arrays=sum(x is not None for x in (*arrays, *map(_array, rates))),
    )
    accumulator = torch.float64 if dtype is torch.float64 else torch.float32
    chunked = regime is Regime.CHUNKS
    chunks = -(-num_steps // (config.ahead * config.block_t)) if chunked else 1
    programs = config.programs(num_envs) * chunks
    units = tuple(stride // config.unit for stride in strides)
    sizes = [num_steps, num_envs]
    sizes[1 if time_major else 0] //= config.unit
    shape = {"BLOCK_N": config.block_n, "AHEAD": config.ahead, "UNIT": config.unit}
    if regime is not Regime.LANES:
        shape |= {"BLOCK_T": config.block_t, "VECTOR": config.vector}
    if regime is Regime.LANES:
        kernel = time_major_kernel
    elif regime is Regime.ROWS:
        kernel = row_major_kernel
        shape |= {"bounds": bounds}
        shape |= {"maxnreg": REGISTERS if accumulator is torch.float64 else None}
    else:
        kernel = chunked_kernel
        shape |= {"TIME_MAJOR": time_major, "num_chunks": chunks, "maxnreg": REGISTERS}
        shape |= {"workspace": _workspace(chunks * num_envs, arrays, accumulator)}
    with current(device):
        kernel[(programs,)](
            tuple(None if x is None else as_bytes(x) for x in arrays),
            targets,
            None if last is None else last.contiguous(),
            lengths,
            tuple(map(_array, rates)),
            _moments_out(moments, programs),
            *sizes,
            units[:8],
            units[8:],
            tuple(map(_strides, rates)),
            *map(_number, rates),
            *bars,
            PROLOGUE=estimator.prologue,
            EPILOGUE=estimator.epilogue,
            FORWARD=estimator.forward,
            SEEDED=estimator.seeded,
            ACCUMULATOR=tl.float64 if accumulator is torch.float64 else tl.float32,
            num_warps=config.num_warps,
            enable_fp_fusion=True,
            **shape,
        )


def _workspace(places, arrays, accumulator):
    """What the programs of a chunked launch tell each other: zeroed words, and numbers."""
    _, values, *_, mask = arrays
    places *= 1 if mask is None or values is None else 2
    words = torch.zeros(1 + places, dtype=torch.int32, device=arrays[0].device)
    return words, torch.empty(3 * places, dtype=accumulator, device=words.device)


def _moments_out(moments, programs):
    if moments is None:
        return None
    partials = torch.empty(3 * programs, dtype=torch.float64, device=moments.device)
    return moments, partials, torch.zeros(1, dtype=torch.int32, device=moments.device)


def _extent(ragged):
    both = (ragged.lengths, ragged.cu_seqlens)
    return tuple(None if x is None else x.contiguous() for x in both)


def _array(rate):
    return rate if isinstance(rate, torch.Tensor) else None


def _number(rate):
    return 0.0 if isinstance(rate, torch.Tensor) else rate


def _strides(x):
    return x.stride() if isinstance(x, torch.Tensor) else (0, 0)
