"""Running a decoded program over all threads of a batch of blocks at once.

Threads are held in *groups* that share a program counter (a segment) and own their
registers as arrays; a divergent branch splits a group, and groups that meet merge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from .barriers import BlockBarriers
from .calls import FunctionCalls
from .errors import BarrierError, DeadlockError, PtxSimError, SimulationFault, TrapError
from .ops.asyncops import drain_all
from .registers import RegisterFile
from .types import U32, Array

if TYPE_CHECKING:
    from .env import Env
    from .program import Program
    from .segments import Segment

STARVE = 4000  # segment executions a group may be passed over
SPIN_GRACE = 24  # visits of a polling loop header before it yields


class Scheduler:
    """Runs one batch of blocks to completion.

    In lockstep mode the group with the smallest program counter runs, which
    reconverges structured control flow; a group that keeps polling memory in a loop
    yields to the others so that spin-waits make progress.
    """

    def __init__(self, env: Env) -> None:
        self.env = env
        self.prog: Program = env.prog
        # groups by segment id: able to run, polling, blocked at a warp-synchronous instruction
        self.ready: dict[int, list[RegisterFile]] = {}
        self.yielded: dict[int, list[RegisterFile]] = {}
        self.waiting: dict[int, list[RegisterFile]] = {}
        self.barriers = BlockBarriers(self)
        self.calls = FunctionCalls(self)
        self.stuck = 0
        self.last_progress = 0
        self.seen: set[tuple] = set()

    # helpers ------------------------------------------------------------------------
    def put(self, pc: int, rf: RegisterFile) -> None:
        q = self.ready.get(pc)
        if q is None:
            self.ready[pc] = [rf]
        else:
            q.append(rf)

    def merge(self, seg: Segment, parts: list[RegisterFile]) -> RegisterFile:
        if len(parts) == 1:
            return parts[0]
        env = self.env
        dts = self.prog.slot_dtype
        idx = np.concatenate([p.idx for p in parts])
        order = None
        if not (idx[1:] > idx[:-1]).all():
            order = np.argsort(idx, kind="stable")
            idx = idx[order]
        r = RegisterFile(env, idx)
        for s in seg.live_in_list:
            if not any(s in p for p in parts):
                continue
            dt = dts[s]
            if dt is None:
                v = np.concatenate([p.old(s, dt) for p in parts])
            else:
                v = np.concatenate(
                    [x if x.dtype is dt else x.view(dt) for x in (p.old(s, dt) for p in parts)]
                )
            r[s] = v if order is None else v[order]
        r.age = min(p.age for p in parts)
        r.visits = max(p.visits for p in parts)
        return r

    def choose(self) -> tuple[int, RegisterFile]:
        """Pick (segment id, group) to run next in lockstep mode."""
        env = self.env
        ready = self.ready
        if not ready:
            self.ready, self.yielded = self.yielded, ready
            ready = self.ready
        pc = min(ready)
        if len(ready) > 1:
            limit = env.tick - STARVE
            if env.tick & 63 == 0:
                for k, q in ready.items():
                    if k != pc and any(p.age < limit for p in q):
                        pc = k
                        break
        rf = self.merge(self.prog.segs[pc], ready.pop(pc))
        return pc, rf

    def choose_random(self) -> tuple[int, RegisterFile]:
        env = self.env
        rng = env.launch.pyrng
        assert env.rng is not None  # the launch made one for this schedule
        if self.yielded and (not self.ready or rng.random() < 0.2):
            for k, q in self.yielded.items():
                self.ready.setdefault(k, []).extend(q)
            self.yielded.clear()
        ready = self.ready
        keys = list(ready)
        pc = keys[rng.randrange(len(keys))]
        rf = self.merge(self.prog.segs[pc], ready.pop(pc))
        nw = rf.nwarps
        if nw > 1 and rng.random() < 0.8:
            f = rng.random() ** 2
            k = max(1, int(f * nw))
            pick = np.zeros(nw, bool)
            pick[env.rng.permutation(nw)[:k]] = True
            m = pick[rf.warp_ordinal]
            live = self.prog.segs[pc].live_in_list
            rest = rf.take(np.flatnonzero(~m), live)
            rf = rf.take(np.flatnonzero(m), live)
            self.put(pc, rest)
        return pc, rf

    # main loop ------------------------------------------------------------------------
    def run(self) -> None:
        env = self.env
        prog = self.prog
        segs = prog.segs
        lanes = (
            np.flatnonzero(env.alive)
            if not env.all_alive
            else np.arange(env.nlanes, dtype=np.int64)
        )
        start = RegisterFile(env, lanes)
        self.put(prog.func_entry[prog.entry], start)
        random_mode = env.launch.schedule == "random"
        burst = 0
        max_steps = env.launch.max_steps
        nthreads, nwarps = env.launch.seg_threads, env.launch.seg_warps
        while self.ready or self.yielded or self.waiting or self.barriers.parked:
            if not self.ready and not self.yielded:
                self.deadlock("all remaining threads are blocked")
            pc, rf = self.choose_random() if random_mode else self.choose()
            burst = env.launch.pyrng.randrange(1, 6) if random_mode else 1 << 30
            while True:
                seg = segs[pc]
                if seg.spin:
                    rf.visits += 1
                    if rf.visits > SPIN_GRACE and (self.ready or self.yielded):
                        rf.visits = 0
                        rf.age = env.tick
                        self.watch_spin(pc, seg, rf)
                        self.yielded.setdefault(pc, []).append(rf)
                        break
                    if rf.visits > 2000:
                        rf.visits = 0
                        self.watch_spin(pc, seg, rf, 200)
                env.tick += 1
                if env.tick > max_steps:
                    self.deadlock(f"step limit of {max_steps} reached")
                if seg.sync is not None:
                    complete = self.sync_ready(pc, seg, rf)
                    if complete is None:
                        break
                    rf = complete
                nthreads[pc] += rf.size
                nwarps[pc] += rf.nwarps
                for s in seg.dying:
                    rf.pop(s, None)
                for fn, kills, ins in seg.steps:
                    try:
                        fn(rf)
                    except PtxSimError:
                        raise
                    except Exception as e:
                        raise SimulationFault(
                            f"internal error in {env.where(ins, rf, 0)}: {type(e).__name__}: {e}"
                        ) from e
                    for k in kills:
                        rf.pop(k, None)
                nxt = self.terminate(seg, rf)
                if nxt is None:
                    break
                burst -= 1
                ready = self.ready
                if not ready:
                    if burst > 0:
                        pc = nxt
                        continue
                elif (
                    nxt not in ready
                    and burst > 0
                    and (random_mode or (nxt < min(ready) and env.tick & 63))
                ):
                    pc = nxt
                    continue
                rf.age = env.tick
                self.put(nxt, rf)
                break
        if env.copies:
            drain_all(env)

    def watch_spin(self, pc: int, seg: Segment, rf: RegisterFile, weight: int = 1) -> None:
        """Count polling that repeats itself: same registers, and no memory changed."""
        env = self.env
        if env.progress != self.last_progress:
            self.last_progress = env.progress
            self.stuck = 0
            self.seen.clear()
            return
        if env.rng is None:
            dts = self.prog.slot_dtype
            parts = [rf.idx.tobytes()]
            for s in seg.live_in_list:
                v = rf.get(s)
                if v is not None:
                    parts.append((v if dts[s] is None else v.view(dts[s])).tobytes())
            sig = (pc, hash(b"".join(parts)))
            if sig not in self.seen:
                self.seen.add(sig)
                return
        self.stuck += weight
        if self.stuck > (2000 if env.rng is None else 20000):
            self.deadlock("every runnable thread is spinning on memory that nothing changes")

    def deadlock(self, why: str) -> NoReturn:
        env = self.env
        text = [f"kernel {self.prog.name}: {why}"]
        shown = 0
        for what, d in (
            ("runnable", self.ready),
            ("polling", self.yielded),
            ("waiting for its warp", self.waiting),
        ):
            for pc, q in d.items():
                for rf in q:
                    if shown < 8:
                        seg = self.prog.segs[pc]
                        ins = seg.first or seg.term_ins
                        at = env.launch.module.place(ins) if ins else pc
                        text.append(
                            f"  {rf.size} threads {what} at {at}, "
                            f"e.g. {env.thread_name(int(rf.idx[0]))}"
                        )
                        shown += 1
        for rf, pc, _, _ in self.barriers.parked[:8]:
            ins = self.prog.segs[pc].term_ins
            text.append(
                f"  {rf.size} threads at a barrier, {env.launch.module.place(ins)} [{ins.text}], "
                f"e.g. {env.thread_name(int(rf.idx[0]))}"
            )
        if env.launch.batches > 1:
            text.append(
                "  the grid runs in several batches of resident blocks; a kernel whose blocks wait "
                "for later blocks needs max_resident_threads=None"
            )
        raise DeadlockError("\n".join(text))

    # warp-synchronous instructions ------------------------------------------------------
    def sync_ready(self, pc: int, seg: Segment, rf: RegisterFile) -> RegisterFile | None:
        """The part of ``rf`` whose warps are complete; the rest waits at ``pc``."""
        env = self.env
        if not self.waiting and rf.whole:
            self.check_member_mask(seg, rf)
            return rf
        mslot, ins = seg.sync
        parked = self.waiting.pop(pc, None)
        if parked:
            rf = self.merge(seg, [*parked, rf])
        if rf.whole:
            self.check_member_mask(seg, rf)
            return rf
        # lanes present, alive and named, per warp, as bit masks
        w = rf.warp_ordinal
        nw = rf.nwarps
        bit = np.int64(1) << (rf.idx & 31)
        present = np.zeros(nw, np.int64)
        np.add.at(present, w, bit)
        warps = np.zeros(nw, np.int64)
        warps[w] = rf.warp
        alive = (
            env.alive[(warps[:, None] * 32 + np.arange(32))].astype(np.int64) << np.arange(32)
        ).sum(axis=1)
        if mslot is None:
            need = np.full(rf.size, 0xFFFFFFFF, np.int64)
        else:
            need = rf[mslot].astype(np.int64)
            if not ((need & bit) != 0).all():
                i = int(np.flatnonzero((need & bit) == 0)[0])
                raise BarrierError(
                    f"{env.where(ins, rf, i)}: the thread's lane is not in its own member mask "
                    f"{int(need[i]):#x}"
                )
        okl = (need & alive[w] & ~present[w]) == 0
        if okl.all():
            return rf
        # several masks may share a warp; each is judged by itself
        stay = rf.take(np.flatnonzero(~okl), seg.live_in_list)
        self.waiting[pc] = [stay]
        if not okl.any():
            return None
        return rf.take(np.flatnonzero(okl), seg.live_in_list)

    def check_member_mask(self, seg: Segment, rf: RegisterFile) -> None:
        """Every lane of a complete warp must name itself in its member mask."""
        mslot, ins = seg.sync
        if mslot is not None and mslot not in self.prog.consts:
            need = rf[mslot].astype(np.int64)
            bit = np.int64(1) << (rf.idx & 31)
            bad = (need & bit) == 0
            if bad.any():
                i = int(np.flatnonzero(bad)[0])
                raise BarrierError(
                    f"{self.env.where(ins, rf, i)}: the thread's lane is not in its own member "
                    f"mask {int(need[i]):#x}"
                )

    def wake_sync(self) -> None:
        """Threads left their warps: blocked warp-synchronous groups must look again."""
        for pc, q in list(self.waiting.items()):
            del self.waiting[pc]
            for rf in q:
                self.put(pc, rf)

    # terminators --------------------------------------------------------------------------
    def terminate(self, seg: Segment, rf: RegisterFile) -> int | None:
        """Apply the terminator; the next segment id if the group stays whole."""
        t = seg.term
        k = t[0]
        if k == "next" or k == "jmp":
            return t[1]
        if k == "bra":
            p = rf[t[1]]
            c = int(np.count_nonzero(p))
            taken, fall = (t[4], t[3]) if t[2] else (t[3], t[4])
            if c == rf.size:
                return taken
            if c == 0:
                return fall
            env = self.env
            if env.want_stats:
                env.stats.divergent_branches += self.count_divergent(rf, p)
            a = rf.take(np.flatnonzero(p), self.prog.segs[taken].live_in_list)
            b = rf.take(np.flatnonzero(~p), self.prog.segs[fall].live_in_list)
            a.age = b.age = env.tick
            self.put(taken, a)
            self.put(fall, b)
            return None
        if k == "exit":
            self.exit(rf)
            return None
        if k == "bar":
            return self.barriers.reach(seg, rf)
        if k == "brx":
            v = rf[t[1]].view(U32)
            hi = int(v.max())
            if hi >= len(t[2]):
                i = int(v.argmax())
                raise SimulationFault(
                    f"{self.env.where(seg.term_ins, rf, i)}: branch index {hi} outside a table "
                    f"of {len(t[2])}"
                )
            return self.scatter(rf, v, lambda x: t[2][x])
        if k == "call":
            return self.calls.call(seg, rf)
        if k == "ret":
            return self.calls.ret(seg, rf)
        if k == "trap":
            raise TrapError(f"{self.env.where(t[1], rf, 0)}: trap executed by {rf.size} thread(s)")
        raise SimulationFault(f"unknown terminator {t}")

    def count_divergent(self, rf: RegisterFile, p: Array) -> int:
        if rf.whole:
            q = p.reshape(-1, 32)
            return int(np.count_nonzero(q.any(axis=1) & ~q.all(axis=1)))
        w = rf.warp_ordinal
        c = np.bincount(w, weights=p, minlength=rf.nwarps)
        n = np.bincount(w, minlength=rf.nwarps)
        return int(np.count_nonzero((c > 0) & (c < n)))

    def scatter(self, rf: RegisterFile, v: Array, target: Callable[[int], int]) -> int | None:
        vals = np.unique(v)
        if vals.size == 1:
            return target(int(vals[0]))
        for x in vals:
            pc = target(int(x))
            g = rf.take(np.flatnonzero(v == x), self.prog.segs[pc].live_in_list)
            g.age = self.env.tick
            self.put(pc, g)
        return None

    # exits ---------------------------------------------------------------
    def exit(self, rf: RegisterFile) -> None:
        env = self.env
        env.alive[rf.idx] = False
        env.alive_count -= rf.size
        env.progress += 1
        env.exited += np.bincount(env.block_of[rf.idx], minlength=env.nblocks)
        if self.waiting:
            self.wake_sync()
        self.barriers.recheck()
