"""Draws from diagonal Gaussians on the GPU, plain or under tanh, and the way back through them.

In bytes of a number the forward pass moves three per dimension (mean and ``log_std`` in, action
out) and a log-probability per row; the backward pass moves five and one. A ``log_std`` that all
rows share comes from the cache.
"""

import torch
import triton
import triton.language as tl

from ._rows import real, row_tiles
from ._runtime import current, sm_count
from .noise import normals
from .transcendental import exp, ln

_HALF_LN_2_PI = tl.constexpr(0.9189385332046727)
_LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _exp(x):
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        return exp(x)


@triton.jit
def _ln(x):
    if x.dtype == tl.float64:
        return tl.log(x)
    else:
        return ln(x)


@triton.jit
def _divided(a, b):
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def _squashed(x):
    """``tanh x``, ``|x|`` and ``exp(-2 |x|)``."""
    size = tl.where(x < 0.0, -x, x)
    decay = _exp(-(size + size))
    tanh = _divided(1.0 - decay, 1.0 + decay)
    return tl.where(x < 0.0, -tanh, tanh), size, decay


@triton.jit
def _loaded(mean, mean_stride, log_std, log_std_stride, row, place, inside, REAL: tl.constexpr):
    means = tl.load(mean + row * mean_stride + place, mask=inside, other=0.0).to(REAL)
    log_stds = tl.load(log_std + row * log_std_stride + place, mask=inside, other=0.0).to(REAL)
    return means, log_stds


@triton.jit(do_not_specialize=["rows", "seed", "step"])
def _sample_kernel(
    mean,
    mean_stride,
    log_std,
    log_std_stride,
    actions,
    log_prob,
    rows,
    dimensions,
    seed: "u64",  # noqa: F821
    step: "u32",  # noqa: F821
    step_at,
    SQUASH: tl.constexpr,
    REAL: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    if step_at is not None:
        step = tl.load(step_at).to(tl.uint32)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    groups = (dimensions + 3) // 4
    terms = tl.zeros([ROWS, WIDTH], REAL)
    for start in range(0, dimensions, WIDTH):
        place = start + tl.arange(0, WIDTH)[None, :]
        inside = (row < rows) & (place < dimensions)
        group = start // 4 + tl.arange(0, WIDTH // 4)[None, :]
        noise = normals(seed, row * groups + group, step).to(REAL)
        means, log_stds = _loaded(
            mean, mean_stride, log_std, log_std_stride, row, place, inside, REAL
        )
        x = means + _exp(log_stds) * noise
        term = -0.5 * noise * noise - log_stds - _HALF_LN_2_PI
        if SQUASH:
            x, size, decay = _squashed(x)
            term -= 2.0 * (_LN_2 - size - _ln(1.0 + decay))
        tl.store(actions + row * dimensions + place, x, mask=inside)
        terms += tl.where(inside, term, 0.0)
    number = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    tl.store(log_prob + number, tl.sum(terms, 1), mask=number < rows)


@triton.jit(do_not_specialize=["rows", "seed", "step"])
def _backward_kernel(
    mean,
    mean_stride,
    log_std,
    log_std_stride,
    action_gradients,
    action_gradients_stride,
    log_prob_gradients,
    mean_gradients,
    log_std_gradients,
    rows,
    dimensions,
    seed: "u64",  # noqa: F821
    step: "u32",  # noqa: F821
    step_at,
    SQUASH: tl.constexpr,
    REAL: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    if step_at is not None:
        step = tl.load(step_at).to(tl.uint32)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    groups = (dimensions + 3) // 4
    of_log_prob = tl.load(log_prob_gradients + row, mask=row < rows, other=0.0)
    for start in range(0, dimensions, WIDTH):
        place = start + tl.arange(0, WIDTH)[None, :]
        inside = (row < rows) & (place < dimensions)
        group = start // 4 + tl.arange(0, WIDTH // 4)[None, :]
        noise = normals(seed, row * groups + group, step).to(REAL)
        means, log_stds = _loaded(
            mean, mean_stride, log_std, log_std_stride, row, place, inside, REAL
        )
        source = action_gradients + row * action_gradients_stride + place
        of_x = tl.load(source, mask=inside, other=0.0).to(REAL)
        spread = _exp(log_stds) * noise
        if SQUASH:
            tanh, _, decay = _squashed(means + spread)
            # The slope of tanh without cancellation: 1 + |tanh x| is 2 / (1 + exp(-2 |x|)).
            root = 1.0 + tl.abs(tanh)
            of_x = of_x * (root * root * decay) + of_log_prob * (2.0 * tanh)
        target = row * dimensions + place
        tl.store(mean_gradients + target, of_x, mask=inside)
        tl.store(log_std_gradients + target, of_x * spread - of_log_prob, mask=inside)


def launch_sample(
    mean: torch.Tensor,
    log_std: torch.Tensor,
    actions: torch.Tensor,
    log_prob: torch.Tensor,
    seed: int,
    step: int,
    step_at: torch.Tensor | None,
    squash: bool,
) -> None:
    """Draw from ``[R, D]``, contiguous along D, into contiguous ``[R, D]`` and ``[R]``."""
    inputs = mean, mean.stride(0), log_std, log_std.stride(0)
    _launch(_sample_kernel, mean, (*inputs, actions, log_prob), (seed, step, step_at), squash)


def launch_sample_backward(
    mean: torch.Tensor,
    log_std: torch.Tensor,
    action_gradients: torch.Tensor,
    log_prob_gradients: torch.Tensor,
    mean_gradients: torch.Tensor,
    log_std_gradients: torch.Tensor,
    seed: int,
    step: int,
    step_at: torch.Tensor | None,
    squash: bool,
) -> None:
    """Write both gradients, contiguous ``[R, D]``; the inputs are contiguous along D."""
    inputs = mean, mean.stride(0), log_std, log_std.stride(0)
    gradients = action_gradients, action_gradients.stride(0), log_prob_gradients
    arguments = (*inputs, *gradients, mean_gradients, log_std_gradients)
    _launch(_backward_kernel, mean, arguments, (seed, step, step_at), squash)


def _launch(kernel, mean, arguments, draw, squash):
    rows, dimensions = mean.shape
    tiles = row_tiles(rows, dimensions, sm_count(mean.device))
    with current(mean.device):
        kernel[(triton.cdiv(rows, tiles.rows),)](
            *arguments,
            rows,
            dimensions,
            *draw,
            SQUASH=squash,
            REAL=real(mean),
            ROWS=tiles.rows,
            WIDTH=tiles.width,
            num_warps=tiles.num_warps,
            # The same draws as on the CPU need each operation rounded by itself.
            enable_fp_fusion=False,
        )
