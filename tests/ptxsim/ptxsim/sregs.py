"""Special registers: which names exist, and their value in every thread of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import SimulationFault
from .types import Array

if TYPE_CHECKING:
    from .env import Env

DYNAMIC_SREGS = (
    "%clock",
    "%clock64",
    "%clock_hi",
    "%globaltimer",
    "%globaltimer_lo",
    "%globaltimer_hi",
)
NAMES = {
    "%laneid",
    "%warpid",
    "%nwarpid",
    "%smid",
    "%nsmid",
    "%gridid",
    "%clock",
    "%clock64",
    "%clock_hi",
    "%globaltimer",
    "%globaltimer_lo",
    "%globaltimer_hi",
    "%lanemask_eq",
    "%lanemask_le",
    "%lanemask_lt",
    "%lanemask_ge",
    "%lanemask_gt",
    "%dynamic_smem_size",
    "%total_smem_size",
    "%aggr_smem_size",
    "%cluster_ctarank",
    "%cluster_nctarank",
    "%is_explicit_cluster",
    "%current_graph_exec",
    "%reserved_smem_offset_begin",
    "%reserved_smem_offset_end",
    "%reserved_smem_offset_cap",
    "WARP_SZ",
}
PREFIXES = (
    "%tid",
    "%ntid",
    "%ctaid",
    "%nctaid",
    "%clusterid",
    "%nclusterid",
    "%cluster_ctaid",
    "%cluster_nctaid",
    "%envreg",
    "%pm",
)


def is_special_register(name: str) -> bool:
    if name in NAMES:
        return True
    return name.split(".")[0] in PREFIXES or name.startswith("%envreg")


def special_register(env: Env, name: str) -> Array:
    """The value of the register ``name`` in every lane of the batch."""
    launch = env.launch
    bx, by, _bz = launch.block
    gx, gy, _gz = launch.grid
    t = env.tid_lin
    b = env.blocks[env.block_of]

    def full(v):
        return np.full(env.nlanes, v, np.int64)

    base, _, axis = name.partition(".")
    k = {"x": 0, "y": 1, "z": 2}.get(axis, 0)
    if base == "%tid":
        return (t % bx, t // bx % by, t // (bx * by))[k]
    if base == "%ntid":
        return full(launch.block[k])
    if base == "%ctaid":
        return (b % gx, b // gx % gy, b // (gx * gy))[k]
    if base == "%nctaid":
        return full(launch.grid[k])
    if name == "%laneid":
        return t & 31
    if name == "%warpid":
        return t >> 5
    if name == "%nwarpid":
        return full(env.wpb)
    if name == "%smid":
        return b % launch.num_sms
    if name == "%nsmid":
        return full(launch.num_sms)
    if name.startswith("%lanemask_"):
        lane = (t & 31).astype(np.int64)
        one = np.int64(1) << lane
        m = {
            "eq": one,
            "lt": one - 1,
            "le": (one << 1) - 1,
            "ge": 0xFFFFFFFF ^ (one - 1),
            "gt": 0xFFFFFFFF ^ ((one << 1) - 1),
        }[name[10:]]
        return m & 0xFFFFFFFF
    if name == "%dynamic_smem_size":
        return full(launch.shared_dynamic)
    if name in ("%total_smem_size", "%aggr_smem_size"):
        return full(launch.shared_total)
    if name == "%gridid":
        return full(1)
    if base == "%clusterid":
        return (b % gx, b // gx % gy, b // (gx * gy))[k]
    if base == "%nclusterid":
        return full(launch.grid[k])
    if base in ("%cluster_ctaid", "%cluster_ctarank"):
        return full(0)
    if base in ("%cluster_nctaid", "%cluster_nctarank"):
        return full(1)
    if name == "%is_explicit_cluster":
        return full(0)
    raise SimulationFault(f"special register {name} is not modelled")
