"""The kernels of the full divergence as compiled: every memory access checked and counted."""

import full_kl_kernel_cases as cases
import pytest
import torch
from full_kl_inputs import DTYPES, assert_divergences, assert_gradients, make_full_kl_inputs
from logprobs_reference import sliced
from rlox_gpu.kernels._vocabulary import common_alignment
from simulation import simulated

import rlox_gpu

ARCHITECTURES = [80, 90, 100, 120]


def _both_passes(inputs, *, layout=lambda x: x, ref_grad=True, **options):
    """Check both passes against the reference; the two launches."""
    leaf, other = (layout(inputs[name]).detach() for name in ("logits", "ref_logits"))
    leaf.requires_grad_()
    other.requires_grad_(ref_grad)
    weights = torch.linspace(-1, 2, leaf[..., 0].numel()).view(leaf.shape[:-1])
    with simulated(**options) as simulation:
        result = rlox_gpu.full_kl(leaf, other, temperature=0.7, mask=inputs.get("mask"))
        (result * weights).sum().backward()
    assert_divergences(result, inputs, temperature=0.7)
    assert_gradients((leaf.grad, other.grad), inputs, weights, 0.7)
    assert len(simulation.launches) == 2
    return simulation.launches


@pytest.mark.parametrize("vocabulary", [1, 2, 63, 64, 1000, 4100])
@pytest.mark.parametrize("dtype", DTYPES)
def test_ragged_sizes(vocabulary, dtype):
    _both_passes(make_full_kl_inputs(0, 3, vocabulary, dtype=dtype))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_on_every_architecture(arch, dtype):
    # 17,001 elements are several rounds of all warps and a ragged end.
    inputs = make_full_kl_inputs(1, 2, 17001, dtype=dtype, excluded=0.1, mask_dtype=None)
    _both_passes(inputs, arch=arch)


@pytest.mark.parametrize(
    ("dtype", "vocabulary", "ref_grad"),
    [
        (torch.bfloat16, 50257, False),
        (torch.bfloat16, 262144, False),
        (torch.float32, 50257, True),
    ],
)
def test_each_logit_is_moved_once(dtype, vocabulary, ref_grad):
    inputs = make_full_kl_inputs(2, 4, vocabulary, dtype=dtype, mask_dtype=None)
    launches = _both_passes(inputs, ref_grad=ref_grad, check_races=False)
    nbytes = inputs["logits"].numel() * inputs["logits"].element_size()
    for launch, passes in zip(launches, (2, 3 + ref_grad), strict=True):
        moved = 32 * (launch.global_load_sectors + launch.global_store_sectors)
        assert moved <= 1.05 * passes * nbytes
        assert launch.coalescing_efficiency >= 0.95
        assert launch.load_widths[16] * 16 >= 0.99 * 2 * nbytes


def test_masked_rows_are_not_read():
    inputs = make_full_kl_inputs(3, 4, 50257, mask_dtype=None)
    mask = torch.tensor([1, 0, 0, 1])
    for name in ("logits", "ref_logits"):
        inputs[name][1:3] = torch.nan
    launches = _both_passes(inputs | {"mask": mask}, ref_grad=False)
    nbytes = inputs["logits"].numel() * 4
    for launch in launches:
        # Half of both logits.
        assert 32 * launch.global_load_sectors <= 1.05 * nbytes
    assert 32 * launches[1].global_store_sectors <= 1.05 * nbytes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("vocabulary", [4096, 4097])
def test_shifted_logits_are_read_where_they_lie(vocabulary, dtype):
    inputs = make_full_kl_inputs(4, 2, 3, vocabulary, dtype=dtype, mask_dtype=None)
    launches = _both_passes(inputs, layout=sliced)
    size = inputs["logits"].element_size()
    assert launches[0].load_widths[16] * 16 >= 0.9 * 2 * inputs["logits"].numel() * size


@pytest.mark.parametrize(("first", "second"), [(0, 1), (3, 8), (8, 3)])
def test_views_that_start_anywhere(first, second):
    wide = make_full_kl_inputs(5, 3, 2100, dtype=torch.bfloat16, mask_dtype=None)
    _both_passes(
        {
            "logits": wide["logits"][:, first : first + 2000],
            "ref_logits": wide["ref_logits"][:, second : second + 2000],
        }
    )


def test_layouts_may_differ():
    inputs = make_full_kl_inputs(6, 2, 3, 515)
    leaf = inputs["logits"].transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    with simulated():
        result = rlox_gpu.full_kl(leaf, sliced(inputs["ref_logits"]), mask=inputs["mask"])
        result.sum().backward()
    assert_divergences(result, inputs)
    assert_gradients((leaf.grad, None), inputs, torch.ones(2, 3))


def test_special_values():
    with simulated():
        cases.check_full_kl_of_excluded_tokens("cpu")
        cases.check_full_kl_where_there_is_no_answer("cpu")
        cases.check_full_kl_of_the_same_is_zero("cpu")
        cases.check_full_kl_of_nothing("cpu")


def test_reductions():
    with simulated():
        for reduction in ("sum", "mean", "sequence"):
            cases.check_full_kl_reductions("cpu", reduction)


def test_rust_agrees():
    inputs = make_full_kl_inputs(7, 3, 3000, excluded=0.2)
    on_cpu = rlox_gpu.full_kl(**inputs)
    with simulated():
        got = rlox_gpu.full_kl(**inputs)
    torch.testing.assert_close(got, on_cpu, rtol=2e-6, atol=4e-6)


def test_new_sizes_and_temperatures_compile_nothing():
    import triton

    compiled = []
    with simulated():
        rlox_gpu.full_kl(**make_full_kl_inputs(8, 2, 37))
        hook = triton.knobs.runtime.jit_post_compile_hook
        triton.knobs.runtime.jit_post_compile_hook = lambda **kw: compiled.append(kw)
        try:
            for vocabulary, temperature in [(1, 0.5), (64, 1.0), (1000, 3.0)]:
                inputs = make_full_kl_inputs(8, 2, vocabulary)
                rlox_gpu.full_kl(**inputs, temperature=temperature)
        finally:
            triton.knobs.runtime.jit_post_compile_hook = hook
    assert not compiled


@pytest.mark.slow
def test_offsets_go_past_two_to_the_31():
    far = torch.zeros(2 * (2**30 + 64) + 1024, dtype=torch.float16)
    logits = far.as_strided((3, 16), (2**30 + 64, 1))
    logits[2, 7] = logits[1, 3] = 1
    inputs = {"logits": logits, "ref_logits": torch.zeros(3, 16, dtype=torch.float16)}
    _both_passes(inputs, check_races=False, check_uninit=False)


def test_alignment_is_what_all_rows_have_in_common():
    x, y = torch.zeros(1, 3, 50257), torch.zeros(1, 3, 50257)
    assert common_alignment(x, y, None) % 16 == 0
    shifted = torch.zeros(2, 4, 4097)[:, :-1]
    assert common_alignment(shifted, torch.zeros(1, 6, 4097)) == 1
    assert common_alignment(shifted, shifted) == 0
