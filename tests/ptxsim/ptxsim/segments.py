"""Segments: the straight-line runs of decoded instructions that the executor runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .ir import Function, Instr
from .registers import RegisterFile

StepFn = Callable[[RegisterFile], None]


class Segment:
    """A basic block after decoding."""

    __slots__ = (
        "counts",
        "deff",
        "dying",
        "first",
        "func",
        "id",
        "label",
        "live_in",
        "live_in_list",
        "ninstr",
        "spin",
        "steps",
        "sync",
        "term",
        "term_ins",
        "term_reads",
        "use",
    )

    def __init__(self, id: int, func: Function) -> None:
        self.id = id
        self.func = func
        self.steps: list[Any] = []  # list of (fn, kills, ins)
        self.term: tuple[Any, ...] = ("next",)
        self.counts: dict[str, int] = {}
        self.ninstr = 0
        self.use = 0
        self.deff = 0
        self.live_in = 0
        self.live_in_list: tuple[int, ...] = ()
        self.spin = False
        self.first: Instr | None = None
        self.sync: Any = None  # (mask getter) for warp-synchronous segments
        self.dying: tuple[int, ...] = ()
        self.label: str | None = None
        self.term_reads: tuple[int, ...] = ()
        self.term_ins: Any = None


class Step:
    """One decoded instruction."""

    __slots__ = ("cls", "fn", "ins", "reads", "writes")

    def __init__(
        self,
        fn: StepFn,
        reads: tuple[int, ...],
        writes: tuple[int, ...],
        cls: str | None,
        ins: Instr,
    ) -> None:
        self.fn, self.reads, self.writes, self.cls, self.ins = fn, reads, writes, cls, ins
