"""Addresses and modifiers of memory instructions: state spaces, hints, vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir import Addr, Imm, Reg, Sym, Var, Vec
from ..types import TYPES, U32, U64, ArrayFn

if TYPE_CHECKING:
    from ..context import DecodeContext

SPACES = {
    "global": "global",
    "shared": "shared",
    "shared::cta": "shared",
    "local": "local",
    "const": "const",
    "param": "param",
    "param::entry": "param",
    "param::func": "param",
}
SYNC = ("volatile", "relaxed", "acquire", "release", "acq_rel", "mmio", "sc")
HINTS = (
    "nc",
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "weak",
    "cta",
    "cluster",
    "gpu",
    "sys",
    "unified",
    *SYNC,
)


def sync_kind(cx: DecodeContext) -> bool | str:
    """False, True, or "volatile" for accesses that may order threads."""
    if any(m in SYNC and m != "volatile" for m in cx.mods):
        return True
    return "volatile" if "volatile" in cx.mods else False


def is_hint(m: str) -> bool:
    return m in HINTS or m.startswith(("L1::", "L2::"))


def space_of(cx: DecodeContext) -> str:
    for m in cx.mods:
        if m in SPACES:
            return SPACES[m]
        if m == "shared::cluster":
            raise cx.unsupported("shared::cluster")
    return "generic"


def check_mods(cx: DecodeContext, extra: Iterable[str] = ()) -> None:
    for m in cx.mods:
        if m in TYPES or m in SPACES or is_hint(m) or m in extra or m in ("v2", "v4", "v8"):
            continue
        raise cx.unsupported(f"modifier .{m}")


def address(cx: DecodeContext, a: Any, space: str) -> tuple[ArrayFn, tuple[int, ...]]:
    """(function rf -> uint64 addresses, slots read)."""
    if not isinstance(a, Addr):
        raise cx.unsupported(f"address operand {a!r}")
    base, off = a.base, a.offset
    if isinstance(base, Reg):
        s = cx.prog.reg_slot(base)
        wide = cx.prog.slot_dtype[s] is U64
        if wide:
            if off:
                o = np.uint64(off & ((1 << 64) - 1))
                return (lambda rf: rf[s].view(U64) + o), (s,)
            return (lambda rf: rf[s].view(U64)), (s,)
        if space == "generic" or space == "global":
            raise cx.unsupported("32-bit address register in this space")
        o32 = np.uint32(off & 0xFFFFFFFF)
        return (lambda rf: (rf[s].view(U32) + o32).astype(U64)), (s,)
    if isinstance(base, Var):
        s = cx.prog.addr_slot(base, off, U64)
        return (lambda rf: rf[s]), (s,)
    if isinstance(base, Sym):
        s = cx.symbol(base.name, off, U64)
        return (lambda rf: rf[s]), (s,)
    if isinstance(base, Imm):
        s = cx.prog.const_slot(int(base.value) + off, U64)
        return (lambda rf: rf[s]), (s,)
    raise cx.unsupported(f"address base {base!r}")


def vec_items(o: Any) -> list:
    return list(o.items) if isinstance(o, Vec) else [o]


def vec_count(cx: DecodeContext) -> int:
    for m in cx.mods:
        if m in ("v2", "v4", "v8"):
            return int(m[1:])
    return 1
