"""The state of one batch of blocks while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .access import Accessor
from .memory import ByteStore
from .racecheck import RaceChecker
from .sregs import special_register
from .types import Array

if TYPE_CHECKING:
    from .module import Launch
    from .program import Program
    from .registers import RegisterFile


class Env:
    """Everything one batch of blocks needs while it runs."""

    def __init__(self, launch: Launch, blocks: range) -> None:
        self.launch = launch
        prog: Program = launch.prog
        self.prog = prog
        self.mem = launch.mem
        self.stats = launch.stats
        self.want_stats = launch.want_stats
        self.check_uninit = launch.check_uninit
        self.buf_hint = launch.buf_hint
        self.rng = launch.rng
        self.cp_delay = launch.cp_async == "delayed"
        bx, by, bz = launch.block
        tpb = self.tpb = bx * by * bz
        self.wpb = (tpb + 31) // 32
        pad = self.wpb * 32
        nb = self.nblocks = len(blocks)
        self.blocks = np.asarray(blocks, np.int64)
        nlanes = self.nlanes = nb * pad
        lane = np.arange(nlanes, dtype=np.int64)
        self.tid_lin = lane % pad
        self.block_of = lane // pad
        self.warp_in_block = self.tid_lin >> 5
        self.alive = self.tid_lin < tpb
        self.all_alive = bool(self.alive.all())
        self.alive_count = int(self.alive.sum())
        self.exited = np.zeros(nb, np.int64)
        self.pad = pad
        self.shared_size = launch.shared_total
        stride = (self.shared_size + 255) // 256 * 256 + 256
        self.shared = ByteStore(np.zeros(nb * stride, np.uint8))
        self.lane_shared = self.block_of * stride
        self.local_size = prog.local_size
        self.local = ByteStore(np.zeros(nlanes * prog.local_size + 32, np.uint8))
        self.lane_local = lane * prog.local_size
        self.shared_init = np.zeros(nb * stride, bool) if self.check_uninit else None
        self.local_init = (
            np.zeros(nlanes * prog.local_size + 32, bool) if self.check_uninit else None
        )
        self.race = None
        if launch.check_races:
            self.race = RaceChecker(self)
        self.access = Accessor(self)
        self.progress = 0
        self.tick = 0
        self.full: dict[Any, Array] = {}
        self.lazy = launch.lazy
        self.copies: list[Any] = []
        self.cp_cur = np.zeros(nlanes, np.int32)
        self.frames: dict[tuple[int, int], Array] = {}
        self.depth = np.zeros(nlanes, np.int32)

    # values that are not written by instructions ------------------------------------
    def provide(self, slot: int, rf: RegisterFile) -> Array:
        prog = self.prog
        dt = prog.slot_dtype[slot]
        if slot in prog.consts:
            return self._uniform(slot, prog.consts[slot], rf.size, dt)
        if slot in prog.addr_consts:
            var, off = prog.addr_consts[slot]
            v = (self.launch.address_of(var) + off) & ((1 << (8 * dt.itemsize)) - 1)
            return self._uniform(slot, dt.type(v), rf.size, dt)
        if slot in prog.sregs:
            f = self.full.get(slot)
            if f is None:
                f = self.full[slot] = special_register(self, prog.sregs[slot]).astype(dt)
            return f if rf.size == self.nlanes else f[rf.idx]
        if dt is None:
            size = next((v.size for v, s in prog.param_slots.items() if s == slot), 8)
            return np.zeros((rf.size, size), np.uint8)
        self.stats.notes["registers that were never written read as zero"] += 1
        self.stats.undefined_registers.add(prog.slot_name[slot])
        return np.zeros(rf.size, dt)

    def _uniform(self, slot, v, n, dt):
        f = self.full.get(slot)
        if f is None:
            f = self.full[slot] = np.full(self.nlanes, v, dt)
        return f if n == f.size else f[:n]

    def clock(self, name: str) -> int:
        t = self.launch.clock0 + self.tick * 16
        if name == "%clock_hi" or name == "%globaltimer_hi":
            return t >> 32
        return t

    # messages -----------------------------------------------------------------------
    def thread_name(self, lane: int) -> str:
        launch = self.launch
        bx, by, _ = launch.block
        gx, gy, _ = launch.grid
        t = int(self.tid_lin[lane])
        b = int(self.blocks[self.block_of[lane]])
        return (
            f"block ({b % gx},{b // gx % gy},{b // (gx * gy)}) "
            f"thread ({t % bx},{t // bx % by},{t // (bx * by)})"
        )

    def where(self, ins: Any, rf: RegisterFile | None, i: int) -> str:
        who = self.thread_name(int(rf.idx[i])) if rf is not None else ""
        return f"kernel {self.prog.name}, {self.launch.module.place(ins)} [{ins.text}], {who}"
