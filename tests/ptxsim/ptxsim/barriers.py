"""Block barriers: bar and barrier, arrivals without waiting, and barrier reductions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import BarrierError, SimulationFault
from .types import U32, Array

if TYPE_CHECKING:
    from .env import Env
    from .executor import Scheduler
    from .program import Program
    from .registers import RegisterFile
    from .segments import Segment


class BlockBarriers:
    """The barriers of all blocks of one batch."""

    def __init__(self, sched: Scheduler) -> None:
        self.sched = sched
        self.env: Env = sched.env
        self.prog: Program = sched.env.prog
        # (group, segment id, barrier terminator, (barrier id, count))
        self.parked: list[tuple[RegisterFile, int, tuple, tuple]] = []
        self.arrived: dict[int, Array] = {}  # barrier id -> per-block arrival counts

    def reach(self, seg: Segment, rf: RegisterFile) -> int | None:
        _, nxt, kind, bslot, cslot, _aligned, _red = seg.term
        env = self.env
        bid = rf[bslot].view(U32)
        b0 = int(bid[0])
        if (bid != b0).any():
            self.split(seg, rf, bid)
            return None
        if not 0 <= b0 < 16:
            raise BarrierError(
                f"{env.where(seg.term_ins, rf, 0)}: barrier number {b0} outside 0..15"
            )
        if (
            kind == "sync"
            and cslot is None
            and rf.size == env.alive_count
            and not self.parked
            and not (b0 in self.arrived and self.arrived[b0].any())
        ):
            env.stats.barriers += env.nblocks
            env.progress += 1
            if env.race is not None:
                env.race.barrier(rf)
            return nxt
        cnt = None if cslot is None else int(rf[cslot].view(U32)[0])
        if cslot is not None:
            c = rf[cslot].view(U32)
            if (c != cnt).any():
                raise BarrierError(
                    f"{env.where(seg.term_ins, rf, 0)}: threads disagree on the barrier count"
                )
            if cnt is not None and cnt % 32:
                raise BarrierError(
                    f"{env.where(seg.term_ins, rf, 0)}: barrier count {cnt} is not a multiple of 32"
                )
        arr = self.arrived.get(b0)
        if arr is None:
            arr = self.arrived[b0] = np.zeros(env.nblocks, np.int64)
        arr += np.bincount(env.block_of[rf.idx], minlength=env.nblocks)
        if kind == "arrive":
            if cnt is None:
                raise BarrierError(f"{env.where(seg.term_ins, rf, 0)}: bar.arrive without a count")
            if env.race is not None:
                env.race.arrive(rf, b0)
            self.release(b0)
            return nxt
        rf.age = env.tick
        self.parked.append((rf, seg.id, seg.term, (b0, cnt)))
        self.release(b0)
        return None

    def split(self, seg: Segment, rf: RegisterFile, bid: Array) -> None:
        for x in np.unique(bid):
            sel = np.flatnonzero(bid == x)
            nxt = self.reach(seg, rf.take(sel, tuple(rf)))
            if nxt is not None:
                raise SimulationFault("barrier released inside a split")
        return None

    def recheck(self) -> None:
        """Threads exited: fewer arrivals may now complete a barrier."""
        if self.parked:
            for b in list(self.arrived):
                self.release(b)

    def release(self, b0: int) -> None:
        """Let go of the blocks whose barrier ``b0`` is complete."""
        env = self.env
        arr = self.arrived.get(b0)
        if arr is None or not arr.any():
            return
        mine = [x for x in self.parked if x[3][0] == b0]
        cnts = {x[3][1] for x in mine}
        done = np.zeros(env.nblocks, bool)
        for cnt in cnts:
            here = np.zeros(env.nblocks, bool)
            for rf, _, _, ids in mine:
                if ids[1] == cnt:
                    here[env.block_of[rf.idx]] = True
            if cnt is None:
                ok = here & (arr + env.exited >= env.tpb)
            else:
                # a partly filled last warp counts as a whole one
                target = cnt if cnt <= env.tpb else env.tpb
                over = here & (arr > max(cnt, 0))
                if over.any():
                    rf, pc, _, _ = mine[0]
                    raise BarrierError(
                        f"{env.where(self.prog.segs[pc].term_ins, rf, 0)}: more threads arrived at "
                        f"barrier {b0} than its count {cnt}"
                    )
                ok = here & (arr >= target)
            done |= ok
        if not done.any():
            return
        arr[done] = 0
        env.stats.barriers += int(done.sum())
        env.progress += 1
        rest = [x for x in self.parked if x[3][0] != b0]
        go = []
        for rf, pc, term, ids in mine:
            m = done[env.block_of[rf.idx]]
            if m.all():
                go.append((rf, pc, term))
            elif not m.any():
                rest.append((rf, pc, term, ids))
            else:
                live = tuple(rf)
                go.append((rf.take(np.flatnonzero(m), live), pc, term))
                rest.append((rf.take(np.flatnonzero(~m), live), pc, term, ids))
        self.parked = rest
        self.check_divergence(go, b0)
        if env.race is not None:
            env.race.barrier_release([g[0] for g in go], b0, done)
        self.reduce(go)
        for rf, _, term in go:
            rf.age = env.tick
            self.sched.put(term[1], rf)

    def check_divergence(self, go: list[tuple], b0: int) -> None:
        """An aligned barrier must be reached by a whole warp at the same place."""
        if len(go) < 2:
            return
        env = self.env
        seen = np.full(env.nlanes // 32, -1, np.int64)
        for rf, pc, term in go:
            if not term[5]:
                continue
            w = np.unique(rf.warp)
            clash = (seen[w] >= 0) & (seen[w] != pc)
            if clash.any():
                other = int(seen[w[clash]][0])
                i = int(np.flatnonzero(rf.warp == w[clash][0])[0])
                there = env.launch.module.place(self.prog.segs[other].term_ins)
                raise BarrierError(
                    f"{env.where(self.prog.segs[pc].term_ins, rf, i)}: threads of one warp meet at "
                    f"barrier {b0} from different places (the other is {there})"
                )
            seen[w] = pc

    def reduce(self, go: list[tuple]) -> None:
        env = self.env
        groups = [(rf, term) for rf, _, term in go if term[6] is not None]
        if not groups:
            return
        nb = env.nblocks
        total = np.zeros(nb, np.int64)
        n = np.zeros(nb, np.int64)
        for rf, term in groups:
            p = rf[term[6][2]]
            b = env.block_of[rf.idx]
            total += np.bincount(b, weights=p, minlength=nb).astype(np.int64)
            n += np.bincount(b, minlength=nb)
        for rf, term in groups:
            which, ds, _ = term[6]
            b = env.block_of[rf.idx]
            if which == "popc":
                rf[ds] = total[b].astype(np.uint32)
            elif which == "and":
                rf[ds] = total[b] == n[b]
            elif which == "or":
                rf[ds] = total[b] > 0
            else:
                raise BarrierError(f"barrier reduction .{which}")
