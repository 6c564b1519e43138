"""The driver that replaces Triton's: arguments, tuning, checks and what it leaves behind."""

import os

import numpy as np
import ptxsim
import pytest

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET", "0") == "1":
    pytest.skip("the interpreter is on", allow_module_level=True)

kernels = pytest.importorskip("sample_triton_kernels")


def test_autotune_first_and_by_cost():
    x = torch.randn(1000)

    def grid(m):
        return (triton.cdiv(1000, m["BLOCK"]),)

    for mode in ("first", "cost"):
        kernels.tuned_kernel.cache.clear()
        with ptxsim.triton_driver(arch=90, autotune=mode) as s:
            o = torch.zeros(1000)
            kernels.tuned_kernel[grid](x, o, 1000)
            assert torch.equal(o, x * 2)
            assert len(s.launches) == 1
            if mode == "first":
                assert kernels.tuned_kernel.best_config.kwargs["BLOCK"] == 128
    kernels.tuned_kernel.cache.clear()


def test_heuristics(sim):
    for n in (1024, 1000):
        x, o = torch.randn(n), torch.zeros(n)
        kernels.heur_kernel[(4,)](x, o, n, BLOCK=256)
        assert torch.equal(o, x + 1)


def test_scalar_arguments(sim):
    o = torch.zeros(9, dtype=torch.float64)
    kernels.scalar_types_kernel[(1,)](o, 7, 2**40, -3, True, 0.1, 0.1, 0.1, -5, 1)
    want = [7, 2**40, -3, 1, float(np.float32(0.1)), 0.1, float(np.float16(0.1)), -5, 1.5]
    assert o.tolist() == want


def test_tuple_arguments(sim):
    x, o = torch.randn(100), torch.zeros(100)
    kernels.tuple_kernel[(1,)]((x, o), (100, 3), BLOCK=128)
    assert torch.equal(o, x * 3)


def test_out_of_bounds_is_reported_with_source_line(sim):
    import inspect

    x, o = torch.zeros(256), torch.zeros(256)
    src, start = inspect.getsourcelines(kernels.oob_kernel.fn)
    line = start + next(i for i, text in enumerate(src) if "tl.store" in text)
    with pytest.raises(ptxsim.MemoryFault) as e:
        kernels.oob_kernel[(2,)](x, o, BLOCK=128)
    assert f"sample_triton_kernels.py:{line}" in str(e.value)
    assert "'out' (1024 bytes)" in str(e.value)


def test_overlapping_blocks_race(sim):
    x, o = torch.zeros(1024), torch.zeros(1024)
    with pytest.raises(ptxsim.RaceError, match="global memory"):
        kernels.racy_kernel[(4,)](x, o, BLOCK=128)


@pytest.mark.parametrize("arch", [80, 90])
def test_every_removed_barrier_is_caught(arch):
    """Delete one barrier of a compiled kernel at a time: the race detector must see it."""
    x, o = torch.randn(64, 32), torch.zeros(32, 64)
    with ptxsim.triton_driver(arch=arch):
        k = kernels.transpose_kernel[(1,)](x, o, 64, 32)
    lines = k.asm["ptx"].splitlines()
    at = [i for i, line in enumerate(lines) if line.strip().startswith("bar.sync")]
    assert at
    for i in at:
        m = ptxsim.Module("\n".join(line for j, line in enumerate(lines) if j != i))
        with pytest.raises(ptxsim.RaceError):
            m.launch(
                "transpose_kernel",
                1,
                128,
                [x, o, None, None],
                shared=k.metadata.shared,
                check_races=True,
            )


def test_uninitialised_tensor(sim):
    x, o = sim.mark_uninitialized(torch.zeros(256)), torch.zeros(256)
    with pytest.raises(ptxsim.UninitializedRead, match="'x'"):
        kernels.add_kernel[(1,)](x, o, o, 256, BLOCK=256)


def test_device_assert():
    x = torch.zeros(128)
    with ptxsim.triton_driver(arch=90):
        kernels.assert_kernel[(1,)](x, BLOCK=128, debug=True)
        assert torch.all(x == 1)
        x[5] = -3
        with pytest.raises(ptxsim.TrapError, match="negative"):
            kernels.assert_kernel[(1,)](x, BLOCK=128, debug=True)


def test_numpy_backed_tensors(sim90):
    a = np.arange(1000, dtype=np.float32)
    out = np.zeros(1000, np.float32)
    kernels.add_kernel[(1,)](
        torch.from_numpy(a), torch.from_numpy(a), torch.from_numpy(out), 1000, BLOCK=1024
    )
    assert np.array_equal(out, 2 * a)


def test_driver_is_restored_and_archs_do_not_mix():
    from triton.runtime import driver

    before = driver._active
    x, o = torch.randn(64), torch.zeros(64)
    targets = []
    for arch in (80, 90, 80):
        with ptxsim.triton_driver(arch=arch) as s:
            k = kernels.add_kernel[(1,)](x, x, o, 64, BLOCK=64)
            targets.append(k.metadata.target.arch)
            assert len(s.launches) == 1
            assert [f".target sm_{arch}" in m.ptx for m in s.modules] == [True]
    assert targets == [80, 90, 80]
    assert driver._active is before


def test_interpreter_mode_is_refused(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ptxsim.LaunchError, match="TRITON_INTERPRET"), ptxsim.triton_driver():
        pass
