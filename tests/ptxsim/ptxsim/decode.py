"""From parsed instructions to decoded segments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .context import DecodeContext
from .errors import ParseError
from .ir import Addr, Function, Group, Instr, Reg, Sym, Var
from .ops import decode
from .segments import Segment, Step

if TYPE_CHECKING:
    from .program import Program

OPEN = ("open",)
WARP_SYNC = {"shfl", "vote", "match", "redux", "elect", "mma", "ldmatrix", "stmatrix", "movmatrix"}


def is_warp_sync(ins: Instr) -> bool:
    p = ins.parts
    if p[0] in WARP_SYNC:
        return True
    return p[0] == "bar" and len(p) > 1 and p[1] == "warp"


def is_barrier(ins: Instr) -> bool:
    p = ins.parts
    return p[0] in ("bar", "barrier") and not is_warp_sync(ins)


def is_control(ins: Instr) -> bool:
    return ins.parts[0] in ("bra", "brx", "ret", "exit", "call", "trap", "brkpt") or is_barrier(ins)


def calls_builtin(prog: Program, ins: Instr) -> bool:
    """Is this a call of a declared-only function (printf, assertions)?"""
    if ins.parts[0] != "call":
        return False
    for o in ins.operands:
        if isinstance(o, Sym):
            g = prog.parsed.functions.get(o.name)
            return g is None or g.body is None
        if not isinstance(o, Group):
            return False
    return False


def guard_steps(cx: DecodeContext, ins: Instr, steps: list[Any]) -> list[Any]:
    """Wrap the steps of a guarded instruction into a single one."""
    prog = cx.prog
    reg, neg = ins.guard
    ps = prog.reg_slot(reg)
    fns = [s[0] for s in steps]
    written = []
    reads = [ps]
    for _, r, w, _ in steps:
        reads += [x for x in r if x not in written and x not in reads]
        written += [x for x in w if x not in written]
    # temporaries made while decoding this instruction are private to it
    finals = [
        w
        for w in written
        if not prog.slot_name[w].startswith(("tmp", "_", "%clock", "%globaltimer"))
    ]
    temps = [w for w in written if w not in finals]
    cls = next((s[3] for s in steps if s[3]), "other")
    dts = [prog.slot_dtype[w] for w in finals]
    allreads = tuple(dict.fromkeys(reads + finals))
    pairs = tuple(zip(finals, dts, strict=True))
    sub_reads = tuple(r for r in reads if r != ps) + tuple(finals)

    if cx.mem:

        def run(rf):
            p = rf[ps]
            k = int(np.count_nonzero(p))
            n = rf.size
            if neg:
                k = n - k
            if k != n:
                rf.env.stats.thread_instructions[cls] -= n - k
                if k == 0:
                    for w, dt in pairs:
                        rf[w] = rf.old(w, dt)
                    return
                sel = np.flatnonzero(~p if neg else p)
                sub = rf.take(sel, sub_reads)
                for f in fns:
                    f(sub)
                for w, dt in pairs:
                    new = rf.old(w, dt)
                    new = new.copy() if dt is None else new.view(dt).copy()
                    v = sub[w]
                    new[sel] = v if dt is None else v.view(dt)
                    rf[w] = new
                return
            for f in fns:
                f(rf)
            for t in temps:
                rf.pop(t, None)
    else:

        def run(rf):
            p = rf[ps]
            if neg:
                p = ~p
            olds = [rf.old(w, dt) for w, dt in pairs]
            for f in fns:
                f(rf)
            k = int(np.count_nonzero(p))
            if k != rf.size:
                rf.env.stats.thread_instructions[cls] -= rf.size - k
                for (w, dt), old in zip(pairs, olds, strict=True):
                    if dt is None:
                        rf[w] = np.where(p[:, None], rf[w], old)
                    else:
                        rf[w] = np.where(p, rf[w].view(dt), old.view(dt))
            for t in temps:
                rf.pop(t, None)

    return [(run, allreads, tuple(finals), cls)]


class SegmentBuilder:
    """The segments of one function while they are being filled.

    Segments are numbered in text order, so the fall-through of segment ``i`` is
    always ``i + 1``.
    """

    def __init__(self, prog: Program, f: Function) -> None:
        self.prog = prog
        self.f = f
        self.first = len(prog.segs)
        self.labels: dict[str, int] = {}
        self.last: Segment | None = None

    def open(self) -> Segment:
        s = Segment(len(self.prog.segs), self.f)
        s.term = OPEN
        self.prog.segs.append(s)
        self.last = s
        return s

    def fresh(self) -> Segment:
        """The current segment if it is still empty, else a new one."""
        cur = self.last
        if cur is not None and cur.term is OPEN:
            if not cur.steps and cur.sync is None and cur.first is None:
                return cur
            cur.term = ("next", cur.id + 1)
        return self.open()

    def current(self) -> Segment:
        cur = self.last
        return self.open() if cur is None or cur.term is not OPEN else cur

    def started(self, ins: Instr, segment: Segment) -> Segment:
        if segment.first is None:
            segment.first = ins
        return segment

    def branch_around(self, ins: Instr) -> None:
        """End the current segment with a branch past the one that will hold ``ins`` alone."""
        reg, neg = ins.guard
        slot = self.prog.reg_slot(reg)
        g = self.started(ins, self.current())
        g.term = ("bra", slot, neg, g.id + 1, g.id + 2)
        g.term_reads = (slot,)
        g.term_ins = ins

    def finish(self) -> None:
        """Close the last segment and turn label names into segment numbers."""
        f, prog = self.f, self.prog
        last = self.current()
        if f.is_entry:
            last.term = ("exit",)
        else:
            last.term = ("ret",)
            last.term_reads = (prog.link_slot[f], *(prog.param_slots[v] for v in f.rets))
        for s in prog.segs[self.first :]:
            t = s.term
            if t[0] == "jmp":
                s.term = ("jmp", self.target(t[1]))
            elif t[0] == "bra":
                s.term = (*t[:3], self.target(t[3]), self.target(t[4]))
            elif t[0] == "brx":
                s.term = ("brx", t[1], [self.target(x) for x in t[2]])

    def target(self, label: str | int) -> int:
        if isinstance(label, int):
            return label
        if label not in self.labels:
            raise ParseError(f"unknown label {label} in {self.f.name}")
        return self.labels[label]


def resolve_label(ins: Instr, name: str) -> str:
    """The unique name of the label that ``name`` means in the scope of ``ins``."""
    for scope in reversed(ins.scopes):
        unique = scope.get("#labels", {}).get(name)
        if unique is not None:
            return unique
    return name


def decode_function(prog: Program, f: Function) -> None:
    """Append the segments of ``f`` to ``prog.segs``."""
    build = SegmentBuilder(prog, f)
    prog.func_entry[f] = build.fresh().id
    for item in f.body:
        if isinstance(item, str):
            cur = build.fresh()
            cur.label = item
            build.labels[item] = cur.id
        else:
            decode_instruction(build, item)
    build.finish()


def decode_instruction(build: SegmentBuilder, ins: Instr) -> None:
    """Put one instruction into its segment.

    A guarded control or warp-synchronous instruction becomes a conditional branch
    around a segment that holds it alone.
    """
    prog, f = build.prog, build.f
    control = is_control(ins) and not calls_builtin(prog, ins)
    sync = is_warp_sync(ins)
    guarded = ins.guard is not None and ins.parts[0] not in ("bra", "brx")
    split = (control or sync) and guarded
    if split:
        build.branch_around(ins)
    if control and not sync:
        cur = build.started(ins, build.fresh() if split else build.current())
        cur.term_ins = ins
        decode_control(prog, f, ins, cur)
        return
    cx = DecodeContext(prog, f, ins)
    decode(cx, ins)
    steps = cx.steps + cx.post
    if sync:
        cur = build.fresh()
        cur.sync = (cx.sync_mask, ins)
        cur.first = ins
    else:
        if ins.guard is not None and steps:
            steps = guard_steps(cx, ins, steps)
        cur = build.started(ins, build.current())
    for fn, uses, defs, kind in steps:
        cur.steps.append(Step(fn, uses, defs, kind, ins))
    if split:
        cur.term = ("next", cur.id + 1)


def decode_control(prog: Program, f: Function, ins: Instr, cur: Segment) -> None:
    op = ins.parts[0]
    cx = DecodeContext(prog, f, ins)
    reads: tuple[int, ...] = ()
    cls = "branch"
    if op == "bra":
        name = resolve_label(ins, ins.operands[0].name)
        if ins.guard is None:
            cur.term = ("jmp", name)
        else:
            reg, neg = ins.guard
            ps = prog.reg_slot(reg)
            reads = (ps,)
            cur.term = ("bra", ps, neg, name, cur.id + 1)
    elif op == "brx":
        if ins.guard is not None:
            raise cx.unsupported("guarded brx")
        s = cx.src(ins.operands[0], "u32")
        names = f.tables.get(ins.operands[1].name)
        if names is None:
            raise cx.unsupported("branch table not found")
        reads = (s,)
        cur.term = ("brx", s, [resolve_label(ins, n) for n in names])
    elif op == "ret":
        if f.is_entry:
            cur.term = ("exit",)
        else:
            cur.term = ("ret",)
            reads = (prog.link_slot[f], *(prog.param_slots[v] for v in f.rets))
    elif op == "exit":
        cur.term = ("exit",)
    elif op in ("trap", "brkpt"):
        cur.term = ("trap", ins)
        cls = "other"
    elif op == "call":
        reads = decode_call(prog, f, ins, cx, cur)
    else:
        cls = "barrier"
        reads = decode_barrier(prog, f, ins, cx, cur)
    for fn, uses, defs, kind in cx.steps:
        cur.steps.append(Step(fn, uses, defs, kind, ins))

    def nop(rf):
        return None

    cur.steps.append(Step(nop, (), (), cls, ins))
    cur.term_reads = tuple(reads)


def decode_call(
    prog: Program, f: Function, ins: Instr, cx: DecodeContext, cur: Segment
) -> tuple[int, ...]:
    ops = list(ins.operands)
    rets: tuple = ()
    args: tuple = ()
    if ops and isinstance(ops[0], Group):
        rets = ops.pop(0).items
    target = ops.pop(0)
    if ops and isinstance(ops[0], Group):
        args = ops.pop(0).items

    def var_of(o):
        if isinstance(o, Addr) and isinstance(o.base, Var):
            return o.base
        if isinstance(o, Sym):
            kind, v = cx.find_param(o.name)
            if v is not None and kind == "formal":
                return v
        raise cx.unsupported(f"call operand {o!r}")

    arg_slots = [cx.param_slot(var_of(a)) for a in args]
    ret_slots = [cx.param_slot(var_of(r)) for r in rets]
    callee = None
    islot = None
    if isinstance(target, Sym):
        callee = prog.parsed.functions[target.name]
    elif isinstance(target, Reg):
        islot = cx.src(target, "u64")
    else:
        raise cx.unsupported("call target")
    cur.term = ("call", callee, cur.id + 1, islot, tuple(arg_slots), tuple(ret_slots))
    return tuple(arg_slots) + ((islot,) if islot is not None else ())


def decode_barrier(
    prog: Program, f: Function, ins: Instr, cx: DecodeContext, cur: Segment
) -> tuple[int, ...]:
    """bar.sync / bar.arrive / bar.red and the barrier.cta spellings."""
    mods = [m for m in ins.parts[1:] if m != "cta"]
    if "cluster" in mods:
        raise cx.unsupported("cluster barriers")
    kind = mods[0]
    aligned = ins.parts[0] == "bar" or "aligned" in mods
    ops = list(ins.operands)
    if kind == "sync" or kind == "arrive":
        bar = cx.src(ops[0], "u32")
        cnt = cx.src(ops[1], "u32") if len(ops) > 1 else None
        cur.term = ("bar", cur.id + 1, kind, bar, cnt, aligned, None)
        return tuple(x for x in (bar, cnt) if x is not None)
    if kind == "red":
        which = mods[1] if mods[1] != "aligned" else mods[2]
        d = ops.pop(0)
        pred = ops.pop()
        bar = cx.src(ops[0], "u32")
        cnt = cx.src(ops[1], "u32") if len(ops) > 1 else None
        p = cx.src(pred, "pred")
        ty = "u32" if which == "popc" else "pred"
        ds = cx.dst(d, ty)
        if cx.post:
            raise cx.unsupported("destination width")
        cur.term = ("bar", cur.id + 1, "red", bar, cnt, aligned, (which, ds, p))
        return tuple(x for x in (bar, cnt, p) if x is not None)
    raise cx.unsupported()
