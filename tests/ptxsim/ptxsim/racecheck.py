"""Data-race detection on shared and global memory: when nothing orders two accesses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from .errors import RaceError
from .ir import Instr
from .types import U8, Array

if TYPE_CHECKING:
    from .env import Env
    from .memory import Buffer
    from .registers import RegisterFile

NEVER = -1
MANY = -2
PENDING = np.int32(2**31 - 1)


class Shadow:
    """Last writer and readers of every granule of a store."""

    wt: Array  # last writer
    wtime: Array
    wsync: Array
    wins: Array
    rt: Array  # last reader
    rtime: Array
    rsync: Array
    rins: Array
    rwho: Array
    rblk: Array
    stime: Array

    FIELDS = (
        ("wt", np.int32, NEVER),
        ("wtime", np.int32, NEVER),
        ("wsync", np.bool_, False),
        ("rt", np.int32, NEVER),
        ("rtime", np.int32, NEVER),
        ("rwho", np.int64, 0),
        ("rblk", np.int32, NEVER),
        ("wins", np.int32, 0),
        ("rins", np.int32, 0),
        ("rsync", np.bool_, False),
        ("stime", np.int32, NEVER),
    )

    def __init__(self, nbytes: int, granule: int) -> None:
        self.granule = granule
        self.nbytes = nbytes
        n = (nbytes + granule - 1) // granule + 1
        for f, dt, init in self.FIELDS:
            setattr(self, f, np.full(n, init, dt))

    def refine(self, g: int) -> None:
        k = self.granule // g
        for f, _, _ in self.FIELDS:
            setattr(self, f, np.repeat(getattr(self, f), k))
        self.granule = g

    def cells(self, off: Array, size: int) -> Array:
        """(cell indices (n, k)) covering ``size`` bytes at each offset."""
        if size < self.granule:
            self.refine(size)
        k = size // self.granule
        base = off // self.granule
        return base[:, None] + np.arange(k) if k > 1 else base[:, None]


class RaceChecker:
    """One per batch; the global shadows live in the buffers for the whole launch.

    Every access is stamped with a time.  ``know[block, w, v]`` is the time up to which
    warp ``w`` of a block is ordered after warp ``v``: barriers raise it for the warps
    that take part, warp-synchronous instructions raise ``know[block, w, w]``.  An
    earlier access by another thread is a race when its time is later than that and one
    of the two is a write.  Between blocks the order comes from atomics and volatile,
    relaxed, acquire or release accesses of the same address; it is kept per block as
    one time, which errs towards reporting too little.  Two writes of the same value
    are tolerated.
    """

    def __init__(self, env: Env) -> None:
        self.env = env
        launch = env.launch
        self.launch = launch
        nb, W = env.nblocks, env.wpb
        self.know = np.full((nb, W, W), launch.race_time, np.int64)
        self.block_know = np.full(nb, -1, np.int64)
        self.shared = Shadow(env.shared.u8.size, 4)
        self.arrivals: dict[int, Array] = {}
        self.mbars: dict[int, int] = {}

    def now(self) -> int:
        self.launch.race_time += 1
        return self.launch.race_time

    def ins_id(self, ins: Instr) -> int:
        k = self.launch.race_ins_id.get(ins)
        if k is None:
            k = self.launch.race_ins_id[ins] = len(self.launch.race_ins)
            self.launch.race_ins.append(ins)
        return k

    # -- ordering events ---------------------------------------------------------------
    def warp_sync(self, rf: RegisterFile) -> None:
        env = self.env
        b = env.block_of[rf.idx]
        w = env.warp_in_block[rf.idx]
        self.know[b, w, w] = self.now()

    def barrier(self, rf: RegisterFile) -> None:
        """All threads of all blocks in the batch passed a barrier together."""
        self.know[:] = self.now()

    def arrive(self, rf: RegisterFile, bid: int) -> None:
        env = self.env
        a = self.arrivals.setdefault(bid, np.full((env.nblocks, env.wpb), -1, np.int64))
        a[env.block_of[rf.idx], env.warp_in_block[rf.idx]] = self.now()

    def barrier_release(self, groups: list[RegisterFile], bid: int, done: Array) -> None:
        env = self.env
        now = self.now()
        P = np.zeros((env.nblocks, env.wpb), bool)
        for rf in groups:
            P[env.block_of[rf.idx], env.warp_in_block[rf.idx]] = True
        row = np.where(P[:, :, None], self.know, -1).max(axis=1)
        a = self.arrivals.get(bid)
        if a is not None:
            took = (a >= 0) & done[:, None]
            row = np.maximum(row, np.where(took[:, :, None], self.know, -1).max(axis=1))
            row = np.maximum(row, np.where(took, a, -1))
            a[done] = -1
        row = np.where(P, now, row)
        sel = P & done[:, None]
        self.know = np.where(sel[:, :, None], np.maximum(self.know, row[:, None, :]), self.know)

    def mbar_arrive(self, rf: RegisterFile, i: Array) -> None:
        now = self.now()
        for k in np.unique(i):
            self.mbars[int(k)] = now

    def mbar_wait(self, rf: RegisterFile, i: Array) -> None:
        env = self.env
        for k in np.unique(i):
            t = self.mbars.get(int(k))
            if t is None:
                continue
            sel = rf.idx[i == k]
            b, w = env.block_of[sel], env.warp_in_block[sel]
            self.know[b, w] = np.maximum(self.know[b, w], t)

    def fence(self, rf: RegisterFile) -> None:
        """A fence alone orders nothing here, and a missing one is not reported."""
        return None

    # -- reporting ------------------------------------------------------------------------
    def report(
        self,
        rf: RegisterFile,
        lane: int,
        ins: Instr,
        write: bool,
        other: int,
        other_ins: int,
        other_write: bool,
        where: str,
    ) -> NoReturn:
        launch = self.launch
        env = self.env
        bx, by, _ = launch.block
        gx, gy, _ = launch.grid
        if other >= 0:
            t, b = other % env.pad, other // env.pad
            who = (
                f"block ({b % gx},{b // gx % gy},{b // (gx * gy)}) "
                f"thread ({t % bx},{t // bx % by},{t // (bx * by)})"
            )
        else:
            who = "several threads"
        o = launch.race_ins[other_ins] if 0 <= other_ins < len(launch.race_ins) else None
        raise RaceError(
            f"{env.where(ins, rf, lane)}: {'write' if write else 'read'} of {where} races "
            f"with an earlier {'write' if other_write else 'read'} by {who} "
            f"at {launch.module.place(o)}"
            f"{' [' + o.text + ']' if o is not None else ''}; nothing orders the two"
        )

    # -- the common check --------------------------------------------------------------------
    def access(
        self,
        rf: RegisterFile,
        sel: Array | None,
        sh: Shadow,
        off: Array,
        size: int,
        ins: Instr,
        write: bool,
        sync: bool,
        val: Array | None,
        is_global: bool,
        current: Array,
        where: Callable[[int], str],
    ) -> None:
        env = self.env
        now = self.now()
        lanes = rf.idx if sel is None else rf.idx[sel]
        blk = env.block_of[lanes]
        warp = env.warp_in_block[lanes]
        gid = (env.blocks[blk] * env.pad + env.tid_lin[lanes]).astype(np.int64)
        C = sh.cells(off, size)
        _n, k = C.shape
        flat = C.ravel()

        def rep(x):
            return np.repeat(x, k) if k > 1 else x

        g, b, w = rep(gid), rep(blk), rep(warp)
        iid = self.ins_id(ins)
        pad, W = env.pad, env.wpb
        first = int(env.blocks[0])

        def ordered(t, who):
            """Is an access at time ``t`` by thread ``who`` ordered before this one?"""
            ob = who // pad - first
            same = ob == b
            ow = (who % pad) >> 5
            k1 = self.know[b, w, np.where(same & (who >= 0), ow, 0)]
            return np.where(same, t <= k1, t <= self.block_know[b])

        if is_global and sync:
            # acquire before looking at anything else
            if write:
                np.maximum.at(self.block_know, b, np.int64(now))
            else:
                np.maximum.at(self.block_know, b, sh.stime[flat].astype(np.int64))
        # against the last write
        wt = sh.wt[flat].astype(np.int64)
        wtime = sh.wtime[flat]
        pend = wtime == PENDING
        bad = (wt >= 0) & ((wt != g) | pend) & ~ordered(wtime, wt)
        bad |= pend & (wt >= 0)
        if sync:
            bad &= ~sh.wsync[flat]
        if write and bad.any() and val is not None and not pend.any():
            same = self.same_value(current, off, size, val, sh.granule)
            bad &= ~same.ravel()
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            lane = i // k
            lane = lane if sel is None else int(sel[lane])
            if pend[i]:
                o = self.launch.race_ins[int(sh.wins[flat[i]])]
                raise RaceError(
                    f"{env.where(ins, rf, lane)}: {'write' if write else 'read'} of "
                    f"{where(i // k)} while an asynchronous copy into it has not been waited for, "
                    f"issued at {self.launch.module.place(o)} [{o.text}]"
                )
            self.report(
                rf, lane, ins, write, int(wt[i]), int(sh.wins[flat[i]]), True, where(i // k)
            )
        rt = sh.rt[flat].astype(np.int64)
        rtime = sh.rtime[flat]
        have = rt != NEVER
        if have.any():
            own = rt == g
            mask = sh.rwho[flat]
            rb = sh.rblk[flat]
            here = rb == b + first
            ok = np.ones(flat.size, bool)
            m = have & here & ~own
            if m.any():
                j = np.flatnonzero(m)
                okj = np.ones(j.size, bool)
                for v in range(W):
                    has = (mask[j] >> v) & 1 != 0
                    okj &= ~has | (rtime[j] <= self.know[b[j], w[j], v])
                ok[j] = okj
            m = have & ~here & ~own
            if m.any():
                ok[m] = (rtime <= self.block_know[b])[m]
        else:
            ok = np.ones(flat.size, bool)
        if write:
            bad = ~ok
            if sync:
                bad &= ~sh.rsync[flat]
            if bad.any():
                i = int(np.flatnonzero(bad)[0])
                lane = i // k
                lane = lane if sel is None else int(sel[lane])
                self.report(
                    rf, lane, ins, True, int(rt[i]), int(sh.rins[flat[i]]), False, where(i // k)
                )
            sh.wt[flat] = g
            clash = sh.wt[flat] != g
            if clash.any() and not sync:
                same = np.zeros(flat.size, bool)
                if val is not None:
                    same = self.same_as_winner(C, val, size, sh, g)
                clash &= ~same
                if clash.any():
                    i = int(np.flatnonzero(clash)[0])
                    lane = i // k
                    lane = lane if sel is None else int(sel[lane])
                    self.report(rf, lane, ins, True, int(sh.wt[flat[i]]), iid, True, where(i // k))
            sh.wtime[flat] = now
            sh.wsync[flat] = sync
            sh.wins[flat] = iid
            if is_global and sync:
                sh.stime[flat] = now
            if not sync:
                sh.rt[flat] = NEVER
        else:
            have_union = have & ~ok & (rt != g)
            bit = np.int64(1) << w.astype(np.int64)
            old = np.where(have_union, sh.rwho[flat], 0)
            oldb = np.where(have_union, sh.rblk[flat], b + first)
            sh.rwho[flat] = old
            np.bitwise_or.at(sh.rwho, flat, bit)
            sh.rt[flat] = g
            multi = (sh.rt[flat] != g) | have_union
            if multi.any():
                sh.rt[flat[multi]] = MANY
            sh.rblk[flat] = b + first
            mb = (sh.rblk[flat] != b + first) | (have_union & (oldb != b + first))
            if mb.any():
                sh.rblk[flat[mb]] = MANY
            sh.rtime[flat] = now
            sh.rins[flat] = iid
            sh.rsync[flat] = sync

    def same_value(self, current: Array, off: Array, size: int, val: Array, g: int) -> Array:
        """(n, k): does the memory already hold the bytes being written?"""
        n = off.size
        vb = np.ascontiguousarray(val).view(U8).reshape(n, size)
        cb = current[off[:, None] + np.arange(size)]
        return (vb == cb).reshape(n, size // g, g).all(axis=2)

    def same_as_winner(self, C: Array, val: Array, size: int, sh: Shadow, g: Array) -> Array:
        n, k = C.shape
        vb = np.ascontiguousarray(val).view(U8).reshape(n * k, sh.granule)
        flat = C.ravel()
        order = np.argsort(flat, kind="stable")
        s = flat[order]
        start = np.concatenate(([True], s[1:] != s[:-1]))
        lead = np.maximum.accumulate(np.where(start, np.arange(s.size), 0))
        eq = (vb[order] == vb[order[lead]]).all(axis=1)
        # every member of a cell must agree with its first writer
        cell = np.cumsum(start) - 1
        allsame = np.bincount(cell, weights=~eq) == 0
        out = np.empty(s.size, bool)
        out[order] = allsame[cell]
        return out

    # -- entry points from the memory system --------------------------------------------------
    def shared_access(
        self,
        rf: RegisterFile,
        i: Array,
        size: int,
        ins: Instr,
        write: bool,
        sync: bool | str,
        val: Array | None = None,
    ) -> None:
        env = self.env
        prog = env.prog

        def where(j):
            off = int(i[j]) - int(rf.shared_base[j])
            return f"shared memory at offset {off} ({prog.describe_shared(off)})"

        self.access(
            rf,
            None,
            self.shared,
            i,
            size,
            ins,
            write,
            bool(sync) and sync != "volatile",
            val,
            False,
            env.shared.u8,
            where,
        )

    def global_access(
        self,
        rf: RegisterFile,
        sel: Array | None,
        b: Buffer,
        off: Array,
        size: int,
        ins: Instr,
        write: bool,
        sync: bool | str,
        val: Array | None = None,
    ) -> None:
        if b.race is None:
            b.race = Shadow(b.nbytes, min(4, size))

        def where(j):
            return f"global memory at byte offset {int(off[j])} of {b.name!r}"

        self.access(rf, sel, b.race, off, size, ins, write, bool(sync), val, True, b.u8, where)

    def async_pending(self, rf: RegisterFile, flat: Array, size: int, ins: Instr) -> None:
        """A cp.async was issued: its target may change at any time until waited for."""
        self.shared_access(rf, flat, size, ins, True, False)
        C = self.shared.cells(flat, size).ravel()
        self.shared.wtime[C] = PENDING

    def async_done(self, rf: RegisterFile, flat: Array, size: int, ins: Instr) -> None:
        C = self.shared.cells(flat, size).ravel()
        self.shared.wtime[C] = self.now()
