"""The environment kernels in the PTX simulator: what `use_launcher` takes in tests."""

import functools
from pathlib import Path

import numpy as np
import ptxsim

HEADERS = {path.name: path.read_text() for path in Path(__file__).parents[1].glob("csrc/*.cuh")}


@functools.cache
def compile_kernels(source: Path, options: tuple[str, ...], arch: str = "sm_90"):
    return ptxsim.compile_cuda(
        source.read_text(), arch=arch, options=options, headers=HEADERS, filename=source.name
    )


class SimulatedModule:
    """The compiled PTX of a CUDA source, executed on CPU tensors.

    ``checks`` are the simulator's launch options; ``block`` replaces the caller's block size.
    """

    def __init__(self, source, options, *, block=None, **checks):
        self.module = compile_kernels(source, options)
        self.block = block
        self.checks = {"stats": False, **checks}

    def launch(self, kernel, grid, block, arguments, device):
        assert device.type == "cpu"
        if self.block is not None:
            grid, block = -(-grid * block // self.block), self.block
        arguments = [a.tobytes() if isinstance(a, np.ndarray) else a for a in arguments]
        self.module.launch(kernel, grid, block, arguments, **self.checks)
