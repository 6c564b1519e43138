"""Threads that wait for other threads: grid barriers, look-back, spinning."""

import numpy as np
import ptxsim
import pytest
import sample_cuda_sources as sources
from cuda_build import mod, rng


@pytest.mark.parametrize("schedule", ["lockstep", "random"])
@pytest.mark.parametrize("resident", [None, 256])
def test_grid_counter(schedule, resident):
    n = 2000
    x = rng().standard_normal(n).astype(np.float32)
    part, out, tick = np.zeros(16, np.float32), np.zeros(1, np.float32), np.zeros(1, np.uint32)
    mod(sources.ATOMICS).launch(
        "last_block",
        16,
        128,
        [x, part, out, tick, n],
        schedule=schedule,
        max_resident_threads=resident,
        check_races=True,
    )
    assert abs(out[0] - x.sum(dtype=np.float64)) < 1e-3
    assert tick[0] == 0


@pytest.mark.parametrize("schedule", ["lockstep", "random"])
def test_grid_barrier(schedule):
    d = np.zeros(2 * 16 * 64, np.int32)
    mod(sources.ATOMICS).launch(
        "grid_barrier",
        16,
        64,
        [d, np.zeros(1, np.uint32), np.zeros(1, np.uint32)],
        schedule=schedule,
        max_resident_threads=None,
        check_races=True,
    )
    n = 16 * 64
    assert np.array_equal(d[n:], np.arange(n)[::-1])


def test_grid_barrier_without_residency_is_reported():
    d = np.zeros(2 * 16 * 64, np.int32)
    with pytest.raises(ptxsim.DeadlockError, match="max_resident_threads"):
        mod(sources.ATOMICS).launch(
            "grid_barrier",
            16,
            64,
            [d, np.zeros(1, np.uint32), np.zeros(1, np.uint32)],
            max_resident_threads=256,
        )


@pytest.mark.parametrize("seed", [0, 1, 2, None])
def test_decoupled_lookback(seed):
    nb = 40
    x = rng().integers(0, 10, nb * 128).astype(np.int32)
    out = np.zeros_like(x)
    st, agg, inc = (np.zeros(nb, np.int32) for _ in range(3))
    kw = {} if seed is None else {"schedule": "random", "seed": seed}
    mod(sources.ATOMICS).launch("lookback", nb, 128, [x, out, st, agg, inc], check_races=True, **kw)
    assert np.array_equal(out, np.cumsum(x))


@pytest.mark.parametrize(
    "kw", [{}, {"schedule": "random", "seed": 0}, {"schedule": "random", "seed": 7}]
)
def test_ping_pong_between_blocks(kw):
    src = r"""extern "C" __global__ void k(volatile int* turn, int* log, int rounds) {
  int me = blockIdx.x;
  for (int r = 0; r < rounds; r++) {
    if (threadIdx.x == 0) { while (turn[0] != 2 * r + me) {} log[2 * r + me] = me;
    __threadfence(); turn[0] = 2 * r + me + 1; }
    __syncthreads();
  } }"""
    log = np.full(20, -1, np.int32)
    mod(src).launch("k", 2, 64, [np.zeros(1, np.int32), log, 10], **kw)
    assert np.array_equal(log, np.tile([0, 1], 10))


def test_spin_within_one_warp():
    src = r"""extern "C" __global__ void k(int* lock, int* y) {
  bool done = false;
  while (!done) {
    if (atomicCAS(lock, 0, 1) == 0) { *(volatile int*)y = *(volatile int*)y + 1; __threadfence();
    atomicExch(lock, 0); done = true; }
  } }"""
    for kw in ({}, {"schedule": "random", "seed": 3}):
        y = np.zeros(1, np.int32)
        mod(src).launch("k", 2, 64, [np.zeros(1, np.int32), y], **kw)
        assert y[0] == 128


def test_long_polling_loops_are_not_mistaken_for_deadlock():
    src = r"""extern "C" __global__ void k(volatile float* p, float* y, int n) {
  float r = 0.f; for (int i = 0; i < n; i++) r += p[i & 63]; y[threadIdx.x] = r; }"""
    p, y = np.ones(64, np.float32), np.zeros(32, np.float32)
    mod(src).launch("k", 1, 32, [p, y, 60000])
    assert np.all(y == 60000)
