"""What every launch asks of the device: its size, and to be the current one."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

# Launch shape of CPU tensors that are sent through the kernels by the interpreter or a simulator.
_SM_COUNT_WITHOUT_DEVICE = 132


def sm_count(device: torch.device) -> int:
    """Multiprocessors of ``device``."""
    if device.type != "cuda":
        return _SM_COUNT_WITHOUT_DEVICE
    return _cuda_sm_count(torch.cuda.current_device() if device.index is None else device.index)


@cache
def _cuda_sm_count(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count


_tickets: dict[tuple[int, int], torch.Tensor] = {}


def ticket(device: torch.device) -> torch.Tensor:
    """An int32 zero, in which the programs of one launch count themselves and leave zero again.

    Launches on one stream come one after the other and share theirs. A captured graph may be
    replayed beside any stream: it gets one of its own.
    """
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return torch.zeros(1, dtype=torch.int32, device=device)
    index = torch.cuda.current_device() if device.index is None else device.index
    key = index, torch.cuda.current_stream(index).cuda_stream
    if key not in _tickets:
        _tickets[key] = torch.zeros(1, dtype=torch.int32, device=device)
    return _tickets[key]


def current(device: torch.device) -> AbstractContextManager[object]:
    """Make ``device`` the current one for a launch; costs nothing when it is already."""
    if device.type != "cuda" or device.index in (None, torch.cuda.current_device()):
        return nullcontext()
    return torch.cuda.device(device)
