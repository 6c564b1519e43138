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
    f32_to_bf16,
    ftz32,
)
from ..ir import Instr
from ..types import F16, F32, F64, U16, U64, ArrayFn, store_dtype
from . import op
from .rounded import (
    add_fn,
    div_fn,
    float_max,
    float_min,
    fma_fn,
    mul_fn,
    rsqrt,
    saturate,
    sqrt_fn,
    via64,
    with_nan,
)

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
