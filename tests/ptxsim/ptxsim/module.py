"""The public entry points: :class:`Module`, launches and their arguments."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from .arguments import bind_arguments
from .env import Env
from .errors import LaunchError, ParseError
from .executor import Scheduler
from .ir import Instr, Var
from .memory import DeviceMemory
from .parser import parse
from .program import Program
from .stats import Stats
from .types import Array

DEFAULT_RESIDENT = 32768
Grid = int | Sequence[int]


class Launch:
    """State shared by the batches of one launch."""

    stats: Stats
    want_stats: bool
    check_races: bool
    check_uninit: bool
    schedule: str
    cp_async: str
    max_steps: int
    batches: int
    shared_dynamic: int
    shared_total: int
    param_bytes: Array
    param_base: int
    pyrng: random.Random
    rng: np.random.Generator | None

    def __init__(
        self, module: Module, prog: Program, grid: tuple[int, int, int], block: tuple[int, int, int]
    ) -> None:
        self.module, self.prog, self.grid, self.block = module, prog, grid, block
        self.mem = DeviceMemory()
        self.buf_hint: dict[Instr, Any] = {}
        self.num_sms = 132
        self.clock0 = 1 << 20
        self.lazy = frozenset(prog.consts) | frozenset(prog.sregs) | frozenset(prog.addr_consts)
        self.seg_threads = [0] * len(prog.segs)
        self.seg_warps = [0] * len(prog.segs)
        self.var_addr: dict[Var, int] = {}
        self.race_time = 0
        self.race_ins: list[Instr] = []
        self.race_ins_id: dict[Instr, int] = {}

    def address_of(self, var: Var) -> int:
        a = self.var_addr.get(var)
        if a is not None:
            return a
        prog = self.prog
        if var in prog.shared_off:
            return prog.shared_off[var]
        if var in prog.local_off:
            return prog.local_off[var]
        if var in prog.params:
            return self.param_base + prog.params[var]
        raise LaunchError(f"variable {var.name} has no address")


class Module:
    """A PTX module whose kernels can be launched on NumPy arrays."""

    def __init__(self, ptx_text: str | bytes, name: str | None = None) -> None:
        if isinstance(ptx_text, bytes):
            ptx_text = ptx_text.decode("utf-8")
        self.ptx = ptx_text.rstrip("\0")
        self.name = name
        self.parsed = parse(self.ptx)
        self.kernels = [
            f.name for f in self.parsed.functions.values() if f.is_entry and f.body is not None
        ]
        self.programs: dict[str, Program] = {}
        self.globals: dict[Var, Array] = {}  # Var -> uint8 array, kept between launches
        self._init_globals()

    # source positions -----------------------------------------------------------
    def place(self, ins: Instr | None) -> str:
        """``PTX line N (file:line)`` of an instruction."""
        if ins is None:
            return "PTX line ?"
        s = f"PTX line {ins.line}"
        if ins.loc:
            file, line, column = ins.loc
            name = self.parsed.files.get(file, f"file {file}")
            s += f" ({name}:{line}:{column})"
        return s

    # module variables -------------------------------------------------------------
    def _init_globals(self):
        order = [
            v for v in self.parsed.vars.values() if v.space in ("global", "const") and not v.extern
        ]
        for f in self.parsed.functions.values():
            order += [v for v in f.vars.values() if v.space in ("global", "const")]
        mem = DeviceMemory()
        self._global_order = order
        for v in order:
            u8 = np.zeros((v.size + 15) // 16 * 16, np.uint8)[: v.size]
            self.globals[v] = u8
        addr = {v: mem.add(v.name, self.globals[v]).base for v in order}
        byname = {v.name: a for v, a in addr.items()}
        for v in order:
            for off, w, kind, val in v.init or ():
                if kind == "int":
                    b = (val & ((1 << (8 * w)) - 1)).to_bytes(w, "little")
                elif kind in ("f32", "f64"):
                    b = val.to_bytes(4 if kind == "f32" else 8, "little")
                    if len(b) != w:
                        x = struct.unpack("<f" if kind == "f32" else "<d", b)[0]
                        b = struct.pack("<f" if w == 4 else "<d", x)
                elif kind == "dec":
                    b = struct.pack("<f" if w == 4 else "<d", val)
                else:
                    name, o, _generic = val
                    if name in byname:
                        b = (byname[name] + o).to_bytes(8, "little")[:w]
                    elif name in self.parsed.functions:
                        b = b"\0" * w
                    else:
                        raise ParseError(f"initialiser of {v.name} names unknown {name}")
                self.globals[v][off : off + len(b)] = np.frombuffer(b, np.uint8)

    def global_array(self, name: str, dtype: Any = np.uint8) -> np.ndarray:
        """A module variable's storage as an array (shared with the kernels)."""
        for v, u8 in self.globals.items():
            if v.name == name:
                return u8.view(dtype)
        raise KeyError(name)

    # programs -----------------------------------------------------------------------
    def program(self, name: str) -> Program:
        p = self.programs.get(name)
        if p is None:
            f = self.parsed.functions.get(name)
            if f is None or not f.is_entry or f.body is None:
                raise LaunchError(f"no kernel {name!r}; the module has {self.kernels}")
            p = self.programs[name] = Program(self, name)
        return p

    def launch(
        self,
        name: str,
        grid: Grid,
        block: Grid,
        args: Sequence[Any],
        *,
        shared: int = 0,
        check_races: bool = False,
        check_uninit: bool = False,
        schedule: str = "lockstep",
        seed: int = 0,
        stats: bool = True,
        cp_async: str = "delayed",
        bounds: str = "view",
        max_resident_threads: int | None = DEFAULT_RESIDENT,
        max_steps: int = 5_000_000,
        arg_names: Sequence[str] | None = None,
        num_sms: int = 132,
    ) -> Stats:
        """Run a kernel; arrays among ``args`` are read and written in place.

        ``grid`` and ``block`` are integers or tuples of up to three.  ``bounds``
        is ``"view"`` (accesses must stay inside the arrays passed) or ``"storage"``
        (inside the allocation each array is a view of).  ``max_resident_threads``
        bounds how many threads run together (None: the whole grid).
        Returns the :class:`Stats` of the launch.
        """
        t0 = time.perf_counter()
        prog = self.program(name)
        grid = _dim3(grid, "grid")
        block = _dim3(block, "block")
        tpb = block[0] * block[1] * block[2]
        if tpb > 1024 or block[2] > 64:
            raise LaunchError(f"block {block} is larger than 1024 threads (or 64 in z)")
        if grid[0] > 2**31 - 1 or grid[1] > 65535 or grid[2] > 65535:
            raise LaunchError(f"grid {grid} is too large")
        d = prog.entry.directives
        req = d.get(".reqntid")
        if req and tuple([*req, 1, 1][:3]) != block:
            raise LaunchError(f"{name} requires a block of {tuple(req)} threads, not {block}")
        mx = d.get(".maxntid")
        if mx and tpb > int(np.prod(mx)):
            raise LaunchError(f"{name} allows at most {tuple(mx)} threads, not {block}")
        cl = d.get(".reqnctapercluster")
        if cl and int(np.prod(cl)) > 1:
            raise LaunchError("clusters of more than one block are not modelled")
        if schedule not in ("lockstep", "random"):
            raise LaunchError(f"unknown schedule {schedule!r}")
        if cp_async not in ("delayed", "eager"):
            raise LaunchError(f"unknown cp_async mode {cp_async!r}")
        launch = Launch(self, prog, grid, block)
        for v in self._global_order:
            launch.var_addr[v] = launch.mem.add(
                v.name, self.globals[v], readonly=v.space == "const"
            ).base
        launch.num_sms = num_sms
        launch.shared_dynamic = int(shared)
        launch.shared_total = (prog.shared_dyn_base + int(shared)) if shared else prog.shared_static
        if launch.shared_total > 232448:
            raise LaunchError(
                f"{launch.shared_total} bytes of shared memory per block; "
                "no device has more than 232448"
            )
        launch.want_stats = bool(stats)
        launch.check_races, launch.check_uninit = bool(check_races), bool(check_uninit)
        launch.schedule, launch.cp_async, launch.max_steps = schedule, cp_async, max_steps
        launch.pyrng = random.Random(seed)
        launch.rng = np.random.default_rng(seed) if schedule == "random" else None
        launch.stats = Stats(name, grid, block, launch.shared_total)
        bind_arguments(launch, args, bounds, arg_names)
        nblocks = grid[0] * grid[1] * grid[2]
        pad = (tpb + 31) // 32 * 32
        per = nblocks if max_resident_threads is None else max(1, int(max_resident_threads) // pad)
        launch.batches = (nblocks + per - 1) // per if nblocks else 0
        launch.stats.threads = nblocks * tpb
        launch.stats.warps = nblocks * (pad // 32)
        with np.errstate(all="ignore"):
            for b in range(0, nblocks, per):
                env = Env(launch, range(b, min(nblocks, b + per)))
                Scheduler(env).run()
                launch.stats.steps += env.tick
                launch.clock0 += env.tick * 16
        self._finish(launch)
        launch.stats.wall_seconds = time.perf_counter() - t0
        return launch.stats

    def _finish(self, launch):
        s, prog = launch.stats, launch.prog
        active = 0
        for seg, nt, nw in zip(prog.segs, launch.seg_threads, launch.seg_warps, strict=True):
            if not nt:
                continue
            for c, k in seg.counts.items():
                s.thread_instructions[c] += k * nt
                s.warp_instructions[c] += k * nw
                active += k * nt
        s._active = active
        for b in launch.mem.buffers:
            s.unique_load_sectors += int(b.ld_touch.sum())
            s.unique_store_sectors += int(b.st_touch.sum())
        s._bank_memo.clear()


def _dim3(x: Any, what: str) -> tuple[int, int, int]:
    if isinstance(x, (int, np.integer)):
        x = (int(x),)
    x = tuple(int(v) for v in x)
    if not 1 <= len(x) <= 3:
        raise LaunchError(f"{what} must have one to three dimensions")
    x = x + (1,) * (3 - len(x))
    if min(x) < 0 or (what == "block" and min(x) < 1):
        raise LaunchError(f"bad {what} {x}")
    return x
