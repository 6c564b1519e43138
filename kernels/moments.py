"""Count, mean and sum of squared differences from the mean, beside a kernel's other work.

Every lane keeps Welford's running moments of its own elements (Welford, "Note on a method for
calculating corrected sums of squares and products", Technometrics 1962). Lanes are merged as
halves of a sample (Chan, Golub and LeVeque, 1979), in an order that is always the same: within a
program by a tree; between programs by the program that comes last, which reads what the others
left in the order of their numbers.
"""

import triton
import triton.language as tl


@triton.jit
def no_moments(shape: tl.constexpr, ACCUMULATOR: tl.constexpr):
    """Count, mean and squares of nothing, in every lane."""
    zeros = tl.zeros(shape, ACCUMULATOR)
    return zeros, zeros, zeros


@triton.jit
def add_to_moments(moments, x, valid):
    """Welford's step in every lane whose ``x`` is valid."""
    count, mean, squares = moments
    more = count + tl.where(valid, 1.0, 0.0).to(count.dtype)
    away = x - mean
    moved = mean + away / more
    return (
        more,
        tl.where(valid, moved, mean),
        tl.where(valid, squares + away * (x - moved), squares),
    )


@triton.jit
def _merged(count, mean, squares):
    """Moments of all lanes, by sums alone: lanes that swap their parts get the same bits."""
    total = tl.sum(count, 0)
    middle = tl.sum(count * mean, 0) / tl.where(total == 0, 1.0, total)
    away = mean - middle
    return total, middle, tl.sum(squares + count * away * away, 0)


@triton.jit
def publish_moments(out, moments):
    """Merge the moments of all lanes of all programs into the first three numbers of ``out``.

    ``out`` is ``(moments [3], partials [programs, 3], arrivals)``: float64, float64, and an int32
    that is zero at the launch.
    """
    result, partials, arrivals = out
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    count, mean, squares = moments
    count, mean, squares = _merged(
        tl.ravel(count.to(tl.float64)),
        tl.ravel(mean.to(tl.float64)),
        tl.ravel(squares.to(tl.float64)),
    )
    own = partials + program.to(tl.int64) * 3
    tl.store(own, count)
    tl.store(own + 1, mean)
    tl.store(own + 2, squares)
    tl.debug_barrier()
    before = tl.atomic_add(arrivals, 1, sem="acq_rel", scope="gpu")
    tl.debug_barrier()
    if before == programs - 1:
        BLOCK: tl.constexpr = 128
        lane = tl.arange(0, BLOCK)
        count, mean, squares = no_moments([BLOCK], tl.float64)
        for start in range(0, programs, BLOCK):
            inside = start + lane < programs
            at = partials + (start + lane).to(tl.int64) * 3
            more = tl.load(at, mask=inside, other=0.0, cache_modifier=".cg")
            away = tl.load(at + 1, mask=inside, other=0.0, cache_modifier=".cg") - mean
            within = tl.load(at + 2, mask=inside, other=0.0, cache_modifier=".cg")
            share = more / tl.where(count + more == 0, 1.0, count + more)
            mean += away * share
            squares += within + away * away * count * share
            count += more
        count, mean, squares = _merged(count, mean, squares)
        tl.store(result, count)
        tl.store(result + 1, mean)
        tl.store(result + 2, squares)
