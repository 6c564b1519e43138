"""Faults must be found and reported with the right place."""

import numpy as np
import ptxsim
import pytest
import sample_cuda_sources as sources
from cuda_build import mod


def line_of(src, text):
    return next(i for i, line in enumerate(src.splitlines(), 1) if text in line)


def test_out_of_bounds_store_names_buffer_offset_and_line():
    x, y = np.ones(100, np.float32), np.zeros(100, np.float32)
    with pytest.raises(ptxsim.MemoryFault) as e:
        mod(sources.COPY).launch("oob", 1, 128, [x, y, 100], arg_names=["x", "y", "n"])
    msg = str(e.value)
    assert "write of 4 bytes" in msg
    assert "'y' (400 bytes): byte offset 400, 0 bytes past the end" in msg
    assert f"kernel.cu:{line_of(sources.COPY, 'y[i] = v * 2.f')}" in msg
    assert "block (0,0,0) thread (100,0,0)" in msg
    assert "28 thread(s)" in msg


def test_view_bounds_and_storage_bounds():
    base = np.zeros(200, np.float32)
    x = np.ones(128, np.float32)
    with pytest.raises(ptxsim.MemoryFault):
        mod(sources.COPY).launch("oob", 1, 128, [x, base[:100], 128])
    mod(sources.COPY).launch("oob", 1, 128, [x, base[:100], 128], bounds="storage")
    assert np.all(base[:128] == 2)


def test_null_pointer():
    with pytest.raises(ptxsim.MemoryFault, match="null pointer"):
        mod(sources.COPY).launch("oob", 1, 32, [np.ones(32, np.float32), 0, 32])


def test_misaligned_vector_load():
    x, y = np.zeros(101, np.float32), np.zeros(400, np.float32)
    with pytest.raises(ptxsim.MemoryFault, match=r"misaligned access of 16 bytes.*remainder 4"):
        mod(sources.COPY).launch("copy4", 1, 32, [x[1:], y, 25])
    with pytest.raises(ptxsim.MemoryFault, match="misaligned"):
        mod(sources.COPY).launch("copy4", 1, 32, [ptxsim.DevicePtr(x, 4), y, 25])


@pytest.mark.parametrize("first", [0, 1, 3, 8])
def test_wide_accesses_to_an_array_that_starts_anywhere(first):
    source = """
extern "C" __global__ void middle(const char* x, char* y, int from, int to) {
    uint4 v = ((const uint4*)(x + from))[threadIdx.x];
    ((uint4*)(y + to))[threadIdx.x] = v;
    atomicAdd((unsigned*)(y + to) + threadIdx.x, 1u);
}"""
    x, y = np.arange(1000, dtype=np.uint16), np.zeros(1000, np.uint16)
    part, target = x[first:], y[16 - first :]
    ahead = [-a.ctypes.data % 16 for a in (part, target)]
    mod(source).launch("middle", 1, 32, [part, target, *ahead])
    moved = part[ahead[0] // 2 :][:256].copy()
    moved[:64:2] += 1
    np.testing.assert_array_equal(target[ahead[1] // 2 :][:256], moved)


def test_read_only_array():
    y = np.zeros(32, np.float32)
    y.flags.writeable = False
    with pytest.raises(ptxsim.MemoryFault, match="read-only"):
        mod(sources.COPY).launch("oob", 1, 32, [np.ones(32, np.float32), y, 32])


def test_missing_syncthreads_is_a_race():
    x, out = np.ones(256, np.float32), np.zeros(1, np.float32)
    with pytest.raises(ptxsim.RaceError) as e:
        mod(sources.REDUCE).launch("reduce_racy", 1, 256, [x, out, 256], check_races=True)
    assert "shared memory at offset" in str(e.value)
    assert "kernel.cu:" in str(e.value)


def test_global_overlap_is_a_race():
    y = np.full(64, -1, np.int32)
    with pytest.raises(ptxsim.RaceError, match="global memory"):
        mod(sources.COPY).launch("overlap", 1, 64, [y], check_races=True)
    with pytest.raises(ptxsim.RaceError, match="global memory"):
        mod(sources.COPY).launch("overlap", 64, 1, [y], check_races=True, max_resident_threads=32)


def test_uninitialised_shared_read():
    y = np.zeros(64, np.float32)
    mod(sources.COPY).launch("uninit", 1, 64, [y, 64], check_uninit=True)
    with pytest.raises(ptxsim.UninitializedRead, match=r"thread \(60,0,0\).*offset 240"):
        mod(sources.COPY).launch("uninit", 1, 64, [y, 60], check_uninit=True)


def test_uninitialised_global_read():
    x = np.zeros(64, np.float32)
    with pytest.raises(ptxsim.UninitializedRead):
        mod(sources.COPY).launch(
            "oob", 1, 32, [ptxsim.uninitialized(x), np.zeros(64, np.float32), 32], check_uninit=True
        )


def test_missing_cp_async_wait():
    x = np.arange(256, dtype=np.float32)
    y = np.zeros(64, np.float32)
    m = mod(sources.CPASYNC)
    m.launch("stage", 1, 64, [x, y, 1], check_races=True)
    assert np.array_equal(y, x.reshape(64, 4)[::-1, 0])
    s = m.launch("stage", 1, 64, [x, y, 0])
    assert np.all(y == -1)  # the late copy shows as stale data
    assert any("never waited" in k for k in s.notes)
    m.launch("stage", 1, 64, [x, y, 0], cp_async="eager")
    assert np.array_equal(y, x.reshape(64, 4)[::-1, 0])
    with pytest.raises(ptxsim.RaceError, match="asynchronous copy"):
        m.launch("stage", 1, 64, [x, y, 0], check_races=True)
    with pytest.raises(ptxsim.UninitializedRead):
        m.launch("stage", 1, 64, [x, y, 0], check_uninit=True)


def test_spin_without_writer_is_a_deadlock():
    with pytest.raises(ptxsim.DeadlockError, match="spinning"):
        mod(sources.COPY).launch("deadlock", 1, 64, [np.zeros(65, np.int32)])


def test_shared_memory_bounds():
    src = r"""extern "C" __global__ void k(float* y) { extern __shared__ float d[];
    d[threadIdx.x] = 1.f;
              __syncthreads(); y[threadIdx.x] = d[31 - threadIdx.x]; }"""
    m = mod(src)
    y = np.zeros(32, np.float32)
    m.launch("k", 1, 32, [y], shared=128)
    with pytest.raises(ptxsim.MemoryFault, match="shared memory at offset 124"):
        m.launch("k", 1, 32, [y], shared=124)


def test_unsupported_instruction_is_named():
    ptx = """.version 8.0
.target sm_90
.address_size 64
.visible .entry k(.param .u64 p)
{
 .reg .b64 %rd<3>;
 .reg .b32 %r<3>;
 ld.param.u64 %rd1, [p];
 wgmma.fence.sync.aligned;
 ret;
}"""
    with pytest.raises(ptxsim.UnsupportedInstruction, match=r"wgmma\.fence.*PTX line 9"):
        ptxsim.Module(ptx).launch("k", 1, 32, [np.zeros(1, np.float32)])


def test_trap_and_assert():
    src = r"""#include <cassert>
extern "C" __global__ void k(int* y) { assert(y[threadIdx.x] == 0); y[threadIdx.x] = 1; }"""
    try:
        m = ptxsim.compile_cuda(src, compiler="nvcc")
    except ptxsim.CompileError:
        pytest.skip("no nvcc")
    y = np.zeros(32, np.int32)
    m.launch("k", 1, 32, [y])
    assert y.sum() == 32
    with pytest.raises(ptxsim.TrapError, match=r"assertion failed: y\[threadIdx\.x\] == 0"):
        m.launch("k", 1, 32, [y])


def test_barrier_in_divergent_code():
    src = r"""extern "C" __global__ void k(int* y) {
  if (threadIdx.x < 16) { y[threadIdx.x] = 1; __syncthreads(); y[threadIdx.x] += 1; }
  else { y[threadIdx.x] = 2; __syncthreads(); y[threadIdx.x] += 5; } }"""
    with pytest.raises(ptxsim.BarrierError, match="from different places"):
        mod(src).launch("k", 1, 32, [np.zeros(32, np.int32)])


def test_argument_errors():
    m = mod(sources.COPY)
    x = np.zeros(32, np.float32)
    with pytest.raises(ptxsim.LaunchError, match=r"3 were given|takes 4|arguments"):
        m.launch("copy4", 1, 32, [x, x])
    with pytest.raises(ptxsim.LaunchError, match="no kernel"):
        m.launch("nothing", 1, 32, [])
    with pytest.raises(ptxsim.LaunchError, match="1024"):
        m.launch("copy4", 1, 2048, [x, x, 1])
    with pytest.raises(ptxsim.LaunchError, match="float"):
        m.launch("copy4", 1, 32, [x, x, 1.5])


def test_warp_synchronous_accesses_are_ordered():
    src = r"""extern "C" __global__ void k(int* y, int sync) {
  __shared__ int s[32]; int t = threadIdx.x; s[t] = t;
  if (sync) __syncwarp();
  y[t] = s[31 - t]; }"""
    y = np.zeros(32, np.int32)
    mod(src).launch("k", 1, 32, [y, 1], check_races=True)
    with pytest.raises(ptxsim.RaceError):
        mod(src).launch("k", 1, 32, [y, 0], check_races=True)


def test_named_barriers():
    src = r"""extern "C" __global__ void k(int* y) {
  __shared__ int s[64]; int t = threadIdx.x;
  if (t < 64) { s[t] = t * t; asm volatile("bar.sync 1, 64;" ::: "memory"); y[t] = s[63 - t]; }
  else { y[t] = -t; asm volatile("bar.sync 2, 32;" ::: "memory"); }
  __syncthreads(); y[t] += 1; }"""
    y = np.zeros(96, np.int32)
    for kw in ({}, {"schedule": "random", "seed": 4}):
        mod(src).launch("k", 1, 96, [y], check_races=True, **kw)
        want = np.concatenate([(63 - np.arange(64)) ** 2, -np.arange(64, 96)]) + 1
        assert np.array_equal(y, want)


def test_producer_consumer_barrier():
    src = r"""extern "C" __global__ void k(int* y) {
  __shared__ int s[32]; int t = threadIdx.x;
  if (t < 32) { s[t] = t + 7; asm volatile("bar.arrive 3, 64;" ::: "memory"); }
  else { asm volatile("bar.sync 3, 64;" ::: "memory"); y[t - 32] = s[63 - t]; } }"""
    y = np.zeros(32, np.int32)
    for kw in ({}, {"schedule": "random", "seed": 2}):
        mod(src).launch("k", 3, 64, [y], check_races=False, **kw)
        assert np.array_equal(y, np.arange(32)[::-1] + 7)
    mod(src).launch("k", 1, 64, [y], check_races=True)


def test_mbarrier():
    src = r"""extern "C" __global__ void k(int* y) {
  __shared__ unsigned long long bar; __shared__ int s[64];
  unsigned a = (unsigned)__cvta_generic_to_shared(&bar); int t = threadIdx.x;
  if (t == 0) asm volatile("mbarrier.init.shared.b64 [%0], 64;" :: "r"(a));
  __syncthreads();
  s[t] = t * 3; unsigned long long st;
  asm volatile("mbarrier.arrive.shared.b64 %0, [%1];" : "=l"(st) : "r"(a) : "memory");
  unsigned ok = 0;
  while (!ok) asm volatile("{ .reg .pred p; mbarrier.test_wait.shared.b64 p, [%1], %2; "
                           "selp.u32 %0, 1, 0, p; }"
                           : "=r"(ok) : "r"(a), "l"(st) : "memory");
  y[t] = s[63 - t]; }"""
    y = np.zeros(64, np.int32)
    for kw in ({}, {"schedule": "random", "seed": 2}):
        mod(src).launch("k", 1, 64, [y], check_races=True, **kw)
        assert np.array_equal(y, np.arange(64)[::-1] * 3)
