"""Running moments in the compiled core, for NumPy arrays and CPU tensors alike."""

from __future__ import annotations

from typing import Any

from .. import _rust
from ._arguments import FLAGS, FLOATS, address, as_rows, dtype_name


def update_in_rust(state: Any, x: Any, mask: Any) -> None:
    """Take ``x [B, D]``, not empty, into contiguous ``state``."""
    shape, (place,), _kept = as_rows([x], by_row=True)
    assert place is not None
    flags, code = None, FLAGS["bool"]
    if mask is not None:
        _, (flag_place,), _kept_flags = as_rows([mask[:, None]], by_row=True)
        assert flag_place is not None
        flags, code = flag_place[:2], FLAGS[dtype_name(mask)]
    _rust.update_moments_raw(address(state), place, flags, shape, (FLOATS[dtype_name(x)], code))


def normalize_in_rust(x: Any, mean: Any, var: Any, out: Any, clip: float, eps: float) -> None:
    """Write ``out`` from ``x [..., D]``, not empty; all but ``x`` are contiguous."""
    shape, (place,), _kept = as_rows([x], by_row=True)
    assert place is not None
    code = FLOATS[dtype_name(x)]
    _rust.normalize_raw(place, address(mean), address(var), address(out), shape, code, clip, eps)
