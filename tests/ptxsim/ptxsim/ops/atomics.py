"""Atomics and reductions, applied in thread order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MemoryFault
from ..ir import Instr
from ..memory import SHIFT
from ..types import S64, TYPES, UINT, Array, ArrayFn, np_dtype, store_dtype, view
from . import op
from .addressing import address, check_mods, space_of, vec_count, vec_items
from .floating import reader, writer
from .rounded import float_max, float_min

if TYPE_CHECKING:
    from ..context import DecodeContext
    from ..env import Env
    from ..registers import RegisterFile

ATOM_OPS = ("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec")


def _inc(o, b):
    return np.where(o >= b, np.uint32(0), o + np.uint32(1))


def _dec(o, b):
    return np.where((o == 0) | (o > b), b, o - np.uint32(1))


def combiner(cx: DecodeContext, name: str, ty: str) -> tuple[ArrayFn, np.ufunc | None]:
    """(function (old, b) -> new on raw words, accumulate ufunc or None)."""
    bits, kind = TYPES[ty]
    ud = UINT[bits]
    f: Any
    if name == "exch":
        return (lambda o, b: b), None
    if name in ("and", "or", "xor"):
        f = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[name]
        return f, f
    if name in ("inc", "dec"):
        if ty != "u32":
            raise cx.unsupported()
        return (_inc if name == "inc" else _dec), None
    if kind in "usb":
        if name == "add":
            return np.add, np.add
        nd = np_dtype(ty)
        f = {"min": np.minimum, "max": np.maximum}[name]
        return (lambda o, b: f(o.view(nd), b.view(nd)).view(ud)), None
    if name not in ("add", "min", "max"):
        raise cx.unsupported()
    f = {"add": np.add, "min": float_min, "max": float_max}[name]
    rd, wr = reader(ty), writer(ty)
    return (lambda o, b: wr(f(rd(o), rd(b))).view(ud)), None


def apply_atomic(
    raw: Array,
    i: Array,
    name: str,
    fn: Any,
    ufunc: np.ufunc | None,
    b: Array,
    c: Any,
    rng: np.random.Generator | None,
    kind: str = "u",
) -> Array:
    """Apply an atomic to ``raw[i]`` in thread order; returns the old values."""
    n = i.size
    if n > 1:
        if rng is not None:
            order = rng.permutation(n)
            order = order[np.argsort(i[order], kind="stable")]
        else:
            order = np.argsort(i, kind="stable")
        si = i[order]
        start = np.flatnonzero(np.concatenate(([True], si[1:] != si[:-1])))
    else:
        order = np.zeros(1, np.int64)
        start = order
        si = i
    if start.size == n:
        old = raw[i]
        if name == "cas":
            raw[i] = np.where(old == b, c, old)
        else:
            raw[i] = fn(old, b)
        return old
    sb = b[order]
    out = np.empty(n, raw.dtype)
    cnt = np.diff(np.append(start, n))
    if name == "exch":
        out[1:] = sb[:-1]
        out[start] = raw[si[start]]
        raw[si[start]] = sb[np.append(start[1:], n) - 1]
    elif name == "add" and kind in "usb":
        cs = np.cumsum(sb, dtype=raw.dtype)
        base = cs[start] - sb[start]
        first = raw[si[start]]
        excl = cs - sb - np.repeat(base, cnt)
        out = np.repeat(first, cnt) + excl
        last = np.append(start[1:], n) - 1
        raw[si[start]] = out[last] + sb[last]
    elif name == "cas":
        sc = c[order]
        one = cnt == 1
        s1 = start[one]
        o1 = raw[si[s1]]
        out[s1] = o1
        raw[si[s1]] = np.where(o1 == sb[s1], sc[s1], o1)
        for s, k in zip(start[~one].tolist(), cnt[~one].tolist(), strict=True):
            cur = raw[si[s]]
            cm, nw, oo = sb[s : s + k], sc[s : s + k], out[s : s + k]
            p = 0
            while p < k:
                m = np.flatnonzero((cm[p:] == cur) & (nw[p:] != cur))
                if m.size == 0:
                    break
                j = p + int(m[0])
                oo[p : j + 1] = cur
                cur = nw[j]
                p = j + 1
            oo[p:] = cur
            raw[si[s]] = cur
    elif ufunc is not None and start.size <= int(cnt.max()):
        for s, k in zip(start.tolist(), cnt.tolist(), strict=True):
            seq = np.empty(k + 1, raw.dtype)
            seq[0] = raw[si[s]]
            seq[1:] = sb[s : s + k]
            acc = ufunc.accumulate(seq)
            out[s : s + k] = acc[:-1]
            raw[si[s]] = acc[-1]
    else:
        rank = np.arange(n) - np.repeat(start, cnt)
        by = np.argsort(rank, kind="stable")
        bounds = np.searchsorted(rank[by], np.arange(int(cnt.max()) + 1))
        for r in range(int(cnt.max())):
            turn = by[bounds[r] : bounds[r + 1]] if r + 1 < bounds.size else by[bounds[r] :]
            cell = si[turn]
            o = raw[cell]
            out[turn] = o
            raw[cell] = fn(o, sb[turn])
    old = np.empty(n, raw.dtype)
    old[order] = out
    return old


class Atomic:
    """One scalar atomic instruction: what it does to a word, and where it may do it."""

    def __init__(self, ins: Instr, name: str, ty: str, functions: tuple[Any, Any]) -> None:
        self.ins = ins
        self.name = name
        self.kind = TYPES[ty][1]
        self.dtype = store_dtype(ty)
        self.size = self.dtype.itemsize
        self.functions = functions

    def apply(self, env: Env, raw: Array, index: Array, b: Array, c: Array | None) -> Array:
        """Update ``raw[index]``, one thread after the other; the words that were there."""
        old = apply_atomic(raw, index, self.name, *self.functions, b, c, env.rng, self.kind)
        if (raw[index] != old).any():
            env.progress += 1
        return old

    def at(self, rf: RegisterFile, space: str, address: Array, b: Array, c: Array | None) -> Array:
        """Old raw words of all threads, whose addresses may lie in different spaces."""
        env = rf.env
        parts = [(None, space, address)]
        if space == "generic":
            parts = env.access.spaces(address)
        out = np.empty(rf.size, self.dtype)
        for sel, where, chosen in parts:
            sub = rf if sel is None else rf.take(sel, ())
            if where not in ("shared", "global"):
                raise MemoryFault(f"{env.where(self.ins, sub, 0)}: atomic on {where} memory")
            update = self.on_shared if where == "shared" else self.on_global
            if sel is None:
                return update(sub, chosen, b, c)
            out[sel] = update(sub, chosen, b[sel], None if c is None else c[sel])
        return out

    def on_shared(self, rf: RegisterFile, address: Array, b: Array, c: Array | None) -> Array:
        env, ins, size = rf.env, self.ins, self.size
        i = env.access.shared_index(rf, address, size, ins, True)
        if env.want_stats:
            env.stats.shared_access("atomic", rf, address, size)
        if env.check_uninit:
            env.access.check_init_flat(rf, env.shared_init, i, size, ins, "shared")
        if env.race is not None:
            env.race.shared_access(rf, i, size, ins, True, True)
        old = self.apply(env, env.shared.as_raw(size), i >> SHIFT[size], b, c)
        if env.shared_init is not None:
            for q in range(size):
                env.shared_init[i + q] = True
        return old

    def on_global(self, rf: RegisterFile, address: Array, b: Array, c: Array | None) -> Array:
        env, ins, size = rf.env, self.ins, self.size
        old = np.empty(rf.size, self.dtype)
        if env.want_stats:
            env.stats.global_access("atomic", rf, address, size)
        for sel, buf, off in env.mem.split(rf, address, size, ins, True):
            env.access.check_global(rf, sel, buf, off, size, ins, True, True)
            index = buf.word(off, size)
            part = slice(None) if sel is None else sel
            old[part] = self.apply(
                env, buf.as_raw(size), index, b[part], None if c is None else c[part]
            )
            if buf.init is not None:
                first = off.view(S64)
                for q in range(size):
                    buf.init[first + q] = True
        return old


@op("atom", "red")
def atom(cx: DecodeContext, ins: Instr) -> None:
    check_mods(cx, (*ATOM_OPS, "noftz", "async"))
    if "async" in cx.mods:
        raise cx.unsupported()
    cx.mem = True
    ty = cx.types()[-1]
    if ty == "b128":
        raise cx.unsupported("128-bit atomics")
    name = next(m for m in cx.mods if m in ATOM_OPS)
    space = space_of(cx)
    k = vec_count(cx)
    o = list(ins.operands)
    dsts = [] if ins.parts[0] == "red" else vec_items(o.pop(0))
    addr = o.pop(0)
    bs = [cx.src(x, ty) for x in vec_items(o[0])]
    cs = cx.src(o[1], ty) if name == "cas" else None
    functions = (None, None) if name == "cas" else combiner(cx, name, ty)
    atomic = Atomic(ins, name, ty, functions)
    size, dt = atomic.size, atomic.dtype
    get, reads = address(cx, addr, space)
    ds = [cx.dst(x, ty) for x in dsts]
    vec_bytes = size * k

    def run(rf):
        a = get(rf)
        if k > 1 and int(np.bitwise_or.reduce(a)) & (vec_bytes - 1):
            rf.env.mem.misaligned(rf, a, vec_bytes, ins)
        c = view(rf[cs], dt) if cs is not None else None
        for e in range(k):
            at = a + np.uint64(e * size) if e else a
            old = atomic.at(rf, space, at, view(rf[bs[e]], dt), c)
            if ds:
                rf[ds[e]] = old

    cx.emit(run, tuple(reads) + tuple(bs) + ((cs,) if cs is not None else ()), ds, "atomic")
