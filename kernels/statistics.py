"""Running moments on the GPU: a batch into the state, and normalising, one launch each.

``update_moments`` reads each number once, 4 bytes in f32 (and a byte of mask per row); each lane
keeps the moments of what it has read (Welford), and the lanes' are merged at the end (Chan et al.,
1983). ``normalize`` reads 4 and writes 4 bytes per number in f32.
"""

import torch
import triton
import triton.language as tl

from ._layout import as_bytes
from ._runtime import current


@triton.jit(do_not_specialize=["rows", "columns", "stride"])
def _update_kernel(
    state,
    x,
    mask,
    rows,
    columns,
    stride,
    MASK: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A program owns some features and walks the batch."""
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    there = column < columns
    row = tl.arange(0, ROWS)[:, None].to(tl.int64)
    count = tl.zeros([ROWS, COLUMNS], ACCUMULATOR)
    mean = tl.zeros([ROWS, COLUMNS], ACCUMULATOR)
    m2 = tl.zeros([ROWS, COLUMNS], ACCUMULATOR)
    start = tl.full([], 0, tl.int64)
    while start < rows:
        inside = there & (start + row < rows)
        at = (start + row) * stride + column
        number = tl.load(x + at, mask=inside, other=0.0).to(ACCUMULATOR)
        counted = inside & (tl.abs(number) < float("inf"))
        if MASK:
            counted = counted & (tl.load(mask + start + row, mask=start + row < rows, other=0) != 0)
        count += counted.to(ACCUMULATOR)
        delta = tl.where(counted, number - mean, 0.0)
        mean += delta / tl.maximum(count, 1.0)
        m2 += delta * tl.where(counted, number - mean, 0.0)
        start += ROWS
    number = count.to(tl.float64)
    total = tl.sum(number, 0, keep_dims=True)
    # Distances from the least mean: those of equal numbers are exactly zero.
    low = tl.min(tl.where(count > 0.0, mean, float("inf")), 0, keep_dims=True)
    low = tl.where(low < float("inf"), low, 0.0).to(tl.float64)
    distance = tl.where(count > 0.0, mean.to(tl.float64) - low, 0.0)
    batch_mean = tl.sum(number * distance, 0, keep_dims=True) / tl.maximum(total, 1.0)
    spread = distance - batch_mean
    batch_m2 = tl.sum(m2.to(tl.float64) + number * spread * spread, 0, keep_dims=True)
    old_count = tl.load(state + column, mask=there, other=0.0)
    old_mean = tl.load(state + columns + column, mask=there, other=0.0)
    old_m2 = tl.load(state + 2 * columns + column, mask=there, other=0.0)
    new_count = old_count + total
    share = total / tl.maximum(new_count, 1.0)
    delta = tl.where(total > 0.0, low + batch_mean - old_mean, 0.0)
    # Lanes that hold the same features read the old state before one of them writes the new.
    tl.debug_barrier()
    tl.store(state + column, new_count, mask=there)
    tl.store(state + columns + column, old_mean + delta * share, mask=there)
    new_m2 = old_m2 + batch_m2 + delta * delta * old_count * share
    tl.store(state + 2 * columns + column, new_m2, mask=there)


@triton.jit(do_not_specialize=["count", "columns"])
def _normalize_kernel(
    x,
    mean,
    var,
    out,
    count,
    columns,
    clip: "fp64",  # noqa: F821
    eps: "fp64",  # noqa: F821
    ACCUMULATOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program owns neighbouring numbers; their features' moments come from the caches."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    column = at % columns
    # A mask of unknown alignment would break up the wide accesses: only the last block has one.
    whole = (tl.program_id(0).to(tl.int64) + 1) * BLOCK <= count
    if whole:
        number = tl.load(x + at).to(tl.float64)
    else:
        number = tl.load(x + at, mask=inside, other=0.0).to(tl.float64)
    centre = tl.load(mean + column, mask=inside, other=0.0)
    deviation = tl.sqrt(tl.load(var + column, mask=inside, other=1.0))
    result = (number - centre) / tl.maximum(deviation, tl.full([], eps, tl.float64))
    most = tl.full([], clip, tl.float64)
    # Comparisons that are false for NaN leave it as it is.
    result = tl.where(result > most, most, tl.where(result < -most, -most, result))
    if whole:
        tl.store(out + at, result.to(ACCUMULATOR))
    else:
        tl.store(out + at, result.to(ACCUMULATOR), mask=inside)


def launch_update_moments(state: torch.Tensor, x: torch.Tensor, mask: torch.Tensor | None) -> None:
    """Take ``x [B, D]`` into contiguous ``state [3, D]``."""
    rows, columns = x.shape
    x = x if x.stride(1) == 1 or columns == 1 else x.contiguous()
    # Few features leave lanes for more rows at a time; one warp shares nothing through memory.
    block = min(8, triton.next_power_of_2(columns))
    flags = x if mask is None else as_bytes(mask.contiguous())
    with current(x.device):
        _update_kernel[(triton.cdiv(columns, block),)](
            state,
            x,
            flags,
            rows,
            columns,
            x.stride(0),
            MASK=mask is not None,
            ACCUMULATOR=tl.float64 if x.dtype is torch.float64 else tl.float32,
            ROWS=128 // block,
            COLUMNS=block,
            num_warps=1,
            enable_fp_fusion=True,
        )


def launch_normalize(
    x: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    out: torch.Tensor,
    clip: float,
    eps: float,
) -> None:
    """Write contiguous ``out``, of the shape ``[..., D]`` of ``x``."""
    count, columns = x.numel(), x.shape[-1]
    with current(x.device):
        _normalize_kernel[(triton.cdiv(count, 1024),)](
            x.contiguous(),
            mean.contiguous(),
            var.contiguous(),
            out,
            count,
            columns,
            clip,
            eps,
            ACCUMULATOR=tl.float64 if x.dtype is torch.float64 else tl.float32,
            BLOCK=1024,
            num_warps=4,
            enable_fp_fusion=True,
        )
