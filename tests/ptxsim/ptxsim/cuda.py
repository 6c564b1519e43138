"""Compiling CUDA C++ to PTX with NVRTC (through cuda-bindings), or nvcc."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import PtxSimError
from .module import Grid, Module

if TYPE_CHECKING:
    from .stats import Stats


class CompileError(PtxSimError):
    """The CUDA compiler rejected the source; the message is its log."""


def _nvrtc():
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
        return nvrtc
    except Exception:
        return None


@functools.lru_cache(None)
def _toolkit_includes():
    """Include directories of a CUDA toolkit, if one can be found."""
    dirs = []
    for env in ("CUDA_HOME", "CUDA_PATH"):
        d = os.environ.get(env)
        if d:
            dirs.append(os.path.join(d, "include"))
    try:
        import nvidia

        for root in nvidia.__path__:
            dirs.extend(os.path.join(root, name, "include") for name in sorted(os.listdir(root)))
    except Exception:
        pass
    dirs = [d for d in dirs if os.path.exists(os.path.join(d, "cuda_fp16.h"))]
    nvcc = shutil.which("nvcc")
    if not dirs and nvcc:
        r = subprocess.run([nvcc, "--dryrun", "-ptx", "x.cu"], capture_output=True, text=True)
        for line in r.stderr.splitlines():
            if "INCLUDES=" in line:
                for q in re.findall(r'"([^"]+)"', line):
                    if q != "-isystem":
                        dirs.append(os.path.normpath(q.removeprefix("-I")))
    return tuple(d for d in dict.fromkeys(dirs) if os.path.isdir(d))


def _compile_nvrtc(nvrtc, source, arch, options, headers, filename):
    def check(ret):
        if int(ret[0]) != 0:
            raise CompileError(f"NVRTC: {ret[0]!r}")
        return ret[1] if len(ret) == 2 else None

    names = [n.encode() for n in headers]
    texts = [t.encode() for t in headers.values()]
    prog = check(
        nvrtc.nvrtcCreateProgram(source.encode(), filename.encode(), len(names), texts, names)
    )
    opts = [f"--gpu-architecture={arch.replace('sm_', 'compute_')}", "-lineinfo", *options]
    opts += [f"-I{d}" for d in _toolkit_includes()]
    ret = nvrtc.nvrtcCompileProgram(prog, len(opts), [o.encode() for o in opts])
    if int(ret[0]) != 0:
        n = check(nvrtc.nvrtcGetProgramLogSize(prog))
        log = b" " * n
        nvrtc.nvrtcGetProgramLog(prog, log)
        raise CompileError(log.decode("utf-8", "replace").rstrip("\0 "))
    n = check(nvrtc.nvrtcGetPTXSize(prog))
    ptx = b" " * n
    check((*nvrtc.nvrtcGetPTX(prog, ptx), None))
    nvrtc.nvrtcDestroyProgram(prog)
    return ptx.decode("utf-8").rstrip("\0 ")


def _compile_nvcc(source, arch, options, headers, filename):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise CompileError("neither cuda-bindings with NVRTC nor nvcc is available")
    with tempfile.TemporaryDirectory() as d:
        base = os.path.basename(filename)
        if not base.endswith(".cu"):
            base += ".cu"
        for n, t in headers.items():
            p = os.path.join(d, n)
            os.makedirs(os.path.dirname(p), exist_ok=True)
            with open(p, "w") as f:
                f.write(t)
        with open(os.path.join(d, base), "w") as f:
            f.write(source)
        out = os.path.join(d, "out.ptx")
        r = subprocess.run(
            [nvcc, "-ptx", "-lineinfo", f"-arch={arch}", "-I", d, *options, base, "-o", out],
            cwd=d,
            capture_output=True,
            text=True,
        )
        if r.returncode:
            raise CompileError(r.stderr or r.stdout)
        with open(out) as f:
            return f.read().replace(d + os.sep, "")


def cuda_to_ptx(
    source: str,
    arch: str = "sm_90",
    options: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    filename: str = "kernel.cu",
    compiler: str | None = None,
) -> str:
    """PTX text of CUDA C++ source.  ``compiler`` may force "nvrtc" or "nvcc"."""
    headers = dict(headers or {})
    options = list(options)
    nvrtc = _nvrtc() if compiler in (None, "nvrtc") else None
    if nvrtc is not None:
        return _compile_nvrtc(nvrtc, source, arch, options, headers, filename)
    if compiler == "nvrtc":
        raise CompileError("cuda-bindings with NVRTC is not available")
    return _compile_nvcc(source, arch, options, headers, filename)


def compile_cuda(
    source: str,
    arch: str = "sm_90",
    options: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    filename: str = "kernel.cu",
    compiler: str | None = None,
) -> Module:
    """Compile CUDA C++ and return a :class:`ptxsim.Module`.

    NVRTC mangles C++ names; declare kernels ``extern "C"`` to launch them by name.
    """
    return Module(cuda_to_ptx(source, arch, options, headers, filename, compiler), name=filename)


class CudaFunction:
    """A kernel that is called like ``f(grid, block, args, shared_mem=0)``."""

    def __init__(self, owner: CudaModule, name: str) -> None:
        self.owner, self.name = owner, name

    def __call__(
        self, grid: Grid, block: Grid, args: Sequence[Any], *, shared_mem: int = 0, **options: Any
    ) -> Stats:
        opts = dict(self.owner.launch_options)
        opts.update(options)
        s = self.owner.module.launch(self.name, grid, block, tuple(args), shared=shared_mem, **opts)
        self.owner.launches.append(s)
        return s


class CudaModule:
    """Stand-in for a raw CUDA module: ``get_function(name)(grid, block, args)``."""

    def __init__(self, module: Module, **launch_options: Any) -> None:
        self.module = module
        self.launch_options = launch_options
        self.launches: list[Stats] = []

    def get_function(self, name: str) -> CudaFunction:
        if name not in self.module.kernels:
            raise KeyError(f"no kernel {name!r}; the module has {self.module.kernels}")
        return CudaFunction(self, name)

    def get_global(self, name: str, dtype: Any = "u1") -> np.ndarray:
        return self.module.global_array(name, dtype)


def cuda_module(
    source: str,
    arch: str = "sm_90",
    options: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    filename: str = "kernel.cu",
    **launch_options: Any,
) -> CudaModule:
    """Compile CUDA C++ for ``get_function(name)(grid, block, args)`` launches."""
    return CudaModule(compile_cuda(source, arch, options, headers, filename), **launch_options)
