"""Launch shapes: a pure function of sizes."""

import pytest
from rlox_gpu.kernels._launch import WARP, Layout, Regime, scan_regime
from rlox_gpu.kernels._launch import scan_config as full_scan_config

_WALKS = {Layout.TIME_MAJOR: Regime.LANES, Layout.ROW_MAJOR: Regime.ROWS}


def scan_config(num_steps, num_envs, layout, *args, regime=None, alignment=16, arrays=3):
    regime = regime or _WALKS[layout]
    return full_scan_config(
        regime, num_steps, num_envs, layout, *args, alignment=alignment, arrays=arrays
    )


SIZES = [1, 2, 5, 63, 64, 1000, 4096, 16896, 10**6]


@pytest.mark.parametrize("arrays", [2, 3, 5, 10])
@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("chunked", [False, True])
def test_every_size_gets_a_launch_that_covers_it(chunked, layout, itemsize, arrays):
    regime = Regime.CHUNKS if chunked else _WALKS[layout]
    for num_steps in SIZES:
        for num_envs in SIZES:
            config = scan_config(
                num_steps,
                num_envs,
                layout,
                itemsize,
                132,
                regime=regime,
                alignment=num_envs,
                arrays=arrays,
            )
            assert config.regime is regime
            assert config.programs(num_envs) * config.block_n >= num_envs
            assert (config.programs(num_envs) - 1) * config.block_n < num_envs
            assert config.vector * itemsize <= 16
            lanes = WARP * config.num_warps
            assert config.block_n * config.block_t == lanes * config.vector
            # Block sizes of Triton are powers of two.
            for size in (config.block_n, config.block_t, config.num_warps):
                assert size & (size - 1) == 0
            assert config.ahead >= 1


@pytest.mark.parametrize(
    ("size", "layout", "regime"),
    [
        ((128, 4096), Layout.TIME_MAJOR, Regime.LANES),
        ((10**6, 4224), Layout.TIME_MAJOR, Regime.LANES),
        ((511, 8), Layout.TIME_MAJOR, Regime.LANES),
        ((512, 4223), Layout.TIME_MAJOR, Regime.CHUNKS),
        ((2048, 32), Layout.ROW_MAJOR, Regime.ROWS),
        ((10**6, 132), Layout.ROW_MAJOR, Regime.ROWS),
        ((2**20, 1), Layout.ROW_MAJOR, Regime.CHUNKS),
        ((4096, 131), Layout.ROW_MAJOR, Regime.CHUNKS),
    ],
)
def test_long_and_few_sequences_are_cut_into_chunks(size, layout, regime):
    assert scan_regime(*size, layout, 132) is regime


def test_a_smaller_device_is_filled_without_chunks():
    assert scan_regime(1000, 1000, Layout.TIME_MAJOR, 132) is Regime.CHUNKS
    assert scan_regime(1000, 1000, Layout.TIME_MAJOR, 20) is Regime.LANES


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
