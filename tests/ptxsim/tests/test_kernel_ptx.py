"""Whole kernels in PTX: state spaces, scopes, branch tables, atomics, wide accesses."""

import numpy as np
import ptxsim
import pytest
from ptx_snippets import COUNT


def test_vectors_local_memory_and_generic_addresses():
    x = np.random.default_rng(0).standard_normal((COUNT, 4)).astype(np.float32)
    y = np.zeros_like(x)
    ptx = """.version 8.0
.target sm_90
.address_size 64
.visible .entry k(.param .u64 a, .param .u64 b) {
 .local .align 16 .b8 depot[32]; .shared .align 16 .b8 sm[2048];
 .reg .b64 %rd<20>; .reg .b32 %r<20>; .reg .pred %p<4>; .reg .f32 %f<8>;
 ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; cvta.to.global.u64 %rd1, %rd1;
 mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; shl.b32 %r3, %r2, 7; add.u32 %r3, %r3, %r1;
 mul.wide.u32 %rd3, %r3, 16;
 add.u64 %rd4, %rd1, %rd3; add.u64 %rd5, %rd2, %rd3;
 ld.global.nc.L1::no_allocate.v4.f32 {%f1, %f2, %f3, %f4}, [%rd4];
 mov.u64 %rd6, depot; cvta.local.u64 %rd7, %rd6; st.v2.f32 [%rd7], {%f1, %f2};
 st.local.v2.f32 [%rd6+8], {%f3, %f4};
 mov.u64 %rd8, sm; cvta.shared.u64 %rd9, %rd8; mul.wide.u32 %rd10, %r1, 16;
 add.u64 %rd11, %rd9, %rd10;
 ld.local.v4.f32 {%f1, %f2, %f3, %f4}, [depot]; st.v4.f32 [%rd11], {%f4, %f3, %f2, %f1};
 isspacep.shared %p1, %rd11; isspacep.local %p2, %rd7; isspacep.global %p3, %rd4;
 @!%p1 bra BAD; @!%p2 bra BAD; @!%p3 bra BAD;
 bar.sync 0; xor.b32 %r4, %r1, 1; shl.b32 %r5, %r4, 4; mov.u32 %r6, sm; add.u32 %r6, %r6, %r5;
 ld.shared.v4.f32 {%f1, %f2, %f3, %f4}, [%r6]; st.global.v4.f32 [%rd5], {%f1, %f2, %f3, %f4};
BAD: ret; }"""
    s = ptxsim.Module(ptx).launch(
        "k", COUNT // 128, 128, [x, y], check_races=True, check_uninit=True
    )
    assert np.array_equal(y, x.reshape(-1, 2, 4)[:, ::-1, ::-1].reshape(COUNT, 4))
    assert s.local_loads == COUNT
    assert s.local_stores == 2 * COUNT


def test_inline_asm_scopes_and_branch_tables():
    ptx = """.version 8.0
.target sm_90
.address_size 64
.visible .entry k(.param .u64 a) {
 .reg .b64 %rd<5>; .reg .b32 %r<9>; .reg .pred %p<2>;
 ld.param.u64 %rd1, [a]; mov.u32 %r1, %tid.x; and.b32 %r2, %r1, 3; mul.wide.u32 %rd2, %r1, 4;
 add.u64 %rd1, %rd1, %rd2;
 T: .branchtargets L0, L1, L2, L3;
 brx.idx %r2, T;
 L0: mov.u32 %r3, 10; bra.uni DONE;
 L1: { .reg .b32 tmp; mov.u32 tmp, 20; { .reg .b32 tmp; mov.u32 tmp, 5; } add.u32 %r3, tmp, 1;
 } bra.uni DONE;
 L2: mov.u32 %r3, 30; bra DONE;
 L3: { .reg .pred q; setp.gt.u32 q, %r1, 64; @q bra SKIP; mov.u32 %r3, 40; bra.uni OUT;
 SKIP: mov.u32 %r3, 41; OUT: }
 DONE: st.global.u32 [%rd1], %r3; ret; }"""
    y = np.zeros(128, np.uint32)
    ptxsim.Module(ptx).launch("k", 1, 128, [y])
    t = np.arange(128)
    assert np.array_equal(y, np.choose(t & 3, [10, 21, 30, np.where(t > 64, 41, 40)]))


def test_special_registers_and_3d_grids():
    src = r"""extern "C" __global__ void k(int* y) {
  int b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  int t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  int n = blockDim.x * blockDim.y * blockDim.z; unsigned lane, m, w;
  asm("mov.u32 %0, %%laneid;" : "=r"(lane)); asm("mov.u32 %0, %%lanemask_lt;" : "=r"(m));
  asm("mov.u32 %0, %%warpid;" : "=r"(w));
  y[b * n + t] = b * 1000 + t + (lane == t % 32) * 100000
    + (m == (1u << lane) - 1) * 200000 + (w == t / 32) * 400000; }"""
    y = np.zeros(2 * 3 * 4 * 60, np.int32)
    ptxsim.compile_cuda(src).launch("k", (2, 3, 4), (5, 4, 3), [y])
    b, t = np.divmod(np.arange(y.size), 60)
    assert np.array_equal(y, b * 1000 + t + 700000)


def test_vector_atomics_and_reductions():
    y = np.zeros(4, np.float32)
    ptx = """.version 8.1
.target sm_90
.address_size 64
.visible .entry k(.param .u64 a) { .reg .b64 %rd<3>; .reg .f32 %f<5>; .reg .b32 %r<4>;
 ld.param.u64 %rd1, [a]; mov.f32 %f1, 0f3F800000; mov.f32 %f2, 0f40000000;
 red.relaxed.gpu.global.add.v4.f32 [%rd1], {%f1, %f2, %f1, %f2}; ret; }"""
    ptxsim.Module(ptx).launch("k", 2, 50, [y])
    assert y.tolist() == [100, 200, 100, 200]


@pytest.mark.parametrize(
    ("op", "ref"),
    [
        ("add", lambda o, b: o + b),
        ("min", min),
        ("max", max),
        ("and", lambda o, b: o & b),
        ("or", lambda o, b: o | b),
        ("xor", lambda o, b: o ^ b),
        ("exch", lambda o, b: b),
        ("inc", lambda o, b: 0 if o >= b else o + 1),
        ("dec", lambda o, b: b if o == 0 or o > b else o - 1),
    ],
)
@pytest.mark.parametrize("cells", [1, 7, 400])
def test_atomics_in_thread_order(op, ref, cells):
    g = np.random.default_rng(1)
    n = 256
    mem = g.integers(0, 50, cells).astype(np.uint32)
    init = mem.copy()
    idx, val = g.integers(0, cells, n).astype(np.uint32), g.integers(0, 60, n).astype(np.uint32)
    old = np.zeros(n, np.uint32)
    t = "b32" if op in ("and", "or", "xor", "exch") else "u32"
    ptx = f""".version 8.0
.target sm_90
.address_size 64
.visible .entry k(.param .u64 m, .param .u64 i, .param .u64 v, .param .u64 o) {{
 .reg .b64 %rd<9>; .reg .b32 %r<9>;
 ld.param.u64 %rd1, [m]; ld.param.u64 %rd2, [i]; ld.param.u64 %rd3, [v]; ld.param.u64 %rd4, [o];
 mov.u32 %r1, %tid.x; mul.wide.u32 %rd5, %r1, 4; add.u64 %rd2, %rd2, %rd5;
 add.u64 %rd3, %rd3, %rd5; add.u64 %rd4, %rd4, %rd5;
 ld.global.u32 %r2, [%rd2]; ld.global.u32 %r3, [%rd3]; mul.wide.u32 %rd6, %r2, 4;
 add.u64 %rd6, %rd1, %rd6;
 atom.global.{op}.{t} %r4, [%rd6], %r3; st.global.u32 [%rd4], %r4; ret; }}"""
    ptxsim.Module(ptx).launch("k", 1, n, [mem, idx, val, old])
    m = init.astype(object)
    for k in range(n):
        c = idx[k]
        assert int(old[k]) == int(m[c])
        m[c] = ref(int(m[c]), int(val[k])) & 0xFFFFFFFF
    assert np.array_equal(mem, m.astype(np.uint32))


def test_256_bit_accesses():
    x = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    y, z = np.zeros_like(x), np.zeros_like(x)
    ptx = """.version 8.8
.target sm_100
.address_size 64
.visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c) { .reg .b64 %rd<12>;
    .reg .b32 %r<12>;
 ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [c]; mov.u32 %r1, %tid.x;
 mul.wide.u32 %rd4, %r1, 32; add.u64 %rd1, %rd1, %rd4; add.u64 %rd2, %rd2, %rd4;
 add.u64 %rd3, %rd3, %rd4;
 ld.global.v8.b32 {%r2, %r3, %r4, %r5, %r6, %r7, %r8, %r9}, [%rd1];
 st.global.v8.b32 [%rd2], {%r9, %r8, %r7, %r6, %r5, %r4, %r3, %r2};
 ld.global.v4.b64 {%rd5, %rd6, %rd7, %rd8}, [%rd1];
 st.global.v4.b64 [%rd3], {%rd8, %rd7, %rd6, %rd5}; ret; }"""
    s = ptxsim.Module(ptx).launch("k", 1, 64, [x, y, z], check_races=True, check_uninit=True)
    assert np.array_equal(y, x[:, ::-1])
    assert np.array_equal(z, x.reshape(64, 4, 2)[:, ::-1].reshape(64, 8))
    assert s.load_widths == {32: 128}
    assert s.coalescing_efficiency == 1.0
