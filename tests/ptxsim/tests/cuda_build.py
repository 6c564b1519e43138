"""What the CUDA tests share: a compiler that runs once per source, or skips the test."""

import functools

import numpy as np
import ptxsim
import pytest


@functools.cache
def _compile(src, arch, compiler):
    return ptxsim.compile_cuda(src, arch, compiler=compiler)


def mod(src, arch="sm_90", compiler=None):
    try:
        return _compile(src, arch, compiler)
    except ptxsim.CompileError as e:
        if "available" in str(e):
            pytest.skip("no CUDA compiler")
        raise


def rng(seed=0):
    return np.random.default_rng(seed)
