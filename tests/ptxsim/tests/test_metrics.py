"""Counts of instructions, traffic, divergence and bank conflicts."""

import numpy as np
import ptxsim
import pytest
import sample_cuda_sources as sources
from cuda_build import mod


def test_coalesced_float4_copy_is_perfect():
    x = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    y = np.zeros_like(x)
    s = mod(sources.COPY).launch("copy4", 8, 128, [x, y, 1024])
    assert np.array_equal(x, y)
    assert s.coalescing_efficiency == 1.0
    assert s.traffic_ratio == 1.0
    assert s.global_load_bytes == s.global_store_bytes == 4 * 4096
    assert s.global_load_sectors == s.unique_load_sectors == 4096 * 4 // 32
    assert s.load_widths == {16: 1024}
    assert s.store_widths == {16: 1024}
    assert s.average_active_lanes == 32.0
    assert s.compulsory_bytes == 2 * 4 * 4096
    d = s.as_dict()
    assert d["coalescing_efficiency"] == 1.0
    assert "copy4" in str(s)


def test_strided_access_moves_eight_times_the_sectors():
    n = 512
    x = np.arange(n * 32, dtype=np.float32)
    y = np.zeros(n, np.float32)
    a = mod(sources.COPY).launch("strided", 4, 128, [x, y, 1, n])
    b = mod(sources.COPY).launch("strided", 4, 128, [x, y, 32, n])
    assert np.array_equal(y, x[::32])
    assert b.global_load_sectors == 8 * a.global_load_sectors
    assert b.global_load_bytes / (32 * b.global_load_sectors) == 1 / 8
    assert b.traffic_ratio == 1.0  # each sector is touched by one thread only


def test_repeated_reads_raise_the_traffic_ratio():
    n = 256
    x = np.arange(64, dtype=np.float32)
    y = np.zeros(n, np.float32)
    s = mod(sources.COPY).launch("strided", 2, 128, [x, y, 0, n])
    assert s.global_load_sectors == 8
    assert s.unique_load_sectors == 1
    assert s.traffic_ratio == (8 + 32) / (1 + 32)


@pytest.mark.parametrize(("stride", "degree"), [(1, 1), (2, 2), (4, 4), (32, 32), (33, 1), (0, 1)])
def test_bank_conflicts(stride, degree):
    y = np.zeros(32, np.float32)
    s = mod(sources.COPY).launch("banks", 1, 32, [y, stride])
    assert np.array_equal(y, np.arange(32) * stride)
    assert s.shared_conflict_max == degree
    assert s.shared_loads == 32
    assert s.shared_requests == 34


def test_divergence_lowers_active_lanes():
    x = np.ones(64, np.float32)
    y = np.zeros(64, np.float32)
    s = mod(sources.COPY).launch("diverge", 1, 64, [y, x])
    assert 16 <= s.average_active_lanes < 32
    assert s.divergent_branches >= 2
    assert s.total_thread_instructions <= 32 * s.total_warp_instructions


def test_guarded_threads_are_not_counted_as_requests():
    x = np.zeros(400, np.float32)
    s = mod(sources.COPY).launch("copy4", 1, 128, [x, np.zeros_like(x), 100])
    assert s.global_load_bytes == 1600
    assert s.global_load_requests == 4
    assert s.thread_instructions["load"] < 128 * 4


def test_instruction_classes():
    n = 300
    x = np.random.default_rng(0).standard_normal(n)
    outs = [np.zeros(n) for _ in range(4)]
    s = mod(sources.TRIG).launch("dbl", 2, 256, [x, *outs, n])
    assert s.warp_instructions["fp64"] > s.warp_instructions["fp32"]
    assert s.warp_instructions["load"] >= 16
    s = mod(sources.ATOMICS).launch(
        "fmax_cas", 2, 128, [x.astype(np.float32), np.zeros(1, np.float32), 256]
    )
    assert s.warp_instructions["atomic"] > 0
    assert s.atomic_requests > 0


def test_results_do_not_depend_on_stats_or_batching():
    x = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    ref = None
    for kw in ({}, {"stats": False}, {"max_resident_threads": 256}, {"max_resident_threads": None}):
        y = np.zeros_like(x)
        s = mod(sources.COPY).launch("copy4", 8, 128, [x, y, 1024], **kw)
        assert np.array_equal(x, y)
        if kw.get("stats", True):
            key = (s.total_warp_instructions, s.global_sectors, s.unique_sectors)
            assert ref in (None, key)
            ref = key


def test_ptxas_report():
    from ptxsim.ptxas import find_ptxas

    if not find_ptxas():
        pytest.skip("no ptxas")
    r = ptxsim.ptxas_info(mod(sources.REDUCE))
    assert r["reduce"]["registers"] > 0
    assert r["reduce"]["shared"] >= 1024
    assert r["reduce"]["spill_stores"] == 0
