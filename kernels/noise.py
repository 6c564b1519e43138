"""Random numbers of other shapes than the uniform: bit for bit those of the CPU.

Number ``4 q + k`` of a draw is made of the four words at index ``q``. The arithmetic is that of
``rust/src/ops/noise.rs``, operation by operation: for kernels that are compiled without fused
operations.
"""

import triton
import triton.language as tl

from .linear_scan import pack
from .random import philox
from .transcendental import ln

_CATEGORICAL_STREAM = tl.constexpr(3)
_GAUSSIAN_STREAM = tl.constexpr(4)
_ANGLE_STEP = tl.constexpr(1.5707963267948966 * 2.0**-30)
_BELOW_ONE = tl.constexpr(1.0 - 2.0**-24)


@triton.jit
def gumbels(seed, index, step):
    """Standard Gumbel numbers ``[R, 4 G]`` of the draws with ``index [R, G]``."""
    words = philox(seed, index, step, _CATEGORICAL_STREAM)
    return -ln(_exponential(pack(words, 4)))


@triton.jit
def normals(seed, index, step):
    """Standard normal numbers ``[R, 4 G]`` of the draws with ``index [R, G]``."""
    w0, w1, w2, w3 = philox(seed, index, step, _GAUSSIAN_STREAM)
    a, b = _normal_pair(w0, w1)
    c, d = _normal_pair(w2, w3)
    return pack((a, b, c, d), 4)


@triton.jit
def _normal_pair(length, turn):
    """Two independent standard normal numbers, by the method of Box and Muller."""
    radius = tl.sqrt_rn(2.0 * _exponential(length))
    place = (turn & 0x3FFFFFFF).to(tl.int32) - (1 << 29)
    angle = place.to(tl.float32) * _ANGLE_STEP
    z = angle * angle
    sine = -0.16666655 + z * (0.00833216 + z * -0.00019515213)
    cosine = 0.041666646 + z * (-0.0013887315 + z * 0.000024433073)
    sine = angle + angle * (z * sine)
    cosine = 1.0 - (0.5 * z - (z * z) * cosine)
    quarter = turn >> 30
    odd = (quarter & 1) == 1
    a = tl.where(odd, sine, cosine)
    b = tl.where(odd, cosine, sine)
    a = tl.where((quarter == 1) | (quarter == 2), -a, a)
    b = tl.where(quarter >= 2, -b, b)
    return radius * a, radius * b


@triton.jit
def _exponential(word):
    """An exponential number of mean one, between 2**-33 and 17."""
    w = tl.minimum((word.to(tl.float32) + 0.5) * (2.0**-32), _BELOW_ONE)
    rest = 1.0 - w
    return (w - (1.0 - rest)) - ln(rest)
