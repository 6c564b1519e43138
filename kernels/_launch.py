"""How the scan kernels are laid over the device: a pure function of sizes, testable anywhere."""

import math
from dataclasses import dataclass
from enum import Enum

WARP = 32

# By (float64, truncation): the most that compile without spills and with full occupancy in reach.
_ELEMENTS_AHEAD = {
    (False, False): 32,
    (False, True): 10,
    (True, False): 16,
    (True, True): 8,
}


class Layout(Enum):
    """Which axis is contiguous in memory."""

    TIME_MAJOR = "time_major"
    ROW_MAJOR = "row_major"


@dataclass(frozen=True)
class LaunchConfig:
    """One launch of a scan kernel over ``[T, N]``.

    A program owns ``block_n`` sequences. It walks back through time in turns: ``ahead`` loads of
    ``block_t`` steps each are issued before any of them is used. ``vector`` is the number of
    neighbouring elements that one lane owns, ``unit`` how many of them one access can take.
    """

    layout: Layout
    block_n: int
    block_t: int
    ahead: int
    vector: int
    unit: int
    num_warps: int

    def programs(self, num_envs: int) -> int:
        """Number of programs for ``num_envs`` sequences."""
        return -(-num_envs // self.block_n)


def scan_config(
    num_steps: int,
    num_envs: int,
    layout: Layout,
    itemsize: int,
    sm_count: int,
    *,
    alignment: int,
    truncation: bool,
) -> LaunchConfig:
    """Block sizes and warps for ``num_steps`` x ``num_envs`` elements of ``itemsize`` bytes.

    ``alignment`` is a number of elements that divides the contiguous size and every stride,
    ``truncation`` says that two more arrays are read. Any size is served: what does not fit into
    one turn is walked in several.
    """
    if layout is Layout.TIME_MAJOR:
        return _time_major(num_envs, itemsize, sm_count, alignment, truncation)
    return _row_major(num_steps, num_envs, itemsize, sm_count, alignment, truncation)


def _time_major(
    num_envs: int, itemsize: int, sm_count: int, alignment: int, truncation: bool
) -> LaunchConfig:
    # Wide accesses save instructions, narrow ones spread few environments over more
    # multiprocessors: take the widest that still gives each of them a warp.
    vector = math.gcd(min(16 // itemsize, 4), alignment)
    while vector > 1 and num_envs < WARP * vector * sm_count:
        vector //= 2
    num_warps = 4 if num_envs >= 4 * 4 * WARP * vector * sm_count else 1
    # Registers bound the elements that a lane can hold ahead. Short rollouts use the same number:
    # masked rows cost little, and each number is another kernel to compile.
    elements = _ELEMENTS_AHEAD[itemsize == 8, truncation]
    return LaunchConfig(
        Layout.TIME_MAJOR,
        block_n=WARP * vector * num_warps,
        block_t=1,
        ahead=elements // vector,
        vector=vector,
        unit=vector,
        num_warps=num_warps,
    )


def _row_major(
    num_steps: int,
    num_envs: int,
    itemsize: int,
    sm_count: int,
    alignment: int,
    truncation: bool,
) -> LaunchConfig:
    # A warp spans at most one row, so that the scan needs shuffles and no shared memory.
    vector = 2 if itemsize == 8 else 4
    block_t = min(WARP * vector, max(vector, _power_of_two(num_steps)))
    rows_per_warp = WARP * vector // block_t
    num_warps = 4 if num_envs >= 4 * 4 * rows_per_warp * sm_count else 1
    return LaunchConfig(
        Layout.ROW_MAJOR,
        block_n=rows_per_warp * num_warps,
        block_t=block_t,
        ahead=min(2 if truncation else 4, _power_of_two(-(-num_steps // block_t))),
        vector=vector,
        unit=math.gcd(vector, alignment),
        num_warps=num_warps,
    )


def _power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()
