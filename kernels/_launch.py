"""How the scan kernels are laid over the device: a pure function of sizes, testable anywhere."""

import math
from dataclasses import dataclass
from enum import Enum

WARP = 32

# The most elements a lane can hold ahead without spills and with full occupancy in reach: for
# float64 or not, by how many arrays are read. Three are a reward, a value and a flag, five these
# and truncations.
_ELEMENTS_AHEAD = {False: {3: 32, 5: 10}, True: {3: 12, 5: 6}}
_ELEMENTS_AHEAD_OF_MANY = {False: 4, True: 2}
# The tiles of a chunk of long sequences that its lanes can hold at once, likewise.
_CHUNK_TILES = {False: {5: 4, 7: 3, 10: 1}, True: {3: 4, 7: 2, 10: 1}}
# Registers a thread may take where the assembler, left to itself, would aim at more resident
# threads and spill a little for them.
REGISTERS = 168


class Layout(Enum):
    """Which axis is contiguous in memory."""

    TIME_MAJOR = "time_major"
    ROW_MAJOR = "row_major"


class Regime(Enum):
    """How the recurrence is spread over the device."""

    LANES = "a lane walks neighbouring environments through time"
    ROWS = "a warp walks a row, tile by tile"
    CHUNKS = "programs take the tiles of all sequences at once"


@dataclass(frozen=True)
class LaunchConfig:
    """One launch of a scan kernel over ``[T, N]``.

    A program owns ``block_n`` sequences, of which it walks ``ahead`` blocks of ``block_t`` steps
    at a time, all asked for before the first is used; in the chunked regime these are all it
    owns. ``vector`` is the number of neighbouring elements that one lane owns, ``unit`` how many
    of them one access can take.
    """

    regime: Regime
    block_n: int
    block_t: int
    ahead: int
    vector: int
    unit: int
    num_warps: int

    def programs(self, num_envs: int) -> int:
        """Number of programs for ``num_envs`` sequences, or for one block of their steps."""
        return -(-num_envs // self.block_n)


def scan_regime(num_steps: int, num_envs: int, layout: Layout, sm_count: int) -> Regime:
    """The regime for ``num_steps`` x ``num_envs`` elements.

    Sequences are cut into chunks where they are long and too few to give each multiprocessor a
    warp: the walk of a single warp is bound by the latency of its turns, whose number a lane
    reaches earlier than a row's warp does.
    """
    if layout is Layout.TIME_MAJOR:
        few, long = num_envs < WARP * sm_count, num_steps >= 512
        return Regime.CHUNKS if few and long else Regime.LANES
    few, long = num_envs < sm_count, num_steps >= 4096
    return Regime.CHUNKS if few and long else Regime.ROWS


def scan_config(
    regime: Regime,
    num_steps: int,
    num_envs: int,
    layout: Layout,
    itemsize: int,
    sm_count: int,
    *,
    alignment: int,
    arrays: int,
) -> LaunchConfig:
    """Block sizes and warps for ``num_steps`` x ``num_envs`` elements of ``itemsize`` bytes.

    ``alignment`` is a number of elements that divides the contiguous size and every stride,
    ``arrays`` is how many are read. Any size is served: what does not fit into one turn is walked
    in several.
    """
    if regime is Regime.CHUNKS:
        return _chunks(num_envs, layout, itemsize, alignment, arrays)
    if regime is Regime.LANES:
        return _lanes(num_envs, itemsize, sm_count, alignment, arrays)
    return _rows(num_steps, num_envs, itemsize, sm_count, alignment, arrays)


def _lanes(
    num_envs: int, itemsize: int, sm_count: int, alignment: int, arrays: int
) -> LaunchConfig:
    # Wide accesses save instructions, narrow ones spread few environments over more
    # multiprocessors: take the widest that still gives each of them a warp.
    vector = math.gcd(min(16 // itemsize, 4), alignment)
    while vector > 1 and num_envs < WARP * vector * sm_count:
        vector //= 2
    num_warps = 4 if num_envs >= 4 * 4 * WARP * vector * sm_count else 1
    # Registers bound the elements that a lane can hold ahead. Short rollouts use the same number:
    # masked rows cost little, and each number is another kernel to compile.
    limits = _ELEMENTS_AHEAD[itemsize == 8].items()
    fitting = (elements for most, elements in limits if arrays <= most)
    elements = next(fitting, _ELEMENTS_AHEAD_OF_MANY[itemsize == 8])
    return LaunchConfig(
        Regime.LANES,
        block_n=WARP * vector * num_warps,
        block_t=1,
        ahead=elements // vector,
        vector=vector,
        unit=vector,
        num_warps=num_warps,
    )


def _rows(
    num_steps: int,
    num_envs: int,
    itemsize: int,
    sm_count: int,
    alignment: int,
    arrays: int,
) -> LaunchConfig:
    # A warp spans at most one row, so that the scan needs shuffles and no shared memory.
    vector = 2 if itemsize == 8 else 4
    block_t = min(WARP * vector, max(vector, _power_of_two(num_steps)))
    rows_per_warp = WARP * vector // block_t
    num_warps = 4 if num_envs >= 4 * 4 * rows_per_warp * sm_count else 1
    return LaunchConfig(
        Regime.ROWS,
        block_n=rows_per_warp * num_warps,
        block_t=block_t,
        ahead=min(
            4 if arrays <= 3 else 2 if arrays <= 5 else 1, _power_of_two(-(-num_steps // block_t))
        ),
        vector=vector,
        unit=math.gcd(vector, alignment),
        num_warps=num_warps,
    )


def _chunks(
    num_envs: int, layout: Layout, itemsize: int, alignment: int, arrays: int
) -> LaunchConfig:
    # Side by side in memory as many sequences as make a row of 128 bytes; else one.
    vector = 2 if itemsize == 8 else 4
    block_n = min(WARP, _power_of_two(num_envs)) if layout is Layout.TIME_MAJOR else 1
    # A row of a tile is within one warp, as in the other regimes; the numbers that a warp publishes
    # for its rows fill a sector.
    num_warps = min(block_n, 8 if itemsize == 8 else 4)
    tiles = _CHUNK_TILES[itemsize == 8]
    return LaunchConfig(
        Regime.CHUNKS,
        block_n=block_n,
        block_t=WARP * vector * num_warps // block_n,
        ahead=next(ahead for most, ahead in tiles.items() if arrays <= most),
        vector=vector,
        unit=math.gcd(vector, alignment),
        num_warps=num_warps,
    )


def _power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()
