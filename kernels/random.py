"""Counter-based random arrays: word for word what the CPU draws.

The counter of Philox4x32-10 is (index low, index high, step, stream), the key is the seed.
``uniform`` writes four bytes per element and reads nothing; ``permutation`` writes eight.
"""

import torch
import triton
import triton.language as tl

from ._runtime import current
from .linear_scan import pack

_PERMUTATION_STREAM = tl.constexpr(2)
_BLOCK = 128


@triton.jit
def philox(seed, index, step, stream):
    """The four words of the draw ``(index, step, stream)``; ``index`` is 64-bit."""
    low = index.to(tl.uint32)
    high = (index >> 32).to(tl.uint32)
    step_word = tl.full(low.shape, step, tl.uint32)
    stream_word = tl.full(low.shape, stream, tl.uint32)
    return tl.philox(tl.full([], seed, tl.uint64), low, high, step_word, stream_word)


@triton.jit
def _unit(word):
    return (word >> 8).to(tl.float32) * (1.0 / 16777216.0)


@triton.jit(do_not_specialize=["seed", "step", "stream"])
def _uniform_kernel(
    out,
    count,
    seed: "u64",  # noqa: F821
    step: "u32",  # noqa: F821
    stream: "u32",  # noqa: F821
    BLOCK: tl.constexpr,
):
    """A lane draws four words and writes them side by side."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    index = (first + tl.arange(0, BLOCK))[None, :]
    w0, w1, w2, w3 = philox(seed, index, step, stream)
    numbers = pack((_unit(w0), _unit(w1), _unit(w2), _unit(w3)), 4)
    element = (first * 4 + tl.arange(0, BLOCK * 4))[None, :]
    # A mask of unknown alignment would break up the wide stores: only the last block has one.
    if (first + BLOCK) * 4 <= count:
        tl.store(out + element, numbers)
    else:
        tl.store(out + element, numbers, mask=element < count)


@triton.jit
def _mix(x):
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _network(x, keys, half_bits, mask):
    left = x >> half_bits
    right = x & mask
    for r in tl.static_range(8):
        mixed = left ^ (_mix(right ^ keys[r]) & mask)
        left = right
        right = mixed
    return (left << half_bits) | right


@triton.jit(do_not_specialize=["last", "half_bits", "seed", "step"])
def _permutation_kernel(
    out,
    last: "u32",  # noqa: F821
    half_bits: "u32",  # noqa: F821
    seed: "u64",  # noqa: F821
    step: "u32",  # noqa: F821
    BLOCK: tl.constexpr,
    STREAM: tl.constexpr,
):
    """A lane sends its index through the network until it lands inside the range."""
    quad = tl.full([1], 0, tl.int64)
    k0, k1, k2, k3 = philox(seed, quad, step, STREAM)
    k4, k5, k6, k7 = philox(seed, quad + 1, step, STREAM)
    keys = (k0, k1, k2, k3, k4, k5, k6, k7)
    position = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    end = tl.full([], last, tl.uint32)
    half = tl.full([], half_bits, tl.uint32)
    mask = (tl.full([], 1, tl.uint32) << half) - 1
    inside = position <= end.to(tl.int64)
    # Lanes past the end walk too: they start at 0, so that they stop as the others do.
    x = _network(tl.where(inside, position, 0).to(tl.uint32), keys, half, mask)
    while tl.max((x > end).to(tl.int32), 0) > 0:
        x = tl.where(x > end, _network(x, keys, half, mask), x)
    target = x.to(tl.int64)
    if tl.program_id(0).to(tl.int64) * BLOCK + (BLOCK - 1) <= end.to(tl.int64):
        tl.store(out + position, target)
    else:
        tl.store(out + position, target, mask=inside)


def launch_uniform(out: torch.Tensor, seed: int, step: int, stream: int) -> None:
    """Fill contiguous float32 ``out``."""
    count = out.numel()
    if count == 0:
        return
    with current(out.device):
        _uniform_kernel[(triton.cdiv(count, 4 * _BLOCK),)](
            out, count, seed, step, stream, BLOCK=_BLOCK, num_warps=4, enable_fp_fusion=True
        )


def launch_permutation(out: torch.Tensor, seed: int, step: int) -> None:
    """Fill contiguous int64 ``out``, of at most 2**32 elements."""
    count = out.numel()
    if count == 0:
        return
    last = count - 1
    half_bits = max(1, (last.bit_length() + 1) // 2)
    with current(out.device):
        _permutation_kernel[(triton.cdiv(count, _BLOCK),)](
            out,
            last,
            half_bits,
            seed,
            step,
            BLOCK=_BLOCK,
            STREAM=_PERMUTATION_STREAM,
            num_warps=1,
            enable_fp_fusion=True,
        )
