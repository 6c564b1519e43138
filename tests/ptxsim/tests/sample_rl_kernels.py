"""Kernels of reinforcement learning, as users of Triton write them."""

import triton
import triton.language as tl


@triton.jit
def gae_loop_kernel(rew, val, done, adv, ret, T, E, gamma, lam, BLOCK: tl.constexpr):
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = e < E
    nxt = tl.load(val + T * E + e, mask=m, other=0.0)
    acc = tl.zeros([BLOCK], tl.float32)
    for i in range(T):
        t = T - 1 - i
        v = tl.load(val + t * E + e, mask=m, other=0.0)
        r = tl.load(rew + t * E + e, mask=m, other=0.0)
        d = tl.load(done + t * E + e, mask=m, other=0).to(tl.float32)
        nd = 1.0 - d
        delta = r + gamma * nxt * nd - v
        acc = delta + gamma * lam * nd * acc
        tl.store(adv + t * E + e, acc, mask=m)
        tl.store(ret + t * E + e, acc + v, mask=m)
        nxt = v


@triton.jit
def softmax_kernel(x, out, V, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    base = x + row * V
    m = -float("inf")
    s = 0.0
    for start in range(0, V, BLOCK):
        o = start + tl.arange(0, BLOCK)
        v = tl.load(base + o, mask=o < V, other=-float("inf")).to(tl.float32)
        nm = tl.maximum(m, tl.max(v, axis=0))
        s = s * tl.exp(m - nm) + tl.sum(tl.exp(v - nm), axis=0)
        m = nm
    for start in range(0, V, BLOCK):
        o = start + tl.arange(0, BLOCK)
        v = tl.load(base + o, mask=o < V, other=-float("inf")).to(tl.float32)
        tl.store(out + row * V + o, tl.exp(v - m) / s, mask=o < V)


@triton.jit
def logprob_kl_kernel(lp, ref, tok, out_lp, out_kl, V, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    m1 = -float("inf")
    s1 = 0.0
    m2 = -float("inf")
    s2 = 0.0
    for start in range(0, V, BLOCK):
        o = start + tl.arange(0, BLOCK)
        a = tl.load(lp + row * V + o, mask=o < V, other=-float("inf")).to(tl.float32)
        b = tl.load(ref + row * V + o, mask=o < V, other=-float("inf")).to(tl.float32)
        n1 = tl.maximum(m1, tl.max(a, axis=0))
        s1 = s1 * tl.exp(m1 - n1) + tl.sum(tl.exp(a - n1), axis=0)
        m1 = n1
        n2 = tl.maximum(m2, tl.max(b, axis=0))
        s2 = s2 * tl.exp(m2 - n2) + tl.sum(tl.exp(b - n2), axis=0)
        m2 = n2
    t = tl.load(tok + row)
    la = tl.load(lp + row * V + t).to(tl.float32) - m1 - tl.log(s1)
    lb = tl.load(ref + row * V + t).to(tl.float32) - m2 - tl.log(s2)
    d = lb - la
    tl.store(out_lp + row, la)
    tl.store(out_kl + row, tl.exp(d) - d - 1.0)


@triton.jit
def segment_sum_kernel(x, offs, out, BLOCK: tl.constexpr):
    s = tl.program_id(0)
    lo = tl.load(offs + s)
    hi = tl.load(offs + s + 1)
    acc = tl.zeros([BLOCK], tl.float32)
    i = lo
    while i < hi:
        o = i + tl.arange(0, BLOCK)
        acc += tl.load(x + o, mask=o < hi, other=0.0)
        i += BLOCK
    tl.store(out + s, tl.sum(acc, axis=0))


@triton.jit
def sumtree_kernel(tree, u, out, LEAVES: tl.constexpr, n, BLOCK: tl.constexpr):
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = o < n
    v = tl.load(u + o, mask=m, other=0.0) * tl.load(tree + 1)
    node = tl.full([BLOCK], 1, tl.int32)
    while tl.max(node, axis=0) < LEAVES:
        left = node * 2
        lv = tl.load(tree + left, mask=m, other=0.0)
        right = v >= lv
        v = tl.where(right, v - lv, v)
        node = tl.where(right, left + 1, left)
    tl.store(out + o, node - LEAVES, mask=m)


@triton.jit
def ppo_loss_kernel(lp, old, adv, msk, loss, clip, T, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    acc = tl.zeros([BLOCK], tl.float32)
    cnt = tl.zeros([BLOCK], tl.float32)
    a = tl.load(adv + row)
    for s in range(0, T, BLOCK):
        o = s + tl.arange(0, BLOCK)
        ok = o < T
        new = tl.load(lp + row * T + o, mask=ok, other=0.0)
        q = tl.load(old + row * T + o, mask=ok, other=0.0)
        w = tl.load(msk + row * T + o, mask=ok, other=0).to(tl.float32)
        r = tl.exp(new - q)
        c = tl.minimum(tl.maximum(r, 1.0 - clip), 1.0 + clip)
        acc += -tl.minimum(r * a, c * a) * w
        cnt += w
    tl.store(loss + row, tl.sum(acc, axis=0) / tl.maximum(tl.sum(cnt, axis=0), 1.0))


@triton.jit
def cartpole_kernel(state, action, obs, rew, done, seed, n, BLOCK: tl.constexpr):
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = o < n
    x = tl.load(state + 0 * n + o, mask=m, other=0.0)
    xd = tl.load(state + 1 * n + o, mask=m, other=0.0)
    th = tl.load(state + 2 * n + o, mask=m, other=0.0)
    thd = tl.load(state + 3 * n + o, mask=m, other=0.0)
    a = tl.load(action + o, mask=m, other=0)
    f = tl.where(a == 1, 10.0, -10.0)
    c = tl.cos(th)
    s = tl.sin(th)
    tmp = (f + 0.05 * thd * thd * s) / 1.1
    tacc = (9.8 * s - c * tmp) / (0.5 * (4.0 / 3.0 - 0.1 * c * c / 1.1))
    xacc = tmp - 0.05 * tacc * c / 1.1
    x += 0.02 * xd
    xd += 0.02 * xacc
    th += 0.02 * thd
    thd += 0.02 * tacc
    term = (tl.abs(x) > 2.4) | (tl.abs(th) > 0.2095)
    r0, r1, r2, r3 = tl.rand4x(seed, o)
    x = tl.where(term, r0 * 0.1 - 0.05, x)
    xd = tl.where(term, r1 * 0.1 - 0.05, xd)
    th = tl.where(term, r2 * 0.1 - 0.05, th)
    thd = tl.where(term, r3 * 0.1 - 0.05, thd)
    tl.store(obs + 0 * n + o, x, mask=m)
    tl.store(obs + 1 * n + o, xd, mask=m)
    tl.store(obs + 2 * n + o, th, mask=m)
    tl.store(obs + 3 * n + o, thd, mask=m)
    tl.store(rew + o, 1.0, mask=m)
    tl.store(done + o, term.to(tl.int8), mask=m)
