"""What the compiled kernels ask of a GPU: counts from the PTX simulator, not times.

``python bench/counts.py [--markdown FILE]``, some five minutes. Every kernel is compiled for each
architecture and the PTX of sm_90 is executed on the CPU. Bytes are those that the instructions ask
for, "moved" is 32 bytes for each sector that they touch, the minimum is what the job needs at
least: every element once, of final values the sectors that hold one which is looked at. Registers
and spills come from ptxas.
"""

import machine

machine.one_thread()  # before NumPy, torch or ours is imported

import argparse  # noqa: E402
import itertools  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from concurrent.futures import ProcessPoolExecutor  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from unittest import mock  # noqa: E402

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS / "ptxsim"), str(TESTS)]

import numpy as np  # noqa: E402
import ptxsim  # noqa: E402
import torch  # noqa: E402
import triton  # noqa: E402
from estimator_cases import ESTIMATORS, launch, make_inputs, rates_of, rows_of  # noqa: E402
from factories import make_gae_inputs, row_major  # noqa: E402
from rich.progress import track  # noqa: E402
from simulated_cuda import compile_kernels  # noqa: E402
from tables import Table  # noqa: E402

ARCHITECTURES = (80, 90, 100, 120)
EXECUTED = 90
SECTOR_BYTES = 32
# 33 B of state, clock, flag, return and action read, 25 B written back, 30 B of results.
STEP_BYTES = 88
NUM_ENVS = 4096


@dataclass(frozen=True)
class Count:
    """One kernel at one size.

    ``run(architecture)`` gives the PTX by architecture and, for the one that is executed, the
    statistics, for the others None.
    """

    name: str
    elements: int
    minimum: float
    run: Callable


def compiled(call):
    """``run`` of a Triton kernel that ``call`` launches."""
    launch_kernel = triton.runtime.JITFunction.run

    def run(architecture):
        found = []

        def compile_only(self, *args, warmup, **kwargs):
            found.append(launch_kernel(self, *args, warmup=True, **kwargs).asm["ptx"])

        with ptxsim.triton_driver(arch=architecture) as sim:
            if architecture == EXECUTED:
                call()
                return sim.launches[-1], sim.modules[-1]
            with mock.patch.object(triton.runtime.JITFunction, "run", compile_only):
                call()
        return None, found[-1]

    return run


def final_bytes(truncated, size):
    """Bytes per element of the sectors of final values that hold one which is looked at."""
    values = SECTOR_BYTES // size
    looked_at = truncated * (1 - truncated)  # cut short and not terminated
    return size * (1 - (1 - looked_at) ** values)


def gae(name, num_steps, num_envs, *, time_dim=0, dtype=torch.float32, truncated=0.0):
    """GAE with returns; ``truncated`` is the share of steps that are cut short."""
    size = dtype.itemsize
    elements = num_steps * num_envs
    # Reward, value, flag in; advantage, return out; the value after the last step.
    minimum = 4 * size + 1 + size / num_steps
    if truncated:
        minimum += 1 + final_bytes(truncated, size)

    def call():
        import rlox_gpu
        from rlox_gpu import _dispatch

        inputs = make_gae_inputs(
            np.random.default_rng(0),
            num_steps,
            num_envs,
            truncation=bool(truncated),
            end_rate=truncated or 0.02,
        )
        if time_dim:
            inputs = row_major(inputs)
        tensors = {key: torch.as_tensor(value) for key, value in inputs.items()}
        tensors = {k: t.to(dtype) if t.is_floating_point() else t for k, t in tensors.items()}
        with _dispatch.force_triton():
            rlox_gpu.gae(**tensors, time_dim=time_dim)

    return Count(f"gae {name}", elements, minimum, compiled(call))


def estimator(name, num_steps, num_envs, *, rows, outputs, truncated=0.0):
    """One estimator with only ``outputs`` asked for: float32, flags of one byte."""
    arrays = len(ESTIMATORS[name][0]) + 1 + len(outputs)
    minimum = 4 * arrays + 1 + 4 / num_steps
    if truncated:
        minimum += 1 + final_bytes(truncated, 4)

    def call():
        inputs = make_inputs(
            name, 0, num_steps, num_envs, truncation=bool(truncated), end_rate=truncated or 0.02
        )
        if rows:
            inputs = {key: rows_of(x) for key, x in inputs.items()}
        launch(name, inputs, rates_of(name), wanted=outputs)

    layout = "row-major" if rows else "time-major"
    share = f", {truncated:.0%} truncated" if truncated else ""
    title = "td_lambda" if outputs == ("returns",) and name == "gae" else name
    label = f"{title} {'+'.join(outputs)}, {num_steps}x{num_envs} {layout}{share}"
    return Count(label, num_steps * num_envs, minimum, compiled(call))


def estimators():
    """The sizes and outputs of the nearest peer's published counts, and the same time-major."""
    wanted = (("gae", ("advantages",)), ("gae", ("returns",)), ("vtrace", ("vs", "pg_advantages")))
    for name, outputs in wanted:
        for size in ((128, 256), (512, 128), (2048, 32)):
            for rows, truncated in itertools.product((True, False), (0.0, 0.02)):
                yield estimator(name, *size, rows=rows, outputs=outputs, truncated=truncated)


def random(name, draw, dtype, count=2**16):
    """An array of random numbers, which is only written."""

    def call():
        from rlox_gpu import _dispatch
        from rlox_gpu.ops import random as ops

        with _dispatch.force_triton():
            draw(ops, count)

    return Count(name, count, dtype.itemsize, compiled(call))


class RecordingModule:
    """Runs the CUDA source of the environments and keeps the statistics of each launch."""

    def __init__(self, architecture, source, options):
        self.module = compile_kernels(source, options, arch=f"sm_{architecture}")
        self.launches = []

    def launch(self, kernel, grid, block, arguments, device):
        arguments = [a.tobytes() if isinstance(a, np.ndarray) else a for a in arguments]
        self.launches.append(self.module.launch(kernel, grid, block, arguments))


def cartpole(name, kernel, minimum, autoreset_mode="NextStep"):
    """One launch of a CartPole kernel over fresh episodes."""

    def run(architecture):
        from gymnasium.vector import AutoresetMode

        from rlox_gpu.envs import cuda
        from rlox_gpu.envs.tensor import TensorVectorEnv

        made = []

        def compile_module(source, options):
            made.append(RecordingModule(architecture, source, options))
            return made[-1]

        with cuda.use_launcher(compile_module):
            env = TensorVectorEnv(
                "CartPole-v1", NUM_ENVS, device="cpu", autoreset_mode=AutoresetMode(autoreset_mode)
            )
            env.reset(seed=0)
            if kernel == "env_step":
                env.step(torch.arange(NUM_ENVS) % 2)
        (module,) = made
        return module.launches[-1], module.module

    return Count(f"CartPole {name}", NUM_ENVS, minimum, run)


def counts():
    return [
        gae("f32 128x1024 time-major", 128, 1024),
        gae("f32 128x4096 time-major", 128, 4096),
        gae("f32 128x4096 time-major, 2% truncated", 128, 4096, truncated=0.02),
        gae("f16 128x4096 time-major", 128, 4096, dtype=torch.float16),
        gae("f64 128x4096 time-major", 128, 4096, dtype=torch.float64),
        gae("f32 128x4096 row-major", 128, 4096, time_dim=-1),
        gae("f32 128x4096 row-major, 2% truncated", 128, 4096, time_dim=-1, truncated=0.02),
        gae("f32 2048x32 row-major", 2048, 32, time_dim=-1),
        *estimators(),
        random(
            "uniform f32",
            lambda ops, n: ops.uniform(torch.empty(n), seed=0, step=0, stream=1),
            torch.float32,
        ),
        random(
            "permutation int64",
            lambda ops, n: ops.permutation(n, seed=0, step=0),
            torch.int64,
        ),
        cartpole("step, next-step reset", "env_step", STEP_BYTES),
        cartpole("step, same-step reset", "env_step", STEP_BYTES, "SameStep"),
        # Seed and number in; number, state, clock, flag, return out; state read for the result.
        cartpole("reset", "env_reset", 12 + 4 + 25 + 32),
    ]


def row(count):
    runs = {architecture: count.run(architecture) for architecture in ARCHITECTURES}
    stats, _ = runs[EXECUTED]
    resources = [ptxsim.ptxas_info(module)[stats.kernel] for _, module in runs.values()]
    per = count.elements
    asked = stats.global_bytes / per
    return (
        count.name,
        f"{count.minimum:.2f}",
        f"{asked:.2f}",
        f"{asked / count.minimum:.3f}",
        f"{SECTOR_BYTES * stats.global_sectors / per / count.minimum:.3f}",
        f"{stats.global_sectors / per:.3f}",
        f"{stats.coalescing_efficiency:.3f}",
        f"{stats.total_warp_instructions / per:.2f}",
        " ".join(str(found["registers"]) for found in resources),
        str(sum(found["spill_stores"] + found["spill_loads"] for found in resources)),
    )


def numbered_row(number):
    """The row of one of :func:`counts`, which are closures and stay in their process."""
    torch.set_num_threads(1)
    return row(counts()[number])


def table():
    columns = (
        "kernel",
        "minimum B",
        "asked B",
        "asked/min",
        "moved/min",
        "sectors",
        "coalescing",
        "warp instr.",
        "registers",
        "spills B",
    )
    architectures = " ".join(f"sm_{architecture}" for architecture in ARCHITECTURES)
    note = f"Per element, PTX of sm_{EXECUTED} in the simulator; registers for {architectures}."
    number = len(counts())
    with ProcessPoolExecutor() as pool:
        rows = tuple(track(pool.map(numbered_row, range(number)), "counting", total=number))
    return Table("Counts", columns, rows, note)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    counted = table()
    from report import show

    show([counted])
    if arguments.markdown:
        arguments.markdown.write_text(counted.markdown())


if __name__ == "__main__":
    main()
