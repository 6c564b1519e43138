"""Kernel arguments: device pointers, their addresses, and the parameter block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import LaunchError
from .memory import DeviceMemory, byte_extent, host_bytes
from .types import TYPES

if TYPE_CHECKING:
    from .module import Launch


class DevicePtr:
    """A device pointer into ``array`` at ``byte_offset`` from its first element.

    ``uninit=True`` marks the whole array as never written, for ``check_uninit``.
    """

    def __init__(
        self, array: Any, byte_offset: int = 0, *, uninit: bool = False, name: str | None = None
    ) -> None:
        self.array = array
        self.byte_offset = int(byte_offset)
        self.uninit = uninit
        self.name = name


def uninitialized(array: Any, name: str | None = None) -> DevicePtr:
    """Pass ``array`` as a pointer whose contents count as never written."""
    return DevicePtr(array, 0, uninit=True, name=name)


class RawBytes:
    """Little-endian bytes of one scalar parameter."""

    def __init__(self, data: bytes) -> None:
        self.data = bytes(data)


def is_tensor(x: Any) -> bool:
    return hasattr(x, "data_ptr") and hasattr(x, "untyped_storage")


def _describe_array(a):
    """(pointer, extent start, extent bytes, owner start, owner bytes, owner object, readonly)."""
    if isinstance(a, np.ndarray):
        ptr = a.__array_interface__["data"][0]
        lo, n = byte_extent(ptr, a.shape, a.strides, a.itemsize)
        root = a
        while isinstance(root.base, np.ndarray):
            root = root.base
        rp = root.__array_interface__["data"][0]
        rlo, rn = byte_extent(rp, root.shape, root.strides, root.itemsize)
        if not (rlo <= lo and lo + n <= rlo + rn):
            rlo, rn = lo, n
        return ptr, lo, n, rlo, rn, a, not a.flags.writeable
    if is_tensor(a):
        if a.device.type != "cpu":
            raise LaunchError(f"tensor on {a.device}: the simulator works on CPU tensors")
        st = a.untyped_storage()
        size = a.element_size()
        ptr = a.data_ptr()
        lo, n = byte_extent(ptr, tuple(a.shape), tuple(s * size for s in a.stride()), size)
        rlo, rn = st.data_ptr(), st.nbytes()
        if n == 0:
            ptr = lo = rlo
        return ptr, lo, n, rlo, rn, a, False
    if hasattr(a, "__array_interface__"):
        return _describe_array(np.asarray(a))
    raise LaunchError(f"cannot make a device pointer from {type(a).__name__}")


class Layout:
    """Assigns device addresses to the arrays of one launch."""

    def __init__(self, mem: DeviceMemory, bounds: str = "view") -> None:
        self.mem = mem
        self.bounds = bounds
        self.items: list[tuple[str, tuple, bool]] = []

    def add(self, name: str, array: Any, uninit: bool = False) -> int:
        d = _describe_array(array)
        self.items.append((name, d, uninit))
        return len(self.items) - 1

    def build(self) -> list[int]:
        """Returns the device pointer of every added array."""
        owners: list[list[int]] = []  # merged host ranges [lo, hi]
        for lo, hi in sorted((d[3], d[3] + max(1, d[4])) for _, d, _ in self.items):
            if owners and lo < owners[-1][1]:
                owners[-1][1] = max(owners[-1][1], hi)
            else:
                owners.append([lo, hi])
        vbase = {}
        for lo, hi in owners:
            vbase[lo] = self.mem.reserve(hi - lo + 16) + lo % 16

        def owner_of(p):
            for lo, hi in owners:
                if lo <= p < hi:
                    return lo
            raise LaunchError("internal: array outside its owner")

        regions: list[list] = []  # merged extents: [lo, hi, names, uninit, readonly, keep]
        for name, d, un in sorted(self.items, key=lambda it: it[1][1]):
            lo, n = (d[1], d[2]) if self.bounds == "view" else (d[3], d[4])
            if regions and lo < regions[-1][1]:
                r = regions[-1]
                r[1] = max(r[1], lo + n)
                r[2].append(name)
                r[3] = r[3] and un
                r[4] = r[4] and d[6]
                r[5].append(d[5])
            elif n:
                regions.append([lo, lo + n, [name], un, d[6], [d[5]]])
        for lo, hi, names, un, ro, keep in regions:
            o = owner_of(lo)
            self.mem.add_at(
                "/".join(dict.fromkeys(names)),
                vbase[o] + (lo - o),
                host_bytes(lo, hi - lo),
                readonly=ro,
                owner=keep,
                init=not un,
            )
        out = []
        for _, d, _ in self.items:
            o = owner_of(d[3])
            out.append(vbase[o] + (d[0] - o))
        return out


def pack_scalar(value: Any, ty: str, size: int) -> bytes:
    """Bytes of a scalar argument for a ``.param`` of PTX type ``ty``."""
    kind = TYPES[ty][1]
    if (
        isinstance(value, np.generic)
        and value.dtype.itemsize == size
        and value.dtype.kind in "fiub"
    ) and not (kind == "f" and value.dtype.kind != "f"):
        return value.tobytes()
    if isinstance(value, (bool, np.bool_)):
        value = int(value)
    if isinstance(value, (float, np.floating)):
        if kind in ("u", "s"):
            raise LaunchError(f"a float was passed for an integer parameter of type .{ty}")
        fmt = {2: "<e", 4: "<f", 8: "<d"}.get(size)
        if fmt is None:
            raise LaunchError(f"a float was passed for a parameter of type .{ty}")
        return np.array(value, dtype={2: "f2", 4: "f4", 8: "f8"}[size]).tobytes()
    if isinstance(value, (int, np.integer)):
        if kind == "f":
            return np.array(float(value), dtype={2: "f2", 4: "f4", 8: "f8"}[size]).tobytes()
        return (int(value) & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
    raise LaunchError(f"cannot pass a {type(value).__name__} as .{ty}")


def bind_arguments(
    launch: Launch, args: Sequence[Any], bounds: str, arg_names: Sequence[str] | None
) -> None:
    """Fill the parameter block of a launch and register its arrays."""
    prog = launch.prog
    params = prog.entry.params
    if len(args) != len(params):
        kinds = ["." + p.type + (f"[{p.size}]" if p.is_array else "") for p in params]
        raise LaunchError(
            f"{prog.name} takes {len(params)} arguments ({', '.join(kinds)}), "
            f"{len(args)} were given"
        )
    data = np.zeros((prog.param_size + 15) // 16 * 16 + 16, np.uint8)
    lay = Layout(launch.mem, bounds)
    fix = []
    for i, (p, a) in enumerate(zip(params, args, strict=True)):
        at = prog.params[p]
        nm = arg_names[i] if arg_names else p.name
        if p.is_array and not isinstance(a, RawBytes):
            if isinstance(a, (float, np.floating)) and p.size in (2, 4, 8):
                a = np.array(a, dtype=f"f{p.size}")
            b = a if isinstance(a, (bytes, bytearray, memoryview)) else np.asarray(a).tobytes()
            b = bytes(b)
            if len(b) != p.size:
                raise LaunchError(f"parameter {p.name} has {p.size} bytes, {len(b)} were given")
            data[at : at + p.size] = np.frombuffer(b, np.uint8)
            continue
        if a is None:
            continue
        if isinstance(a, RawBytes):
            if len(a.data) > p.size:
                raise LaunchError(
                    f"parameter {p.name} has {p.size} bytes, {len(a.data)} were given"
                )
            data[at : at + len(a.data)] = np.frombuffer(a.data, np.uint8)
            continue
        if isinstance(a, DevicePtr):
            fix.append((at, lay.add(a.name or nm, a.array, a.uninit), a.byte_offset))
            continue
        if is_tensor(a) or (
            isinstance(a, np.ndarray) and (a.ndim > 0 or (p.size == 8 and a.dtype.itemsize != 8))
        ):
            if p.size != 8:
                raise LaunchError(f"an array was passed for parameter {p.name} of type .{p.type}")
            fix.append((at, lay.add(nm, a), 0))
            continue
        if isinstance(a, np.ndarray):
            a = a[()]
        b = pack_scalar(a, p.type, p.size)
        data[at : at + p.size] = np.frombuffer(b, np.uint8)
    ptrs = lay.build()
    for at, k, off in fix:
        data[at : at + 8] = np.frombuffer(
            (ptrs[k] + off).to_bytes(8, "little", signed=False), np.uint8
        )
    launch.param_bytes = data
    launch.param_base = launch.mem.add(
        "kernel parameters", data[: prog.param_size], readonly=True
    ).base
