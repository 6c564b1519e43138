"""Floating-point arithmetic in f16, bf16, f32, f64 and their packed forms.

``reader(type)`` turns raw register words into an array to compute on (float32 for
the 16-bit types, twice as long for packed types); ``writer(type)`` goes back.
Instructions named ``.approx`` are computed from correctly rounded or float64
results: more accurate than the hardware, never bit-identical by promise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..fpmath import (
    bf16_to_f32,
    directed64,
    f32_to_bf16,
    f64_to_f32_odd,
    fma32,
    fma64,
    fma_odd,
    ftz32,
    round_f64,
    round_odd,
    two_prod,
    two_sum,
)
from ..ir import Instr
from ..types import F16, F32, F64, U16, U64, Array, ArrayFn, store_dtype
from . import op

if TYPE_CHECKING:
    from ..context import DecodeContext

CLS = {"f32": "fp32", "f64": "fp64", "f32x2": "fp32"}


def cls_of(ty: str) -> str:
    return CLS.get(ty, "fp16")


def reader(ty: str, ftz: bool = False) -> ArrayFn:
    if ty in ("f32", "tf32"):
        if ftz:
            return lambda x: ftz32(x if x.dtype is F32 else x.view(F32))
        return lambda x: x if x.dtype is F32 else x.view(F32)
    if ty == "f64":
        return lambda x: x if x.dtype is F64 else x.view(F64)
    if ty == "f32x2":
        if ftz:
            return lambda x: ftz32(np.ascontiguousarray(x).view(F32))
        return lambda x: np.ascontiguousarray(x).view(F32)
    if ty in ("f16", "f16x2"):
        return lambda x: np.ascontiguousarray(x).view(F16).astype(F32)
    if ty in ("bf16", "bf16x2"):
        return lambda x: bf16_to_f32(np.ascontiguousarray(x).view(U16))
    raise KeyError(ty)


def writer(ty: str, ftz: bool = False) -> ArrayFn:
    """From computed values (float32, or float64 for f64) to register words."""
    sd = store_dtype(ty)
    if ty == "f32":
        return ftz32 if ftz else (lambda x: x)
    if ty == "f64":
        return lambda x: x
    if ty == "f32x2":
        return (lambda x: ftz32(x).view(U64)) if ftz else (lambda x: x.view(U64))
    if ty in ("f16", "f16x2"):
        return lambda x: x.astype(F16).view(sd)
    if ty in ("bf16", "bf16x2"):
        return lambda x: f32_to_bf16(x).view(sd)
    raise KeyError(ty)


RND = ("rn", "rz", "rm", "rp")
ALLOWED = (
    *RND,
    "ftz",
    "sat",
    "approx",
    "full",
    "noftz",
    "NaN",
    "xorsign",
    "abs",
    "relu",
    "rna",
    "oob",
)


def rounding(cx: DecodeContext) -> str:
    return next((m for m in cx.mods if m in RND), "rn")


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


# -- dispatch ------------------------------------------------------------------------------
def emit_float(
    cx: DecodeContext,
    ins: Instr,
    ty: str,
    fn: ArrayFn,
    nsrc: int,
    cls: str | None = None,
    src_types: list[str] | None = None,
) -> None:
    """d = write(fn(read(a), ...)) with ftz and sat as asked for."""
    ftz, sat = cx.has("ftz"), cx.has("sat")
    relu = cx.has("relu")
    o = ins.operands
    tys = src_types or [ty] * nsrc
    srcs = [cx.src(x, t) for x, t in zip(o[1 : 1 + nsrc], tys, strict=False)]
    rds = [reader(t, ftz and t in ("f32", "f32x2")) for t in tys]
    wr = writer(ty, ftz and ty in ("f32", "f32x2"))
    d = cx.dst(o[0], ty)
    cls = cls or cls_of(ty)
    post = (
        saturate
        if sat
        else (
            (lambda x: np.where(x > 0, x, np.where(np.isnan(x), x, x.dtype.type(0))))
            if relu
            else None
        )
    )
    plain32 = ty == "f32" and not ftz and post is None and all(t == "f32" for t in tys)
    if nsrc == 2:
        a, b = srcs
        ra, rb = rds
        if plain32:

            def run(rf):
                x, y = rf[a], rf[b]
                rf[d] = fn(
                    x if x.dtype is F32 else x.view(F32), y if y.dtype is F32 else y.view(F32)
                )
        else:

            def run(rf):
                r = fn(ra(rf[a]), rb(rf[b]))
                rf[d] = wr(r if post is None else post(r))
    elif nsrc == 1:
        (a,) = srcs
        (ra,) = rds

        def run(rf):
            r = fn(ra(rf[a]))
            rf[d] = wr(r if post is None else post(r))
    else:

        def run(rf):
            r = fn(*[rd(rf[s]) for rd, s in zip(rds, srcs, strict=False)])
            rf[d] = wr(r if post is None else post(r))

    cx.emit(run, srcs, (d,), cls)


def mixed(cx: DecodeContext, ts: list[str], ty: str, n: int) -> tuple[str, list[str] | None]:
    """Operand types of the mixed-precision forms (.f32.f16, .f32.bf16)."""
    if len(ts) == 2 and ts[0] == "f32" and ts[1] in ("f16", "bf16"):
        return "f32", ([ts[1]] * (n - 1) + ["f32"])
    if len(ts) > 1 and any(t != ts[0] for t in ts):
        raise cx.unsupported("mixed operand types")
    return ts[-1], None


def decode_float(cx: DecodeContext, ins: Instr) -> None:
    """add sub mul mad fma div abs neg min max on floating types."""
    base = ins.parts[0]
    cx.only(ALLOWED)
    ts = cx.types()
    ty = ts[-1]
    mode = rounding(cx)
    if mode != "rn" and ty not in ("f32", "f64", "f32x2"):
        raise cx.unsupported(f"rounding .{mode} for .{ty}")
    if base in ("add", "sub"):
        ty, st = mixed(cx, ts, ty, 2)
        emit_float(cx, ins, ty, add_fn(ty, mode, base == "sub"), 2, src_types=st)
    elif base == "mul":
        ty, st = mixed(cx, ts, ty, 2)
        if st:
            raise cx.unsupported("mixed multiply")
        emit_float(cx, ins, ty, mul_fn(ty, mode), 2)
    elif base in ("fma", "mad"):
        ty, st = mixed(cx, ts, ty, 3)
        emit_float(cx, ins, ty, fma_fn(ty, mode), 3, src_types=st)
    elif base == "div":
        emit_float(cx, ins, ty, div_fn(ty, mode), 2, cls="special" if ty == "f32" else None)
    elif base in ("abs", "neg"):
        sign(cx, ins, ty, base)
    else:
        minmax_float(cx, ins, ty, base)


def sign(cx: DecodeContext, ins: Instr, ty: str, base: str) -> None:
    """abs and neg act on the sign bit only (NaN payloads kept)."""
    ftz = cx.has("ftz") and ty == "f32"
    d, a = cx.dst(ins.operands[0], ty), cx.src(ins.operands[1], ty)
    dt = store_dtype(ty)
    m = {
        "f32": 0x80000000,
        "f64": 1 << 63,
        "f16": 0x8000,
        "bf16": 0x8000,
        "f16x2": 0x80008000,
        "bf16x2": 0x80008000,
        "f32x2": 0x8000000080000000,
    }[ty]
    mask = dt.type(m)
    inv = dt.type(((1 << (8 * dt.itemsize)) - 1) ^ m)
    isabs = base == "abs"

    def run(rf):
        x = rf[a]
        if ftz:
            x = ftz32(x.view(F32))
        x = x.view(dt)
        rf[d] = x & inv if isabs else x ^ mask

    cx.emit(run, (a,), (d,), cls_of(ty))


def minmax_float(cx: DecodeContext, ins: Instr, ty: str, base: str) -> None:
    f = float_min if base == "min" else float_max
    if cx.has("NaN"):
        f = with_nan(f)
    if cx.has("xorsign"):
        if not cx.has("abs") or len(ins.operands) != 3:
            raise cx.unsupported("xorsign")
        inner = f

        def f(a, b):
            m = inner(np.abs(a), np.abs(b))
            return np.where(np.signbit(a) != np.signbit(b), -m, m)
    elif cx.has("abs"):
        g = f

        def f(a, b):
            return g(np.abs(a), np.abs(b))

    if len(ins.operands) == 4:
        h = f
        emit_float(cx, ins, ty, lambda a, b, c: h(h(a, b), c), 3)
    else:
        emit_float(cx, ins, ty, f, 2)


@op("fma")
def fma(cx: DecodeContext, ins: Instr) -> None:
    decode_float(cx, ins)


@op("sqrt", "rcp", "rsqrt")
def roots(cx: DecodeContext, ins: Instr) -> None:
    cx.only(ALLOWED)
    ty = cx.types()[-1]
    base = ins.parts[0]
    mode = rounding(cx)
    if base == "sqrt":
        f = sqrt_fn(ty, mode)
    elif base == "rcp":
        g = div_fn(ty, mode)

        def f(a):
            return g(np.ones_like(a), a)
    else:
        f = via64(rsqrt)
    if ty == "f64" and cx.has("approx") and cx.has("ftz"):
        # rcp/rsqrt.approx.ftz.f64 work on the upper word only
        inner = f
        low = np.uint64(0xFFFFFFFF00000000)

        def f(a):
            return (inner((a.view(U64) & low).view(F64)).view(U64) & low).view(F64)

    emit_float(cx, ins, ty, f, 1, cls="special")


@op("sin", "cos", "lg2", "ex2", "tanh")
def transcend(cx: DecodeContext, ins: Instr) -> None:
    cx.only(ALLOWED)
    ty = cx.types()[-1]
    if not cx.has("approx"):
        raise cx.unsupported()
    f = {"sin": np.sin, "cos": np.cos, "lg2": np.log2, "ex2": np.exp2, "tanh": np.tanh}[
        ins.parts[0]
    ]
    emit_float(cx, ins, ty, via64(f), 1, cls="special")


@op("copysign")
def copysign(cx: DecodeContext, ins: Instr) -> None:
    ty = cx.types()[-1]
    dt = store_dtype(ty)
    o = ins.operands
    d, a, b = cx.dst(o[0], ty), cx.src(o[1], ty), cx.src(o[2], ty)
    m = dt.type(1 << (8 * dt.itemsize - 1))

    def run(rf):  # the sign of a, the magnitude of b
        rf[d] = (rf[a].view(dt) & m) | (rf[b].view(dt) & ~m)

    cx.emit(run, (a, b), (d,), cls_of(ty))


@op("testp")
def testp(cx: DecodeContext, ins: Instr) -> None:
    ty = cx.types()[-1]
    what = cx.mods[0]
    rd = reader(ty)
    tiny = 2.0**-126 if ty == "f32" else 2.0**-1022
    f = {
        "finite": np.isfinite,
        "infinite": np.isinf,
        "number": lambda x: ~np.isnan(x),
        "notanumber": np.isnan,
        "normal": lambda x: np.isfinite(x) & (np.abs(x) >= tiny),
        "subnormal": lambda x: (np.abs(x) < tiny) & (x != 0),
    }[what]
    p, a = cx.dst(ins.operands[0], "pred"), cx.src(ins.operands[1], ty)

    def run(rf):
        rf[p] = f(rd(rf[a]))

    cx.emit(run, (a,), (p,), cls_of(ty))
