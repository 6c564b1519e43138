"""What the figures were taken on: processor, GPU, versions, commit."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

PACKAGES = (
    "rlox-gpu",
    "numpy",
    "torch",
    "triton",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "gymnasium",
    "rlox",
    "stable_baselines3",
    "envpool",
    "gymnax",
    "jax",
)
SIMD = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "asimd", "sve")
THREAD_VARIABLES = (
    "RLOX_GPU_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)


def one_thread():
    """Hold every library to one thread; only those imported afterwards obey."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))


def describe():
    return {
        "processor": processor(),
        "gpu": gpu(),
        "versions": versions(),
        "source": source(),
        "threads": {name: os.environ.get(name) for name in THREAD_VARIABLES},
    }


def processor():
    model, flags = platform.processor() or platform.machine(), set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
                break
    return {"model": model, "cores": os.cpu_count(), "simd": [f for f in SIMD if f in flags]}


def gpu():
    """Name, driver and memory of the first GPU, or ``absent`` with the reason."""
    try:
        import torch
    except ImportError as error:
        return {"absent": f"torch cannot be imported: {error}"}
    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            return {"absent": f"torch {torch.__version__} is built without CUDA"}
        return {"absent": "torch finds no CUDA device (no GPU or no driver)"}
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "driver": _driver(),
        "cuda": torch.version.cuda,
    }


def _driver():
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown: nvidia-smi did not answer"


def versions():
    installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {"python": platform.python_version()} | {
        package: installed[package] for package in PACKAGES if package in installed
    }


def source():
    """Commit of this checkout and whether files differ from it; None outside a repository."""
    root = Path(__file__).parent
    try:
        commit, status = (
            subprocess.run(
                ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(status)}
