"""Logic, shifts, bit counting, bit fields and byte permutation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np

from ..ir import Imm, Instr
from ..types import S64, SINT, TYPES, U32, U64, Array, ArrayFn, bits_of, np_dtype, store_dtype, view
from . import Decoder, op
from .common import binary, udt, unary

if TYPE_CHECKING:
    from ..context import DecodeContext


def logic(fn: ArrayFn) -> Decoder:
    def dec(cx, ins):
        ty = cx.types()[-1]
        cx.only(())
        binary(cx, ins, ty, fn, dt=store_dtype(ty))

    return dec


op("and")(logic(np.bitwise_and))
op("or")(logic(np.bitwise_or))
op("xor")(logic(np.bitwise_xor))


@op("not")
def not_(cx: DecodeContext, ins: Instr) -> None:
    ty = cx.types()[-1]
    unary(cx, ins, ty, np.invert, dt=store_dtype(ty))


@op("cnot")
def cnot(cx: DecodeContext, ins: Instr) -> None:
    ty = cx.types()[-1]
    dt = store_dtype(ty)
    unary(cx, ins, ty, lambda a: (a == 0).astype(dt), dt=dt)


@op("shl", "shr")
def shift(cx: DecodeContext, ins: Instr) -> None:
    cx.only(())
    ty = cx.types()[-1]
    bits, _kind = TYPES[ty]
    left = ins.parts[0] == "shl"
    dt = np_dtype(ty) if not left else udt(ty)
    o = ins.operands
    d, a = cx.dst(o[0], ty), cx.src(o[1], ty)
    if isinstance(o[2], Imm):
        k = int(o[2].value) & 0xFFFFFFFF
        signed = dt.kind == "i"
        if k >= bits:
            if signed:
                k = bits - 1
            else:

                def zero(rf):
                    rf[d] = np.zeros(rf.size, dt)

                cx.emit(zero, (a,), (d,), "int")
                return
        kk = dt.type(k)
        f = np.left_shift if left else np.right_shift

        def run(rf):
            x = rf[a]
            rf[d] = f(x if x.dtype is dt else x.view(dt), kk)

        cx.emit(run, (a,), (d,), "int")
        return
    b = cx.src(o[2], "u32")

    def runv(rf):
        x, y = view(rf[a], dt), view(rf[b], U32)
        big = y >= bits
        yy = np.minimum(y, np.uint32(bits - 1)).astype(dt)
        r = x << yy if left else x >> yy
        if dt.kind != "i" and big.any():
            r = np.where(big, dt.type(0), r)
        rf[d] = r

    cx.emit(runv, (a, b), (d,), "int")


@op("shf")
def shf(cx: DecodeContext, ins: Instr) -> None:
    cx.only(("l", "r", "wrap", "clamp"))
    o = ins.operands
    d, a, b, c = cx.dst(o[0], "b32"), cx.src(o[1], "b32"), cx.src(o[2], "b32"), cx.src(o[3], "u32")
    left, wrap = cx.has("l"), cx.has("wrap")

    def run(rf):
        x = (view(rf[b], U32).astype(U64) << np.uint64(32)) | view(rf[a], U32)
        k = view(rf[c], U32)
        k = (k & np.uint32(31)) if wrap else np.minimum(k, np.uint32(32))
        if left:
            rf[d] = ((x << k.astype(U64)) >> np.uint64(32)).astype(U32)
        else:
            rf[d] = (x >> k.astype(U64)).astype(U32)

    cx.emit(run, (a, b, c), (d,), "int")


@op("lop3")
def lop3(cx: DecodeContext, ins: Instr) -> None:
    if any(m in ("and", "or") for m in cx.mods):
        raise cx.unsupported("lop3 with a predicate output")
    o = ins.operands
    d, a, b, c = cx.dst(o[0], "b32"), cx.src(o[1], "b32"), cx.src(o[2], "b32"), cx.src(o[3], "b32")
    lut = int(o[4].value) & 255

    def run(rf):
        x, y, z = view(rf[a], U32), view(rf[b], U32), view(rf[c], U32)
        r = np.zeros(rf.size, U32)
        for i in range(8):
            if lut >> i & 1:
                t = (x if i & 4 else ~x) & (y if i & 2 else ~y) & (z if i & 1 else ~z)
                r = r | t
        rf[d] = r

    cx.emit(run, (a, b, c), (d,), "int")


def popcount(x: Array) -> Array:
    if x.dtype is U64:
        x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
        x = (x & np.uint64(0x3333333333333333)) + (
            (x >> np.uint64(2)) & np.uint64(0x3333333333333333)
        )
        x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        return ((x * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(U32)
    x = x - ((x >> np.uint32(1)) & np.uint32(0x55555555))
    x = (x & np.uint32(0x33333333)) + ((x >> np.uint32(2)) & np.uint32(0x33333333))
    x = (x + (x >> np.uint32(4))) & np.uint32(0x0F0F0F0F)
    return (x * np.uint32(0x01010101)) >> np.uint32(24)


def highbit(x: Array) -> Array:
    """Index of the most significant set bit, -1 for zero (int64)."""
    x = x.astype(U64)
    r = np.full(x.shape, -1, S64)
    nz = x != 0
    n = np.zeros(x.shape, S64)
    y = x.copy()
    for k in (32, 16, 8, 4, 2, 1):
        t = y >> np.uint64(k)
        m = t != 0
        n = np.where(m, n + k, n)
        y = np.where(m, t, y)
    return np.where(nz, n, r)


@op("popc")
def popc(cx: DecodeContext, ins: Instr) -> None:
    ty = cx.types()[-1]
    unary(cx, ins, ty, popcount, dt=udt(ty), dty="u32")


@op("clz")
def clz(cx: DecodeContext, ins: Instr) -> None:
    ty = cx.types()[-1]
    bits = bits_of(ty)
    unary(cx, ins, ty, lambda a: (bits - 1 - highbit(a)).astype(U32), dt=udt(ty), dty="u32")


@op("bfind")
def bfind(cx: DecodeContext, ins: Instr) -> None:
    cx.only(("shiftamt",))
    ty = cx.types()[-1]
    bits, kind = TYPES[ty]
    amt = cx.has("shiftamt")
    ud = udt(ty)

    def f(a):
        if kind == "s":
            a = np.where(a.view(SINT[bits]) < 0, ~a, a)
        h = highbit(a)
        if amt:
            h = np.where(h < 0, h, bits - 1 - h)
        return (h & 0xFFFFFFFF).astype(U32)

    unary(cx, ins, ty, f, dt=ud, dty="u32")


def bitrev(x: Array) -> Array:
    if x.dtype is U64:
        lo, hi = (x & np.uint64(0xFFFFFFFF)).astype(U32), (x >> np.uint64(32)).astype(U32)
        return (bitrev(lo).astype(U64) << np.uint64(32)) | bitrev(hi)
    for m, k in ((0x55555555, 1), (0x33333333, 2), (0x0F0F0F0F, 4), (0x00FF00FF, 8)):
        x = ((x & np.uint32(m)) << np.uint32(k)) | ((x >> np.uint32(k)) & np.uint32(m))
    return (x << np.uint32(16)) | (x >> np.uint32(16))


@op("brev")
def brev(cx: DecodeContext, ins: Instr) -> None:
    ty = cx.types()[-1]
    unary(cx, ins, ty, bitrev, dt=udt(ty))


@op("bfe")
def bfe(cx: DecodeContext, ins: Instr) -> None:
    ty = cx.types()[-1]
    bits, kind = TYPES[ty]
    o = ins.operands
    d, a, b, c = cx.dst(o[0], ty), cx.src(o[1], ty), cx.src(o[2], "u32"), cx.src(o[3], "u32")
    dt = udt(ty)

    def run(rf):
        x = view(rf[a], dt).astype(U64)
        pos = (view(rf[b], U32) & np.uint32(255)).astype(S64)
        ln = (view(rf[c], U32) & np.uint32(255)).astype(S64)
        p = np.minimum(pos, 63).astype(U64)
        r = np.where(pos > 63, np.uint64(0), x >> p)
        m = np.where(
            ln >= 64, ~np.uint64(0), (np.uint64(1) << np.minimum(ln, 63).astype(U64)) - np.uint64(1)
        )
        r = r & m
        if kind == "s":
            sb = np.minimum(pos + ln - 1, bits - 1)
            sign = np.where(
                ln == 0, np.uint64(0), (x >> np.maximum(sb, 0).astype(U64)) & np.uint64(1)
            )
            have = np.minimum(np.maximum(bits - pos, 0), ln)
            ext = np.where(
                have >= 64,
                np.uint64(0),
                ~((np.uint64(1) << np.minimum(have, 63).astype(U64)) - np.uint64(1)),
            )
            r = np.where(sign != 0, r | ext, r)
        rf[d] = r.astype(dt)

    cx.emit(run, (a, b, c), (d,), "int")


@op("bfi")
def bfi(cx: DecodeContext, ins: Instr) -> None:
    ty = cx.types()[-1]
    bits_of(ty)
    dt = udt(ty)
    o = ins.operands
    f, a, b, c, e = (
        cx.dst(o[0], ty),
        cx.src(o[1], ty),
        cx.src(o[2], ty),
        cx.src(o[3], "u32"),
        cx.src(o[4], "u32"),
    )

    def run(rf):
        x, y = view(rf[a], dt).astype(U64), view(rf[b], dt).astype(U64)
        pos = (view(rf[c], U32) & np.uint32(255)).astype(U64)
        ln = (view(rf[e], U32) & np.uint32(255)).astype(U64)
        m = np.where(
            ln >= 64, ~np.uint64(0), (np.uint64(1) << np.minimum(ln, np.uint64(63))) - np.uint64(1)
        )
        big = pos > 63
        p = np.minimum(pos, np.uint64(63))
        mm = np.where(big, np.uint64(0), m << p)
        rf[f] = ((y & ~mm) | ((x << p) & mm)).astype(dt)

    cx.emit(run, (a, b, c, e), (f,), "int")


@op("szext", "bmsk")
def szext(cx: DecodeContext, ins: Instr) -> NoReturn:
    raise cx.unsupported()


@op("prmt")
def prmt(cx: DecodeContext, ins: Instr) -> None:
    o = ins.operands
    mode = next((m for m in cx.mods if m in ("f4e", "b4e", "rc8", "ecl", "ecr", "rc16")), None)
    if mode is not None:
        raise cx.unsupported(f"prmt mode .{mode}")
    d, a, b = cx.dst(o[0], "b32"), cx.src(o[1], "b32"), cx.src(o[2], "b32")
    if isinstance(o[3], Imm):
        sel = [(int(o[3].value) >> (4 * i)) & 15 for i in range(4)]

        def run(rf):
            x = [view(rf[a], U32), view(rf[b], U32)]
            r = np.zeros(rf.size, U32)
            for i, s in enumerate(sel):
                byte = (x[(s >> 2) & 1] >> np.uint32(8 * (s & 3))) & np.uint32(255)
                if s & 8:
                    byte = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
                r = r | (byte << np.uint32(8 * i))
            rf[d] = r

        cx.emit(run, (a, b), (d,), "int")
        return
    c = cx.src(o[3], "b32")

    def runv(rf):
        x = (view(rf[b], U32).astype(U64) << np.uint64(32)) | view(rf[a], U32)
        s = view(rf[c], U32)
        r = np.zeros(rf.size, U32)
        for i in range(4):
            k = (s >> np.uint32(4 * i)) & np.uint32(15)
            byte = ((x >> ((k & np.uint32(7)).astype(U64) * np.uint64(8))) & np.uint64(255)).astype(
                U32
            )
            byte = np.where(
                k & np.uint32(8),
                np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0)),
                byte,
            )
            r = r | (byte << np.uint32(8 * i))
        rf[d] = r

    cx.emit(runv, (a, b, c), (d,), "int")
