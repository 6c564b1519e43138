"""Every launch of an estimator, driven by hand and held against its float64 reference."""

import inspect

import numpy as np
import reference
import torch
from factories import make_gae_inputs
from rlox_gpu.kernels import returns as launches
from torch_inputs import ROUNDING

# The arrays an estimator takes beside rewards, flags and last values; its results; its rates.
ESTIMATORS = {
    "gae": (("values",), ("advantages", "returns"), ("gamma", "gae_lambda")),
    "discounted_returns": ((), ("returns",), ("gamma",)),
    "n_step_returns": (("values",), ("returns",), ("gamma",)),
    "vtrace": (("log_rhos", "values"), ("vs", "pg_advantages"), ("gamma",)),
    "retrace": (("log_rhos", "q_values", "values"), ("targets",), ("gamma", "retrace_lambda")),
    "eligibility_traces": ((), ("traces",), ("gamma", "trace_lambda")),
}
NUMBERS = {"vtrace": {"rho_bar": 1.1, "c_bar": 0.9}, "n_step_returns": {"n": 3}}
FLAGS = ("terminated", "truncated", "mask")


def make_inputs(
    name, seed, num_steps, num_envs, dtype=torch.float32, flag_dtype=torch.bool, **options
):
    """The reference's arguments for ``name`` as CPU tensors, arrays ``[T, N]``."""
    rng = np.random.default_rng(seed)
    inputs = make_gae_inputs(rng, num_steps, num_envs, np.float64, **options)
    extra = ESTIMATORS[name][0]
    if "log_rhos" in extra:
        inputs["log_rhos"] = 0.3 * rng.standard_normal((num_steps, num_envs))
    if "q_values" in extra:
        inputs["q_values"] = rng.standard_normal((num_steps, num_envs))
    if name == "eligibility_traces":
        inputs["x"], inputs["initial"] = inputs.pop("rewards"), inputs.pop("last_values")
        inputs.pop("final_values", None)
    if "values" not in extra:
        inputs.pop("values")
    return {
        key: torch.from_numpy(np.asarray(x)).to(flag_dtype if key in FLAGS else dtype)
        for key, x in inputs.items()
    }


def rates_of(name, num_steps=None, num_envs=None, seed=0):
    """Two numbers, or tensors of different strides where sizes are given."""
    names = ESTIMATORS[name][2]
    if num_steps is None:
        return dict(zip(names, (0.97, 0.9), strict=False))
    generator = torch.Generator().manual_seed(seed)
    whole = 0.9 + 0.1 * torch.rand(num_steps, num_envs, generator=generator)
    column = 0.9 + 0.1 * torch.rand(num_steps, 1, generator=generator)
    return dict(zip(names, (whole, column.expand(num_steps, num_envs)), strict=False))


def steps_of(inputs):
    return inputs["x"] if "x" in inputs else inputs["rewards"]


def rows_of(x):
    """The same numbers, rows contiguous in time, seen as ``[T, N]``."""
    return x.T.contiguous().T if x.ndim == 2 else x


def launch(name, inputs, rates, device="cpu", wanted=None, allocate=None, moments=None, **ragged):
    """Results of the launch as a dict; ``wanted`` names the outputs that are asked for."""
    function = getattr(launches, f"launch_{name}")
    like = steps_of(inputs)
    allocate = allocate or (lambda: torch.empty_like(like))
    outputs = ESTIMATORS[name][1]
    results = {key: allocate().to(device) for key in wanted or outputs}
    given = {**inputs, **rates, **ragged}
    given = {k: v.to(device) if torch.is_tensor(v) else v for k, v in given.items()}
    given |= NUMBERS.get(name, {}) | dict.fromkeys(outputs) | results
    if "ragged" in inspect.signature(function).parameters:
        names = ("mask", "lengths", "cu_seqlens")
        given["ragged"] = launches.Ragged(**{k: given.pop(k) for k in names if k in given})
    if moments is not None:
        given["moments"] = moments
    arguments = dict.fromkeys(("truncated", "final_values")) | given
    known = inspect.signature(function).parameters
    function(**{k: v for k, v in arguments.items() if k in known})
    return results


def expected(name, inputs, rates, **ragged):
    """What the reference gives, as a dict of float64 arrays."""
    arguments = {
        k: v.double().numpy()
        if torch.is_tensor(v) and v.is_floating_point()
        else v.numpy()
        if torch.is_tensor(v)
        else v
        for k, v in {**inputs, **rates, **ragged}.items()
    }
    if "cu_seqlens" in ragged:
        arguments = {k: v[:, 0] if np.ndim(v) == 2 else v for k, v in arguments.items()}
    arguments |= NUMBERS.get(name, {})
    result = getattr(reference, f"{name}_reference")(**arguments)
    names = ESTIMATORS[name][1]
    return dict(zip(names, result if isinstance(result, tuple | list) else [result], strict=True))


def check(name, inputs, rates, device="cpu", scale=1.0, **options):
    """Launch, compare every result, and give them back."""
    results = launch(name, inputs, rates, device, **options)
    ragged = {k: options[k] for k in ("mask", "lengths", "cu_seqlens") if k in options}
    wanted = expected(name, inputs, rates, **ragged)
    for key, got in results.items():
        want = wanted[key].reshape(got.shape)
        error = np.abs(got.double().cpu().numpy() - want) / (1.0 + np.abs(want))
        assert not np.isnan(error).any(), key
        assert error.max(initial=0.0) <= 4 * scale * ROUNDING[got.dtype], (key, error.max())
    return results
