"""Every Triton kernel that dispatch can pick, compiled for every architecture.

Run as a program it prints the registers of each: ``python tests/machine_code.py``.
"""

from functools import partial
from itertools import product
from pathlib import Path
from unittest import mock

if __name__ == "__main__":
    import sys

    sys.path[:0] = [str(Path(__file__).parent / "ptxsim"), str(Path(__file__).parent)]

import ptxsim
import torch
import triton
from estimator_cases import ESTIMATORS, rates_of
from estimator_cases import launch as launch_estimator
from rlox_gpu.kernels.returns import launch_linear_scan
from simulation import simulated

import rlox_gpu
import rlox_gpu.ops._sampling_torch  # defines the backward op
from rlox_gpu import _dispatch
from rlox_gpu.ops import _logprobs_torch as logprobs
from rlox_gpu.ops.random import permutation, uniform
from rlox_gpu.ops.sampling import sample_categorical

ARCHITECTURES = (80, 90, 100, 120)

# Rows of 512 steps fill the widest tile and the most loads ahead; the two time-major sizes take
# the narrowest and the widest accesses, one warp and four.
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_SHAPES = {
    "time-major": (2, 33),
    "time-major-wide": (2, 270336),
    "row-major": (512, 8),
    "chunks": (1024, 32),
    "row-major-chunks": (4096, 2),
}


def _gae_cases():
    """Name, and a call that launches one kernel."""
    for (shape, size), dtype, truncation in product(_SHAPES.items(), _FLOATS, (False, True)):
        yield _gae_case(shape, size, dtype, torch.bool, truncation)
    for (shape, size), flags in product(_SHAPES.items(), (torch.int64, torch.float64)):
        yield _gae_case(shape, size, torch.float32, flags, True)
    # Lengths that are no multiple of sixteen narrow the accesses; the others take the other tile
    # widths and numbers of tiles ahead.
    for size in (
        (509, 8),
        (250, 8),
        (500, 8),
        (256, 8),
        (128, 8448),
        (64, 8),
        (32, 8),
        (16, 8),
        (7, 8),
        (3, 8),
    ):
        shape = "row-major-{}x{}".format(*size)
        yield _gae_case(shape, size, torch.float32, torch.bool, True)
    for num_envs in (16896, 16900, 8450):
        yield _gae_case(f"time-major-{num_envs}", (2, num_envs), torch.float32, torch.bool, True)


def _gae_case(shape, size, dtype, flag_dtype, truncation):
    rows = shape.startswith("row-major")
    layout = size[::-1] if rows else size
    floats = torch.zeros(layout, dtype=dtype)
    flags = torch.zeros(layout, dtype=flag_dtype)
    ends = {"truncated": flags, "final_values": floats} if truncation else {}
    last = torch.zeros(size[1], dtype=dtype)

    def call():
        rlox_gpu.gae(floats, floats, flags, last, time_dim=-1 if rows else 0, **ends)

    parts = (shape, str(dtype)[6:], str(flag_dtype)[6:], *(["truncation"] if truncation else []))
    return "gae-" + "-".join(parts), call


def _estimator_cases():
    """Every estimator in every regime, with truncations and with all that it can be given."""
    dtypes = (torch.float32, torch.float64)
    for (shape, size), name in product(_SHAPES.items(), ESTIMATORS):
        # The other half type differs in its conversions only.
        yield _estimator_case(name, shape, size, torch.bfloat16, full=False)
        for dtype, full in product(dtypes, (False, True)):
            yield _estimator_case(name, shape, size, dtype, full=full)
    for shape, size in _SHAPES.items():
        yield f"linear-scan-forward-{shape}", _linear_scan_call(shape, size)


def _zeros(size, rows, dtype):
    return torch.zeros(size[::-1], dtype=dtype).T if rows else torch.zeros(size, dtype=dtype)


def _estimator_case(name, shape, size, dtype, *, full):
    rows = shape.startswith("row-major")
    names = {*ESTIMATORS[name][0], "rewards", "x", "final_values"}
    inputs = {key: _zeros(size, rows, dtype) for key in names}
    inputs |= {key: _zeros(size, rows, torch.bool) for key in ("terminated", "truncated")}
    inputs |= {key: torch.zeros(size[1], dtype=dtype) for key in ("last_values", "initial")}
    rates = rates_of(name, *size) if full else rates_of(name)
    options = {}
    if full:
        options["mask"] = _zeros(size, rows, torch.bool)
        options["lengths"] = torch.zeros(size[1], dtype=torch.int64)
    if full and name == "gae":
        options["moments"] = torch.zeros(3, dtype=torch.float64)
    parts = (name, shape, str(dtype)[6:], "all" if full else "truncation")
    return "estimator-" + "-".join(parts), lambda: launch_estimator(name, inputs, rates, **options)


def _linear_scan_call(shape, size):
    x = _zeros(size, shape.startswith("row-major"), torch.float32)
    return lambda: launch_linear_scan(x, x, None, torch.empty_like(x), forward=True)


def _random_cases():
    yield "uniform", lambda: uniform(torch.empty(1024), seed=0, step=0, stream=0)
    yield "permutation", lambda: permutation(1024, seed=0, step=0)


def _group_cases():
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for (shape, size), dtype in product({"rows": (64, 16), "long": (2, 2100)}.items(), dtypes):
        yield _group_case(shape, size, dtype)
    yield _group_case("rows-64x256", (64, 256), torch.float64)
    for size in ((64, 1), (64, 2), (64, 6), (64, 64), (64, 60), (64, 500), (8, 1024)):
        yield _group_case("rows-{}x{}".format(*size), size, torch.float32)
    masked = {"mask": torch.ones(64, 16, dtype=torch.bool)}
    ids = {"group_ids": torch.zeros(64, 16, dtype=torch.int64)}
    for dtype in (torch.float32, torch.float64):
        for scale in ("batch", "none"):
            options = masked | {"scale": scale, "baseline": "loo"}
            yield _group_case(f"rows-{scale}-loo-mask", (64, 16), dtype, **options)
            yield _group_case(f"ids-{scale}-mask", (64, 16), dtype, **options, **ids)
        yield _group_case("ids", (64, 16), dtype, group_ids=ids["group_ids"].int())
        for width in (64, 33) if dtype is torch.float32 else (50,):
            tokens = {"token_mask": torch.ones(64, 16, width, dtype=torch.bool)}
            yield _group_case(f"tokens-{width}", (64, 16), dtype, **tokens)
            yield _group_case(f"tokens-{width}-ids", (64, 16), dtype, **tokens, **ids)


def _group_case(name, size, dtype, **options):
    rewards = torch.zeros(size, dtype=dtype)
    name = f"groups-{name}-{str(dtype)[6:]}"
    return name, lambda: rlox_gpu.group_advantages(rewards, **options)


def _statistics_cases():
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for dtype, columns in zip(dtypes, (1, 5, 64, 64), strict=True):
        x = torch.ones(64, columns, dtype=dtype)
        state = torch.zeros(3, columns, dtype=torch.float64)
        name = f"{columns}-{str(dtype)[6:]}"
        yield f"moments-{name}", lambda x=x, s=state: rlox_gpu.update_moments(s, x)
        yield (
            f"moments-mask-{name}",
            lambda x=x, s=state: rlox_gpu.update_moments(s, x, mask=x[:, 0]),
        )
        yield f"normalize-{name}", lambda x=x, s=state: rlox_gpu.normalize(x, s[1], s[2])


def _logprobs_cases():
    """Both passes in every number of warps, and the narrow accesses of rows that part."""
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    tokens = torch.zeros(2, 1, dtype=torch.int64)
    for vocabulary, dtype, entropy in product((1000, 4003, 50257), dtypes, (False, True)):
        logits = torch.zeros(2, 1, vocabulary, dtype=dtype)
        name = f"logprobs-{vocabulary}-{str(dtype)[6:]}{'-entropy' if entropy else ''}"
        yield from _logprobs_case(name, logits, tokens, entropy)
    for dtype in dtypes:
        shifted = torch.zeros(2, 2, 50257, dtype=dtype)[:, :-1]
        yield from _logprobs_case(f"logprobs-shifted-{str(dtype)[6:]}", shifted, tokens, True)


def _logprobs_case(name, logits, tokens, entropy):
    saved = logprobs.empty_rows(tokens, logprobs.real_dtype(logits), entropy=True)
    gradients = saved.logprobs, saved.logprobs if entropy else None
    yield name, lambda: logprobs.streamed(logits, tokens, 1.0, entropy)
    yield (
        f"{name}-backward",
        lambda: logprobs.streamed_gradient(logits, tokens, saved, *gradients, 1.0),
    )


def _sampling_cases():
    backward = torch.ops.rlox_gpu.sample_categorical_backward
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for classes, dtype in product((2, 64, 500, 50257), dtypes):
        logits = torch.zeros(8, classes, dtype=dtype)
        name = f"{classes}-{str(dtype)[6:]}"
        yield f"categorical-{name}", lambda x=logits: sample_categorical(x, seed=0, step=0)
        rows = torch.zeros(8, dtype=torch.float64 if dtype is torch.float64 else torch.float32)
        saved = (logits, rows, rows, torch.zeros(8, dtype=torch.int64), rows, rows)
        yield f"categorical-backward-{name}", lambda x=saved: backward(*x)
    wide, step = torch.zeros(2**17, 2), torch.tensor(1)
    yield "categorical-wide", lambda: sample_categorical(wide, seed=0, step=0)
    yield "categorical-step", lambda: sample_categorical(torch.zeros(8, 2), seed=0, step=step)


def _gaussian_cases():
    forward = torch.ops.rlox_gpu.sample_gaussian
    backward = torch.ops.rlox_gpu.sample_gaussian_backward
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for size, dtype, squash in product((2, 500), dtypes, (False, True)):
        x = torch.zeros(8, size, dtype=dtype)
        row = torch.zeros(8, dtype=torch.float64 if dtype is torch.float64 else torch.float32)
        name = f"{size}-{str(dtype)[6:]}{'-squashed' if squash else ''}"
        draw = (0, 0, None, squash)
        yield f"gaussian-{name}", lambda x=x, draw=draw: forward(x, x, *draw)
        given = (x, x, x, row, *draw)
        yield f"gaussian-backward-{name}", lambda given=given: backward(*given)


def _policy_loss_cases():
    """Samples and tokens enough for a second launch; the widest rows that a thread holds."""
    from rlox_gpu.ops import _policy_losses_torch as losses

    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    sizes = [*product((6, 4096), dtypes), *product((2, 16, 32, 64), (torch.float32, torch.float64))]
    for actions, dtype in sizes:
        column = torch.zeros(2048, dtype=dtype)
        arrays = (torch.zeros(2048, actions, dtype=dtype), torch.zeros(2048).long())
        arguments = (*arrays, *[column] * 5, column != 0, 0.2, 0.5, 0.01)
        yield f"ppo-loss-{actions}-{str(dtype)[6:]}", partial(losses._ppo_body, *arguments)
    yield from _gaussian_loss_cases(losses._gaussian_body)
    levels = [*product(dtypes, (2,), (False, True), (0,))]
    levels += [(torch.float32, 0, False, 1), (torch.float32, 1, False, 2)]
    for dtype, kind, per_sequence, aggregation in levels:
        x = torch.zeros(4, 2048, dtype=dtype)
        rules = (0.8, 1.2, 0.1, kind, per_sequence, aggregation, 1.0)
        name = f"grpo-loss-{str(dtype)[6:]}-k{kind + 1}-{'sequence' if per_sequence else 'token'}"
        yield name, partial(losses._grpo_body, x, x, x, x, x != 0, *rules)
    gradient = torch.zeros(2048)
    yield "scaled", partial(losses._scaled_triton, gradient, gradient[:1], gradient[0])


def _gaussian_loss_cases(body):
    sizes = [*product((6, 4096), _FLOATS), *product((1, 16, 17, 64), _FLOATS[2:])]
    for (actions, dtype), shared in product(sizes, (False, True)):
        column, policy = torch.zeros(2048, dtype=dtype), torch.zeros(2048, actions, dtype=dtype)
        log_std = policy[0] if shared else policy
        arrays = (policy, log_std, policy, *[column] * 5, column != 0)
        name = f"gaussian-ppo-loss-{actions}-{str(dtype)[6:]}{'-shared' if shared else ''}"
        yield name, partial(body, *arrays, 0.2, 0.5, 0.01)


def _kl_cases():
    """Tiles of one row; row strides that are no multiple of a wide access."""
    from rlox_gpu.ops import _kl_torch

    def cases(name, x, kind, reductions):
        mask = torch.ones_like(x, dtype=torch.bool)
        name = f"{name}-{str(x.dtype)[6:]}-k{kind + 1}"
        for reduction in reductions:
            arguments = (x, x, x, mask, kind, reduction)
            yield f"token-kl-{name}-{reduction}", _kl_torch._forward_triton, arguments
        arguments = (x, x, x, x, mask, None, kind, [True] * 3)
        yield f"token-kl-backward-{name}", _kl_torch._backward_triton, arguments

    x = torch.zeros(2048)
    found = [
        *(case for dtype in _FLOATS for case in cases("flat", x.to(dtype), 2, (0, 2, 3))),
        *(case for kind in (0, 1) for case in cases("flat", x, kind, (0,))),
        *cases("rows", torch.zeros(64, 21)[:, :20], 2, (0, 1, 3)),
    ]
    grad, count = torch.zeros(()).expand(2048), torch.tensor(1)
    arguments = (grad, x, x, None, None, count, 2, [True, True, False])
    found.append(("token-kl-backward-of-mean", _kl_torch._backward_triton, arguments))
    for name, call, arguments in found:
        yield name, partial(call, *arguments)


def _full_kl_cases():
    """Both passes in every number of warps, masked; the narrow accesses of rows that part."""
    from rlox_gpu.ops import _full_kl_torch

    def cases(name, logits, ref_logits, wanted):
        rows = torch.zeros(2, 1, dtype=torch.float64 if logits.dtype is torch.float64 else None)
        mask = rows == 0
        name = f"full-kl-{name}-{str(logits.dtype)[6:]}"
        yield name, partial(_full_kl_torch._forward, logits, ref_logits, mask, 1.0)
        saved = (rows, logits, ref_logits, mask, rows, rows.expand(2, 4).contiguous())
        yield f"{name}-backward", partial(_full_kl_torch._backward, *saved, 1.0, wanted)

    for vocabulary, dtype in product((1000, 4003, 50257), _FLOATS):
        logits = torch.zeros(2, 1, vocabulary, dtype=dtype)
        yield from cases(str(vocabulary), logits, logits, [True, vocabulary == 50257])
    for dtype in _FLOATS:
        shifted = torch.zeros(2, 2, 50257, dtype=dtype)[:, :-1]
        yield from cases("shifted", shifted, shifted.contiguous(), [True, True])


def _preferences_cases():
    from rlox_gpu.ops import _preferences_torch

    x = torch.zeros(600)
    for dtype, kind, reduction in product(_FLOATS, range(3), (0, 2)):
        logps = (x.to(dtype),) * 4
        arguments = (*logps, kind, 0.1, 0.1 * (kind == 0), reduction)
        name = f"dpo-loss-{str(dtype)[6:]}-{kind}-{reduction}"
        yield name, partial(_preferences_torch._loss_triton, *arguments)
    for dtype, pairs in product(_FLOATS, (0, 1)):
        slopes = torch.zeros(600, dtype=torch.float64 if dtype is torch.float64 else torch.float32)
        grad = torch.zeros(600 if pairs else (), dtype=dtype)
        name = f"dpo-loss-backward-{str(dtype)[6:]}-{pairs}"
        yield name, partial(_preferences_torch._backward_triton, grad, slopes, dtype)


def _replay_cases():
    """Narrow rows and images, every way to draw, priorities of an update and of a push."""
    sizes = {"numbers": (100_000, (17,), "float32"), "images": (300, (84, 84, 4), "uint8")}
    for (what, (capacity, size, dtype)), n_step in product(sizes.items(), (1, 3)):
        options = {"obs_dtype": dtype, "n_step": n_step, "device": "cpu"}
        with _dispatch.force_triton():
            buffer = rlox_gpu.PrioritizedReplayBuffer(capacity, size, 6, **options)
            uniform = rlox_gpu.ReplayBuffer(capacity, size, 6, num_envs=3, **options)
        for name, made in (("uniform", uniform), ("prioritized", buffer)):
            made._pushed = 1  # nothing is executed
            yield f"replay-sample-{name}-{what}-{n_step}", partial(made.sample, 32)
        obs, flags = torch.zeros(33, *size, dtype=getattr(torch, dtype)), torch.zeros(33) != 0
        rows = (obs, None, torch.zeros(33, 6), torch.zeros(33), flags, flags)
        yield f"replay-push-{what}-{n_step}", partial(uniform.push_batch, *rows)
        with _dispatch.force_triton():
            options |= {"num_envs": 3, "deduplicate": True}
            once = rlox_gpu.ReplayBuffer(capacity, size, 6, **options)
        once._pushed = 1
        yield f"replay-sample-once-{what}-{n_step}", partial(once.sample, 32)
        if n_step == 1:
            envs = torch.arange(33) % 3
            yield f"replay-push-once-{what}", partial(once.push_batch, *rows)
            yield f"replay-push-once-given-{what}", partial(once.push_batch, *rows, envs=envs)
    yield "replay-sequences", partial(uniform.sample_sequences, 32, 5)
    places = torch.zeros(300).long()
    for dtype in (torch.float32, torch.float64):
        priorities = torch.ones(300, dtype=dtype)
        name = f"replay-priorities-{str(dtype)[6:]}"
        yield name, partial(buffer.update_priorities, places, priorities)
        yield f"{name}-newest", partial(buffer._weigh, 300, priorities)
    yield "replay-priorities-newest", partial(buffer._weigh, 300, None)


_CASES = (
    _gae_cases,
    _group_cases,
    _random_cases,
    _logprobs_cases,
    _sampling_cases,
    _statistics_cases,
    _estimator_cases,
    _gaussian_cases,
    _kl_cases,
    _full_kl_cases,
    _policy_loss_cases,
    _preferences_cases,
    _replay_cases,
)


def register_report(arch):
    """One dict per kernel: its name, registers, spills, stack and shared memory."""
    compiled = []
    launch = triton.runtime.JITFunction.run

    def compile_only(self, *args, warmup, **kwargs):
        compiled.append(launch(self, *args, warmup=True, **kwargs))

    report = []
    with simulated(arch=arch), mock.patch.object(triton.runtime.JITFunction, "run", compile_only):
        for name, call in (case for cases in _CASES for case in cases()):
            call()
            found = {}
            for launched in compiled:
                found |= ptxsim.ptxas_info(launched.asm["ptx"])
            compiled.clear()
            for kernel, resources in found.items():
                report.append({"kernel": f"{name} {kernel}", "arch": arch, **resources})
    return report


def _print_report():
    for row in (row for arch in ARCHITECTURES for row in register_report(arch)):
        print(
            f"sm_{row['arch']:<4} {row['kernel']:<50} {row['registers']:>4} registers "
            f"{row['spill_stores'] + row['spill_loads']:>4} bytes spilled"
        )


if __name__ == "__main__":
    _print_report()
