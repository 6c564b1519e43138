"""Exponential and logarithm that are bit for bit those of the CPU.

The operations and their order are those of ``rust/src/ops/transcendental.rs``. Kernels that call
these are compiled without fused operations (``enable_fp_fusion=False``).
"""

import triton
import triton.language as tl

_ROOT_HALF = tl.constexpr(0x3F3504F3)  # the bits of 1 / sqrt(2)
_MANTISSA = tl.constexpr((1 << 23) - 1)
_LN_2_HIGH = tl.constexpr(0.6933594)
_LN_2_LOW = tl.constexpr(-2.1219444e-4)
_LOG2_E = tl.constexpr(1.4426950408889634)
_ROUNDER = tl.constexpr(1.5 * 2.0**23)  # adding it rounds to an integer, held by the lowest bits
_ROUNDER_BITS = tl.constexpr(0x4B400000)


@triton.jit
def exp(x):
    """``e**x`` of float32 numbers."""
    bounded = tl.where(x > 89.0, 89.0, x)
    bounded = tl.where(bounded < -104.0, -104.0, bounded)
    shifted = bounded * _LOG2_E + _ROUNDER
    power = shifted - _ROUNDER
    exponent = shifted.to(tl.int32, bitcast=True) - _ROUNDER_BITS
    r = (bounded - power * _LN_2_HIGH) - power * _LN_2_LOW
    series = 1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)))
    series = 1.0 + r * (1.0 + r * (1.0 / 2.0 + r * (1.0 / 6.0 + r * series)))
    half = exponent >> 1
    return series * _two_to(half) * _two_to(exponent - half)


@triton.jit
def _two_to(n):
    return ((n + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def ln(x):
    """The natural logarithm of positive normal float32 numbers."""
    offset = x.to(tl.int32, bitcast=True) - _ROOT_HALF
    power = (offset >> 23).to(tl.float32)
    m = ((offset & _MANTISSA) + _ROOT_HALF).to(tl.float32, bitcast=True)
    s = tl.div_rn(m - 1.0, m + 1.0)
    z = s * s
    series = 2.0 / 3.0 + z * (2.0 / 5.0 + z * (2.0 / 7.0 + z * (2.0 / 9.0 + z * (2.0 / 11.0))))
    tail = s * z * series
    return (tail + power * _LN_2_LOW) + 2.0 * s + power * _LN_2_HIGH
