"""Linking of one kernel: register slots, basic-block segments, liveness.

A *segment* is a straight-line run of instructions that ends at a control
instruction or before a branch target.  Each instruction is decoded once, by the
tables in :mod:`ptxsim.ops`, into a Python closure working on whole arrays.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from .decode import decode_function
from .errors import UnsupportedInstruction
from .ir import Function, Instr, Reg, Sym, Var
from .types import BOOL, TYPES, U32, U64, store_dtype

if TYPE_CHECKING:
    from .module import Module
    from .segments import Segment


class Program:
    """The executable form of one kernel of a module."""

    def __init__(self, module: Module, name: str) -> None:
        self.module = module  # ptxsim.module.Module
        self.parsed = module.parsed
        self.name = name
        self.entry = self.parsed.functions[name]
        self.slot_of: dict[Hashable, int] = {}  # key -> slot
        self.slot_dtype: list[Any] = []  # storage dtype, None for params
        self.slot_name: list[str] = []
        self.consts: dict[int, Any] = {}  # slot -> numpy scalar
        self.sregs: dict[int, str] = {}  # slot -> special register name
        self.addr_consts: dict[int, tuple[Var, int]] = {}  # resolved per launch
        self.params: dict[Var, int] = {}  # entry Var -> offset in parameter block
        self.local_size = 0
        self.local_off: dict[Var, int] = {}  # Var -> offset
        self.shared_off: dict[Var, int] = {}  # Var -> offset
        self.shared_static = 0
        self.segs: list[Segment] = []
        self.func_entry: dict[Function, int] = {}  # Function -> segment id
        self.link_slot: dict[Function, int] = {}
        self.param_slots: dict[Var, int] = {}  # of functions, not of the entry
        self.recursive: set[Function] = set()
        self.func_addr: dict[str, int] = {}
        self.layout_params()
        self.layout()

    # slots ------------------------------------------------------------------
    def new_slot(self, key: Hashable, dtype: np.dtype | None, name: str) -> int:
        s = len(self.slot_dtype)
        self.slot_of[key] = s
        self.slot_dtype.append(dtype)
        self.slot_name.append(name)
        return s

    def reg_slot(self, reg: Reg) -> int:
        s = self.slot_of.get(reg)
        if s is None:
            if reg.type not in TYPES or TYPES[reg.type][0] == 128:
                raise UnsupportedInstruction(f"register {reg.name} of type .{reg.type}")
            s = self.new_slot(reg, store_dtype(reg.type), reg.name)
        return s

    def temp_slot(self, dtype: np.dtype, name: str = "tmp") -> int:
        return self.new_slot(object(), dtype, name)

    def const_slot(self, value: Any, dtype: np.dtype) -> int:
        if dtype is BOOL:
            v = np.bool_(bool(value))
        else:
            v = dtype.type(int(value) & ((1 << (dtype.itemsize * 8)) - 1))
        key = ("const", dtype.str, v.item())
        s = self.slot_of.get(key)
        if s is None:
            s = self.new_slot(key, dtype, f"imm {value}")
            self.consts[s] = v
        return s

    def sreg_slot(self, name: str) -> int:
        key = ("sreg", name)
        s = self.slot_of.get(key)
        if s is None:
            wide = name in ("%clock64", "%globaltimer", "%gridid")
            dt = BOOL if name == "%is_explicit_cluster" else (U64 if wide else U32)
            s = self.new_slot(key, dt, name)
            self.sregs[s] = name
        return s

    def addr_slot(self, var: Var, off: int, dtype: np.dtype) -> int:
        """A slot holding the address of a variable (resolved at launch)."""
        key = ("addr", var, off, dtype.str)
        s = self.slot_of.get(key)
        if s is None:
            s = self.new_slot(key, dtype, f"&{getattr(var, 'name', var)}+{off}")
            self.addr_consts[s] = (var, off)
        return s

    # parameter block -----------------------------------------------------------
    def layout_params(self) -> None:
        off = 0
        for v in self.entry.params:
            a = max(1, v.align)
            off = (off + a - 1) // a * a
            self.params[v] = off
            off += v.size
        self.param_size = off

    # layout -----------------------------------------------------------------
    def layout(self) -> None:
        """Lay out functions before their callers, place variables, decode, link.

        With callees first, minimum-PC scheduling finishes a callee before the code
        after the call.
        """
        order = self.order_functions()
        self.functions = order
        self.place_local(order)
        self.place_shared(order)
        for f in order:
            self.link_slot[f] = self.new_slot(
                ("link", f), np.dtype(np.int32), f"return address of {f.name}"
            )
            for v in f.params + f.rets:
                if not f.is_entry:
                    self.param_slots[v] = self.new_slot(v, None, v.name)
        for f in order:
            decode_function(self, f)
        self.resolve_calls()
        self.liveness()
        self.mark_spins()

    def order_functions(self) -> list[Function]:
        """Functions reachable from the entry, callees first; notes the recursive ones."""
        order: list[Function] = []
        edges: dict[Function, list[Function]] = {}

        def visit(f: Function) -> None:
            edges[f] = self.callees(f)
            for g in edges[f]:
                if g.body is not None and g not in edges:
                    visit(g)
            order.append(f)

        visit(self.entry)
        # strongly connected components, the simple way: f reaches itself
        for f in order:
            seen, todo = set(), list(edges[f])
            while todo:
                g = todo.pop()
                if g in seen:
                    continue
                seen.add(g)
                todo.extend(edges.get(g, ()))
            if f in seen:
                self.recursive.add(f)
        return order

    def callees(self, f: Function) -> list[Function]:
        """Functions that ``f`` names; one whose address is taken gets an address."""
        out: list[Function] = []
        for it in f.body or ():
            if not isinstance(it, Instr):
                continue
            for o in it.operands:
                g = self.parsed.functions.get(o.name) if isinstance(o, Sym) else None
                if g is None:
                    continue
                if g not in out:
                    out.append(g)
                if it.parts[0] != "call":
                    self.func_addr.setdefault(
                        g.name, 0x4000_0000_0000 + 16 * (len(self.func_addr) + 1)
                    )
        return out

    def place_local(self, order: list[Function]) -> None:
        for f in order:
            for v in f.vars.values():
                if v.space == "local":
                    a = max(1, v.align)
                    self.local_size = (self.local_size + a - 1) // a * a
                    self.local_off[v] = self.local_size
                    self.local_size += v.size
        self.local_size = (self.local_size + 15) // 16 * 16

    def place_shared(self, order: list[Function]) -> None:
        """Static variables one after the other, then the dynamic ones, all at one place."""
        shared_vars = [v for f in order for v in f.vars.values() if v.space == "shared"]
        shared_vars.extend(v for v in self.parsed.vars.values() if v.space == "shared")
        off = 0
        dyn = []
        for v in shared_vars:
            if v.size == 0 or v.extern:
                dyn.append(v)
                continue
            off = (off + v.align - 1) // v.align * v.align
            self.shared_off[v] = off
            off += v.size
        self.shared_static = off
        align = max([v.align for v in dyn] + [1])
        self.shared_dyn_base = (off + align - 1) // align * align if dyn else off
        for v in dyn:
            self.shared_off[v] = self.shared_dyn_base

    def describe_shared(self, off: int) -> str:
        for v, o in self.shared_off.items():
            if v.size and o <= off < o + v.size:
                return f"inside {v.name!r} at byte {off - o} of {v.size}"
        best = None
        for v, o in self.shared_off.items():
            if o <= off and (best is None or o > best[1]):
                best = (v, o)
        if best:
            v, o = best
            size = f"{v.size} bytes" if v.size else "dynamic"
            return f"nearest variable {v.name!r} ({size}) starts at {o}"
        return "no shared variable is declared"

    # control flow ---------------------------------------------------------------
    def resolve_calls(self) -> None:
        self.return_points: dict[Function, list[int]] = {f: [] for f in self.functions}
        for s in self.segs:
            t = s.term
            if t[0] == "call":
                targets = (
                    [t[1]]
                    if t[1] is not None
                    else [self.parsed.functions[n] for n in self.func_addr]
                )
                for f in targets:
                    if f in self.return_points:
                        self.return_points[f].append(t[2])

    def successors(self, s: Segment) -> list[int]:
        t = s.term
        k = t[0]
        if k == "next":
            return [t[1]]
        if k == "jmp":
            return [t[1]]
        if k == "bra":
            return [t[3], t[4]]
        if k == "brx":
            return list(t[2])
        if k == "bar":
            return [t[1]]
        if k == "call":
            targets = (
                [t[1]] if t[1] is not None else [self.parsed.functions[n] for n in self.func_addr]
            )
            out = [self.func_entry[f] for f in targets if f in self.func_entry]
            return [*out, t[2]]
        if k == "ret":
            f = s.func
            return [] if f.is_entry else list(self.return_points[f])
        return []

    def term_writes(self, s: Segment) -> tuple[int, ...]:
        t = s.term
        if t[0] == "bar" and t[6] is not None:
            return (t[6][1],)
        if t[0] == "call" and t[1] is not None:
            f = t[1]
            if f in self.recursive and s.func in self.recursive:
                return ()  # the frame that is saved and restored needs the old values
            return (*(self.param_slots[v] for v in f.params), self.link_slot[f])
        return ()

    def liveness(self) -> None:
        """Backward dataflow over segments; slot sets are Python integers."""
        skip = 0
        for slots in (self.consts, self.sregs, self.addr_consts):
            for slot in slots:
                skip |= 1 << slot
        n = len(self.segs)
        succ = [self.successors(s) for s in self.segs]
        for s in self.segs:
            use = d = 0
            for st in s.steps:
                for r in st.reads:
                    if not (d >> r) & 1:
                        use |= 1 << r
                for w in st.writes:
                    d |= 1 << w
            for r in s.term_reads:
                if not (d >> r) & 1:
                    use |= 1 << r
            for w in self.term_writes(s):
                d |= 1 << w
            s.use, s.deff = use & ~skip, d
        live_in = [0] * n
        live_out = [0] * n
        order = list(range(n - 1, -1, -1))
        changed = True
        while changed:
            changed = False
            for i in order:
                lo = 0
                for j in succ[i]:
                    lo |= live_in[j]
                li = self.segs[i].use | (lo & ~self.segs[i].deff)
                if lo != live_out[i] or li != live_in[i]:
                    live_out[i], live_in[i] = lo, li
                    changed = True
        for i, s in enumerate(self.segs):
            s.live_in = live_in[i]
            s.live_in_list = tuple(_bits(live_in[i]))
            # kills: slots whose last use is at this step
            live = live_out[i]
            for r in s.term_reads:
                live |= 1 << r
            out = []
            for st in reversed(s.steps):
                kills = []
                for w in st.writes:
                    if not (live >> w) & 1:
                        kills.append(w)
                    live &= ~(1 << w)
                for r in st.reads:
                    if not (live >> r) & 1:
                        if not (skip >> r) & 1 and r not in st.writes:
                            kills.append(r)
                        live |= 1 << r
                out.append((st.fn, tuple(kills), st.ins))
            dead_in = live_in[i] & ~live
            out.reverse()
            s.dying = tuple(_bits(dead_in))
            counts: dict[str, int] = {}
            for st in s.steps:
                if st.cls is None:
                    continue
                s.ninstr += 1
                counts[st.cls] = counts.get(st.cls, 0) + 1
            s.counts = counts
            s.steps = out

    def mark_spins(self) -> None:
        """Loop headers whose loop polls memory: candidates for yielding."""
        for s in self.segs:
            for j in self.successors(s):
                if j <= s.id and self.segs[j].func is s.func:
                    poll = False
                    for k in range(j, s.id + 1):
                        for _, _, ins in self.segs[k].steps:
                            if ins is not None and _polls(ins):
                                poll = True
                                break
                        if poll:
                            break
                    if poll:
                        self.segs[j].spin = True


def _polls(ins):
    p = ins.parts
    if p[0] == "atom":
        return True
    if p[0] == "ld":
        return any(m in ("volatile", "relaxed", "acquire", "mmio", "cv") for m in p[1:])
    return p[0] in ("nanosleep", "mbarrier")


def _bits(x):
    out = []
    while x:
        b = x & -x
        out.append(b.bit_length() - 1)
        x ^= b
    return out
