"""What the race detector keeps and compares: shadow memory, accesses, earlier readers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .ir import Instr
from .types import Array

if TYPE_CHECKING:
    from .racecheck import RaceChecker
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


class Access:
    """One access of a group of threads, spread over the cells that it touches.

    ``flat``, ``g``, ``b`` and ``w`` hold one entry per cell: the cell, the thread, its
    block among those that run and its warp.
    """

    def __init__(
        self,
        races: RaceChecker,
        rf: RegisterFile,
        sel: Array | None,
        sh: Shadow,
        off: Array,
        size: int,
        ins: Instr,
        write: bool,
        sync: bool,
        val: Array | None,
        where: Callable[[int], str],
    ) -> None:
        env = races.env
        self.rf, self.sel, self.sh = rf, sel, sh
        self.off, self.size, self.ins = off, size, ins
        self.write, self.sync, self.val = write, sync, val
        self.where = where
        self.now = races.now()
        self.iid = races.ins_id(ins)
        lanes = rf.idx if sel is None else rf.idx[sel]
        block = env.block_of[lanes]
        thread = (env.blocks[block] * env.pad + env.tid_lin[lanes]).astype(np.int64)
        self.cells = sh.cells(off, size)
        self.per_lane = k = self.cells.shape[1]
        self.flat = self.cells.ravel()
        per_cell = (thread, block, env.warp_in_block[lanes])
        self.g, self.b, self.w = (np.repeat(x, k) if k > 1 else x for x in per_cell)

    def lane(self, i: int) -> int:
        """The lane of the register file that touches cell number ``i``."""
        lane = i // self.per_lane
        return lane if self.sel is None else int(self.sel[lane])

    def place(self, i: int) -> str:
        return self.where(i // self.per_lane)


class LastRead(NamedTuple):
    """Per cell: the last reader (or MANY), whether there is one, whether all are ordered."""

    thread: Array
    have: Array
    ordered: Array
