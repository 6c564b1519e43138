"""Integer, bit and comparison instructions against Python integers."""

import numpy as np
import pytest
from ptx_snippets import COUNT, check_int, ints, run, sgn


@pytest.mark.parametrize("b", [32, 64])
def test_integer_arithmetic(b):
    def S(x):
        return sgn(x, b)

    check_int(f"add.u{b}", b, lambda x, y: x + y)
    check_int(f"sub.s{b}", b, lambda x, y: x - y)
    check_int(f"mul.lo.u{b}", b, lambda x, y: x * y)
    check_int(f"mul.hi.u{b}", b, lambda x, y: (x * y) >> b)
    check_int(f"mul.hi.s{b}", b, lambda x, y: (S(x) * S(y)) >> b)
    check_int(f"mad.lo.s{b}", b, lambda x, y, z: x * y + z, 3)
    check_int(f"mad.hi.s{b}", b, lambda x, y, z: ((S(x) * S(y)) >> b) + z, 3)
    check_int(f"mad.hi.u{b}", b, lambda x, y, z: ((x * y) >> b) + z, 3)
    check_int(f"min.s{b}", b, lambda x, y: min(S(x), S(y)))
    check_int(f"max.u{b}", b, lambda x, y: max(x, y))
    check_int(f"abs.s{b}", b, lambda x: abs(S(x)), 1)
    check_int(f"neg.s{b}", b, lambda x: -x, 1)
    check_int(f"sad.s{b}", b, lambda x, y, z: z + abs(S(x) - S(y)), 3)
    check_int(f"sad.u{b}", b, lambda x, y, z: z + abs(x - y), 3)
    check_int(f"not.b{b}", b, lambda x: ~x, 1)
    check_int(f"cnot.b{b}", b, lambda x: int(x == 0), 1)
    check_int(f"brev.b{b}", b, lambda x: int(format(x, f"0{b}b")[::-1], 2), 1)

    def tdiv(x, y):
        return 0 if y == 0 else (abs(x) // abs(y)) * (1 if (x < 0) == (y < 0) else -1)

    x, y = ints(b, 1), ints(b, 2)
    y[y == 0] = 7
    for op, f in (
        (f"div.s{b}", lambda p, q: tdiv(S(p), S(q))),
        (f"rem.s{b}", lambda p, q: S(p) - S(q) * tdiv(S(p), S(q))),
        (f"div.u{b}", lambda p, q: p // q),
        (f"rem.u{b}", lambda p, q: p % q),
    ):
        (o,) = run(
            "", f"{op} %o0, %i0, %i1;", [(x, f"b{b}"), (y, f"b{b}")], [(f"u{b // 8}", f"b{b}")]
        )
        for k in range(COUNT):
            assert int(o[k]) == f(int(x[k]), int(y[k])) & ((1 << b) - 1), (op, x[k], y[k])


def test_wide_and_saturating_and_24bit():
    x, y, z = ints(32, 1), ints(32, 2), ints(64, 3)
    o = run(
        "",
        "mul.wide.s32 %o0, %i0, %i1; mul.wide.u32 %o1, %i0, %i1; mad.wide.s32 %o2, %i0, %i1, %i2;"
        "add.sat.s32 %o3, %i0, %i1; sub.sat.s32 %o4, %i0, %i1; mul24.lo.s32 %o5, %i0, %i1;"
        "mul24.hi.u32 %o6, %i0, %i1;",
        [(x, "b32"), (y, "b32"), (z, "b64")],
        [("u8", "b64")] * 3 + [("u4", "b32")] * 4,
    )
    M = 1 << 64

    def clip(v):
        return max(-(2**31), min(2**31 - 1, v))

    for k in range(COUNT):
        a, b, c = int(x[k]), int(y[k]), int(z[k])
        sa, sb = sgn(a, 32), sgn(b, 32)
        assert int(o[0][k]) == sa * sb % M
        assert int(o[1][k]) == a * b
        assert int(o[2][k]) == (sa * sb + c) % M
        assert sgn(int(o[3][k]), 32) == clip(sa + sb)
        assert sgn(int(o[4][k]), 32) == clip(sa - sb)
        assert int(o[5][k]) == sgn(a, 24) * sgn(b, 24) & 0xFFFFFFFF
        assert int(o[6][k]) == ((a & 0xFFFFFF) * (b & 0xFFFFFF)) >> 16 & 0xFFFFFFFF


def test_carry_chains():
    x, y = [ints(64, 1), ints(64, 2)], [ints(64, 3), ints(64, 4)]

    def u(a):
        return (a, "b64")

    body = (
        "add.cc.u64 %o0, %i0, %i2; addc.u64 %o1, %i1, %i3; sub.cc.u64 %o2, %i0, %i2; "
        "subc.u64 %o3, %i1, %i3;"
        "mov.b64 {%w0, %w1}, %i0; mov.b64 {%w2, %w3}, %i2;"
        "mul.lo.u32 %w4, %w0, %w2; mul.hi.u32 %w5, %w0, %w2;"
        "mad.lo.cc.u32 %w5, %w0, %w3, %w5; madc.hi.u32 %w6, %w0, %w3, 0;"
        "mad.lo.cc.u32 %w5, %w1, %w2, %w5; madc.hi.cc.u32 %w6, %w1, %w2, %w6; addc.u32 %w7, 0, 0;"
        "mad.lo.cc.u32 %w6, %w1, %w3, %w6; madc.hi.u32 %w7, %w1, %w3, %w7;"
        "mov.b64 %o4, {%w4, %w5}; mov.b64 %o5, {%w6, %w7};"
    )
    o = run("", body, [u(x[0]), u(x[1]), u(y[0]), u(y[1])], [("u8", "b64")] * 6)
    M = 1 << 128
    for k in range(COUNT):
        a, b = int(x[0][k]) | int(x[1][k]) << 64, int(y[0][k]) | int(y[1][k]) << 64
        assert int(o[0][k]) | int(o[1][k]) << 64 == (a + b) % M
        assert int(o[2][k]) | int(o[3][k]) << 64 == (a - b) % M
        assert int(o[4][k]) | int(o[5][k]) << 64 == int(x[0][k]) * int(y[0][k])


@pytest.mark.parametrize("b", [16, 32, 64])
def test_shifts(b):
    amt = np.random.default_rng(5).integers(0, b + 9, COUNT).astype(np.uint32)
    check_int(f"shl.b{b}", b, lambda x, k: x << k if k < b else 0, second=amt)
    check_int(f"shr.u{b}", b, lambda x, k: x >> k, second=amt)
    check_int(f"shr.s{b}", b, lambda x, k: sgn(x, b) >> k, second=amt)


def test_funnel_shift_prmt_lop3_dp4a():
    amt = np.random.default_rng(5).integers(0, 70, COUNT).astype(np.uint32)
    x, y, z = ints(32, 1), ints(32, 2), ints(32, 3)
    io = [(x, "b32"), (y, "b32"), (z, "b32"), (amt, "b32")]
    o = run(
        "",
        "shf.l.wrap.b32 %o0, %i0, %i1, %i3; shf.r.wrap.b32 %o1, %i0, %i1, %i3; "
        "shf.l.clamp.b32 %o2, %i0, %i1, %i3;"
        "shf.r.clamp.b32 %o3, %i0, %i1, %i3; prmt.b32 %o4, %i0, %i1, %i2; "
        "prmt.b32 %o5, %i0, %i1, 0x9c21;"
        "lop3.b32 %o6, %i0, %i1, %i2, 0xE8; lop3.b32 %o7, %i0, %i1, %i2, 0x5D; "
        "dp4a.s32.u32 %o8, %i0, %i1, %i2;"
        "dp4a.u32.u32 %o9, %i0, %i1, %i2; dp2a.lo.s32.s32 %o10, %i0, %i1, %i2;",
        io,
        [("u4", "b32")] * 11,
    )

    def perm(a, b, s):
        by = (a | b << 32).to_bytes(8, "little")
        r = 0
        for i in range(4):
            n = s >> 4 * i & 15
            v = by[n & 7]
            r |= (255 * (v >> 7) if n & 8 else v) << 8 * i
        return r

    def lut(a, b, c, f):
        return sum(
            (f >> ((a >> i & 1) * 4 + (b >> i & 1) * 2 + (c >> i & 1)) & 1) << i for i in range(32)
        )

    for k in range(COUNT):
        a, b, c, s = int(x[k]), int(y[k]), int(z[k]), int(amt[k])
        v = a | b << 32
        w, cl = s & 31, min(s, 32)
        assert int(o[0][k]) == v << w >> 32 & 0xFFFFFFFF
        assert int(o[1][k]) == v >> w & 0xFFFFFFFF
        assert int(o[2][k]) == v << cl >> 32 & 0xFFFFFFFF
        assert int(o[3][k]) == v >> cl & 0xFFFFFFFF
        assert int(o[4][k]) == perm(a, b, c)
        assert int(o[5][k]) == perm(a, b, 0x9C21)
        assert int(o[6][k]) == lut(a, b, c, 0xE8)
        assert int(o[7][k]) == lut(a, b, c, 0x5D)
        ab, bb = a.to_bytes(4, "little"), b.to_bytes(4, "little")
        assert (
            int(o[8][k]) == sum(sgn(p, 8) * q for p, q in zip(ab, bb, strict=True)) + c & 0xFFFFFFFF
        )
        assert int(o[9][k]) == sum(p * q for p, q in zip(ab, bb, strict=True)) + c & 0xFFFFFFFF
        assert (
            int(o[10][k])
            == sgn(a, 16) * sgn(bb[0], 8) + sgn(a >> 16, 16) * sgn(bb[1], 8) + c & 0xFFFFFFFF
        )


@pytest.mark.parametrize("b", [32, 64])
def test_bit_fields(b):
    g = np.random.default_rng(9)
    x, y = ints(b, 1), ints(b, 2)
    p, width = (
        g.integers(0, b + 6, COUNT).astype(np.uint32),
        g.integers(0, b + 6, COUNT).astype(np.uint32),
    )
    io = [(x, f"b{b}"), (y, f"b{b}"), (p, "b32"), (width, "b32")]
    o = run(
        "",
        f"bfe.u{b} %o0, %i0, %i2, %i3; bfe.s{b} %o1, %i0, %i2, %i3; "
        f"bfi.b{b} %o2, %i0, %i1, %i2, %i3;"
        f"popc.b{b} %o3, %i0; clz.b{b} %o4, %i0; bfind.u{b} %o5, %i0; bfind.s{b} %o6, %i0;"
        f"bfind.shiftamt.u{b} %o7, %i0;",
        io,
        [(f"u{b // 8}", f"b{b}")] * 3 + [("u4", "b32")] * 5,
    )
    M = (1 << b) - 1
    for k in range(COUNT):
        a, c, pos, ln = int(x[k]), int(y[k]), int(p[k]), int(width[k])
        f = (a >> pos) & ((1 << ln) - 1)
        assert int(o[0][k]) == f & M
        # signed: the field is filled with the bit at min(pos+len-1, msb)
        sb = a >> min(pos + ln - 1, b - 1) & 1 if ln else 0
        bits = [(a >> pos + i & 1) if i < ln and pos + i < b else sb for i in range(b)]
        assert int(o[1][k]) == sum(v << i for i, v in enumerate(bits)), (a, pos, ln)
        m = (((1 << ln) - 1) << pos) & M
        assert int(o[2][k]) == (c & ~m) | (a << pos & m)
        assert int(o[3][k]) == bin(a).count("1")
        assert int(o[4][k]) == b - a.bit_length()
        assert int(o[5][k]) == (a.bit_length() - 1) & 0xFFFFFFFF
        s = sgn(a, b)
        t = ~s if s < 0 else s
        assert int(o[6][k]) == (t.bit_length() - 1) & 0xFFFFFFFF
        assert int(o[7][k]) == ((b - 1 - (a.bit_length() - 1)) if a else 0xFFFFFFFF)


def test_comparisons_and_selection():
    x, y = ints(32, 1), ints(32, 1)
    y[::3] = ints(32, 2)[::3]
    ops = ["eq.b32", "ne.s32", "lt.s32", "le.u32", "gt.u32", "ge.s32", "lo.u32", "hs.u32"]
    body = "".join(f"setp.{o} %p1, %i0, %i1; selp.u32 %o{k}, 1, 0, %p1;" for k, o in enumerate(ops))
    body += (
        "setp.gt.and.s32 %p1|%p2, %i0, %i1, %p1; selp.u32 %o8, 1, 0, %p1; selp.u32 %o9, 1, 0, %p2;"
    )
    body += "set.lt.u32.s32 %o10, %i0, %i1; slct.b32.s32 %o11, %i0, %i1, %i0;"
    o = run("", body, [(x, "b32"), (y, "b32")], [("u4", "b32")] * 12)
    for k in range(COUNT):
        a, b = int(x[k]), int(y[k])
        s, t = sgn(a, 32), sgn(b, 32)
        want = [
            a == b,
            a != b,
            s < t,
            a <= b,
            a > b,
            s >= t,
            a < b,
            a >= b,
            s > t and a >= b,
            (not s > t) and a >= b,
            0xFFFFFFFF if s < t else 0,
            a if s >= 0 else b,
        ]
        assert [int(v[k]) for v in o] == [int(v) for v in want]
