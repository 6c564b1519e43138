"""full_kl and torch: registration, compilation, autograd's corners, a device of no data."""

import pytest
import torch
from fake_device import run_on_fake_device
from full_kl_inputs import REDUCTIONS, make_full_kl_inputs

from rlox_gpu import full_kl

ops = torch.ops.rlox_gpu


def test_results_require_grad_only_where_logits_do():
    inputs = make_full_kl_inputs(0, 3, 40)
    plain = full_kl(**inputs)
    for name in ("logits", "ref_logits"):
        tracked = full_kl(**(inputs | {name: inputs[name].clone().requires_grad_()}))
        assert tracked.requires_grad
        assert torch.equal(plain, tracked)
        with torch.no_grad():
            assert not full_kl(
                **(inputs | {name: inputs[name].clone().requires_grad_()})
            ).requires_grad
    assert not plain.requires_grad


def test_autocast_changes_nothing():
    inputs = make_full_kl_inputs(1, 3, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = full_kl(**inputs)
    assert torch.equal(cast, full_kl(**inputs))


def test_a_second_derivative_is_refused():
    inputs = make_full_kl_inputs(2, 2, 9, mask_dtype=None)
    leaf = inputs["logits"].requires_grad_()
    (first,) = torch.autograd.grad(full_kl(**inputs).sum(), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="second"):
        first.sum().backward()


# Torch's own check looks at the gradient of a tensor that is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("masked", [True, False])
def test_ops_pass_opcheck(masked):
    inputs = make_full_kl_inputs(3, 2, 3, 40, mask_dtype=None)
    full_kl(**inputs)
    leaves = [x.requires_grad_() for x in inputs.values()]
    mask = torch.tensor([[1, 0, 1], [1, 1, 1]]) if masked else None
    torch.library.opcheck(ops.full_kl.default, (*leaves, mask, 0.7))
    plain = [x.detach() for x in leaves]
    saved = ops.full_kl(*plain, mask, 0.7)
    for wanted in ([True, True], [True, False]):
        arguments = (torch.ones(2, 3), *plain, mask, *saved, 0.7, wanted)
        torch.library.opcheck(ops.full_kl_backward.default, arguments)


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_without_a_graph_break(backend):
    def loss(logits, ref_logits, mask):
        kl = full_kl(logits, ref_logits, temperature=0.7, mask=mask, reduction="mean")
        return kl * 2 + full_kl(logits, ref_logits, mask=mask).sin().sum()

    torch.compiler.reset()
    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    for rows in (3, 5):
        inputs = make_full_kl_inputs(4, rows, 40)
        leaves = [inputs["logits"].clone().requires_grad_() for _ in range(2)]
        results = [
            function(**(inputs | {"logits": leaf}))
            for function, leaf in zip((compiled, loss), leaves, strict=True)
        ]
        torch.testing.assert_close(*results)
        sum(results).backward()
        torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("reduction", REDUCTIONS[:3])
def test_vmap_over_batches(reduction):
    inputs = make_full_kl_inputs(5, 3, 4, 50)
    mapped = torch.func.vmap(lambda x: full_kl(**x, reduction=reduction))(inputs)
    for i in range(3):
        one = full_kl(**{name: x[i] for name, x in inputs.items()}, reduction=reduction)
        torch.testing.assert_close(mapped[i], one)


def test_no_data_is_looked_at_on_a_device():
    def train():
        import pytest
        import torch

        import rlox_gpu

        torch.set_default_device("gpu")
        logits, ref_logits = torch.nn.Parameter(torch.randn(2, 3, 8)), torch.randn(2, 3, 8)
        mask = torch.ones(2, 3)
        for reduction, shape in (("none", (2, 3)), ("mean", ()), ("sequence", (2,))):
            got = rlox_gpu.full_kl(logits, ref_logits, mask=mask, reduction=reduction)
            assert got.device.type == "gpu"
            assert got.shape == shape
            got.sum().backward()
        assert logits.grad.shape == (2, 3, 8)
        with pytest.raises(ValueError, match="ref_logits"):
            rlox_gpu.full_kl(logits, ref_logits.to("cpu"))
        with pytest.raises(ValueError, match="mask"):
            rlox_gpu.full_kl(logits, ref_logits, mask=mask.to("cpu"))

    run_on_fake_device(train)


def test_the_raw_op_checks_too():
    x = torch.zeros(3, 5)
    full_kl(x, x)
    with pytest.raises(ValueError, match="ref_logits"):
        ops.full_kl(x, x[:2], None, 1.0)
    with pytest.raises(ValueError, match="mask"):
        ops.full_kl(x, x, torch.ones(2), 1.0)
