"""Logarithms that are bit for bit those of the CPU.

The operations and their order are those of ``rust/src/ops/transcendental.rs``. Kernels that call
these are compiled without fused operations (``enable_fp_fusion=False``).
"""

import triton
import triton.language as tl

_ROOT_HALF = tl.constexpr(0x3F3504F3)  # the bits of 1 / sqrt(2)
_MANTISSA = tl.constexpr((1 << 23) - 1)
_LN_2_HIGH = tl.constexpr(0.6933594)
_LN_2_LOW = tl.constexpr(-2.1219444e-4)


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
