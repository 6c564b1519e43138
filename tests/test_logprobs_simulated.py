"""The log-probability kernels as compiled: executed, every memory access checked and counted."""

import logprobs_kernel_cases as cases
import pytest
import torch
from logprobs_reference import assert_gradient, assert_near, logprobs_reference, make_logits, sliced
from rlox_gpu.kernels._vocabulary import row_config
from simulation import simulated

import rlox_gpu
from rlox_gpu.ops import _logprobs_torch as logprobs

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ARCHITECTURES = [80, 90, 100, 120]


def _both_passes(logits, tokens, *, entropy=True, temperature=0.7, **options):
    """Check both passes against the reference; the two launches."""
    shape, real = tokens.shape, logprobs.real_dtype(logits)
    weights = torch.linspace(-1, 2, tokens.numel()).view(shape).to(real)
    with simulated(**options) as simulation:
        rows = logprobs.streamed(logits, tokens, temperature, entropy)
        gradient = logprobs.streamed_gradient(
            logits, tokens, rows, weights, -weights if entropy else None, temperature
        )
    wanted = logprobs_reference(logits.double(), tokens, temperature)
    assert_near(rows[: 1 + entropy], wanted[: 1 + entropy], logits)
    of_entropies = -weights if entropy else torch.zeros(shape)
    assert_gradient(gradient, logits, tokens, weights, of_entropies, temperature)
    return simulation.launches


@pytest.mark.parametrize("vocabulary", [1, 2, 63, 64, 1000, 4100])
@pytest.mark.parametrize("dtype", DTYPES)
def test_ragged_sizes(vocabulary, dtype):
    assert len(_both_passes(*make_logits(0, 3, vocabulary, dtype=dtype))) == 2


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_on_every_architecture(arch, dtype):
    # 17,000 elements are several rounds of all warps and a ragged end.
    logits, tokens = make_logits(1, 2, 17001, dtype=dtype, excluded=0.1)
    _both_passes(logits, tokens, arch=arch)


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize(
    ("dtype", "vocabulary"),
    [(torch.bfloat16, 50257), (torch.bfloat16, 262144), (torch.float32, 50257)],
)
def test_each_logit_is_moved_once(dtype, vocabulary, entropy):
    logits, tokens = make_logits(2, 4, vocabulary, dtype=dtype)
    launches = _both_passes(logits, tokens, entropy=entropy, check_races=False)
    for launch, passes in zip(launches, (1, 2), strict=True):
        moved = 32 * (launch.global_load_sectors + launch.global_store_sectors)
        assert moved <= 1.05 * passes * logits.numel() * logits.element_size()
        assert launch.coalescing_efficiency >= 0.95
        wide = launch.load_widths[16] * 16 / (logits.numel() * logits.element_size())
        assert wide >= 0.99


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_shifted_logits_are_read_where_they_lie(dtype):
    # Rows of an odd length, that the gradient's rows are not aligned with.
    logits, tokens = make_logits(3, 2, 3, 4097, dtype=dtype)
    launches = _both_passes(sliced(logits), tokens)
    assert len(launches) == 2
    assert launches[0].load_widths[16] * 16 >= 0.9 * logits.numel() * logits.element_size()
    # Rows of a usual length are, and keep the wide accesses.
    logits, tokens = make_logits(4, 2, 3, 4096, dtype=dtype)
    backward = _both_passes(sliced(logits), tokens)[1]
    assert backward.store_widths[16] * 16 >= 0.9 * logits.numel() * logits.element_size()


@pytest.mark.parametrize("first", [1, 3, 8])
def test_a_view_that_starts_anywhere(first):
    wide, tokens = make_logits(5, 3, 2100, dtype=torch.bfloat16)
    part = wide[:, first:2000]
    _both_passes(part, tokens % part.shape[1])


def test_gradient_without_entropy():
    _both_passes(*make_logits(6, 3, 700), entropy=False)


def test_special_values():
    with simulated():
        cases.check_logprobs_where_there_is_no_answer("cpu")
        cases.check_logprobs_of_a_token_outside_the_vocabulary("cpu")
        cases.check_logprobs_of_excluded_tokens("cpu")


def test_linear(monkeypatch):
    with simulated():
        cases.check_linear_logprobs("cpu", monkeypatch)


def test_rust_agrees():
    logits, tokens = make_logits(7, 3, 3000, excluded=0.2)
    on_cpu = rlox_gpu.token_logprobs(logits, tokens, return_entropy=True)
    with simulated():
        got = rlox_gpu.token_logprobs(logits, tokens, return_entropy=True)
    for a, b in zip(got, on_cpu, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=2e-6)


def test_no_rows_launch_nothing():
    with simulated() as simulation:
        empty = rlox_gpu.token_logprobs(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
    assert empty.shape == (0,)
    assert not simulation.launches


def test_new_sizes_and_temperatures_compile_nothing():
    import triton

    compiled = []
    with simulated():
        rlox_gpu.token_logprobs(*make_logits(8, 2, 37))
        hook = triton.knobs.runtime.jit_post_compile_hook
        triton.knobs.runtime.jit_post_compile_hook = lambda **kw: compiled.append(kw)
        try:
            for vocabulary, temperature in [(1, 0.5), (64, 1.0), (1000, 3.0)]:
                logits, tokens = make_logits(8, 2, vocabulary)
                rlox_gpu.token_logprobs(logits, tokens, temperature=temperature)
        finally:
            triton.knobs.runtime.jit_post_compile_hook = hook
    assert not compiled


@pytest.mark.slow
def test_offsets_go_past_two_to_the_31():
    far = torch.zeros(2 * (2**30 + 64) + 1024, dtype=torch.float16)
    logits = far.as_strided((3, 16), (2**30 + 64, 1))
    logits[2, 7] = logits[1, 3] = 1
    _both_passes(logits, torch.tensor([0, 3, 7]), check_races=False, check_uninit=False)


def test_programs_fit_their_rows():
    assert row_config(50257, 2) == (8, 8)
    assert row_config(4096, 4) == (4, 4)
    assert row_config(1, 8) == (1, 2)
    assert [row_config(50257, 2, alignment=n).vector for n in (0, 16, 12, 6, 7)] == [8, 8, 4, 2, 1]
