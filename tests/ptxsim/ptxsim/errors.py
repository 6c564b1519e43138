"""Exceptions raised by the simulator."""

from __future__ import annotations


class PtxSimError(Exception):
    """Base class of everything raised by this package."""


class ParseError(PtxSimError):
    """The PTX text could not be parsed."""


class UnsupportedInstruction(PtxSimError):  # noqa: N818 - named for what happened
    """An instruction (or a modifier of it) that the simulator does not model."""


class LaunchError(PtxSimError):
    """Bad launch configuration or arguments."""


class SimulationFault(PtxSimError):  # noqa: N818 - named for what happened
    """A fault found while a kernel was running; the message names the place."""


class MemoryFault(SimulationFault):
    """Out-of-bounds, misaligned, null or read-only access."""


class UninitializedRead(SimulationFault):
    """A read of memory that nothing has written (``check_uninit=True``)."""


class RaceError(SimulationFault):
    """Two unordered accesses to the same byte, one a write (``check_races=True``)."""


class DeadlockError(SimulationFault):
    """No thread can make progress, or the step limit was reached."""


class BarrierError(SimulationFault):
    """Misuse of a barrier or of a warp-synchronous instruction."""


class TrapError(SimulationFault):
    """The kernel executed ``trap`` or a device-side assertion."""
