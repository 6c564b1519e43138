"""Every estimator's kernels as compiled: executed, every memory access checked and counted."""

import numpy as np
import pytest
import torch
from estimator_cases import (
    ESTIMATORS,
    FLAGS,
    check,
    expected,
    launch,
    make_inputs,
    rates_of,
    rows_of,
    steps_of,
)
from estimator_kernel_cases import check_masks_and_rates_per_step, check_packed_sequences
from simulation import simulated

KERNELS = {
    "lanes": "time_major_kernel",
    "rows": "row_major_kernel",
    "chunks": "chunked_kernel",
    "row-chunks": "chunked_kernel",
}
# Sizes that nothing divides, and some that every access does.
RAGGED = {"lanes": (63, 63), "rows": (1000, 63), "chunks": (1000, 63), "row-chunks": (4100, 3)}
EVEN = {"lanes": (64, 512), "rows": (512, 64), "chunks": (2048, 32), "row-chunks": (8192, 4)}
# Rows of floats begin with a sector, rows of flags do not.
SPLIT = {"lanes": (63, 1000), "rows": (1000, 64), "chunks": (1000, 104), "row-chunks": (5000, 3)}
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SECTOR = 32  # bytes
NAMES = pytest.mark.parametrize("name", ESTIMATORS)
REGIMES = pytest.mark.parametrize("regime", KERNELS)


def _inputs(name, regime, size, dtype=torch.float32, **options):
    inputs = make_inputs(name, 0, *size, dtype, **options)
    return {k: rows_of(v) for k, v in inputs.items()} if "row" in regime else inputs


def _kernel(name, regime):
    return "n_step_kernel" if name == "n_step_returns" else KERNELS[regime]


def _run(name, regime, inputs, rates=None, **options):
    """The launch, after a look at its results, in memory that counts as never written."""
    ragged = {k: options.pop(k) for k in ("wanted", "mask", "lengths") if k in options}
    with simulated(**options) as simulation:

        def unwritten():
            out = torch.full_like(steps_of(inputs), torch.nan)
            simulation.mark_uninitialized(out)
            return out

        check(name, inputs, rates or rates_of(name), allocate=unwritten, **ragged)
    (launched,) = simulation.launches
    assert launched.kernel == _kernel(name, regime)
    return launched


def _minimum(name, inputs, outputs):
    """Bytes that must be moved: every element once, of final values the sectors with a cut."""
    x = steps_of(inputs)
    size = x.dtype.itemsize
    flags = sum(x.numel() * x.dtype.itemsize for k, x in inputs.items() if k in FLAGS)
    least = size * x.numel() * (1 + len(ESTIMATORS[name][0]) + outputs) + flags
    if "final_values" in inputs:
        cut = inputs["truncated"].bool() & ~inputs["terminated"].bool()
        in_memory = cut if cut.is_contiguous() else cut.T
        least += SECTOR * in_memory.reshape(-1, SECTOR // size).any(1).sum().item()
    return least


def _moved(launched):
    return SECTOR * (launched.global_load_sectors + launched.global_store_sectors)


@NAMES
@REGIMES
def test_ragged_sizes(name, regime):
    # No race, no access outside, no result left unwritten.
    _run(name, regime, _inputs(name, regime, RAGGED[regime]))


@NAMES
def test_one_step(name):
    _run(name, "lanes", _inputs(name, "lanes", (1, 63)))


def _told(launched, inputs):
    """Bytes by which chunks hand on the state: a number each way, and the value behind."""
    x = steps_of(inputs)
    sequences = min(32, x.shape[1]) if x.is_contiguous() else 1
    numbers = sequences * max(4, x.dtype.itemsize)
    return launched.grid[0] * 3 * max(SECTOR, numbers)


@NAMES
@REGIMES
def test_each_element_is_moved_once(name, regime):
    """Each estimator meets each dtype in another regime."""
    dtype = DTYPES[(list(ESTIMATORS).index(name) + list(KERNELS).index(regime)) % len(DTYPES)]
    inputs = _inputs(name, regime, EVEN[regime], dtype, end_rate=0.02)
    launched = _run(name, regime, inputs, check_races=False)
    least = _minimum(name, inputs, len(ESTIMATORS[name][1]))
    if launched.kernel == "n_step_kernel":
        # Rewards and flags are asked for again, but of a cache.
        assert SECTOR * launched.unique_sectors <= 1.05 * least
    elif launched.kernel == "chunked_kernel" and dtype is not torch.float32:
        # Small elements and short chunks make more of what the chunks tell each other.
        assert _moved(launched) <= 1.1 * (least + _told(launched, inputs))
    else:
        assert _moved(launched) <= 1.05 * least


@REGIMES
@pytest.mark.parametrize("truncation", [False, True])
def test_advantages_alone(regime, truncation):
    inputs = _inputs("gae", regime, EVEN[regime], truncation=truncation, end_rate=0.02)
    launched = _run("gae", regime, inputs, wanted=("advantages",), check_races=False)
    assert _moved(launched) <= 1.05 * _minimum("gae", inputs, 1)
    assert truncation or launched.coalescing_efficiency >= 0.95


@REGIMES
def test_sizes_that_split_sectors(regime):
    inputs = _inputs("gae", regime, SPLIT[regime], truncation=False, end_rate=0.02)
    launched = _run("gae", regime, inputs, check_races=False)
    assert _moved(launched) <= 1.1 * _minimum("gae", inputs, 2)


@pytest.mark.parametrize(
    ("name", "regime"),
    [
        ("gae", "chunks"),
        ("vtrace", "row-chunks"),
        ("retrace", "lanes"),
        ("eligibility_traces", "rows"),
        ("n_step_returns", "rows"),
    ],
)
def test_masks_and_rates_per_step(name, regime):
    with simulated():
        check_masks_and_rates_per_step("cpu", name, regime)


@pytest.mark.parametrize("name", ["vtrace", "n_step_returns"])
def test_packed_sequences(name):
    with simulated():
        check_packed_sequences("cpu", name)


@pytest.mark.parametrize("options", [{"schedule": "random"}, {"max_resident_threads": 128}])
@pytest.mark.parametrize(("regime", "size"), [("chunks", (520, 9)), ("row-chunks", (4100, 3))])
def test_chunks_find_the_state_in_whatever_order_they_run(regime, size, options):
    inputs = _inputs("gae", regime, size, truncation=False, end_rate=0.001)
    _run("gae", regime, inputs, check_races=False, **options)


@pytest.mark.parametrize("rates", [(0.99, 0.95), (1.0, 1.0)])
def test_a_million_steps_of_one_episode(rates):
    """Every chunk needs what the others have found, and rounding errors add up."""
    inputs = make_inputs("gae", 1, 2**20, 1, truncation=False, end_rate=0.0)
    rates = dict(zip(("gamma", "gae_lambda"), rates, strict=True))
    with simulated(check_races=False, check_uninit=False) as simulation:
        got = launch("gae", inputs, rates, wanted=("advantages",))["advantages"]
    assert simulation.launches[0].kernel == "chunked_kernel"
    want = expected("gae", inputs, rates)["advantages"]
    assert np.abs(got.numpy() - want).max() <= 1e-6 * np.abs(want).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gae", "vtrace", "n_step_returns"])
@REGIMES
def test_offsets_go_past_two_to_the_31(name, regime):
    # Flags, rewards and results lie so far apart that int32 offsets of the last would wrap.
    num_steps, num_envs = {"chunks": (520, 4), "row-chunks": (4100, 3)}.get(regime, (3, 16))
    inputs = _inputs(name, regime, (num_steps, num_envs), torch.float16, truncation=False)
    count = num_envs if "row" in regime else num_steps
    stride = (2**31 // (count - 1) // 64 + 1) * 64

    def far(like):
        # Zeroed memory that nobody touches takes no room.
        memory = np.zeros(
            stride * (count - 1) + 8192, np.bool_ if like.dtype is torch.bool else np.float16
        )
        strides = (1, stride) if "row" in regime else (stride, 1)
        return torch.from_numpy(memory).as_strided(like.shape, strides)

    for key in ("terminated", "rewards"):
        inputs[key] = far(inputs[key]).copy_(inputs[key])
    with simulated(check_races=False, check_uninit=False) as simulation:
        check(name, inputs, rates_of(name), allocate=lambda: far(inputs["rewards"]))
    (launched,) = simulation.launches
    assert launched.kernel == _kernel(name, regime)
