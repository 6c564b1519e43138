"""The compiled estimators on bare memory: the same bits as on arrays, and what they refuse."""

import numpy as np
import pytest
from factories import make_gae_inputs, row_major
from reference import gae_reference

import rlox_gpu
from rlox_gpu import _rust

CODES = {
    "float16": 0,
    "uint16": 1,
    "float32": 2,
    "float64": 3,
    "bool": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
}


def placed(array, code=None):
    """An array as the raw function takes it; strides in elements."""
    if array is None:
        return None
    strides = tuple(s // array.itemsize for s in array.strides)
    return array.ctypes.data, strides, CODES[array.dtype.name] if code is None else code


def raw_arguments(inputs, out, time_dim=0, code=None):
    """Positional arguments of ``estimate_raw`` by name."""
    flags = ("terminated", "truncated")
    order = ("rewards", "values", "terminated", "last_values", "truncated", "final_values")
    arrays = [
        placed(inputs.get(name), None if name in flags else code)
        for name in (*order, "mask", "lengths", "cu_seqlens", "gammas", "lambdas")
    ]
    return {
        "op": 0,
        "arrays": arrays,
        "results": [placed(x, code) for x in out],
        "shape": inputs["rewards"].shape,
        "sequences": 0,
        "time_dim": time_dim,
        "numbers": [0.99, 0.95],
    }


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("flag_dtype", ["bool", "int16", "int32", "int64", "float16", "float32"])
def test_raw_gives_the_same_bits(rng, dtype, flag_dtype):
    inputs = make_gae_inputs(rng, 30, 20, dtype, flag_dtype=flag_dtype)
    out = np.empty((2, 30, 20), dtype)
    _rust.estimate_raw(*raw_arguments(inputs, out).values())
    np.testing.assert_array_equal(out, rlox_gpu.gae(**inputs)[:2])
    rows = row_major(inputs)
    out = np.empty((2, 20, 30), dtype)
    _rust.estimate_raw(*raw_arguments(rows, out, -1).values())
    np.testing.assert_array_equal(out, rlox_gpu.gae(**rows, time_dim=-1)[:2])


def test_raw_takes_numpy_arrays_as_they_are(rng):
    inputs = make_gae_inputs(rng, 30, 20, np.float32)
    out = np.empty((2, 30, 20), np.float32)
    arguments = raw_arguments(inputs, out)
    names = ("rewards", "values", "terminated", "last_values", "truncated", "final_values")
    arguments["arrays"][:6] = [inputs[name] for name in names]
    arguments["results"] = list(out)
    _rust.estimate_raw(*arguments.values())
    np.testing.assert_array_equal(out, rlox_gpu.gae(**inputs)[:2])
    arguments["arrays"][0] = inputs["rewards"].astype(complex)
    with pytest.raises(TypeError, match="must be of flags or of floats"):
        _rust.estimate_raw(*arguments.values())
    arguments["arrays"][0] = inputs["rewards"][:, 0]
    with pytest.raises(ValueError, match="must have 2 strides, not 1"):
        _rust.estimate_raw(*arguments.values())


def test_raw_takes_bfloat16(rng):
    def stored(array):
        return (array.view(np.uint32) >> 16).astype(np.uint16)

    def loaded(bits):
        return (bits.astype(np.uint32) << 16).view(np.float32)

    inputs = make_gae_inputs(rng, 40, 12, np.float32, truncation=False)
    bits = {k: v if v.dtype == bool else stored(v) for k, v in inputs.items()}
    inputs = {k: v if v.dtype == bool else loaded(stored(v)) for k, v in inputs.items()}
    out = np.empty((2, 40, 12), np.uint16)
    _rust.estimate_raw(*raw_arguments(bits, out, code=1).values())
    for result, expected in zip(loaded(out), gae_reference(**inputs), strict=True):
        np.testing.assert_allclose(result, expected, rtol=2**-8, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"op": 8}, "op must be between 0 and 7"),
        ({"arrays": []}, "arrays must be 11"),
        ({"results": []}, "results must be 2"),
        ({"shape": (2, 3, 4)}, "rewards must have shape"),
        ({"time_dim": 3}, "time_dim"),
        ({"numbers": [0.9]}, "numbers must be those of Gae"),
    ],
)
def test_raw_refuses(rng, change, message):
    inputs = make_gae_inputs(rng, 4, 3, np.float32)
    arguments = raw_arguments(inputs, np.empty((2, 4, 3), np.float32))
    with pytest.raises(ValueError, match=message):
        _rust.estimate_raw(*{**arguments, **change}.values())


@pytest.mark.parametrize(
    ("at", "change", "message"),
    [
        (0, (4,), "array 0 must be of a floating-point type"),
        (0, (8,), "a type code must be between 0 and 7"),
        (1, (3,), "array 1 must be of the type of the first"),
        (1, None, "array 1 must be given"),
        (2, None, "array 2 must be given"),
        (3, (1, 2), "an array must have 1 strides, not 2"),
        (5, (3,), "array 5 must be of the type of the first"),
    ],
)
def test_raw_refuses_arrays(rng, at, change, message):
    inputs = make_gae_inputs(rng, 4, 3, np.float32)
    arguments = raw_arguments(inputs, np.empty((2, 4, 3), np.float32))
    address, strides, code = arguments["arrays"][at]
    if change is not None:
        changed = (address, strides, *change) if len(change) == 1 else (address, change, code)
    arguments["arrays"][at] = None if change is None else changed
    with pytest.raises(ValueError, match=message):
        _rust.estimate_raw(*arguments.values())
