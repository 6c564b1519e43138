"""Kernels of reinforcement learning, executed as compiled PTX."""

import os

import numpy as np
import pytest
from simulated import close

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET", "0") == "1":
    pytest.skip("the interpreter is on", allow_module_level=True)

kernels = pytest.importorskip("sample_rl_kernels")


def test_gae_loop(sim):
    T, E = 60, 300
    r, v = torch.randn(T, E), torch.randn(T + 1, E)
    d = (torch.rand(T, E) < 0.1).to(torch.int8)
    a, ret = torch.zeros(T, E), torch.zeros(T, E)
    kernels.gae_loop_kernel[(3,)](r, v, d, a, ret, T, E, 0.99, 0.95, BLOCK=128)
    acc = torch.zeros(E, dtype=torch.float64)
    for i in reversed(range(T)):
        nd = 1 - d[i].double()
        acc = r[i].double() + 0.99 * v[i + 1].double() * nd - v[i].double() + 0.99 * 0.95 * nd * acc
        close(a[i], acc, 1e-4)
        close(ret[i], acc + v[i].double(), 1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_softmax_over_a_wide_row(sim, dtype):
    V = 50257
    x, o = torch.randn(2, V).to(dtype), torch.zeros(2, V)
    kernels.softmax_kernel[(2,)](x, o, V, BLOCK=4096)
    close(o, torch.softmax(x.double(), 1), 1e-6)


def test_token_logprob_and_kl(sim):
    V = 50257
    x, y = torch.randn(2, V).bfloat16(), torch.randn(2, V).bfloat16()
    tok = torch.tensor([5, 50000])
    a, b = torch.zeros(2), torch.zeros(2)
    kernels.logprob_kl_kernel[(2,)](x, y, tok, a, b, V, BLOCK=2048)
    la = torch.log_softmax(x.double(), 1).gather(1, tok[:, None])[:, 0]
    lb = torch.log_softmax(y.double(), 1).gather(1, tok[:, None])[:, 0]
    close(a, la, 1e-5)
    close(b, torch.exp(lb - la) - (lb - la) - 1, 1e-4)


def test_cartpole_step(sim):
    n = 1000
    st = torch.randn(4, n) * 0.1
    a = torch.randint(0, 2, (n,), dtype=torch.int32)
    ob, r, d = torch.zeros(4, n), torch.zeros(n), torch.full((n,), 9, dtype=torch.int8)
    kernels.cartpole_kernel[(4,)](st, a, ob, r, d, 7, n, BLOCK=256)
    x, xd, th, thd = st.double()
    f = torch.where(a == 1, 10.0, -10.0)
    tmp = (f + 0.05 * thd * thd * th.sin()) / 1.1
    ta = (9.8 * th.sin() - th.cos() * tmp) / (0.5 * (4 / 3 - 0.1 * th.cos() ** 2 / 1.1))
    xa = tmp - 0.05 * ta * th.cos() / 1.1
    new = torch.stack([x + 0.02 * xd, xd + 0.02 * xa, th + 0.02 * thd, thd + 0.02 * ta])
    fin = (new[0].abs() > 2.4) | (new[2].abs() > 0.2095)
    assert torch.equal(d.bool(), fin)
    assert torch.all(r == 1)
    close(ob[:, ~fin], new[:, ~fin], 1e-5)
    assert ob[:, fin].abs().max() <= 0.05


def test_segment_sums(sim):
    lens = [0, 5, 300, 1, 129, 64]
    offs = torch.tensor(np.concatenate([[0], np.cumsum(lens)]).astype(np.int32))
    x, o = torch.randn(int(offs[-1])), torch.zeros(len(lens))
    kernels.segment_sum_kernel[(len(lens),)](x, offs, o, BLOCK=128)
    close(o, [x[offs[i] : offs[i + 1]].double().sum() for i in range(len(lens))], 1e-4)


def test_sum_tree_sampling(sim):
    leaves = 256
    p = torch.randint(1, 10, (leaves,)).float()
    tree = torch.zeros(2 * leaves)
    tree[leaves:] = p
    for i in range(leaves - 1, 0, -1):
        tree[i] = tree[2 * i] + tree[2 * i + 1]
    u, o = torch.rand(500), torch.zeros(500, dtype=torch.int32)
    kernels.sumtree_kernel[(4,)](tree, u, o, leaves, 500, BLOCK=128)
    want = np.searchsorted(np.cumsum(p.numpy()), (u * tree[1]).numpy(), side="right")
    assert np.array_equal(o.numpy(), want)


def test_ppo_loss(sim):
    B, T = 3, 300
    lp, old, adv = torch.randn(B, T) * 0.1, torch.randn(B, T) * 0.1, torch.randn(B)
    m = (torch.rand(B, T) < 0.8).to(torch.int8)
    loss = torch.zeros(B)
    kernels.ppo_loss_kernel[(B,)](lp, old, adv, m, loss, 0.2, T, BLOCK=128)
    r = (lp - old).double().exp()
    a = adv.double()[:, None]
    want = -torch.minimum(r * a, r.clamp(0.8, 1.2) * a) * m
    close(loss, want.sum(1) / m.sum(1), 1e-5)
