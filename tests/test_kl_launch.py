"""How tiles are laid over arrays: a pure function of sizes."""

import pytest
import torch
from rlox_gpu.kernels._tiles import as_rows, common_unit, tile_config

SIZES = [1, 2, 5, 63, 64, 1000, 4096, 10**6]


@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("cols", SIZES)
def test_tiles_cover_everything(rows, cols, itemsize):
    config = tile_config(rows, cols, itemsize, 132)
    assert config.row_blocks(rows) * config.block_rows >= rows
    assert config.col_blocks(cols) * config.block_cols >= cols
    for size in (config.block_rows, config.block_cols):
        assert size & (size - 1) == 0
    assert config.block_rows * config.block_cols <= 4096 // max(itemsize, 4)
    assert 1 <= config.splits <= config.col_blocks(cols)


def test_a_long_row_is_dealt_out_over_the_device():
    assert tile_config(1, 10**7, 4, 132).splits == 4 * 132
    assert tile_config(10**4, 10**4, 4, 132).splits == 1


def test_contiguous_arrays_are_one_row_and_others_keep_theirs():
    x = torch.zeros(3, 4, 5)
    (flat, none) = as_rows((x, None))
    assert flat.shape == (1, 60)
    assert none is None
    assert as_rows((x,), by_row=True)[0].shape == (12, 5)
    cut = torch.zeros(6, 9)[:, :8]
    (rows,) = as_rows((cut,))
    assert rows.shape == (6, 8)
    assert rows.data_ptr() == cut.data_ptr()
    assert common_unit(8, (rows,)) == 1
    assert common_unit(8, (torch.zeros(6, 12)[:, :8],)) == 4
