"""Ordinary Triton launches on CPU tensors, executed as compiled PTX."""

import os

import numpy as np
import ptxsim
import pytest
from simulated import CHECK, close

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET", "0") == "1":
    pytest.skip("the interpreter is on", allow_module_level=True)

kernels = pytest.importorskip("sample_triton_kernels")


def test_vector_add_ragged(sim):
    for n in (4000, 4096, 7):
        x, y, o = torch.randn(n), torch.randn(n), torch.zeros(n)
        kernels.add_kernel[(triton.cdiv(n, 1024),)](x, y, o, n, BLOCK=1024)
        assert torch.equal(o, x + y)
    assert [s.kernel for s in sim.launches] == ["add_kernel"] * 3


def test_divisibility_specialisation(sim90):
    x, y, o = torch.randn(4097), torch.randn(4097), torch.zeros(4097)
    kernels.add_unmasked_kernel[(4,)](x, y, o, BLOCK=1024)
    assert sim90.last().load_widths == {16: 2 * 1024}
    kernels.add_unmasked_kernel[(4,)](x[1:], y[1:], o[1:], BLOCK=1024)  # not 16-byte aligned
    assert sim90.last().load_widths == {4: 2 * 4096}
    assert torch.equal(o[1:], (x + y)[1:])


@pytest.mark.parametrize(
    ("M", "N", "axis", "rev"),
    [
        (64, 32, 0, True),
        (16, 256, 1, False),
        (32, 32, 1, True),
        (128, 4, 0, False),
        (4, 1024, 1, True),
    ],
)
def test_associative_scan(sim, M, N, axis, rev):
    a, b, o = torch.rand(M, N), torch.randn(M, N), torch.zeros(M, N)
    kernels.scan_kernel[(1,)](a, b, o, M, N, axis, rev)
    A, B = (a, b) if axis == 0 else (a.T, b.T)
    if rev:
        A, B = A.flip(0), B.flip(0)
    acc, ref = torch.zeros(A.shape[1], dtype=torch.float64), []
    for i in range(A.shape[0]):
        acc = acc * A[i] + B[i]
        ref.append(acc)
    ref = torch.stack(ref)
    ref = ref.flip(0) if rev else ref
    close(o, ref if axis == 0 else ref.T, 1e-4)


def test_reductions(sim):
    x = torch.randn(32, 64)
    r, c, am = torch.zeros(32), torch.zeros(64), torch.zeros(32, dtype=torch.int32)
    kernels.reduce2d_kernel[(1,)](x, r, c, am, 32, 64)
    close(r, x.sum(1), 1e-5)
    assert torch.equal(c, x.max(0).values)
    assert torch.equal(am, x.argmax(1).int())


def test_sort_cumsum_histogram_gather_flip(sim):
    x, o = torch.randn(4, 64), torch.zeros(4, 64)
    kernels.sort_kernel[(1,)](x, o, 4, 64)
    assert torch.equal(o, x.sort(1).values)
    for rev in (False, True):
        x, o = torch.randn(3, 512), torch.zeros(3, 512)
        kernels.cumsum_kernel[(3,)](x, o, 512, rev)
        close(o, x.flip(1).cumsum(1).flip(1) if rev else x.cumsum(1), 1e-4)
    h, o = torch.randint(0, 32, (1024,), dtype=torch.int32), torch.zeros(32, dtype=torch.int32)
    kernels.histogram_kernel[(1,)](h, o, 1024, 32)
    assert torch.equal(o, torch.bincount(h, minlength=32).int())
    x, o = torch.randn(256), torch.zeros(256)
    kernels.shuffle_index_kernel[(1,)](x, o, 256)
    assert torch.equal(o, x[(torch.arange(256) * 7 + 3) % 256])
    x, o = torch.randint(0, 99, (128,)).float(), torch.zeros(128)
    kernels.topk_flip_kernel[(1,)](x, o, 128)
    assert torch.equal(o, x.flip(0) + float(np.bitwise_xor.reduce(x.int().numpy())))


def test_atomics(sim):
    n = 3000
    idx = torch.randint(0, 7, (n,), dtype=torch.int32)
    v = torch.randint(-1000, 1000, (n,), dtype=torch.int32)
    f, o, xr = torch.zeros(7), torch.zeros(7, dtype=torch.int32), torch.zeros(7, dtype=torch.int32)
    mx, mn = (
        torch.full((7,), -(10**9), dtype=torch.int32),
        torch.full((7,), 10**9, dtype=torch.int32),
    )
    kernels.atomics_kernel[(12,)](idx, v, f, mx, mn, o, xr, n, BLOCK=256)
    for k in range(7):
        w = v[idx == k].numpy()
        assert f[k] == w.sum()
        assert mx[k] == w.max()
        assert mn[k] == w.min()
        assert o[k] == np.bitwise_or.reduce(w)
        assert xr[k] == np.bitwise_xor.reduce(w)


def test_float_atomics(sim):
    n = 1000
    v = torch.randn(n)
    fm, fn = torch.full((4,), -9.0), torch.full((4,), 9.0)
    h, d = torch.zeros(4, dtype=torch.float16), torch.zeros(4, dtype=torch.float64)
    kernels.atomic_float_kernel[(4,)](v, fm, fn, h, d, n, BLOCK=256)
    i = torch.arange(n) % 4
    for k in range(4):
        assert fm[k] == v[i == k].max()
        assert fn[k] == v[i == k].min()
        close(d[k], v[i == k].double().sum(), 1e-9)
        close(h[k], v[i == k].double().sum(), 0.2)


@pytest.mark.parametrize(
    "opts", [{}, {"schedule": "random", "seed": 0}, {"schedule": "random", "seed": 1}]
)
def test_spin_lock_and_lookback(opts):
    torch.manual_seed(0)
    with ptxsim.triton_driver(arch=90, **opts):
        lock, d = torch.zeros(1, dtype=torch.int32), torch.zeros(128, dtype=torch.int32)
        kernels.lock_kernel[(12,)](lock, d, BLOCK=128)
        assert torch.all(d == 12)
        x, o = torch.randn(24 * 256), torch.zeros(24 * 256)
        kernels.lookback_kernel[(24,)](
            x, o, torch.zeros(24, dtype=torch.int32), torch.zeros(24), BLOCK=256
        )
        close(o, x.double().cumsum(0), 1e-4)


def test_lookback_is_race_free(sim):
    x, o = torch.randn(8 * 256), torch.zeros(8 * 256)
    kernels.lookback_kernel[(8,)](
        x, o, torch.zeros(8, dtype=torch.int32), torch.zeros(8), BLOCK=256
    )
    close(o, x.double().cumsum(0), 1e-4)


def philox(seed, off):
    c, k = [off, 0, 0, 0], [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        b, a = 0xCD9E8D57 * c[2], 0xD2511F53 * c[0]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def test_random_numbers(sim):
    n, seed = 1024, 1234
    o, on, oi = torch.zeros(n), torch.zeros(n), torch.zeros(n, dtype=torch.int32)
    kernels.rand_kernel[(2,)](o, on, oi, seed, BLOCK=512)
    for i in range(0, n, 37):
        w = philox(seed, i)
        s = w[0] - (1 << 32) if w[0] >= 1 << 31 else w[0]
        assert int(oi[i]) == s
        mag = np.float32(-s - 1 if s < 0 else s) * np.float32(4.6566127342e-10)
        assert o[i] == float(mag)
        u = [
            max(1e-7, (-z - 1 if z < 0 else z) * 4.6566127342e-10)
            for z in (x - (1 << 32) if x >= 1 << 31 else x for x in w[:2])
        ]
        close(on[i], np.sqrt(-2 * np.log(u[0])) * np.cos(2 * np.pi * u[1]), 1e-4)


def test_math_functions(sim):
    n = 1000
    x = torch.cat([torch.randn(500) * 10, torch.randn(400) * 1e5, torch.randn(100) * 1e20])
    o = [torch.zeros(n) for _ in range(8)]
    kernels.math_kernel[(4,)](x, *o, n, BLOCK=256)
    X = x.double()
    close(o[0], X.sin(), 1e-5)
    close(o[1], X.cos(), 1e-5)
    f = X.abs() < 5000
    close(o[2][f] / (X * 0.01).exp()[f], torch.ones(int(f.sum())), 1e-4)
    close(o[3], (X.abs() + 1e-3).log(), 1e-5)
    close(o[4], (X * 0.01).tanh(), 1e-5)
    close(o[5].double() / X.abs().sqrt(), torch.ones(n), 1e-5)
    close(o[6].double() / (X.abs() * 0.01 + 0.1).pow(1.7), torch.ones(n), 1e-4)
    close(o[7], torch.erf(X * 0.01), 1e-5)


def test_double_math(sim):
    n = 300
    x = torch.randn(n, dtype=torch.float64) * 100
    x[250:] *= 1e12
    o = [torch.zeros(n, dtype=torch.float64) for _ in range(3)]
    kernels.math64_kernel[(2,)](x, *o, n, BLOCK=256)
    close(o[0], x.sin(), 1e-14)
    f = x.abs() < 1e4
    close((o[1] / (x * 0.01).exp())[f], torch.ones(int(f.sum())), 1e-14)
    close(o[2], (x.abs() + 1e-3).log(), 1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_casts(sim, dtype):
    n = 1000
    x = (torch.randn(n, dtype=torch.float64) * 30).to(dtype)
    types = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int32)
    o = [torch.zeros(n, dtype=t) for t in types]
    kernels.cast_kernel[(4,)](x, *o, n, BLOCK=256)
    w = (x.double() * 2 + 1).to(dtype)
    for got, t in zip(o, types, strict=True):
        want = w.to(torch.int32).to(torch.int8) if t == torch.int8 else w.to(t)
        if dtype == torch.float64 and t == torch.bfloat16:  # one rounding, not two
            assert torch.all((got.double() - w).abs() <= w.abs() * 2.0**-8)
        else:
            assert torch.equal(got, want), t


def test_int64_indexing(sim):
    x, o = torch.randint(-(10**12), 10**12, (8, 128)), torch.zeros(8, 128, dtype=torch.int64)
    kernels.int64_kernel[(8,)](x, o, 128, 8, BLOCK=128)
    i = torch.arange(1024).view(8, 128)
    assert torch.equal(o, x * 3 + i // 7 - i % 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_transpose(sim, dtype):
    x = torch.randint(-100, 100, (64, 32)).to(dtype)
    o = torch.zeros(32, 64, dtype=dtype)
    kernels.transpose_kernel[(1,)](x, o, 64, 32)
    assert torch.equal(o, x.T)


@pytest.mark.parametrize("arch", [80, 120])
@pytest.mark.parametrize(
    ("dtype", "prec", "tol"),
    [
        (torch.float16, "tf32", 1e-4),
        (torch.bfloat16, "tf32", 1e-4),
        (torch.float32, "tf32", 5e-2),
        (torch.float32, "ieee", 1e-5),
    ],
)
@pytest.mark.parametrize(("M", "N", "KK"), [(32, 32, 64), (64, 64, 128)])
def test_dot(arch, dtype, prec, tol, M, N, KK):
    torch.manual_seed(0)
    with ptxsim.triton_driver(arch=arch, **CHECK) as s:
        a, b, c = torch.randn(M, KK).to(dtype), torch.randn(KK, N).to(dtype), torch.zeros(M, N)
        kernels.dot_kernel[(1,)](a, b, c, M, N, KK, 32, prec)
        close(c, a.double() @ b.double(), tol)
        if prec != "ieee":
            assert s.last().warp_instructions["mma"] > 0


@pytest.mark.parametrize("arch", [80, 120])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_pipelined_dot(arch, dtype):
    torch.manual_seed(0)
    a, b, c = torch.randn(32, 200).to(dtype), torch.randn(200, 32).to(dtype), torch.zeros(32, 32)
    with ptxsim.triton_driver(arch=arch, **CHECK) as s:
        kernels.pipelined_dot_kernel[(1,)](a, b, c, 32, 32, 200, 32)
        assert s.last().async_copies > 0
    close(c, a.double() @ b.double(), 5e-2)


@pytest.mark.parametrize("arch", [80, 120])
def test_int8_dot(arch):
    a, c = (
        torch.randint(-90, 90, (32, 32), dtype=torch.int8),
        torch.zeros(32, 32, dtype=torch.int32),
    )
    with ptxsim.triton_driver(arch=arch, **CHECK):
        kernels.int8_dot_kernel[(1,)](a, a, c, 32)
    assert torch.equal(c, a.int() @ a.int())


def test_tensor_descriptor():
    y, z = torch.randn(50, 32), torch.zeros(50, 32)
    with ptxsim.triton_driver(arch=80, **CHECK):
        kernels.descriptor_kernel[(4,)](y, z, 50, 32, 16, 32)
    assert torch.equal(z, y + 1)
    with (
        ptxsim.triton_driver(arch=90),
        pytest.raises(ptxsim.UnsupportedInstruction, match="tensormap"),
    ):
        kernels.descriptor_kernel[(4,)](y, z, 50, 32, 16, 32)


def test_hints_inline_asm_joins(sim):
    x, o = torch.randn(1024), torch.zeros(1024)
    kernels.hints_kernel[(1,)](x, o, 1024)
    assert torch.equal(o, x * 2)
    kernels.inline_asm_kernel[(1,)](x, o, 1024)
    assert torch.equal(o, (x + x) * x)
    o = torch.zeros(2048)
    kernels.join_kernel[(1,)](x, o, 1024)
    assert torch.equal(o, torch.stack([x * 2, x], 1).flatten())


def test_elementwise_functions(sim):
    x, o = torch.randn(1024), torch.zeros(1024)
    kernels.elementwise_kernel[(1,)](x, o, 1024)
    v = x.double()
    want = torch.where(v > 0, torch.exp2(v), torch.log2(-v.clamp(max=0) + 1)) + v.floor() + v.ceil()
    want += (
        (v.abs() + 1).rsqrt()
        + v * v
        + v
        + v.sigmoid()
        + v.clamp(-1, 1)
        + v / (v + 9)
        + v.abs().sqrt()
    )
    close(o, want, 1e-5)


def test_bytes_tuple_reduce_pipelined_sum_bf16_atomics(sim):
    u, v = torch.randint(0, 255, (200,), dtype=torch.uint8), torch.zeros(200, dtype=torch.uint8)
    kernels.bytes_kernel[(1,)](u, v, 200, 256)
    assert torch.equal(v, u // 7 + u % 5)
    x, o = torch.randn(1024), torch.zeros(3)
    kernels.tuple_reduce_kernel[(1,)](x, o, 1024)
    assert o.tolist() == [x.max().item(), x.argmax().item(), x.argmin().item()]
    w, s = torch.randn(3, 3000), torch.zeros(3)
    kernels.pipelined_sum_kernel[(3,)](w, s, 3000, BLOCK=512)
    close(s, w.double().sum(1), 1e-4)
    h, ix = torch.zeros(4, dtype=torch.bfloat16), torch.randint(0, 4, (128,), dtype=torch.int32)
    kernels.bf16_atomic_kernel[(1,)](h, ix, 128)
    assert torch.equal(h.int(), torch.bincount(ix, minlength=4).int())


def test_wide_dot_is_refused_on_hopper():
    a = torch.randn(64, 64).bfloat16()
    with (
        ptxsim.triton_driver(arch=90),
        pytest.raises(ptxsim.UnsupportedInstruction, match="wgmma"),
    ):
        kernels.dot_kernel[(1,)](a, a, torch.zeros(64, 64), 64, 64, 64, 32, "tf32")


def test_noinline_function(sim):
    x, o = torch.randn(5), torch.zeros(5)
    kernels.noinline_kernel[(5,)](x, o)

    def p(v):
        return v * v + 3 * v - 1

    close(o, p(x) + p(x + 1), 1e-5)
