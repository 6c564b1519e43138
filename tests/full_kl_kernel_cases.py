"""What the divergence of categoricals must do wherever it runs."""

import pytest
import torch
from full_kl_inputs import (
    DTYPES,
    REDUCTIONS,
    as_numbers,
    assert_divergences,
    assert_gradients,
    full_kl_reference,
    make_full_kl_inputs,
)
from logprobs_reference import sliced

import rlox_gpu

# NumPy, which interprets, warns of differences of infinities; the kernels choose none of them.
quietly = pytest.mark.filterwarnings("ignore::RuntimeWarning")
SIZES = [1, 2, 63, 64, 65, 1000, 2500]


def _both_passes(device, inputs, temperature=0.7, layout=lambda x: x):
    """Forward and backward against the reference; what ran on the device."""
    moved = {name: x.to(device) for name, x in inputs.items()}
    for name in ("logits", "ref_logits"):
        moved[name] = layout(moved[name]).detach().requires_grad_()
    result = rlox_gpu.full_kl(**moved, temperature=temperature)
    assert result.device.type == torch.device(device).type
    assert_divergences(result, inputs, temperature=temperature)
    weights = torch.linspace(-1, 2, result.numel()).view(result.shape)
    (result * weights.to(device)).sum().backward()
    gradients = moved["logits"].grad, moved["ref_logits"].grad
    assert_gradients(gradients, inputs, weights, temperature)


@quietly
@pytest.mark.parametrize("vocabulary", SIZES)
def check_full_kl_sizes(device, vocabulary):
    _both_passes(device, make_full_kl_inputs(0, 3, vocabulary))


@quietly
@pytest.mark.parametrize("dtype", DTYPES)
def check_full_kl_dtypes(device, dtype):
    _both_passes(device, make_full_kl_inputs(1, 2, 3, 1009, dtype=dtype))


@quietly
@pytest.mark.parametrize("mask_dtype", [None, torch.uint8, torch.int64, torch.float16])
def check_full_kl_masks(device, mask_dtype):
    _both_passes(device, make_full_kl_inputs(2, 5, 301, mask_dtype=mask_dtype))


@quietly
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def check_full_kl_of_shifted_logits(device, dtype):
    inputs = make_full_kl_inputs(3, 2, 3, 333, dtype=dtype)
    _both_passes(device, inputs, layout=sliced)


@quietly
@pytest.mark.parametrize("reduction", REDUCTIONS)
def check_full_kl_reductions(device, reduction):
    inputs = make_full_kl_inputs(4, 3, 5, 130)
    moved = {name: x.to(device) for name, x in inputs.items()}
    leaf = moved["logits"].requires_grad_()
    result = rlox_gpu.full_kl(**moved, reduction=reduction)
    assert_divergences(result, inputs, reduction=reduction)
    result.sum().backward()
    count = max(1, int(inputs["mask"].sum())) if reduction == "mean" else 1
    assert_gradients((leaf.grad, None), inputs, torch.full((3, 5), 1 / count))


@quietly
def check_full_kl_gradient_of_the_reference_alone(device):
    inputs = make_full_kl_inputs(5, 3, 150)
    moved = {name: x.to(device) for name, x in inputs.items()}
    leaf = moved["ref_logits"].requires_grad_()
    rlox_gpu.full_kl(**moved, reduction="sum").backward()
    assert_gradients((None, leaf.grad), inputs, torch.ones(3))


@quietly
def check_full_kl_of_excluded_tokens(device):
    _both_passes(device, make_full_kl_inputs(6, 5, 700, excluded=0.6))
    inputs = make_full_kl_inputs(7, 6, 300, mask_dtype=None)
    ref_logits = inputs["ref_logits"]
    # The reference alone excludes a token: a likely one, one whose probability rounds to zero,
    # and such a one behind the largest.
    ref_logits[0, 17] = ref_logits[1, 3] = ref_logits[2, 299] = -torch.inf
    inputs["logits"][1, 3] = inputs["logits"][2, 299] = -1e4
    inputs["logits"][3] = -torch.inf
    ref_logits[4] = -torch.inf
    leaves = [x.to(device).requires_grad_() for x in inputs.values()]
    result = rlox_gpu.full_kl(*leaves)
    assert_divergences(result, inputs)
    assert result.isinf().tolist() == [True] * 3 + [False] * 3
    assert result.isnan().tolist() == [False] * 3 + [True, True, False]
    result.sum().backward()
    grad, ref_grad = (x.grad.cpu() for x in leaves)
    assert grad[:5].isnan().all()
    assert grad[5].isfinite().all()
    p, q = (torch.softmax(x[:3].double(), -1) for x in inputs.values())
    torch.testing.assert_close(ref_grad[:3].double(), q - p, rtol=1e-5, atol=1e-6)


@quietly
def check_full_kl_where_there_is_no_answer(device):
    for spoilt in ("logits", "ref_logits"):
        inputs = make_full_kl_inputs(8, 4, 150, mask_dtype=None)
        inputs[spoilt][1, 70] = torch.nan
        inputs[spoilt][2, 3] = torch.inf
        result = rlox_gpu.full_kl(**{name: x.to(device) for name, x in inputs.items()})
        assert result.isnan().tolist() == [False, True, True, False]
        clean = full_kl_reference(**{k: v[[0, 3]] for k, v in as_numbers(inputs).items()})
        torch.testing.assert_close(
            result[[0, 3]].cpu().double(), torch.from_numpy(clean), rtol=1e-5, atol=1e-5
        )


@quietly
def check_full_kl_of_the_same_is_zero(device):
    logits = make_full_kl_inputs(9, 3, 900, excluded=0.2, mask_dtype=None)["logits"].to(device)
    leaf = logits.requires_grad_()
    result = rlox_gpu.full_kl(leaf, leaf.detach())
    assert not result.any()
    result.sum().backward()
    assert not leaf.grad.any()


@quietly
def check_full_kl_of_nothing(device):
    for shape in ((0, 5), (3, 0, 5)):
        leaf = torch.zeros(shape, device=device, requires_grad=True)
        result = rlox_gpu.full_kl(leaf, leaf.detach())
        assert result.shape == shape[:-1]
        result.sum().backward()
        assert leaf.grad.shape == shape
        assert rlox_gpu.full_kl(leaf, leaf, reduction="mean") == 0
