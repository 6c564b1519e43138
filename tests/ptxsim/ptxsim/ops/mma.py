"""ldmatrix, stmatrix and mma.sync on complete warps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np

from ..errors import BarrierError
from ..fpmath import bf16_to_f32
from ..ir import Instr
from ..types import F16, F32, F64, S32, U16, U32, Array
from . import op
from .addressing import address, vec_items

if TYPE_CHECKING:
    from ..context import DecodeContext
    from ..registers import RegisterFile

LANE = np.arange(32)
GROUP, MEMBER = LANE >> 2, LANE & 3


def need_whole(rf: RegisterFile, ins: Instr) -> None:
    if not rf.whole:
        raise BarrierError(
            f"{rf.env.where(ins, rf, 0)}: a warp-wide matrix instruction executed by a partial warp"
        )


def matrix_shape(cx: DecodeContext) -> tuple[int, bool]:
    x = next((m for m in cx.mods if m in ("x1", "x2", "x4")), None)
    if x is None or "m8n8" not in cx.mods or cx.mods[-1] != "b16":
        raise cx.unsupported()
    for m in cx.mods:
        if m not in (
            "sync",
            "aligned",
            "m8n8",
            "x1",
            "x2",
            "x4",
            "trans",
            "shared",
            "shared::cta",
            "b16",
        ):
            raise cx.unsupported(f"modifier .{m}")
    return int(x[1:]), cx.has("trans")


@op("ldmatrix")
def ldmatrix(cx: DecodeContext, ins: Instr) -> None:
    x, trans = matrix_shape(cx)
    o = ins.operands
    ds = [cx.dst(i, "b32") for i in vec_items(o[0])]
    get, reads = address(cx, o[1], "shared")

    def run(rf):
        need_whole(rf, ins)
        a = get(rf)
        sel = np.flatnonzero((rf.idx & 31) < 8 * x)
        sub = rf.take(sel, ())
        raw = rf.env.access.load_shared(sub, a[sel], 16, ins)
        m = raw.view(U16).reshape(-1, x, 8, 8)
        if trans:
            m = m.transpose(0, 1, 3, 2)
        m = np.ascontiguousarray(m)
        w = m.reshape(-1, x, 32, 2).view(U32).reshape(-1, x, 32) if m.flags.c_contiguous else None
        for j, d in enumerate(ds):
            rf[d] = np.ascontiguousarray(w[:, j, :]).reshape(-1)

    cx.emit(run, reads, ds, "load")


@op("stmatrix")
def stmatrix(cx: DecodeContext, ins: Instr) -> None:
    x, trans = matrix_shape(cx)
    o = ins.operands
    get, reads = address(cx, o[0], "shared")
    srcs = [cx.src(i, "b32") for i in vec_items(o[1])]

    def run(rf):
        need_whole(rf, ins)
        a = get(rf)
        w = np.stack([rf[s].view(U32).reshape(-1, 32) for s in srcs], axis=1)
        m = np.ascontiguousarray(w).view(U16).reshape(-1, x, 8, 8)
        if trans:
            m = np.ascontiguousarray(m.transpose(0, 1, 3, 2))
        sel = np.flatnonzero((rf.idx & 31) < 8 * x)
        sub = rf.take(sel, ())
        rf.env.access.store_shared(
            sub, a[sel], 16, m.reshape(-1, 8).view(np.complex128).reshape(-1), ins
        )

    cx.emit(run, tuple(reads) + tuple(srcs), (), "store")


@op("movmatrix")
def movmatrix(cx: DecodeContext, ins: Instr) -> None:
    d, a = cx.dst(ins.operands[0], "b32"), cx.src(ins.operands[1], "b32")

    def run(rf):
        need_whole(rf, ins)
        m = np.ascontiguousarray(rf[a].view(U32)).view(U16).reshape(-1, 8, 8).transpose(0, 2, 1)
        rf[d] = np.ascontiguousarray(m).reshape(-1).view(U32)

    cx.emit(run, (a,), (d,), "shuffle")


def frag_a(k: int, bits: int) -> tuple[Array, Array]:
    """(rows, cols) arrays (32, nreg, per) of the A fragment of m16n8k*."""
    per = max(1, 32 // bits)
    kreg = 4 * per  # columns covered by one register across 4 lanes
    nk = k // kreg
    rows = np.empty((32, nk * 2, per), int)
    cols = np.empty_like(rows)
    for j in range(nk):
        for h in range(2):
            r = j * 2 + h
            for e in range(per):
                rows[:, r, e] = GROUP + 8 * h
                cols[:, r, e] = MEMBER * per + e + kreg * j
    return rows, cols


def frag_b(k: int, bits: int) -> tuple[Array, Array]:
    per = max(1, 32 // bits)
    kreg = 4 * per
    nk = k // kreg
    rows = np.empty((32, nk, per), int)
    cols = np.empty_like(rows)
    for j in range(nk):
        for e in range(per):
            rows[:, j, e] = MEMBER * per + e + kreg * j
            cols[:, j, e] = GROUP
    return rows, cols


C_ROWS = np.stack([GROUP, GROUP, GROUP + 8, GROUP + 8], axis=1)
C_COLS = np.stack([MEMBER * 2, MEMBER * 2 + 1, MEMBER * 2, MEMBER * 2 + 1], axis=1)


@op("mma")
def mma(cx: DecodeContext, ins: Instr) -> None:
    shape = next((m for m in cx.mods if m.startswith("m") and "n" in m and "k" in m), None)
    if not cx.has("row") or not cx.has("col"):
        raise cx.unsupported("layout")
    for bad in ("sp", "kind::mxf8f6f4", "block_scale", "and", "xor", "kind::f8f6f4"):
        if any(m.startswith(bad) for m in cx.mods):
            raise cx.unsupported(bad)
    types = [m for m in cx.mods if m in ("f16", "bf16", "tf32", "f32", "f64", "s32", "s8", "u8")]
    if len(types) != 4 or shape is None or not shape.startswith("m16n8k"):
        raise cx.unsupported()
    dt_, at, bt, ct = types
    if at in ("f64",):
        raise cx.unsupported("f64 mma")
    k = int(shape[6:])
    bits = {"f16": 16, "bf16": 16, "tf32": 32, "s8": 8, "u8": 8}[at]
    if (at, k) not in {
        ("f16", 8),
        ("f16", 16),
        ("bf16", 8),
        ("bf16", 16),
        ("tf32", 4),
        ("tf32", 8),
        ("s8", 16),
        ("s8", 32),
        ("u8", 16),
        ("u8", 32),
    }:
        raise cx.unsupported("shape")
    if dt_ not in ("f32", "f16", "s32") or dt_ != ct:
        raise cx.unsupported("accumulator type")
    sat = cx.has("satfinite")
    o = ins.operands
    ra, ca = frag_a(k, bits)
    rb, cb = frag_b(k, bits)
    As = [cx.src(x, "b32") for x in vec_items(o[1])]
    Bs = [cx.src(x, "b32") for x in vec_items(o[2])]
    Cs = [cx.src(x, "b32") for x in vec_items(o[3])]
    Ds = [cx.dst(x, "b32") for x in vec_items(o[0])]
    if len(As) != ra.shape[1] or len(Bs) != rb.shape[1]:
        raise cx.unsupported("fragment size")

    def values(rf, slots, ty):
        """(warps, 32, nreg, per) in a compute type."""
        w = np.stack([rf[s].view(U32).reshape(-1, 32) for s in slots], axis=2)
        w = np.ascontiguousarray(w)
        if ty == "tf32":
            return (w & np.uint32(0xFFFFE000)).view(F32)[..., None]
        if ty in ("f16", "bf16"):
            h = w.view(U16).reshape((*w.shape, 2))
            return h.view(F16).astype(F32) if ty == "f16" else bf16_to_f32(h)
        return w.view(np.int8 if ty == "s8" else np.uint8).reshape((*w.shape, 4)).astype(np.int64)

    def run(rf):
        need_whole(rf, ins)
        nw = rf.size // 32
        ct_ = np.int64 if dt_ == "s32" else F64
        A = np.empty((nw, 16, k), ct_)
        B = np.empty((nw, k, 8), ct_)
        A[:, ra, ca] = values(rf, As, at)
        B[:, rb, cb] = values(rf, Bs, bt)
        P = A @ B
        if dt_ == "f16":
            c = np.stack([rf[s].view(U32).reshape(-1, 32) for s in Cs], axis=2)
            c = np.ascontiguousarray(c).view(U16).view(F16).reshape(nw, 32, 4).astype(F64)
            out = (P[:, C_ROWS, C_COLS] + c).astype(F16)
            out = np.ascontiguousarray(out).view(U32).reshape(nw, 32, 2)
            for i, d in enumerate(Ds):
                rf[d] = np.ascontiguousarray(out[:, :, i]).reshape(-1)
            return
        frag = P[:, C_ROWS, C_COLS]
        for i, (d, s) in enumerate(zip(Ds, Cs, strict=False)):
            p = np.ascontiguousarray(frag[:, :, i]).reshape(-1)
            if dt_ == "f32":
                rf[d] = (p + rf[s].view(F32)).astype(F32)
            else:
                q = p + rf[s].view(S32)
                if sat:
                    q = np.clip(q, -(2**31), 2**31 - 1)
                rf[d] = q.astype(S32)

    cx.emit(run, As + Bs + Cs, Ds, "mma")


@op("wgmma", "tcgen05", "wmma")
def not_modelled(cx: DecodeContext, ins: Instr) -> NoReturn:
    raise cx.unsupported(
        "asynchronous or wide tensor-core instructions are not modelled; "
        "compile for sm_80 or sm_120 to use mma.sync"
    )
