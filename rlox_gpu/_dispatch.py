"""Where a torch op runs: registration with torch, and the one place that asks about the device.

An op is defined once with a Rust body for the CPU, a Triton body for CUDA and a fake body that
only computes shapes. Eager callers with plain tensors skip torch's dispatcher, which costs more
than a small op itself; :func:`is_plain_call` says when that is safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Names of their own: attribute chains would add up on the path of a small call.
_Tensor = torch.Tensor
_is_compiling = torch.compiler.is_compiling
_functorch_level = torch._C._functorch.maybe_current_level
_dispatch_modes = torch._C._len_torch_dispatch_stack
_grad_enabled = torch.is_grad_enabled
_function_modes = torch._C._len_torch_function_stack

_library: Any = torch.library.Library("rlox_gpu", "DEF")  # type: ignore[no-untyped-call]
_triton_for_cpu = False
_CPU = torch.device("cpu")


def register(
    schema: str,
    *,
    cpu: Callable[..., Any],
    cuda: Callable[..., Any],
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Any:
    """Define ``rlox_gpu::<schema>`` and return its overload.

    ``setup_context(ctx, inputs, output)`` and ``backward(ctx, *grads)`` make it differentiable:
    they are those of :func:`torch.library.register_autograd`.
    """
    name = schema.partition("(")[0]

    def on_cpu(*args: Any) -> Any:
        return (cuda if _triton_for_cpu else cpu)(*args)

    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, on_cpu, "CPU")
    _library.impl(name, cuda, "CUDA")
    torch.library.register_fake(f"rlox_gpu::{name}", fake, lib=_library)
    if backward is not None:
        torch.library.register_autograd(
            f"rlox_gpu::{name}", backward, setup_context=setup_context, lib=_library
        )
    return getattr(torch.ops.rlox_gpu, name).default


def runs_in_rust(device: torch.device) -> bool:
    """Whether tensors on ``device`` are computed by the compiled CPU core."""
    # Comparing devices takes a quarter of the time of reading ``device.type``.
    return (device == _CPU or device.type == "cpu") and not _triton_for_cpu


def is_plain_call(*tensors: torch.Tensor | None) -> bool:
    """Whether these are ordinary tensors and nothing listens: no compiler, mode or transform."""
    if _is_compiling():
        return False
    for tensor in tensors:
        # Torch may keep a negation as a flag beside the memory: such a tensor is not what it holds.
        if tensor is not None and (type(tensor) is not _Tensor or tensor.is_neg()):
            return False
    return not (_dispatch_modes() or _function_modes()) and _functorch_level() is None


def wants_grad(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd has to see a call with these tensors."""
    if not _grad_enabled():
        return False
    for x in tensors:  # noqa: SIM110 - any() over a generator takes twice the time
        if x is not None and x.requires_grad:
            return True
    return False


def same_device(first: torch.Tensor, *others: torch.Tensor | None) -> None:
    """Raise ValueError unless all tensors are on one device: for the fake bodies."""
    for other in others:
        if other is not None and other.device != first.device:
            raise ValueError(
                f"expected all tensors on one device, got {first.device} and {other.device}"
            )


@contextmanager
def force_triton() -> Iterator[None]:
    """Send CPU tensors through the Triton bodies: for the interpreter and the simulator."""
    global _triton_for_cpu
    before, _triton_for_cpu = _triton_for_cpu, True
    try:
        yield
    finally:
        _triton_for_cpu = before
