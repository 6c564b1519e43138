"""The sampling kernels as compiled: PTX executed, every memory access checked and counted."""

import numpy as np
import pytest
import torch
from machine_code import ARCHITECTURES
from rlox_gpu.kernels._rows import row_tiles
from sampling_cases import (
    DTYPES,
    assert_categorical,
    assert_gaussian,
    make_gaussian,
    make_logits,
    sample,
    sample_gaussian,
)
from sampling_reference import categorical_gradient_reference
from simulation import simulated

SHAPES = [(1, 1), (63, 2), (5, 6), (3, 63), (2, 1000), (1, 2050), (0, 3)]


def _same(result, other):
    """Draws bit for bit, what comes with them to rounding."""
    assert torch.equal(result.actions, other.actions)
    double = result.log_prob.dtype is torch.float64
    tolerance = {"rtol": 1e-13, "atol": 1e-13} if double else {"rtol": 2e-6, "atol": 2e-6}
    torch.testing.assert_close(result.log_prob, other.log_prob, **tolerance)
    torch.testing.assert_close(result.entropy, other.entropy, **tolerance)


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (2**64 - 1, 2**32 - 1)])
@pytest.mark.parametrize("shape", SHAPES)
def test_categorical_is_that_of_the_cpu(shape, seed, step):
    logits = make_logits(0, *shape)
    with simulated() as simulation:
        result = sample(logits, seed, step)
    assert len(simulation.launches) == (shape[0] > 0)
    _same(result, sample(logits, seed, step))
    if shape[0]:
        assert_categorical(result, logits, seed, step)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_categorical_in_every_dtype_on_every_architecture(arch, dtype):
    logits = make_logits(1, 30, 17, dtype=dtype)
    logits[:, 3] = -torch.inf
    with simulated(arch=arch):
        result = sample(logits)
        strided = sample(logits.T.contiguous().T)
    _same(result, sample(logits))
    _same(strided, result)


def test_equal_draws_for_every_word_that_matters():
    # Equal logits: the noise alone decides, among 64,000 words.
    logits = torch.zeros(1000, 64)
    with simulated(check_races=False, check_uninit=False):
        result = sample(logits)
    _same(result, sample(logits))


@pytest.mark.parametrize("classes", [4, 200])
def test_rows_that_are_no_distribution(classes):
    logits = make_logits(2, 6, classes)
    logits[1] = -torch.inf
    logits[2, 1] = torch.nan
    logits[3, 2] = torch.inf
    with simulated():
        result = sample(logits)
    expected = sample(logits)
    assert torch.equal(result.actions, expected.actions)
    assert torch.equal(result.log_prob.isnan(), expected.log_prob.isnan())
    assert torch.equal(result.entropy.isnan(), expected.entropy.isnan())


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint32])
def test_the_step_is_read_by_the_kernel(dtype):
    logits = make_logits(3, 40, 6)
    step = torch.tensor(2**32 - 1 if dtype is not torch.int32 else 9).to(dtype)
    with simulated():
        result = sample(logits, step=step)
    _same(result, sample(logits, step=int(step)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(70, 2), (3, 300), (1, 2050)])
def test_categorical_gradient(shape, dtype):
    logits = make_logits(4, *shape, dtype=dtype)
    logits[0, 1] = -torch.inf
    leaf = logits.clone().requires_grad_()
    gradients = np.random.default_rng(0).standard_normal((2, shape[0]))
    with simulated() as simulation:
        actions, log_prob, entropy = sample(leaf)
        parts = [torch.tensor(g).to(log_prob) for g in gradients]
        torch.autograd.backward([log_prob, entropy], parts)
    assert len(simulation.launches) == 2
    wanted = categorical_gradient_reference(logits.double().numpy(), actions, *gradients)
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5}.get(dtype, 1e-13)
    np.testing.assert_allclose(leaf.grad.double().numpy(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((512, 4), torch.float32), ((1, 16384), torch.bfloat16), ((4, 4096), torch.float32)],
)
def test_categorical_reads_each_logit_once(shape, dtype):
    logits = make_logits(5, *shape, dtype=dtype).requires_grad_()
    with simulated(check_races=False) as simulation:
        _, log_prob, entropy = sample(logits)
        torch.autograd.backward([log_prob, entropy], [log_prob, log_prob])
    rows, size = shape[0], logits.nbytes
    # Each chosen logit is read by itself: one sector. Every warp reads what belongs to its row,
    # which counts in short rows and costs nothing: the first-level cache has it.
    least = size + 16 * rows, 2 * size + (24 + 32) * rows
    for launch, bound in zip(simulation.launches, least, strict=True):
        moved = 32 * (launch.global_load_sectors + launch.global_store_sectors)
        assert moved <= 1.05 * bound
    assert simulation.launches[0].coalescing_efficiency >= 0.95


def test_new_seeds_steps_and_sizes_of_batch_compile_nothing():
    import triton

    compiled = []
    with simulated():
        sample(make_logits(6, 40, 6))
        hook = triton.knobs.runtime.jit_post_compile_hook
        triton.knobs.runtime.jit_post_compile_hook = lambda **kw: compiled.append(kw)
        try:
            for seed, step, rows in ((0, 0, 40), (1, 1, 41), (2**64 - 1, 2**32 - 1, 16)):
                sample(make_logits(6, rows, 6), seed, step)
        finally:
            triton.knobs.runtime.jit_post_compile_hook = hook
    assert not compiled


@pytest.mark.slow
def test_offsets_go_past_two_to_the_31():
    # Rows 2**30 + 64 elements apart: an int32 offset of the third would wrap.
    far = torch.zeros(2 * (2**30 + 64) + 1024, dtype=torch.bfloat16)
    logits = far.as_strided((3, 16), (2**30 + 64, 1))
    logits.copy_(make_logits(7, 3, 16))
    with simulated(check_races=False, check_uninit=False):
        result = sample(logits)
    _same(result, sample(logits))


def test_tiles_cover_any_row():
    for rows in (1, 100, 10**6):
        for width in (1, 3, 4, 5, 64, 65, 500, 2047, 2049, 262_144):
            tiles = row_tiles(rows, width, 132)
            assert tiles.width >= min(width, 1024)
            assert tiles.rows * tiles.width == 4 * 32 * tiles.num_warps
    assert row_tiles(10**6, 2, 132).num_warps == 4
    assert row_tiles(8, 2, 132).num_warps == 1


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("shape", [(63, 3), (5, 8), (1, 1030), (0, 2)])
def test_gaussian_is_that_of_the_cpu(shape, squash):
    inputs = make_gaussian(8, *shape)
    seed, step = 2**64 - 1, 2**32 - 1
    with simulated() as simulation:
        result = sample_gaussian(*inputs, seed, step, squash=squash)
    assert len(simulation.launches) == (shape[0] > 0)
    expected = sample_gaussian(*inputs, seed, step, squash=squash)
    assert torch.equal(result.actions, expected.actions)
    torch.testing.assert_close(result.log_prob, expected.log_prob, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gaussian_in_every_dtype_on_every_architecture(arch, dtype):
    inputs = make_gaussian(9, 20, 6, dtype=dtype, shared=True)
    with simulated(arch=arch) as simulation:
        assert_gaussian(*inputs, squash=True, step=torch.tensor(7))
        result = sample_gaussian(*inputs)
    assert len(simulation.launches) == 3
    expected = sample_gaussian(*inputs)
    if dtype is torch.float64:
        torch.testing.assert_close(result.actions, expected.actions, rtol=1e-14, atol=1e-14)
    else:
        assert torch.equal(result.actions, expected.actions)


def test_equal_normals_for_many_words():
    zeros = torch.zeros(2000, 8)
    with simulated(check_races=False, check_uninit=False):
        noise = sample_gaussian(zeros, zeros).actions
    assert torch.equal(noise, sample_gaussian(zeros, zeros).actions)


def test_gaussian_moves_each_number_once():
    inputs = [x.requires_grad_() for x in make_gaussian(10, 512, 8)]
    with simulated(check_races=False) as simulation:
        result = sample_gaussian(*inputs, squash=True)
        torch.autograd.backward(list(result), [torch.ones_like(x) for x in result])
    least = 4 * 512 * (3 * 8 + 1), 4 * 512 * (5 * 8 + 1)
    for launch, bound in zip(simulation.launches, least, strict=True):
        assert 32 * (launch.global_load_sectors + launch.global_store_sectors) <= 1.05 * bound
        assert launch.coalescing_efficiency >= 0.95
