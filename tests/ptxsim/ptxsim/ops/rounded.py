"""Floating-point operations on arrays in the four rounding modes."""

from __future__ import annotations

import numpy as np

from ..fpmath import (
    directed64,
    f64_to_f32_odd,
    fma32,
    fma64,
    fma_odd,
    round_f64,
    round_odd,
    two_prod,
    two_sum,
)
from ..types import F16, F32, F64, Array, ArrayFn


def saturate(x: Array) -> Array:
    x = np.where(np.isnan(x), x.dtype.type(0), x)
    return np.minimum(np.maximum(x, x.dtype.type(0)), x.dtype.type(1))


def narrow(x64: Array, ty: str, mode: str) -> Array:
    """float64 (exact or rounded to odd) -> the compute type of ``ty``."""
    if ty in ("f32", "f32x2"):
        return round_f64(x64, F32, mode)
    if mode != "rn":
        raise ValueError(mode)
    if ty in ("f16", "f16x2"):
        return x64.astype(F16).astype(F32)
    return f64_to_f32_odd(x64)


# correctly rounded base operations per mode ---------------------------------------------
def add_fn(ty: str, mode: str, sub: bool = False) -> ArrayFn:
    f = np.subtract if sub else np.add
    if mode == "rn":
        return f
    if ty == "f64":

        def g(a, b):
            s, e = two_sum(a, -b if sub else b)
            return directed64(s, e, mode)

        return g

    def h(a, b):
        s, e = two_sum(a.astype(F64), (-b if sub else b).astype(F64))
        return narrow(round_odd(s, e), ty, mode)

    return h


def mul_fn(ty: str, mode: str) -> ArrayFn:
    if mode == "rn":
        return np.multiply
    if ty == "f64":

        def g(a, b):
            p, e = two_prod(a, b)
            return directed64(p, np.where(np.isfinite(e), e, 0), mode)

        return g
    return lambda a, b: narrow(a.astype(F64) * b, ty, mode)


def fma_fn(ty: str, mode: str) -> ArrayFn:
    if ty == "f64":
        if mode == "rn":
            return fma64

        def g(a, b, c):
            r = fma64(a, b, c)
            p, e = two_prod(a, b)
            s, t = two_sum(p, c)
            res = (s - r) + (t + e)
            return directed64(r, np.where(np.isfinite(res), res, 0), mode)

        return g
    if ty in ("f32", "f32x2"):
        if mode == "rn":
            return fma32
        return lambda a, b, c: narrow(fma_odd(a, b, c), ty, mode)
    return lambda a, b, c: narrow(fma_odd(a, b, c), ty, mode)


def div_fn(ty: str, mode: str) -> ArrayFn:
    if mode == "rn":
        return np.divide
    if ty == "f64":

        def g(a, b):
            q = a / b
            p, e = two_prod(q, b)
            res = (a - p) - e
            res = np.where(b < 0, -res, res)
            return directed64(q, np.where(np.isfinite(res), res, 0), mode)

        return g

    def h(a, b):
        q = a / b
        over = np.isinf(q) & np.isfinite(a) & (b != 0)
        q = np.where(over, np.copysign(np.finfo(F32).max, q), q)
        res = a.astype(F64) - q.astype(F64) * b
        res = np.where(b < 0, -res, res)
        return directed32(q, np.where(np.isfinite(res), res, 0), mode)

    return h


def directed32(r: Array, e: Array, mode: str) -> Array:
    inf = np.float32(np.inf)
    if mode == "rm":
        return np.where(e < 0, np.nextafter(r, -inf), r)
    if mode == "rp":
        return np.where(e > 0, np.nextafter(r, inf), r)
    bad = ((r > 0) & (e < 0)) | ((r < 0) & (e > 0))
    return np.where(bad, np.nextafter(r, np.float32(0)), r)


def sqrt_fn(ty: str, mode: str) -> ArrayFn:
    if mode == "rn":
        return np.sqrt
    if ty == "f64":

        def g(a):
            r = np.sqrt(a)
            p, e = two_prod(r, r)
            res = (a - p) - e
            return directed64(r, np.where(np.isfinite(res), res, 0), mode)

        return g

    def h(a):
        r = np.sqrt(a)
        res = a.astype(F64) - r.astype(F64) * r
        return directed32(r, np.where(np.isfinite(res), res, 0), mode)

    return h


def via64(f: ArrayFn) -> ArrayFn:
    """Compute in float64 and round once."""

    def g(a):
        if a.dtype == F64:
            return f(a)
        return f(a.astype(F64)).astype(F32)

    return g


def rsqrt(a: Array) -> Array:
    return 1.0 / np.sqrt(a)


def float_min(a: Array, b: Array) -> Array:
    r = np.fmin(a, b)
    z = (a == 0) & (b == 0)
    if z.any():
        r = np.where(
            z, np.where(np.signbit(a) | np.signbit(b), a.dtype.type(-0.0), a.dtype.type(0)), r
        )
    return r


def float_max(a: Array, b: Array) -> Array:
    r = np.fmax(a, b)
    z = (a == 0) & (b == 0)
    if z.any():
        r = np.where(
            z, np.where(np.signbit(a) & np.signbit(b), a.dtype.type(-0.0), a.dtype.type(0)), r
        )
    return r


def with_nan(f: ArrayFn) -> ArrayFn:
    def g(a, b):
        return np.where(np.isnan(a) | np.isnan(b), a.dtype.type(np.nan), f(a, b))

    return g
