"""Data-race detection on shared and global memory: when nothing orders two accesses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from .errors import RaceError
from .ir import Instr
from .shadow import MANY, NEVER, PENDING, Access, LastRead, Shadow
from .types import U8, Array

if TYPE_CHECKING:
    from .env import Env
    from .memory import Buffer
    from .registers import RegisterFile


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
        acc = Access(self, rf, sel, sh, off, size, ins, write, sync, val, where)
        if is_global and sync:
            self.acquire(acc)
        self.check_last_write(acc, current)
        read = self.reads_ordered(acc)
        if write:
            self.check_reads(acc, read)
            self.record_write(acc, is_global)
        else:
            self.record_read(acc, read)

    def acquire(self, acc: Access) -> None:
        """A synchronising access learns what its cells know, before anything is looked at."""
        if acc.write:
            np.maximum.at(self.block_know, acc.b, np.int64(acc.now))
        else:
            np.maximum.at(self.block_know, acc.b, acc.sh.stime[acc.flat].astype(np.int64))

    def ordered(self, acc: Access, t: Array, who: Array) -> Array:
        """Is an access at time ``t`` by thread ``who`` ordered before this one?"""
        pad = self.env.pad
        same = who // pad - int(self.env.blocks[0]) == acc.b
        ow = (who % pad) >> 5
        k1 = self.know[acc.b, acc.w, np.where(same & (who >= 0), ow, 0)]
        return np.where(same, t <= k1, t <= self.block_know[acc.b])

    def check_last_write(self, acc: Access, current: Array) -> None:
        sh, flat = acc.sh, acc.flat
        wt = sh.wt[flat].astype(np.int64)
        wtime = sh.wtime[flat]
        pend = wtime == PENDING
        bad = (wt >= 0) & ((wt != acc.g) | pend) & ~self.ordered(acc, wtime, wt)
        bad |= pend & (wt >= 0)
        if acc.sync:
            bad &= ~sh.wsync[flat]
        if acc.write and bad.any() and acc.val is not None and not pend.any():
            bad &= ~self.same_value(current, acc.off, acc.size, acc.val, sh.granule).ravel()
        if not bad.any():
            return
        i = int(np.flatnonzero(bad)[0])
        if pend[i]:
            o = self.launch.race_ins[int(sh.wins[flat[i]])]
            raise RaceError(
                f"{self.env.where(acc.ins, acc.rf, acc.lane(i))}: "
                f"{'write' if acc.write else 'read'} of {acc.place(i)} while an asynchronous copy "
                f"into it has not been waited for, "
                f"issued at {self.launch.module.place(o)} [{o.text}]"
            )
        self.report_cell(acc, i, int(wt[i]), int(sh.wins[flat[i]]), True)

    def reads_ordered(self, acc: Access) -> LastRead:
        """Which cells have been read, and whether all those reads are ordered before this."""
        sh, flat, env = acc.sh, acc.flat, self.env
        rt = sh.rt[flat].astype(np.int64)
        have = rt != NEVER
        ok = np.ones(flat.size, bool)
        if not have.any():
            return LastRead(rt, have, ok)
        rtime = sh.rtime[flat]
        mask = sh.rwho[flat]
        here = sh.rblk[flat] == acc.b + int(env.blocks[0])
        others = have & (rt != acc.g)
        j = np.flatnonzero(others & here)
        for v in range(env.wpb if j.size else 0):
            has = (mask[j] >> v) & 1 != 0
            ok[j] &= ~has | (rtime[j] <= self.know[acc.b[j], acc.w[j], v])
        m = others & ~here
        if m.any():
            ok[m] = (rtime <= self.block_know[acc.b])[m]
        return LastRead(rt, have, ok)

    def check_reads(self, acc: Access, read: LastRead) -> None:
        bad = ~read.ordered
        if acc.sync:
            bad &= ~acc.sh.rsync[acc.flat]
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            self.report_cell(acc, i, int(read.thread[i]), int(acc.sh.rins[acc.flat[i]]), False)

    def record_write(self, acc: Access, is_global: bool) -> None:
        """Note the writer of each cell; several in one access are a race of their own."""
        sh, flat, sync = acc.sh, acc.flat, acc.sync
        sh.wt[flat] = acc.g
        clash = sh.wt[flat] != acc.g
        if clash.any() and not sync:
            if acc.val is not None:
                clash &= ~self.same_as_winner(acc.cells, acc.val, acc.size, sh, acc.g)
            if clash.any():
                i = int(np.flatnonzero(clash)[0])
                self.report_cell(acc, i, int(sh.wt[flat[i]]), acc.iid, True)
        sh.wtime[flat] = acc.now
        sh.wsync[flat] = sync
        sh.wins[flat] = acc.iid
        if is_global and sync:
            sh.stime[flat] = acc.now
        if not sync:
            sh.rt[flat] = NEVER

    def record_read(self, acc: Access, read: LastRead) -> None:
        """Join this read to the reads of the same cells that nothing has ordered yet."""
        sh, flat = acc.sh, acc.flat
        block = acc.b + int(self.env.blocks[0])
        union = read.have & ~read.ordered & (read.thread != acc.g)
        old = np.where(union, sh.rwho[flat], 0)
        old_block = np.where(union, sh.rblk[flat], block)
        sh.rwho[flat] = old
        np.bitwise_or.at(sh.rwho, flat, np.int64(1) << acc.w.astype(np.int64))
        sh.rt[flat] = acc.g
        multi = (sh.rt[flat] != acc.g) | union
        if multi.any():
            sh.rt[flat[multi]] = MANY
        sh.rblk[flat] = block
        spread = (sh.rblk[flat] != block) | (union & (old_block != block))
        if spread.any():
            sh.rblk[flat[spread]] = MANY
        sh.rtime[flat] = acc.now
        sh.rins[flat] = acc.iid
        sh.rsync[flat] = acc.sync

    def report_cell(
        self, acc: Access, i: int, other: int, other_ins: int, other_write: bool
    ) -> NoReturn:
        lane, where = acc.lane(i), acc.place(i)
        self.report(acc.rf, lane, acc.ins, acc.write, other, other_ins, other_write, where)

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
