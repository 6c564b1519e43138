"""State of one block in which Triton launches are simulated."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arguments import DevicePtr, RawBytes, is_tensor
from .module import Module
from .stats import Stats

_STACK: list[Simulation] = []


def current_sim() -> Simulation | None:
    return _STACK[-1] if _STACK else None


class Simulation:
    """State of one ``with triton_driver(...)`` block."""

    def __init__(self, arch: int, autotune: str, launch_options: dict[str, Any]) -> None:
        self.arch = arch
        self.autotune = autotune
        self.launch_options = launch_options
        self.launches: list[Stats] = []
        self.modules: list[Module] = []
        self.uninit: dict[int, Any] = {}

    def mark_uninitialized(self, tensor: Any) -> Any:
        """Treat ``tensor`` as never written at the start of every launch."""
        self.uninit[tensor.data_ptr()] = tensor
        return tensor

    def pointer(self, v: Any, name: str) -> DevicePtr | RawBytes | None:
        if v is None or isinstance(v, (int, np.integer)):
            return None if v is None or int(v) == 0 else RawBytes(int(v).to_bytes(8, "little"))
        base = getattr(v, "base", None)
        if not is_tensor(v) and base is not None and is_tensor(base) and hasattr(v, "data_ptr"):
            v = base  # reinterpreted tensor
        un = is_tensor(v) and v.data_ptr() in self.uninit
        return DevicePtr(v, 0, uninit=un, name=name)

    def cost(self) -> float:
        """Simulated cost so far: warp instructions plus sectors moved."""
        return float(
            sum(
                s.total_warp_instructions + 4 * s.global_sectors + 2 * s.shared_wavefronts
                for s in self.launches
            )
        )

    def last(self) -> Stats:
        return self.launches[-1]
