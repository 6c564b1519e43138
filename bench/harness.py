"""What a benchmark case is, and the rule that nothing is timed before its output is right."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field

# Enough for rotated inputs to have left the largest L2 cache when their turn comes again.
CACHE_FACTOR = 2
MAX_ROTATION = 256


class LeftOut(Exception):  # noqa: N818 - not an error: the reason a row is missing
    """A case that cannot run here; its message is the reason shown in the report."""


@dataclass(frozen=True)
class Job:
    """One piece of work that several providers do.

    ``items`` is how many ``unit`` one call handles. ``nbytes`` is the least memory traffic that
    the job allows, the same for every provider, as spelt out in ``traffic``.
    """

    name: str
    group: str
    items: int
    unit: str
    nbytes: int | None = None
    traffic: str = ""


@dataclass(frozen=True)
class Work:
    """``call`` does the job ``calls`` times; ``check`` raises if its output is wrong.

    ``rounds`` fixes the number of timed calls where one takes seconds. With ``plain``, a call that
    moves as much memory and does nothing else, calls of both are also timed one by one, to see how
    much longer than usual some of them take.
    """

    call: Callable[[], object]
    check: Callable[[], None]
    calls: int = 1
    rounds: int | None = None
    setup: Callable[[], tuple] | None = None
    plain: Callable[[], object] | None = None


@dataclass
class Provider:
    """Builds the work of one implementation: ``build(job inputs, device) -> Work``."""

    name: str
    build: Callable[..., Work]
    devices: tuple[str, ...] = ("cpu",)
    ours: bool = False
    needs: tuple[str, ...] = field(default=())


def need(module):
    """The module, or the reason why its row is left out."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise LeftOut(f"{module} cannot be imported: {error}") from error


def device_or_leave_out(device):
    """Check that ``device`` exists; torch is only asked where it matters."""
    if device != "cpu":
        import machine

        absent = machine.gpu().get("absent")
        if absent:
            raise LeftOut(absent)
    return device


def need_compiler(device):
    """CuPy, which compiles and launches the environments' kernels on a GPU."""
    if device != "cpu":
        need("cupy")


def synchronize(device):
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def rotation(device, nbytes):
    """How many copies of the inputs a call walks through, so that none is found in a cache."""
    if device == "cpu":
        return 1
    import torch

    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return max(1, min(MAX_ROTATION, -(-CACHE_FACTOR * cache // nbytes)))


def over_rotated(function, inputs, device):
    """``(call, calls)``: ``function`` over every entry of ``inputs``, then one synchronisation."""
    if device == "cpu":
        (only,) = inputs
        return lambda: function(only), 1

    def call():
        for entry in inputs:
            function(entry)
        synchronize(device)

    return call, len(inputs)


def cases(jobs, providers):
    """Parameters ``(job, provider, device)`` with readable ids for ``pytest.mark.parametrize``."""
    import pytest

    return [
        pytest.param(job, provider, device, id=f"{job.name}-{provider.name}-{device}")
        for job in jobs
        for provider in providers
        for device in provider.devices
    ]
