"""One flat tensor under all parameters of a module.

Gradient clipping, Adam and saving then work on one tensor, and an engine that is not torch can
read and write the weights by offset. Each parameter starts at a multiple of ``ALIGNMENT``
elements and keeps torch's ``[out, in]`` layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

ALIGNMENT = 16  # elements: one 512-bit vector of f32, one 64-byte cache line


@dataclass(frozen=True)
class FlatParameters:
    """The parameters of a module as views of ``data``, their gradients as views of ``grad``.

    Attributes
    ----------
    data, grad : Tensor
        One dimension, same length; the gaps between parameters stay zero in both.
    parameters : dict of str to Parameter
        The trainable parameters by name, in the order of their offsets.
    offsets : dict of str to int
        Where each parameter starts in ``data``, in elements.
    """

    data: Tensor
    grad: Tensor
    parameters: dict[str, nn.Parameter]
    offsets: dict[str, int]

    def view(self, source: Tensor, name: str) -> Tensor:
        """Return the part of ``source`` (laid out as ``data``) that belongs to ``name``."""
        parameter, start = self.parameters[name], self.offsets[name]
        return source[start : start + parameter.numel()].view(parameter.shape)

    def pair(self, source: Tensor, first: str, second: str) -> Tensor:
        """Return two equally shaped parts of ``source`` as one view ``[2, *shape]``."""
        shape = self.parameters[first].shape
        start, step = self.offsets[first], self.offsets[second] - self.offsets[first]
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        return source.as_strided((2, *shape), (step, *strides), start)

    def bind_gradients(self) -> None:
        """Make every parameter's ``grad`` a view of ``grad`` again (``zero_grad`` unbinds it)."""
        for name, parameter in self.parameters.items():
            parameter.grad = self.view(self.grad, name)

    def shares_memory_with(self, module: nn.Module) -> bool:
        """Whether the module's trainable parameters are still the views of ``data``."""
        current = {name: p for name, p in module.named_parameters() if p.requires_grad}
        return current.keys() == self.parameters.keys() and all(
            _same_memory(parameter, self.view(self.data, name))
            for name, parameter in current.items()
        )


def _same_memory(a: Tensor, b: Tensor) -> bool:
    # Tensor.is_set_to has no fake form.
    places = [(t.untyped_storage()._cdata, t.storage_offset(), t.shape, t.stride()) for t in (a, b)]
    return places[0] == places[1]


def flatten_parameters(module: nn.Module, order: Iterable[str] | None = None) -> FlatParameters:
    """Move the trainable parameters of ``module`` into one flat tensor and make them views of it.

    Values and existing gradients are kept; the ``Parameter`` objects stay the same, so an
    optimizer that holds them keeps working.

    Parameters
    ----------
    module : nn.Module
        Its trainable parameters share one floating dtype and one device.
    order : iterable of str, optional
        Parameter names in the order of their offsets; default: as ``named_parameters`` lists them.

    Raises
    ------
    ValueError
        If there is nothing to train, dtypes or devices differ, or ``order`` does not name each
        trainable parameter once.
    """
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    names = list(trainable) if order is None else list(order)
    _check_flattenable(trainable, names)
    parameters = {name: trainable[name] for name in names}
    offsets, total = {}, 0
    for name, parameter in parameters.items():
        offsets[name] = total
        total += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
    first = parameters[names[0]]
    flat = FlatParameters(
        data=torch.zeros(total, dtype=first.dtype, device=first.device),
        grad=torch.zeros(total, dtype=first.dtype, device=first.device),
        parameters=parameters,
        offsets=offsets,
    )
    with torch.no_grad():
        for name, parameter in parameters.items():
            view = flat.view(flat.data, name)
            view.copy_(parameter)
            if parameter.grad is not None:
                flat.view(flat.grad, name).copy_(parameter.grad)
            parameter.data = view
    flat.bind_gradients()
    return flat


def _check_flattenable(trainable: Mapping[str, nn.Parameter], names: list[str]) -> None:
    if not trainable:
        raise ValueError("module: no trainable parameter to flatten")
    kinds = {(p.dtype, p.device) for p in trainable.values()}
    if len(kinds) > 1:
        raise ValueError(
            "module: parameters of one dtype on one device expected, got "
            + ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        )
    if sorted(names) != sorted(trainable):
        raise ValueError(f"order: expected each of {sorted(trainable)} once, got {sorted(names)}")


class FlatModule(nn.Module):
    """A module whose parameters live in one flat tensor, ``self.flat``.

    Subclasses call :meth:`flatten` at the end of ``__init__``. Moving (``to``, ``cuda``,
    ``double``), copying, pickling and loading keep the sharing. ``state_dict`` gives clones, so a
    state that was taken is not changed by training that goes on.
    """

    flat: FlatParameters
    rebuilt: ClassVar[tuple[str, ...]] = ("flat",)  # attributes that flatten() makes anew

    def flatten(self) -> None:
        """Bring the parameters (back) into one flat tensor."""
        self.flat = flatten_parameters(self, self.flat_order())

    def flat_order(self) -> Iterable[str] | None:
        """Return the parameter names in the order of their offsets, or None for the usual order."""
        return None

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the state as clones; arguments as for ``nn.Module.state_dict``."""
        state = super().state_dict(*args, **kwargs)
        for name, value in state.items():
            if isinstance(value, Tensor):
                state[name] = value.clone()
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load values; with ``assign`` the new tensors are taken in and flattened."""
        result = super().load_state_dict(state_dict, strict=strict, assign=assign)
        if assign:
            self.flatten()
        return result

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FlatModule:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if not self.flat.shares_memory_with(self):
            self.flatten()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self.rebuilt}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.flatten()

    def __copy__(self) -> FlatModule:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin
