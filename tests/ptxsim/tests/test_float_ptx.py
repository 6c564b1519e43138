"""Floating-point instructions and conversions against exact references."""

import math
from fractions import Fraction

import numpy as np
import pytest
from ptx_snippets import COUNT, floats, frac_round, ints, run, sgn
from ptxsim import fpmath


@pytest.mark.parametrize(("dt", "t"), [(np.float32, "f32"), (np.float64, "f64")])
@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_float_rounding_modes(dt, t, mode):
    n = 256
    x, y, z = floats(1, n, dt), floats(2, n, dt), floats(3, n, dt)
    if mode != "rn" and dt == np.float64:  # directed f64 modes are checked in the normal range only
        g = np.random.default_rng(3)
        x, y, z = (g.standard_normal(n) * 2.0 ** g.integers(-20, 20, n) for _ in range(3))
    b = {"f32": "b32", "f64": "b64"}[t]
    ops = ["add", "sub", "mul", "div", "fma", "sqrt"]
    body = "".join(
        f"{o}.{mode}.{t} %o{k}, %i0{'' if o == 'sqrt' else ', %i1'}{', %i2' if o == 'fma' else ''};"
        for k, o in enumerate(ops)
    )
    o = run("", body, [(x, b), (y, b), (z, b)], [(dt, b)] * len(ops), n=n)
    for k in range(n):
        a, c, d = float(x[k]), float(y[k]), float(z[k])
        if not all(map(math.isfinite, (a, c, d))):
            continue
        A, C, D = Fraction(a), Fraction(c), Fraction(d)
        exact = [A + C, A - C, A * C, A / C if C else None, A * C + D]
        for j, e in enumerate(exact):
            if e is None or e == 0:
                continue
            want = frac_round(e, dt, mode)
            assert o[j][k] == want, (ops[j], mode, a, c, d, o[j][k], want)
        if a > 0:
            r = o[5][k]
            lo, hi = (
                Fraction(float(np.nextafter(r, dt(0)))),
                Fraction(float(np.nextafter(r, dt(np.inf)))),
            )
            R = Fraction(float(r))
            if mode == "rn":
                assert ((lo + R) / 2) ** 2 <= A <= ((hi + R) / 2) ** 2
            elif mode in ("rz", "rm"):
                assert R * R <= A < hi * hi
            else:
                assert lo * lo < A <= R * R


def test_fma_ties_and_subnormals():
    g = np.random.default_rng(0)
    n = 3000
    a = (1 + g.integers(0, 2**12, n) * 2.0**-12).astype(np.float32)
    b = (1 + g.integers(0, 2**12, n) * 2.0**-12).astype(np.float32)
    c = (g.choice([-1, 1], n) * 2.0 ** g.integers(-60, -20, n)).astype(np.float32)
    sc = np.float32(2.0**-75)
    with np.errstate(all="ignore"):
        for A, B, C in ((a, b, c), (a * sc, b * sc, (c * sc) * sc), (a, b, -(a * b))):
            r = fpmath.fma32(A, B, C)
            for k in range(0, n, 7):
                want = frac_round(
                    Fraction(float(A[k])) * Fraction(float(B[k])) + Fraction(float(C[k])),
                    np.float32,
                    "rn",
                )
                assert r[k] == want


def test_float_compare_minmax_signs():
    x, y = floats(1), floats(2)
    y[::4] = x[::4]
    x[100:104], y[100:104] = [0.0, -0.0, 0.0, -0.0], [-0.0, 0.0, 0.0, -0.0]
    cmps = [
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "equ",
        "neu",
        "ltu",
        "leu",
        "gtu",
        "geu",
        "num",
        "nan",
    ]
    body = "".join(
        f"setp.{c}.f32 %p1, %i0, %i1; selp.u32 %o{k}, 1, 0, %p1;" for k, c in enumerate(cmps)
    )
    o = run("", body, [(x, "b32"), (y, "b32")], [("u4", "b32")] * len(cmps))
    nan = np.isnan(x) | np.isnan(y)
    base = {"eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y}
    for k, c in enumerate(cmps):
        want = (
            base[c] & ~nan
            if c in base
            else (
                ~nan
                if c == "num"
                else nan
                if c == "nan"
                else base[
                    {"equ": "eq", "neu": "ne", "ltu": "lt", "leu": "le", "gtu": "gt", "geu": "ge"}[
                        c
                    ]
                ]
                | nan
            )
        )
        assert np.array_equal(o[k].astype(bool), want), c
    o = run(
        "",
        "min.f32 %o0, %i0, %i1; max.f32 %o1, %i0, %i1; min.NaN.f32 %o2, %i0, %i1; "
        "neg.f32 %o3, %i0; abs.f32 %o4, %i0;"
        "copysign.f32 %o5, %i0, %i1; add.sat.f32 %o6, %i0, %i1; mul.ftz.f32 %o7, %i0, 0f3F800000;",
        [(x, "b32"), (y, "b32")],
        [("f4", "b32")] * 8,
    )
    assert np.array_equal(o[0], np.fmin(x, y), equal_nan=True)
    assert np.array_equal(o[1], np.fmax(x, y), equal_nan=True)
    assert np.signbit(o[0][100:102]).all()
    assert not np.signbit(o[1][100:102]).any()
    assert np.array_equal(np.isnan(o[2]), nan)
    assert np.array_equal(o[3].view("u4"), x.view("u4") ^ 0x80000000)
    assert np.array_equal(o[5], np.copysign(y, x), equal_nan=True)
    with np.errstate(all="ignore"):
        s = x + y
    assert np.array_equal(o[6], np.clip(np.where(np.isnan(s), 0, s), 0, 1))
    tiny = np.abs(x) < np.finfo(np.float32).tiny
    assert np.array_equal(o[7][~tiny], x[~tiny], equal_nan=True)
    assert np.all(o[7][tiny] == 0)


def test_float_to_int_conversions():
    x = floats(1)
    x[20:32] = [
        0.5,
        1.5,
        2.5,
        -0.5,
        -1.5,
        -2.5,
        2147483648.0,
        -2147483904.0,
        4294967296.0,
        9.3e18,
        1.9e19,
        -9.4e18,
    ]
    f = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
    for r, fn in f.items():
        o = run(
            "",
            f"cvt.{r}.s32.f32 %o0, %i0; cvt.{r}.u32.f32 %o1, %i0; cvt.{r}.s64.f32 %o2, %i0; "
            f"cvt.{r}.u64.f32 %o3, %i0;"
            f"cvt.{r}.s16.f32 %o4, %i0; cvt.{r}.f32.f32 %o5, %i0; cvt.f64.f32 %l0, %i0; "
            f"cvt.{r}.u32.f64 %o6, %l0;",
            [(x, "b32")],
            [
                ("i4", "b32"),
                ("u4", "b32"),
                ("i8", "b64"),
                ("u8", "b64"),
                ("i2", "b16"),
                ("f4", "b32"),
                ("u4", "b32"),
            ],
        )
        for k in range(COUNT):
            v = float(fn(np.float64(x[k])))
            for q, lo, hi, nan in (
                (0, -(2**31), 2**31 - 1, 0),
                (1, 0, 2**32 - 1, 0),
                (2, -(2**63), 2**63 - 1, -(2**63)),
                (3, 0, 2**64 - 1, 2**63),
                (4, -(2**15), 2**15 - 1, 0),
                (6, 0, 2**32 - 1, 2**31),
            ):
                want = nan if math.isnan(v) else hi if v >= hi else lo if v <= lo else int(v)
                assert int(o[q][k]) == want, (r, q, x[k])
        assert np.array_equal(o[5], fn(x), equal_nan=True)


def test_int_to_float_and_narrow_conversions():
    x, y = ints(32, 1, True), ints(64, 2, True)
    o = run(
        "",
        "cvt.rn.f32.s32 %o0, %i0; cvt.rn.f32.u32 %o1, %i0; cvt.rn.f32.s64 %o2, %i1; "
        "cvt.rn.f32.u64 %o3, %i1;"
        "cvt.rn.f64.u64 %o4, %i1; cvt.rz.f32.s32 %o5, %i0; cvt.s64.s32 %o6, %i0; "
        "cvt.u64.u32 %o7, %i0;"
        "cvt.sat.s8.s32 %h0, %i0; cvt.s32.s16 %o8, %h0; cvt.s32.s8 %o9, %i0; cvt.u32.u8 %o10, %i0;"
        "cvt.u32.u64 %o11, %i1;",
        [(x, "b32"), (y, "b64")],
        [("f4", "b32")] * 4
        + [("f8", "b64"), ("f4", "b32"), ("i8", "b64"), ("u8", "b64")]
        + [("i4", "b32")] * 2
        + [("u4", "b32")] * 2,
    )
    for k in range(COUNT):
        a, b = int(x[k]), int(y[k])
        for q, v in ((0, a), (1, a & 0xFFFFFFFF), (2, b), (3, b & (2**64 - 1))):
            assert o[q][k] == frac_round(Fraction(v), np.float32, "rn")
        assert o[4][k] == float(b & (2**64 - 1))
        assert o[5][k] == frac_round(Fraction(a), np.float32, "rz")
        assert int(o[6][k]) == a
        assert int(o[7][k]) == a & 0xFFFFFFFF
        assert int(o[8][k]) == max(-128, min(127, a))
        assert int(o[9][k]) == sgn(a, 8)
        assert int(o[10][k]) == a & 255
        assert int(o[11][k]) == b & 0xFFFFFFFF


def test_half_and_bfloat():
    torch = pytest.importorskip("torch")
    x, y, z = floats(1), floats(2), floats(3)
    for a in (x, y, z):
        a[:] = np.where(np.abs(a) > 1e4, np.float32(3.14159), a)
    o = run(
        ".reg .b16 %b<8>;",
        "cvt.rn.f16.f32 %b0, %i0; cvt.rn.f16.f32 %b1, %i1; cvt.rn.bf16.f32 %b2, %i0; "
        "cvt.rn.bf16.f32 %b3, %i1;"
        "add.f16 %o0, %b0, %b1; mul.f16 %o1, %b0, %b1; add.rn.bf16 %o2, %b2, %b3; "
        "mul.rn.bf16 %o3, %b2, %b3;"
        "cvt.rn.f16x2.f32 %o4, %i0, %i1; cvt.rn.bf16x2.f32 %o5, %i0, %i1; "
        "mov.b32 %w0, {%b0, %b1}; mov.b32 %w1, {%b1, %b0};"
        "add.f16x2 %o6, %w0, %w1; max.f16 %o7, %b0, %b1; cvt.f32.bf16 %o8, %b2; "
        "fma.rn.f16 %o9, %b0, %b1, %b0;"
        "fma.rn.bf16 %o10, %b2, %b3, %b2; cvt.rz.bf16.f32 %o11, %i0;",
        [(x, "b32"), (y, "b32")],
        [("f2", "b16")] * 2
        + [("u2", "b16")] * 2
        + [("u4", "b32")] * 3
        + [("f2", "b16"), ("f4", "b32"), ("f2", "b16"), ("u2", "b16"), ("u2", "b16")],
    )

    def T(a, d):
        return torch.from_numpy(a.copy()).to(d)

    def eq(got, want):
        return torch.allclose(got, want, rtol=0, atol=0, equal_nan=True)

    hx, hy, bx, by = (
        T(x, torch.float16),
        T(y, torch.float16),
        T(x, torch.bfloat16),
        T(y, torch.bfloat16),
    )

    def B(a):
        return torch.from_numpy(a.view(np.int16).copy()).view(torch.bfloat16)

    assert eq(torch.from_numpy(o[0]), hx + hy)
    assert eq(torch.from_numpy(o[1]), hx * hy)
    assert eq(B(o[2]), bx + by)
    assert eq(B(o[3]), bx * by)
    p = o[4].view(np.float16).reshape(-1, 2)
    assert eq(torch.from_numpy(p[:, 1].copy()), hx)
    assert eq(torch.from_numpy(p[:, 0].copy()), hy)
    p = o[5].view(np.uint16).reshape(-1, 2)
    assert eq(B(p[:, 1].copy()), bx)
    assert eq(B(p[:, 0].copy()), by)
    p = o[6].view(np.float16).reshape(-1, 2)
    assert eq(torch.from_numpy(p[:, 0].copy()), hx + hy)
    assert eq(torch.from_numpy(p[:, 1].copy()), hx + hy)
    assert eq(torch.from_numpy(o[7]), torch.fmax(hx, hy))
    assert eq(torch.from_numpy(o[8]), bx.float())
    f = torch.isfinite(hx) & torch.isfinite(hy)
    assert eq(
        torch.from_numpy(o[9])[f], (hx.double() * hy.double() + hx.double()).to(torch.float16)[f]
    )
    g = torch.isfinite(bx) & torch.isfinite(by)
    w = bx.double() * by.double() + bx.double()
    err = (B(o[10]).double() - w).abs()[g]
    assert torch.all((err <= w.abs()[g] * 2.0**-8 + 1e-38) | ~torch.isfinite(err))
    assert np.array_equal(
        o[11][np.isfinite(x)], (x.view(np.uint32) >> 16).astype(np.uint16)[np.isfinite(x)]
    )


def test_packed_f32x2():
    x, y, z = floats(1, 2 * COUNT), floats(2, 2 * COUNT), floats(3, 2 * COUNT)

    def L(a):
        return (a.view(np.uint64), "b64")

    o = run(
        "",
        "add.rn.f32x2 %o0, %i0, %i1; mul.rn.f32x2 %o1, %i0, %i1; fma.rn.f32x2 %o2, %i0, %i1, %i2;",
        [L(x), L(y), L(z)],
        [("u8", "b64")] * 3,
    )
    with np.errstate(all="ignore"):
        assert np.array_equal(o[0].view(np.float32), x + y, equal_nan=True)
        assert np.array_equal(o[1].view(np.float32), x * y, equal_nan=True)
        assert np.array_equal(o[2].view(np.float32), fpmath.fma32(x, y, z), equal_nan=True)


def test_approximations_are_close():
    x = np.random.default_rng(0).uniform(0.01, 20, COUNT).astype(np.float32)
    ops = {
        "rcp.approx.ftz.f32": lambda v: 1 / v,
        "rsqrt.approx.f32": lambda v: v**-0.5,
        "sqrt.approx.f32": np.sqrt,
        "ex2.approx.f32": np.exp2,
        "lg2.approx.f32": np.log2,
        "sin.approx.f32": np.sin,
        "cos.approx.f32": np.cos,
        "tanh.approx.f32": np.tanh,
    }
    body = "".join(f"{o} %o{k}, %i0;" for k, o in enumerate(ops))
    r = run("", body, [(x, "b32")], [("f4", "b32")] * len(ops))
    for a, (o, f) in zip(r, ops.items(), strict=True):
        assert np.allclose(a, f(x.astype(np.float64)), rtol=1e-6, atol=1e-6), o


def test_min_max_xorsign_and_three_inputs():
    x, y, z = floats(1), floats(2), floats(3)
    for a in (x, y, z):
        a[np.isnan(a)] = 2.0
    o = run(
        "",
        "min.xorsign.abs.f32 %o0, %i0, %i1; max.xorsign.abs.f32 %o1, %i0, %i1; "
        "min.f32 %o2, %i0, %i1, %i2;"
        "max.f32 %o3, %i0, %i1, %i2;",
        [(x, "b32"), (y, "b32"), (z, "b32")],
        [("f4", "b32")] * 4,
    )
    sign = np.where(np.signbit(x) != np.signbit(y), np.float32(-1), np.float32(1))
    assert np.array_equal(o[0], np.minimum(abs(x), abs(y)) * sign)
    assert np.array_equal(o[1], np.maximum(abs(x), abs(y)) * sign)
    assert np.array_equal(o[2], np.minimum(np.minimum(x, y), z))
    assert np.array_equal(o[3], np.maximum(np.maximum(x, y), z))
