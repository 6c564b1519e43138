"""Device function calls: entering, returning, and frames of recursive functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import SimulationFault
from .ir import Function
from .types import U64

if TYPE_CHECKING:
    from .env import Env
    from .executor import Scheduler
    from .program import Program
    from .registers import RegisterFile
    from .segments import Segment


class FunctionCalls:
    """Calls and returns of the threads of one batch."""

    def __init__(self, sched: Scheduler) -> None:
        self.sched = sched
        self.env: Env = sched.env
        self.prog: Program = sched.env.prog

    def call(self, seg: Segment, rf: RegisterFile) -> int | None:
        _, callee, retid, islot, args, rets = seg.term
        prog = self.prog
        if callee is None:
            v = rf[islot].view(U64)
            byaddr = {a: prog.parsed.functions[n] for n, a in prog.func_addr.items()}
            for a in np.unique(v):
                f = byaddr.get(int(a))
                sel = np.flatnonzero(v == a)
                if f is None or f not in prog.func_entry:
                    raise SimulationFault(
                        f"{self.env.where(seg.term_ins, rf, int(sel[0]))}: call through "
                        f"{int(a):#x}, which is no function"
                    )
                g = rf if sel.size == rf.size else rf.take(sel, tuple(rf))
                self.enter(f, seg, g, retid, args, rets)
                self.sched.put(prog.func_entry[f], g)
            return None
        self.enter(callee, seg, rf, retid, args, rets)
        return prog.func_entry[callee]

    def enter(
        self,
        f: Function,
        seg: Segment,
        rf: RegisterFile,
        retid: int,
        args: tuple[int, ...],
        rets: tuple[int, ...],
    ) -> None:
        prog = self.prog
        if len(args) != len(f.params):
            raise SimulationFault(
                f"call of {f.name} with {len(args)} arguments, {len(f.params)} expected"
            )
        if f in prog.recursive and seg.func in prog.recursive:
            self.push_frame(f, seg, rf, retid)
        vals = [rf[a] for a in args]
        for v, x in zip(f.params, vals, strict=True):
            rf[prog.param_slots[v]] = x
        rf[prog.link_slot[f]] = np.full(rf.size, retid, np.int32)

    def push_frame(self, f: Function, seg: Segment, rf: RegisterFile, retid: int) -> None:
        """Save the caller's live registers before a recursive call."""
        env = self.env
        prog = self.prog
        if any(v.space == "local" for g in prog.recursive for v in g.vars.values()):
            raise SimulationFault(f"recursion in {f.name} with local variables is not modelled")
        d = env.depth[rf.idx]
        keep = self.frame_slots(seg.func, retid)
        for x in np.unique(d):
            sel = np.flatnonzero(d == x)
            lanes = rf.idx[sel]
            for s in keep:
                if s not in rf:
                    continue
                v = rf[s]
                dt = prog.slot_dtype[s]
                if dt is not None:
                    v = v.view(dt)
                st = env.frames.get((int(x), s))
                if st is None:
                    st = env.frames[(int(x), s)] = np.zeros((env.nlanes, *v.shape[1:]), v.dtype)
                st[lanes] = v[sel]
        env.depth[rf.idx] += 1
        if int(env.depth[rf.idx].max()) > 4096:
            raise SimulationFault(f"recursion deeper than 4096 in {f.name}")

    def frame_slots(self, func: Function, retid: int) -> tuple[int, ...]:
        prog = self.prog
        owned = prog.__dict__.setdefault("_owned", {})
        key = (func, retid)
        if key not in owned:
            mask = 0
            for s in prog.segs:
                if s.func is func:
                    mask |= s.deff | s.use
            for v in func.params + func.rets:
                mask |= 1 << prog.param_slots[v]
            mask |= 1 << prog.link_slot[func]
            live = prog.segs[retid].live_in
            owned[key] = tuple(s for s in range(len(prog.slot_dtype)) if (mask & live) >> s & 1) + (
                (prog.link_slot[func],) if not live >> prog.link_slot[func] & 1 else ()
            )
        return owned[key]

    def ret(self, seg: Segment, rf: RegisterFile) -> int | None:
        prog = self.prog
        f = seg.func
        link = rf[prog.link_slot[f]]
        vals = np.unique(link)
        results = [prog.param_slots[v] for v in f.rets]
        out = None
        for x in vals:
            x = int(x)
            call = self.call_site(x)
            _, _callee, retid, _islot, _args, rets = call.term
            g = rf if vals.size == 1 else rf.take(np.flatnonzero(link == x), tuple(rf))
            res = [g[s] for s in results]
            if f in prog.recursive and call.func in prog.recursive:
                self.pop_frame(f, call, g, retid)
            for s, v in zip(rets, res, strict=False):
                g[s] = v
            keep = set(prog.segs[retid].live_in_list)
            for s in [s for s in g if s not in keep]:
                del g[s]
            if vals.size == 1:
                out = retid
            else:
                g.age = self.env.tick
                self.sched.put(retid, g)
        return out

    def call_site(self, retid: int) -> Segment:
        prog = self.prog
        m = prog.__dict__.get("_call_sites")
        if m is None:
            m = prog.__dict__["_call_sites"] = {
                s.term[2]: s for s in prog.segs if s.term[0] == "call"
            }
        return m[retid]

    def pop_frame(self, f: Function, call: Segment, rf: RegisterFile, retid: int) -> None:
        env = self.env
        env.depth[rf.idx] -= 1
        d = env.depth[rf.idx]
        keep = self.frame_slots(call.func, retid)
        for s in keep:
            new = None
            for x in np.unique(d):
                st = env.frames.get((int(x), s))
                if st is None:
                    continue
                if new is None:
                    new = np.zeros((rf.size, *st.shape[1:]), st.dtype)
                sel = np.flatnonzero(d == x)
                new[sel] = st[rf.idx[sel]]
            if new is not None:
                rf[s] = new
