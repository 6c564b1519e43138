"""Running short PTX snippets, one instance per thread, and exact scalar references."""

from fractions import Fraction

import numpy as np
import ptxsim

COUNT = 512


def run(decls, body, ins, outs, n=COUNT, **kw):
    """Run ``body`` once per thread; inputs in %i0.. / outputs from %o0.. by type."""
    params = ", ".join(f".param .u64 p{k}" for k in range(len(ins) + len(outs)))
    L = [
        ".version 8.6",
        ".target sm_100a",
        ".address_size 64",
        f".visible .entry k({params})",
        "{",
        ".reg .b32 %t<8>; .reg .b64 %a<40>; .reg .pred %p<8>; .reg .b32 %w<32>; "
        ".reg .b64 %l<32>; .reg .b16 %h<32>;",
        decls,
        "mov.u32 %t0, %tid.x; mov.u32 %t1, %ctaid.x; mov.u32 %t2, %ntid.x; "
        "mad.lo.u32 %t0, %t1, %t2, %t0;",
    ]
    k = 0
    for j, (arr, t) in enumerate(ins):
        sz = np.dtype(arr.dtype).itemsize
        L.append(
            f".reg .{t} %i{j}; ld.param.u64 %a{k}, [p{k}]; mad.wide.u32 %a{k}, %t0, {sz}, %a{k};"
            f" ld.global.{t} %i{j}, [%a{k}];"
        )
        k += 1
    for j, (dt, t) in enumerate(outs):
        sz = np.dtype(dt).itemsize
        L.append(
            f".reg .{t} %o{j}; ld.param.u64 %a{k}, [p{k}]; mad.wide.u32 %a{k}, %t0, {sz}, %a{k};"
        )
        k += 1
    L.append(body)
    for j, (_, t) in enumerate(outs):
        L.append(f"st.global.{t} [%a{len(ins) + j}], %o{j};")
    L += ["ret;", "}"]
    res = [np.zeros(n, dt) for dt, _ in outs]
    ptxsim.Module("\n".join(L)).launch(
        "k", (n + 127) // 128, min(n, 128), [a for a, _ in ins] + res, **kw
    )
    return res


def ints(bits, seed=0, signed=False):
    g = np.random.default_rng(seed)
    dt = np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
    x = g.integers(0, 1 << bits, COUNT, dtype=np.uint64)
    x = x >> g.integers(0, bits, COUNT, dtype=np.uint64)
    x[:8] = [0, 1, (1 << bits) - 1, 1 << (bits - 1), (1 << (bits - 1)) - 1, 2, 3, 0xFF]
    return g.permutation(x).astype(np.uint64).astype(f"u{bits // 8}").view(dt)


def sgn(x, b):
    x &= (1 << b) - 1
    return x - (1 << b) if x >> (b - 1) else x


def check_int(op, bits, ref, nsrc=2, seeds=(1, 2, 3), imm="", second=None):
    t = f"b{bits}"
    srcs = [(ints(bits, s), t) for s in seeds[:nsrc]]
    if second is not None:
        srcs[1] = (second, "b32")
    names = ", ".join(f"%i{k}" for k in range(nsrc))
    (o,) = run("", f"{op} %o0, {names}{imm};", srcs, [(f"u{bits // 8}", t)])
    for k in range(COUNT):
        want = ref(*[int(a[k]) for a, _ in srcs]) & ((1 << bits) - 1)
        assert int(o[k]) == want, (op, [int(a[k]) for a, _ in srcs], int(o[k]), want)


def floats(seed=0, n=COUNT, dt=np.float32):
    g = np.random.default_rng(seed)
    bits = 32 if dt == np.float32 else 64
    x = g.integers(0, 1 << bits, n, dtype=np.uint64).astype(f"u{bits // 8}").view(dt)
    y = (g.standard_normal(n) * 2.0 ** g.integers(-20, 20, n)).astype(dt)
    z = np.where(g.random(n) < 0.6, y, x)
    z[:10] = [
        0,
        -0.0,
        1,
        -1,
        np.inf,
        -np.inf,
        np.nan,
        np.finfo(dt).tiny,
        np.finfo(dt).smallest_subnormal,
        np.finfo(dt).max,
    ]
    return g.permutation(z).astype(dt)


def frac_round(v, dt, mode):
    """Round an exact fraction to float32/float64 in a PTX mode."""
    if v == 0:
        return dt(0)
    f = dt(0)
    if dt == np.float32:
        # nearest through exact search around the double
        with np.errstate(over="ignore"):
            try:
                f = np.float32(v.numerator / v.denominator)
            except OverflowError:
                f = np.float32(np.inf if v > 0 else -np.inf)
    else:
        try:
            f = np.float64(v.numerator / v.denominator)
        except OverflowError:
            f = np.float64(np.inf if v > 0 else -np.inf)
    cands = {dt(f)}
    with np.errstate(over="ignore"):
        for d in (-np.inf, np.inf):
            cands.add(np.nextafter(dt(f), dt(d)))
    fin = [c for c in cands if np.isfinite(c)]
    if mode == "rm":
        c = [q for q in fin if Fraction(float(q)) <= v]
        return max(c) if c else dt(-np.inf)
    if mode == "rp":
        c = [q for q in fin if Fraction(float(q)) >= v]
        return min(c) if c else dt(np.inf)
    if mode == "rz":
        return frac_round(v, dt, "rm" if v > 0 else "rp")
    best = min(fin, key=lambda q: (abs(Fraction(float(q)) - v), int(q.view(f"u{q.itemsize}")) & 1))
    big = Fraction(float(np.finfo(dt).max)) + Fraction(2) ** (103 if dt == np.float32 else 970)
    if abs(v) >= big:
        return dt(np.inf if v > 0 else -np.inf)
    return best
