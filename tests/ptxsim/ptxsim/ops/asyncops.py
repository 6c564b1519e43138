"""cp.async with commit and wait groups, and the basic mbarrier operations.

By default a copy's data reach shared memory only at the wait that covers them
(the latest moment the hardware may choose), so a missing wait shows as stale data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import BarrierError, MemoryFault
from ..ir import Imm, Instr, Not, Reg
from ..memory import RAW, SHIFT
from ..registers import RegisterFile
from ..types import U32, U64, Array
from . import op
from .addressing import address, is_hint

if TYPE_CHECKING:
    from ..context import DecodeContext
    from ..env import Env


class Copy:
    __slots__ = ("data", "done", "flat", "group", "idx", "ins", "size")

    def __init__(
        self, idx: Array, flat: Array, size: int, data: Array, group: Array, ins: Instr
    ) -> None:
        self.idx, self.flat, self.size, self.data, self.group, self.ins = (
            idx,
            flat,
            size,
            data,
            group,
            ins,
        )
        self.done = np.zeros(idx.size, bool)


@op("cp")
def cp(cx: DecodeContext, ins: Instr) -> None:
    p = ins.parts
    if p[1] != "async" or (len(p) > 2 and p[2] in ("bulk", "reduce")):
        raise cx.unsupported("bulk (TMA) copies are not modelled")
    cx.mem = True
    if p[2] == "commit_group":

        def commit(rf):
            rf.env.cp_cur[rf.idx] += 1

        cx.emit(commit, (), (), "async")
        return
    if p[2] in ("wait_group", "wait_all"):
        keep = int(ins.operands[0].value) if p[2] == "wait_group" else None

        def wait(rf):
            drain(rf, keep)

        cx.emit(wait, (), (), "async")
        return
    if p[2] == "mbarrier":
        raise cx.unsupported("cp.async.mbarrier")
    for m in p[2:]:
        if m not in ("ca", "cg", "shared", "shared::cta", "global") and not is_hint(m):
            raise cx.unsupported(f"modifier .{m}")
    o = list(ins.operands)
    dget, r1 = address(cx, o[0], "shared")
    sget, r2 = address(cx, o[1], "global")
    if not isinstance(o[2], Imm):
        raise cx.unsupported("copy size")
    size = int(o[2].value)
    if size not in (4, 8, 16):
        raise cx.unsupported("copy size")
    nsrc = ignore = None
    reads = list(r1) + list(r2)
    rest = list(o[3:])
    if rest:
        x = rest[0]
        is_pred = (isinstance(x, Reg) and x.type == "pred") or isinstance(x, Not)
        if is_pred:
            ignore = cx.src(x, "pred")
            reads.append(ignore)
        elif isinstance(x, Imm) or (isinstance(x, Reg) and x.type.endswith("32")):
            nsrc = cx.src(x, "u32")
            reads.append(nsrc)

    def run(rf):
        env = rf.env
        dst, src = dget(rf), sget(rf)
        flat = env.access.shared_index(rf, dst, size, ins, True)
        data = np.zeros(rf.size, RAW[size])
        if ignore is not None:
            cnt = np.where(rf[ignore], 0, size).astype(np.int64)
        elif nsrc is not None:
            cnt = rf[nsrc].view(U32).astype(np.int64)
            if int(cnt.max()) > size:
                raise MemoryFault(
                    f"{env.where(ins, rf, int(cnt.argmax()))}: cp.async source size "
                    f"{int(cnt.max())} exceeds {size}"
                )
        else:
            cnt = None
        if cnt is None or (cnt == size).all():
            data = env.access.load_global(rf, src, size, ins)
        else:
            for c in np.unique(cnt):
                c = int(c)
                if c == 0:
                    continue
                sel = np.flatnonzero(cnt == c)
                sub = rf.take(sel, ())
                if c == size:
                    data[sel] = env.access.load_global(sub, src[sel], size, ins)
                else:
                    part = np.zeros((sel.size, size), np.uint8)
                    for k in range(c):
                        part[:, k] = env.access.load_global(sub, src[sel] + np.uint64(k), 1, ins)
                    data[sel] = part.view(RAW[size]).reshape(-1)
        env.stats.async_copies += rf.size
        env.stats.async_bytes += rf.size * size
        if env.want_stats:
            env.stats.shared_access("store", rf, dst, size)
        if env.cp_delay:
            env.copies.append(Copy(rf.idx, flat, size, data, env.cp_cur[rf.idx].copy(), ins))
            if env.shared_init is not None:
                for k in range(size):
                    env.shared_init[flat + k] = False
            if env.race is not None:
                env.race.async_pending(rf, flat, size, ins)
        else:
            env.access.put_shared(rf, flat, size, data, ins)

    cx.emit(run, reads, (), "async")


def finish(env: Env, c: Copy, sel: Array) -> None:
    """Write the selected entries of a pending copy."""
    f, d = c.flat[sel], c.data[sel]
    if env.race is not None:
        env.race.async_done(RegisterFile(env, c.idx[sel]), f, c.size, c.ins)
    if env.shared_init is not None:
        for k in range(c.size):
            env.shared_init[f + k] = True
    env.shared.as_raw(c.size)[f >> SHIFT[c.size]] = d
    c.done[sel] = True
    env.progress += 1


def drain(rf: RegisterFile, keep: int | None) -> None:
    env = rf.env
    if not env.copies:
        return
    on = np.zeros(env.nlanes, bool)
    on[rf.idx] = True
    for c in env.copies:
        ok = on[c.idx] & ~c.done
        if keep is not None:
            ok &= c.group < env.cp_cur[c.idx] - keep
        if ok.any():
            finish(env, c, np.flatnonzero(ok))
    env.copies = [c for c in env.copies if not c.done.all()]


def drain_all(env: Env) -> None:
    """End of the batch: what is still pending no longer matters."""
    n = sum(int((~c.done).sum()) for c in env.copies)
    if n:
        env.stats.notes["cp.async copies never waited for before the threads exited"] += n
    env.copies = []


# -- mbarrier ---------------------------------------------------------------------------------
# word: bits 0..19 pending arrivals, 20..39 expected count, 40 phase parity, 41..61 tx-count
@op("mbarrier")
def mbarrier(cx: DecodeContext, ins: Instr) -> None:
    mods = cx.mods
    what = mods[0]
    cx.mem = True
    if "shared::cluster" in mods and what != "arrive":
        raise cx.unsupported()
    o = list(ins.operands)
    if what == "init":
        get, reads = address(cx, o[0], "shared")
        cnt = cx.src(o[1], "u32")

        def run(rf):
            env = rf.env
            i = env.access.shared_index(rf, get(rf), 8, ins, True)
            c = rf[cnt].view(U32).astype(U64)
            env.shared.as_raw(8)[i >> 3] = c | (c << np.uint64(20))
            if env.shared_init is not None:
                for k in range(8):
                    env.shared_init[i + k] = True

        cx.emit(run, (*reads, cnt), (), "barrier")
        return
    if what == "inval":
        get, reads = address(cx, o[0], "shared")

        def run(rf):
            rf.env.access.shared_index(rf, get(rf), 8, ins, True)

        cx.emit(run, reads, (), "barrier")
        return
    if what == "arrive":
        if "expect_tx" in mods or "noComplete" in mods or "shared::cluster" in mods:
            raise cx.unsupported("transaction counts")
        d = cx.dst(o[0], "b64")
        get, reads = address(cx, o[1], "shared")
        cnt = cx.src(o[2], "u32") if len(o) > 2 else cx.prog.const_slot(1, U32)

        def run(rf):
            env = rf.env
            i = env.access.shared_index(rf, get(rf), 8, ins, True) >> 3
            raw = env.shared.as_raw(8)
            c = rf[cnt].view(U32)
            out = np.empty(rf.size, U64)
            for k in range(rf.size):
                w = int(raw[i[k]])
                out[k] = w
                pend = (w & 0xFFFFF) - int(c[k])
                if pend < 0:
                    raise BarrierError(
                        f"{env.where(ins, rf, k)}: more arrivals than the mbarrier expects"
                    )
                exp, ph = (w >> 20) & 0xFFFFF, (w >> 40) & 1
                if pend == 0:
                    pend, ph = exp, ph ^ 1
                raw[i[k]] = pend | (exp << 20) | (ph << 40)
            env.progress += 1
            if env.race is not None:
                env.race.mbar_arrive(rf, i)
            rf[d] = out

        cx.emit(run, (*reads, cnt), (d,), "barrier")
        return
    if what in ("test_wait", "try_wait"):
        parity = "parity" in mods
        p = cx.dst(o[0], "pred")
        get, reads = address(cx, o[1], "shared")
        s = cx.src(o[2], "u32" if parity else "b64")

        def run(rf):
            env = rf.env
            i = env.access.shared_index(rf, get(rf), 8, ins, False) >> 3
            ph = (env.shared.as_raw(8)[i] >> np.uint64(40)) & np.uint64(1)
            want = (
                rf[s].view(U32).astype(U64) & np.uint64(1)
                if parity
                else (rf[s].view(U64) >> np.uint64(40)) & np.uint64(1)
            )
            rf[p] = ph != want
            if env.race is not None:
                env.race.mbar_wait(rf, i)

        cx.emit(run, (*reads, s), (p,), "barrier")
        return
    raise cx.unsupported()
