"""The kernels as compiled: PTX executed, every memory access checked and counted."""

import numpy as np
import pytest
import torch
from random_reference import permutation_reference, uniform_reference
from simulation import simulated, simulated_gae
from torch_inputs import assert_close, make_torch_inputs, with_layout, with_rows

import rlox_gpu
from rlox_gpu.ops.random import permutation, uniform

SIZES = [1, 63, 1000]
ARCHITECTURES = [80, 90, 100, 120]


def _check(inputs, *, rows=False, **options):
    if rows:
        inputs = with_rows(inputs)
    time_dim = -1 if rows else 0
    result, launch = simulated_gae(inputs, time_dim=time_dim, **options)
    assert_close(result, inputs, time_dim=time_dim)
    return launch


@pytest.mark.parametrize("rows", [False, True], ids=["time-major", "row-major"])
@pytest.mark.parametrize("num_envs", SIZES)
@pytest.mark.parametrize("num_steps", SIZES)
def test_gae_at_ragged_sizes(num_steps, num_envs, rows):
    _check(make_torch_inputs(0, num_steps, num_envs), rows=rows)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("rows", [False, True], ids=["time-major", "row-major"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gae_in_every_dtype_on_every_architecture(arch, rows, dtype):
    _check(make_torch_inputs(1, 70, 48, dtype), rows=rows, arch=arch)


@pytest.mark.parametrize("rows", [False, True], ids=["time-major", "row-major"])
@pytest.mark.parametrize("flag_dtype", [torch.int64, torch.int8, torch.float16, torch.float64])
def test_gae_reads_every_kind_of_flag(flag_dtype, rows):
    _check(make_torch_inputs(2, 40, 20, flag_dtype=flag_dtype), rows=rows)


@pytest.mark.parametrize("num_steps", [2, 5, 16, 32, 128, 640, 700])
def test_row_major_at_every_tile_width(num_steps):
    _check(make_torch_inputs(3, num_steps, 5), rows=True)
    _check(make_torch_inputs(3, num_steps, 5, torch.float64), rows=True)


def test_gae_of_one_trajectory():
    inputs = make_torch_inputs(4, 320, truncation=False)
    result, launch = simulated_gae(inputs)
    assert_close(result, inputs)
    # [T] is one row: lanes side by side in time, not one lane alone.
    assert launch.load_widths[16] == 2 * 320 // 4


@pytest.mark.parametrize("layout", ["transposed", "strided"])
@pytest.mark.parametrize("moved", ["rewards", "terminated", "final_values", "values"])
def test_gae_accepts_mixed_layouts(moved, layout):
    inputs = make_torch_inputs(5, 33, 17)
    laid_out = inputs | {moved: with_layout(inputs[moved], layout)}
    with simulated() as simulation:
        result = rlox_gpu.gae(**laid_out)
    assert_close(result, inputs)
    assert len(simulation.launches) == 1


@pytest.mark.parametrize("layout", ["transposed", "strided"])
def test_gae_writes_into_any_layout(layout):
    inputs = make_torch_inputs(5, 33, 17)
    out = tuple(with_layout(torch.full((33, 17), torch.nan), layout) for _ in range(2))
    with simulated():
        rlox_gpu.gae(**inputs, out=out)
    assert_close((*out, None), inputs)


@pytest.mark.parametrize("layout", ["transposed", "strided"])
def test_gae_of_one_step(layout):
    inputs = make_torch_inputs(6, 1, 40)
    with simulated():
        result = rlox_gpu.gae(**{k: with_layout(v, layout) for k, v in inputs.items()})
    assert_close(result, inputs)


def test_gae_reads_a_row_stride_that_is_not_its_length():
    wide = make_torch_inputs(6, 40, 64)
    part = {k: v[..., 5:38] for k, v in wide.items()}
    with simulated() as simulation:
        result = rlox_gpu.gae(**part)
    assert_close(result, part)
    assert len(simulation.launches) == 1


@pytest.mark.parametrize("rows", [False, True], ids=["time-major", "row-major"])
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_nothing_crosses_the_end_of_an_episode(poison, rows):
    inputs = make_torch_inputs(7, 30, 4)
    inputs["terminated"][9] = torch.tensor([True, True, False, False])
    inputs["truncated"][9] = ~inputs["terminated"][9]
    inputs["final_values"][9, 2:] = 1.0
    clean = rlox_gpu.gae(**inputs).advantages
    for name in ("rewards", "values"):
        inputs[name][10:] = poison
    inputs["last_values"][:] = poison
    inputs = with_rows(inputs) if rows else inputs
    dirty, _ = simulated_gae(inputs, time_dim=-1 if rows else 0)
    advantages = dirty.advantages.T if rows else dirty.advantages
    torch.testing.assert_close(advantages[:10], clean[:10], rtol=0, atol=1e-5)
    assert not advantages[10:].isfinite().any()


@pytest.mark.parametrize("rows", [False, True], ids=["time-major", "row-major"])
def test_float64_keeps_gamma_and_lambda_exact(rows):
    # In float32 gamma would be off by 1e-8, and the advantages by more.
    inputs = make_torch_inputs(8, 200, 3, torch.float64)
    inputs = with_rows(inputs) if rows else inputs
    options = {"gamma": 0.9999, "gae_lambda": 1.0, "time_dim": -1 if rows else 0}
    result, _ = simulated_gae(inputs, **options)
    assert_close(result, inputs, **options)


def test_new_gamma_compiles_nothing():
    import triton

    compiled = []
    inputs = make_torch_inputs(9, 8, 4)
    with simulated():
        rlox_gpu.gae(**inputs)
        hook = triton.knobs.runtime.jit_post_compile_hook
        triton.knobs.runtime.jit_post_compile_hook = lambda **kw: compiled.append(kw)
        try:
            for gamma in (0.0, 0.5, 1.0):
                rlox_gpu.gae(**inputs, gamma=gamma, gae_lambda=gamma)
        finally:
            triton.knobs.runtime.jit_post_compile_hook = hook
    assert not compiled


@pytest.mark.slow
def test_offsets_go_past_two_to_the_31():
    # Rows of flags 2**30 + 64 bytes apart: an int32 offset of the third would wrap.
    far = torch.zeros(2 * (2**30 + 64) + 1024, dtype=torch.uint8)
    flags = far.as_strided((3, 16), (2**30 + 64, 1))
    flags[2, 7] = flags[1, 3] = 1
    inputs = make_torch_inputs(10, 3, 16, truncation=False) | {"terminated": flags}
    with simulated(check_races=False, check_uninit=False):
        result = rlox_gpu.gae(**inputs)
    assert_close(result, inputs)


BYTES_PER_ELEMENT = 4 + 4 + 1 + 4 + 4  # reward, value, flag; advantage, return


@pytest.mark.parametrize(
    ("rows", "num_steps", "num_envs"), [(False, 128, 4096), (True, 512, 128), (True, 2048, 32)]
)
def test_gae_moves_each_element_once(rows, num_steps, num_envs):
    inputs = make_torch_inputs(10, num_steps, num_envs, truncation=False)
    launch = _check(inputs, rows=rows, check_races=False)
    elements = num_steps * num_envs
    moved = 32 * (launch.global_load_sectors + launch.global_store_sectors)
    assert moved <= 1.05 * BYTES_PER_ELEMENT * elements
    assert launch.coalescing_efficiency >= 0.95


@pytest.mark.parametrize("rows", [False, True], ids=["time-major", "row-major"])
def test_final_values_are_read_only_where_an_episode_was_cut(rows):
    inputs = make_torch_inputs(13, 512, 64, end_rate=0.02)
    launch = _check(inputs, rows=rows, check_races=False)
    elements = 512 * 64
    # One more flag byte, and a sector for each of the two cuts in a hundred.
    least = (BYTES_PER_ELEMENT + 1 + 0.02 * 32) * elements
    assert 32 * (launch.global_load_sectors + launch.global_store_sectors) <= 1.05 * least


@pytest.mark.parametrize(("num_steps", "width"), [(1000, 16), (100, 16), (50, 8), (101, 4)])
def test_rows_are_read_as_wide_as_their_length_allows(num_steps, width):
    inputs = make_torch_inputs(14, num_steps, 16, truncation=False)
    launch = _check(inputs, rows=True, check_races=False)
    assert set(launch.store_widths) == {width}


@pytest.mark.parametrize(("num_envs", "width"), [(16896, 16), (16900, 16), (16902, 8), (16901, 4)])
def test_wide_batches_use_wide_accesses(num_envs, width):
    # Enough environments to fill the device four at a time: 16 bytes a lane, 4 of flags.
    launch = _check(make_torch_inputs(11, 3, num_envs, truncation=False), check_races=False)
    assert set(launch.store_widths) == {width}
    assert launch.coalescing_efficiency >= (0.95 if num_envs % 16 == 0 else 0.7)


@pytest.mark.parametrize(("num_steps", "num_envs", "most"), [(128, 256, 2.0), (2048, 32, 1.4)])
def test_row_major_takes_few_instructions(num_steps, num_envs, most):
    inputs = make_torch_inputs(12, num_steps, num_envs, truncation=False)
    launch = _check(inputs, rows=True, check_races=False)
    assert launch.total_warp_instructions <= most * num_steps * num_envs


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (2**64 - 1, 2**32 - 1), (2**63 + 12345, 7)])
@pytest.mark.parametrize("count", [1, 3, 63, 64, 1000, 1024])
def test_random_is_word_for_word_that_of_the_cpu(count, seed, step):
    with simulated() as simulation:
        draws = torch.full((count,), torch.nan)
        simulation.mark_uninitialized(draws)
        uniform(draws, seed=seed, step=step, stream=1)
        order = permutation(count, seed=seed, step=step)
    np.testing.assert_array_equal(draws.numpy(), uniform_reference(count, seed, step, 1))
    np.testing.assert_array_equal(order.numpy(), permutation_reference(count, seed, step))
    assert torch.equal(order, permutation(count, seed=seed, step=step))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_random_on_every_architecture(arch):
    with simulated(arch=arch):
        draws = uniform(torch.empty(100), seed=3, step=1, stream=2)
        order = permutation(100, seed=3, step=1)
    assert torch.equal(draws, uniform(torch.empty(100), seed=3, step=1, stream=2))
    assert torch.equal(order, permutation(100, seed=3, step=1))


def test_random_of_nothing_launches_nothing():
    with simulated() as simulation:
        uniform(torch.empty(0), seed=0, step=0, stream=0)
        permutation(0, seed=0, step=0)
    assert not simulation.launches
