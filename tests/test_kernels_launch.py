"""Launch shapes: a pure function of sizes."""

import pytest
from rlox_gpu.kernels._launch import WARP, Layout
from rlox_gpu.kernels._launch import scan_config as full_scan_config


def scan_config(*args, alignment=16, truncation=False):
    return full_scan_config(*args, alignment=alignment, truncation=truncation)


SIZES = [1, 2, 5, 63, 64, 1000, 4096, 16896, 10**6]


@pytest.mark.parametrize("truncation", [False, True])
@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("layout", Layout)
def test_every_size_gets_a_launch_that_covers_it(layout, itemsize, truncation):
    for num_steps in SIZES:
        for num_envs in SIZES:
            config = scan_config(
                num_steps,
                num_envs,
                layout,
                itemsize,
                132,
                alignment=num_envs,
                truncation=truncation,
            )
            assert config.layout is layout
            assert config.programs(num_envs) * config.block_n >= num_envs
            assert (config.programs(num_envs) - 1) * config.block_n < num_envs
            assert config.vector * itemsize <= 16
            lanes = WARP * config.num_warps
            assert config.block_n * config.block_t == lanes * config.vector
            # Block sizes of Triton are powers of two.
            for size in (config.block_n, config.block_t, config.num_warps):
                assert size & (size - 1) == 0
            assert config.ahead >= 1


def test_few_environments_are_spread_over_the_device():
    config = scan_config(128, 4096, Layout.TIME_MAJOR, 4, 132)
    assert (config.vector, config.num_warps) == (1, 1)
    assert config.programs(4096) == 128


def test_many_environments_are_read_sixteen_bytes_at_a_time():
    config = scan_config(128, 65536, Layout.TIME_MAJOR, 4, 132)
    assert config.vector * 4 == 16
    assert scan_config(128, 65536, Layout.TIME_MAJOR, 8, 132).vector * 8 == 16
    assert scan_config(128, 10**6, Layout.TIME_MAJOR, 4, 132).num_warps == 4


def test_accesses_are_no_wider_than_the_alignment():
    for alignment, unit in [(0, 4), (4, 4), (6, 2), (7, 1)]:
        config = scan_config(128, 10**6, Layout.TIME_MAJOR, 4, 132, alignment=alignment)
        assert config.unit == config.vector == unit
        rows = scan_config(128, 64, Layout.ROW_MAJOR, 4, 132, alignment=alignment)
        assert (rows.unit, rows.vector) == (unit, 4)


def test_a_smaller_device_takes_wider_accesses_earlier():
    vectors = [scan_config(128, 8192, Layout.TIME_MAJOR, 4, sms).vector for sms in (264, 132, 20)]
    assert vectors == [1, 1, 4]


@pytest.mark.parametrize(
    ("num_steps", "block_t", "ahead"),
    [(1, 4, 1), (4, 4, 1), (5, 8, 1), (64, 64, 1), (128, 128, 1), (129, 128, 2), (10**6, 128, 4)],
)
def test_rows_take_a_warp_at_most(num_steps, block_t, ahead):
    config = scan_config(num_steps, 64, Layout.ROW_MAJOR, 4, 132)
    assert (config.block_t, config.ahead) == (block_t, ahead)
    assert config.block_t <= WARP * config.vector


def test_time_major_launches_do_not_depend_on_the_horizon():
    # One kernel serves every horizon of a time-major batch.
    configs = {scan_config(t, 4096, Layout.TIME_MAJOR, 4, 132) for t in SIZES}
    assert len(configs) == 1
