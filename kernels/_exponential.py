"""What is left of the exponential behind its first terms, accurate near zero."""

import triton
import triton.language as tl


@triton.jit
def _parts(x):
    """``(x, scale, r, excess)``: ``x = ln(scale) + r`` and ``excess = e^r - 1 - r``.

    The scale is a power of two; ``x`` comes back no larger than where ``e^x`` overflows. Terms of
    the series are summed until they vanish for ``r`` within half of ``ln(2)``.
    """
    double: tl.constexpr = x.dtype == tl.float64
    lowest: tl.constexpr = -708.0 if double else -87.0
    highest: tl.constexpr = 709.0 if double else 88.0
    ln_2_high: tl.constexpr = 0.6931471803691238 if double else 0.693359375
    ln_2_low: tl.constexpr = 1.9082149292705877e-10 if double else -2.12194440e-4
    terms: tl.constexpr = 16 if double else 8
    # Comparisons, unlike a minimum, let NaN through.
    x = tl.where(x > highest + 1.0, highest + 1.0, x)
    from_below = tl.where(x < lowest, lowest, x)
    bounded = tl.where(from_below <= highest, from_below, highest)
    power = tl.floor(bounded * 1.4426950408889634 + 0.5)
    r = (from_below - power * ln_2_high) - power * ln_2_low
    if double:
        scale = ((power.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)
    else:
        scale = ((power.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    tail = tl.full(r.shape, 1.0, r.dtype)
    for i in tl.static_range(terms - 2):
        tail = 1.0 + tail * (r * (1.0 / (terms - i)))
    return x, scale, r, 0.5 * r * r * tail


@triton.jit
def exp_m1(x):
    """``e^x - 1``."""
    _, scale, r, excess = _parts(x)
    return scale * (excess + r) + (scale - 1.0)


@triton.jit
def exp_excess(x):
    """``e^x - 1 - x``: never negative, and zero at zero alone."""
    x, scale, r, excess = _parts(x)
    # Where the scale is one, all but the first term are exact zeros.
    return scale * excess + (scale * r - x) + (scale - 1.0)
