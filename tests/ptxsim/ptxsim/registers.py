"""The registers of a group of threads that share a program counter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from .types import Array

if TYPE_CHECKING:
    from .env import Env


class RegisterFile(dict):
    """Registers (slot -> array) of one group of threads."""

    __slots__ = (
        "_lb",
        "_nwarps",
        "_pos",
        "_sb",
        "_warp",
        "_whole",
        "_word",
        "age",
        "env",
        "idx",
        "size",
        "visits",
    )

    def __init__(self, env: Env, idx: Array) -> None:
        self.env = env
        self.idx = idx
        self.size = idx.size
        self._whole: bool | None = None
        self._nwarps: int | None = None
        self._warp: Array | None = None
        self._word: Array | None = None
        self._sb: Array | None = None
        self._lb: Array | None = None
        self._pos: Array | None = None
        self.age = 0
        self.visits = 0

    def old(self, slot: int, dt: np.dtype | None) -> Array:
        """Present value of a slot about to be partly overwritten (zeros if none)."""
        v = self.get(slot)
        if v is None:
            v = np.zeros(self.size, dt) if dt is not None else self[slot]
        return v

    def __missing__(self, slot: int) -> Array:
        v = self.env.provide(slot, self)
        self[slot] = v
        return v

    # lane structure ----------------------------------------------------------------
    @property
    def whole(self) -> bool:
        """True when the group consists of complete warps in order."""
        w = self._whole
        if w is None:
            n = self.size
            if n % 32 == 0 and n:
                if n == self.env.nlanes:
                    w = True
                else:
                    i = self.idx.reshape(-1, 32)
                    w = bool(((i[:, 0] & 31) == 0).all() and (i[:, 31] - i[:, 0] == 31).all())
            else:
                w = False
            self._whole = w
        return w

    @property
    def warp(self) -> Array:
        if self._warp is None:
            self._warp = self.idx >> 5
        return self._warp

    @property
    def nwarps(self) -> int:
        if self._nwarps is None:
            if self.whole:
                self._nwarps = self.size // 32
            else:
                w = self.warp
                self._nwarps = int(np.count_nonzero(w[1:] != w[:-1])) + 1 if self.size else 0
        return self._nwarps

    @property
    def warp_ordinal(self) -> Array:
        """For each thread, the index of its warp among the group's warps."""
        if self._word is None:
            w = self.warp
            o = np.zeros(self.size, np.int64)
            np.cumsum(w[1:] != w[:-1], out=o[1:])
            self._word = o
        return self._word

    @property
    def shared_base(self) -> Array:
        if self._sb is None:
            self._sb = self.env.lane_shared[self.idx]
        return self._sb

    @property
    def local_base(self) -> Array:
        if self._lb is None:
            self._lb = self.env.lane_local[self.idx]
        return self._lb

    @property
    def pos(self) -> Array:
        """Position in the group of every thread of the batch (-1 when absent)."""
        if self._pos is None:
            p = np.full(self.env.nlanes, -1, np.int64)
            p[self.idx] = np.arange(self.size)
            self._pos = p
        return self._pos

    def take(self, sel: Any, slots: Iterable[int]) -> RegisterFile:
        """A sub-group of the positions ``sel`` with copies of ``slots``."""
        r = RegisterFile(self.env, self.idx[sel])
        lazy = self.env.lazy
        for s in slots:
            if s in lazy:
                continue
            v = self.get(s)
            if v is not None:
                r[s] = v[sel]
        r.visits = self.visits
        r.age = self.age
        return r
