"""Exponential and logarithm that are bit for bit those of the CPU.

The operations and their order are those of ``rust/src/ops/transcendental.rs``. Kernels that call
these are compiled without fused operations (``enable_fp_fusion=False``).
"""

import math

import triton
import triton.language as tl

_ROOT_HALF = tl.constexpr(0x3F3504F3)  # the bits of 1 / sqrt(2)
_MANTISSA = tl.constexpr((1 << 23) - 1)
_LN_2_HIGH = tl.constexpr(0.6933594)
_LN_2_LOW = tl.constexpr(-2.1219444e-4)
_LOG2_E = tl.constexpr(1.4426950408889634)
_ROUNDER = tl.constexpr(1.5 * 2.0**23)  # adding it rounds to an integer, held by the lowest bits
_ROUNDER_BITS = tl.constexpr(0x4B400000)
# The same for float64.
_ROOT_HALF_64 = tl.constexpr(0x3FE6A09E667F3BCD)
_MANTISSA_64 = tl.constexpr((1 << 52) - 1)
_LN_2_HIGH_64 = tl.constexpr(0.6931471803691238)
_LN_2_LOW_64 = tl.constexpr(1.9082149292705877e-10)
_ROUNDER_64 = tl.constexpr(1.5 * 2.0**52)
_ROUNDER_BITS_64 = tl.constexpr(0x4338000000000000)
_LEAST_NORMAL_64 = tl.constexpr(2.2250738585072014e-308)


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


@triton.jit
def exp_64(x):
    """``e**x`` of float64 numbers."""
    bounded = tl.where(x > 710.0, 710.0, x)
    bounded = tl.where(bounded < -746.0, -746.0, bounded)
    shifted = bounded * _LOG2_E + _ROUNDER_64
    power = shifted - _ROUNDER_64
    exponent = shifted.to(tl.int64, bitcast=True) - _ROUNDER_BITS_64
    r = (bounded - power * _LN_2_HIGH_64) - power * _LN_2_LOW_64
    # Horner's rule, from 1 / 13! on; the quotients are the compiler's.
    series = tl.full(x.shape, 1.0 / _factorial(13), tl.float64)
    for i in tl.static_range(13):
        series = 1.0 / _factorial(12 - i) + r * series
    half = exponent >> 1
    return series * _two_to_64(half) * _two_to_64(exponent - half)


@triton.constexpr_function
def _factorial(n):
    return float(math.factorial(n))


@triton.jit
def _two_to_64(n):
    return ((n + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def ln_64(x):
    """The natural logarithm of float64 numbers, negative infinity at zero and NaN below."""
    subnormal = x < _LEAST_NORMAL_64
    normal = x * tl.where(subnormal, 4503599627370496.0, 1.0).to(tl.float64)
    offset = normal.to(tl.int64, bitcast=True) - _ROOT_HALF_64
    power = ((offset >> 52) - tl.where(subnormal, 52, 0)).to(tl.float64)
    m = ((offset & _MANTISSA_64) + _ROOT_HALF_64).to(tl.float64, bitcast=True)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    series = tl.full(x.shape, 2.0 / 21.0, tl.float64)
    for i in tl.static_range(9):
        series = 2.0 / (19.0 - 2.0 * i) + z * series
    tail = s * z * series
    found = (tail + power * _LN_2_LOW_64) + 2.0 * s + power * _LN_2_HIGH_64
    found = tl.where(x == float("inf"), x, found)
    found = tl.where(x == 0.0, float("-inf"), found)
    return tl.where(x >= 0.0, found, float("nan"))
