"""The native extensions: the Rust core and the host build of the CUDA environment sources."""

import shutil
import sys
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup
from setuptools_rust import Binding, RustExtension

COMPILERS = ("cc", "gcc", "clang")


class CheckedBuildExt(build_ext):
    """Names a missing tool in one line before anything is compiled."""

    def run(self) -> None:
        if not any(map(shutil.which, COMPILERS)):
            sys.exit(
                "rlox-gpu: no C++ compiler found; install one (Debian/Ubuntu: "
                "`apt-get install g++`, Fedora: `dnf install gcc-c++`) and install again."
            )
        if not shutil.which("cargo"):
            sys.exit(
                "rlox-gpu: cargo not found; install Rust 1.89 or newer from https://rustup.rs "
                "and install again."
            )
        super().run()


setup(
    ext_modules=[
        Pybind11Extension(
            "rlox_gpu._host",
            ["csrc/host_module.cpp"],
            include_dirs=["csrc"],
            depends=sorted(map(str, Path("csrc").glob("*.cuh"))),
            cxx_std=17,
            # The same bits as the GPU: no fused multiply-add, no fast-math.
            extra_compile_args=["-O2", "-ffp-contract=off"],
            optional=True,
        )
    ],
    rust_extensions=[
        RustExtension(
            "rlox_gpu._rust",
            path="rust/Cargo.toml",
            binding=Binding.PyO3,
            features=["python"],
            debug=False,
            py_limited_api=True,
        )
    ],
    cmdclass={"build_ext": CheckedBuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
