"""Stands in for Triton's C launcher: arguments to PTX parameters, then a simulated launch."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arguments import DevicePtr, RawBytes
from .errors import LaunchError
from .fpmath import f32_to_bf16
from .module import Module
from .simulation import current_sim


class SimFunction:
    """What ``load_binary`` hands out: a kernel of a parsed module."""

    def __init__(self, ptx: str, name: str) -> None:
        self.module = Module(ptx, name=name)
        self.name = name


def flatten(sig: Any, arg: Any, name: str, out: list[tuple]) -> None:
    """Append (type, value, name) of each runtime argument."""
    if sig == "constexpr":
        return
    if isinstance(sig, (tuple, list)):
        for k, (s, a) in enumerate(zip(sig, arg, strict=False)):
            flatten(s, a, f"{name}[{k}]", out)
        return
    if sig.startswith("tensordesc"):
        base, shape, strides = arg.base, list(arg.shape), list(arg.strides)
        out.append(("*", base, name))
        out.extend(("i64", x, name) for x in shape + strides)
        out.append(("i1", getattr(arg, "padding", "zero") == "nan", name))
        out.append(("#optional_i1", getattr(arg, "round_f32_to_tf32", False), name))
        out.extend(("i32", x, name) for x in shape)
        out.extend(("i64", x, name) for x in strides)
        return
    out.append((sig, arg, name))


def pack(sig: str, v: Any, size: int) -> RawBytes:
    """Bytes of a scalar of Triton type ``sig`` for a parameter of ``size`` bytes."""
    v = getattr(v, "value", v) if not isinstance(v, (int, float, bool, np.generic)) else v
    if sig in ("fp32", "f32"):
        b = np.float32(v).tobytes()
    elif sig in ("fp64", "f64"):
        b = np.float64(v).tobytes()
    elif sig in ("fp16", "f16"):
        b = np.float16(v).tobytes()
    elif sig == "bf16":
        b = f32_to_bf16(np.array([v], np.float32)).tobytes()
    else:
        b = (int(v) & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
    if len(b) != size:
        raise LaunchError(f"a {sig} value does not fit a parameter of {size} bytes")
    return RawBytes(b)


class SimLauncher:
    """Replaces the C launcher of one compiled kernel."""

    def __init__(self, src: Any, metadata: Any) -> None:
        self.src = src
        self.metadata = metadata
        self.signature = dict(src.signature)
        fn = getattr(src, "fn", None)
        self.names = list(getattr(fn, "arg_names", self.signature))
        if getattr(metadata, "num_ctas", 1) != 1:
            raise LaunchError("clusters of more than one block are not modelled")
        meta = getattr(metadata, "tensordesc_meta", None)
        if meta and any(m is not None for m in meta):
            raise LaunchError("tensor-map (TMA) descriptors are not modelled; compile for sm_80")

    def __call__(
        self,
        gx: int,
        gy: int,
        gz: int,
        stream: Any,
        function: SimFunction,
        packed: Any,
        launch_metadata: Any,
        enter_hook: Any,
        exit_hook: Any,
        *args: Any,
    ) -> None:
        sim = current_sim()
        if sim is None:
            raise LaunchError("the simulator driver is no longer active")
        md = self.metadata
        flat: list[tuple[str, Any, str]] = []
        for (key, sig), a in zip(self.signature.items(), args, strict=False):
            name = (
                key
                if isinstance(key, str)
                else self.names[key[0] if isinstance(key, tuple) else key]
            )
            flatten(sig, a, name, flat)
        params = function.module.parsed.functions[function.name].params
        if len(params) < sum(1 for f in flat if f[0] != "#optional_i1"):
            raise LaunchError(
                f"{function.name}: {len(flat)} arguments for {len(params)} PTX parameters"
            )
        if len(flat) + 2 > len(params):
            flat = [f for f in flat if f[0] != "#optional_i1"] if len(flat) > len(params) else flat
        out, names = [], []
        for p, (sig, v, name) in zip(params, flat, strict=False):
            names.append(name)
            if sig.startswith("*"):
                out.append(sim.pointer(v, name))
            else:
                out.append(pack("i1" if sig == "#optional_i1" else sig, v, p.size))
        nblocks = gx * gy * gz
        scratch = [
            (getattr(md, "global_scratch_size", 0) or 0, "global scratch"),
            (getattr(md, "profile_scratch_size", 0) or 0, "profile scratch"),
        ]
        for _, (size, name) in zip(params[len(flat) :], scratch, strict=False):
            names.append(name)
            if size:
                buf = np.zeros(max(1, nblocks) * size + 256, np.uint8)
                out.append(DevicePtr(buf, 0, uninit=True, name=name))
            else:
                out.append(None)
        if enter_hook is not None:
            enter_hook(launch_metadata)
        if nblocks:
            opts = dict(sim.launch_options)
            if getattr(md, "launch_cooperative_grid", False):
                opts.setdefault("max_resident_threads", None)
            s = function.module.launch(
                function.name,
                (gx, gy, gz),
                32 * md.num_warps,
                out,
                shared=md.shared,
                arg_names=names,
                **opts,
            )
            sim.launches.append(s)
            sim.modules.append(function.module)
        if exit_hook is not None:
            exit_hook(launch_metadata)
