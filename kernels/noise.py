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
_BELOW_ONE = tl.constexpr(1.0 - 2.0**-24)


@triton.jit
def gumbels(seed, index, step):
    """Standard Gumbel numbers ``[R, 4 G]`` of the draws with ``index [R, G]``."""
    words = philox(seed, index, step, _CATEGORICAL_STREAM)
    return -ln(_exponential(pack(words, 4)))


@triton.jit
def _exponential(word):
    """An exponential number of mean one, between 2**-33 and 17."""
    w = tl.minimum((word.to(tl.float32) + 0.5) * (2.0**-32), _BELOW_ONE)
    rest = 1.0 - w
    return (w - (1.0 - rest)) - ln(rest)
