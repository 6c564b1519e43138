"""Inputs of the policy losses, and the same losses as torch formulas: for gradients."""

import math

import torch

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ROUNDING = {torch.float16: 2**-10, torch.bfloat16: 2**-7, torch.float32: 2e-6, torch.float64: 1e-12}


def make_ppo_inputs(seed, count, actions, dtype=torch.float32, *, masked=True):
    """Keyword arguments of ``rlox_gpu.ppo_loss``; NaN and a wrong action lie beneath the mask."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {
        "logits": normal(count, actions) * 2,
        "actions": torch.randint(0, actions, (count,), generator=generator),
        "advantages": normal(count),
        "returns": normal(count),
        "values": normal(count),
        "old_values": normal(count),
    }
    log_probs = inputs["logits"].log_softmax(-1).gather(-1, inputs["actions"][:, None])[:, 0]
    inputs["old_log_probs"] = log_probs + 0.3 * normal(count)
    if masked:
        mask = torch.rand(count, generator=generator) < 0.8
        for name, x in inputs.items():
            x[~mask] = 10**6 if name == "actions" else torch.nan
        inputs["mask"] = mask
    return _rounded(inputs, dtype)


def make_gaussian_inputs(seed, count, actions, dtype=torch.float32, *, masked=True, shared=True):
    """Keyword arguments of ``rlox_gpu.gaussian_ppo_loss``; NaN lies beneath the mask."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {"mean": normal(count, actions)}
    spread = normal(actions) / 3 if shared else normal(count, actions) / 3
    inputs["actions"] = inputs["mean"] + spread.exp() * normal(count, actions)
    inputs |= {name: normal(count) for name in ("advantages", "returns", "values", "old_values")}
    inputs["old_log_probs"] = _log_density(inputs["mean"], spread, inputs["actions"])
    inputs["old_log_probs"] += 0.3 * normal(count)
    if masked:
        mask = torch.rand(count, generator=generator) < 0.8
        for x in inputs.values():
            x[~mask] = torch.nan
        if not shared:
            spread[~mask] = torch.nan
        inputs["mask"] = mask
    return _rounded(inputs | {"log_std": spread}, dtype)


def _log_density(mean, log_std, actions):
    z = (actions - mean) / log_std.exp()
    return (-z * z / 2 - log_std - math.log(2 * math.pi) / 2).sum(-1)


def make_grpo_inputs(
    seed, rows, length, dtype=torch.float32, *, masked=True, reference=True, per_token=False
):
    """Keyword arguments of ``rlox_gpu.grpo_loss``; NaN lies beneath the mask, one row is masked."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    logprobs = -normal(rows, length).abs() - 0.1
    inputs = {"logprobs": logprobs, "old_logprobs": logprobs + 0.3 * normal(rows, length)}
    inputs["advantages"] = normal(rows, length) if per_token else normal(rows)
    if reference:
        inputs["ref_logprobs"] = logprobs + 0.3 * normal(rows, length)
    if masked:
        mask = torch.rand(rows, length, generator=generator) < 0.8
        mask[rows // 2] &= rows == 1
        for name, x in inputs.items():
            if x.ndim == 2 or name != "advantages":
                x[~mask] = torch.nan
        inputs["mask"] = mask
    return _rounded(inputs, dtype)


def _rounded(inputs, dtype):
    return {k: x.to(dtype) if x.is_floating_point() else x for k, x in inputs.items()}


def doubled(inputs):
    """The same numbers in float64, without NaN beneath the mask, ready for autograd."""
    clean = {}
    for name, x in inputs.items():
        clean[name] = x
        if x.is_floating_point():
            clean[name] = x.detach().double().nan_to_num()
        elif name == "actions" and "mask" in inputs:
            clean[name] = x * inputs["mask"]
    return clean


def ppo_formula(
    logits,
    actions,
    old_log_probs,
    advantages,
    returns,
    values,
    old_values=None,
    mask=None,
    clip_eps=0.2,
    vf_coef=0.5,
    ent_coef=0.01,
):
    log_p = logits.log_softmax(-1)
    log_probs = log_p.gather(-1, actions[..., None])[..., 0]
    entropy = -(log_p.exp() * log_p).sum(-1)
    columns = (old_log_probs, advantages, returns, values, old_values, mask)
    return _ppo_of(log_probs, entropy, columns, clip_eps, vf_coef, ent_coef)


def gaussian_formula(
    mean,
    log_std,
    actions,
    old_log_probs,
    advantages,
    returns,
    values,
    old_values=None,
    mask=None,
    clip_eps=0.2,
    vf_coef=0.5,
    ent_coef=0.01,
):
    entropy = (log_std.expand_as(mean) + math.log(2 * math.pi * math.e) / 2).sum(-1)
    columns = (old_log_probs, advantages, returns, values, old_values, mask)
    log_probs = _log_density(mean, log_std, actions)
    return _ppo_of(log_probs, entropy, columns, clip_eps, vf_coef, ent_coef)


def _ppo_of(log_probs, entropy, columns, clip_eps, vf_coef, ent_coef):
    old_log_probs, advantages, returns, values, old_values, mask = columns
    errors = (values - returns).square()
    if old_values is not None:
        near = old_values + (values - old_values).clamp(-clip_eps, clip_eps)
        errors = torch.maximum(errors, (near - returns).square())
    policy = clipped_formula((log_probs - old_log_probs).exp(), advantages, clip_eps, clip_eps)
    weight = torch.ones_like(values) if mask is None else mask.to(values.dtype)
    each = policy + vf_coef * errors / 2 - ent_coef * entropy
    return (each * weight).sum() / weight.sum().clamp(min=1)


def clipped_formula(ratio, advantages, low, high):
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def grpo_formula(
    logprobs,
    old_logprobs,
    advantages,
    mask=None,
    ref_logprobs=None,
    clip_eps_low=0.2,
    clip_eps_high=0.2,
    kl_coef=0.0,
    kl_kind="k3",
    ratio_level="token",
    aggregation="grpo",
    max_tokens=None,
):
    weight = torch.ones_like(logprobs) if mask is None else mask.to(logprobs.dtype)
    counts = weight.sum(-1).clamp(min=1)
    log_ratio = logprobs - old_logprobs
    if ratio_level == "sequence":
        log_ratio = ((log_ratio * weight).sum(-1) / counts)[:, None].expand_as(logprobs)
    per_token = advantages if advantages.ndim == 2 else advantages[:, None]
    inf = float("inf")
    low, high = (inf if eps is None else eps for eps in (clip_eps_low, clip_eps_high))
    each = clipped_formula(log_ratio.exp(), per_token, low, high)
    if ref_logprobs is not None:
        d = logprobs - ref_logprobs
        each = each + kl_coef * {"k1": d, "k2": d * d / 2, "k3": (-d).exp() - 1 + d}[kl_kind]
    sums = (each * weight).sum(-1)
    if aggregation == "grpo":
        return (sums / counts).mean()
    divisor = weight.sum().clamp(min=1) if aggregation == "dapo" else len(logprobs) * max_tokens
    return sums.sum() / divisor


def gradients(loss, inputs, names, **options):
    """Gradients of ``3 * loss`` for the named inputs."""
    leaves = {name: inputs[name].detach().clone().requires_grad_() for name in names}
    result = loss(**(inputs | leaves), **options)
    (3 * getattr(result, "loss", result)).backward()
    return [leaves[name].grad for name in names]


def assert_terms(result, expected, dtype):
    """The numbers are those of the reference, up to the rounding of the inputs' dtype."""
    real = torch.float64 if dtype is torch.float64 else torch.float32
    tolerance = 2e-5 if real is torch.float32 else 1e-11
    for got, want in zip(result, expected, strict=True):
        if got is not None:
            assert got.dtype is real
            assert got.shape == ()
            torch.testing.assert_close(
                got.double().cpu().item(), want, rtol=tolerance, atol=tolerance
            )


def assert_gradients(found, wanted, counts, dtype, *, terms=0):
    """Gradients agree, each on the scale of one of so many samples.

    Their log-probabilities, whose absolute error is the gradients' relative one, are sums of
    ``terms`` terms.
    """
    for got, want, count in zip(found, wanted, counts, strict=True):
        assert got.dtype is dtype
        error = (got.double().cpu() - want).abs() * count
        assert not error.isnan().any()
        least = ROUNDING[dtype] * (1 + terms / 8) * (count * want.abs() + 10)
        # What a half type cannot represent on the scale of the gradient is lost.
        least += count * (2**-24 if dtype is torch.float16 else 0)
        assert (error <= least).all(), (error / least).max()
