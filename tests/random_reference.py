"""Philox4x32-10 and what is drawn from it, in plain NumPy integers."""

import numpy as np

_LOW = np.uint64(0xFFFFFFFF)


def philox_reference(seed, index, step, stream):
    """Four uint32 arrays for the draws ``(index[i], step, stream)``."""
    index = np.asarray(index, dtype=np.uint64)
    counter = [index & _LOW, index >> np.uint64(32)]
    counter += [np.full_like(index, step), np.full_like(index, stream)]
    key = [np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)]
    for _ in range(10):
        first = np.uint64(0xD2511F53) * counter[0]
        second = np.uint64(0xCD9E8D57) * counter[2]
        counter = [
            (second >> np.uint64(32)) ^ counter[1] ^ key[0],
            second & _LOW,
            (first >> np.uint64(32)) ^ counter[3] ^ key[1],
            first & _LOW,
        ]
        key = [
            (key[0] + np.uint64(0x9E3779B9)) & _LOW,
            (key[1] + np.uint64(0xBB67AE85)) & _LOW,
        ]
    return [word.astype(np.uint32) for word in counter]


def uniform_reference(count, seed, step, stream):
    words = philox_reference(seed, np.arange((count + 3) // 4), step, stream)
    return ((np.stack(words, axis=1).reshape(-1)[:count] >> 8) * 2.0**-24).astype(np.float32)


def permutation_reference(count, seed, step):
    first, second = zip(*philox_reference(seed, [0, 1], step, 2), strict=True)
    keys = [*map(int, first), *map(int, second)]
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    return np.array([_walk(i, count, half, keys) for i in range(count)], dtype=np.int64)


def _walk(x, count, half, keys):
    x = _network(x, half, keys)
    while x >= count:
        x = _network(x, half, keys)
    return x


def _network(x, half, keys):
    mask = (1 << half) - 1
    left, right = x >> half, x & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return left << half | right


def _mix(x):
    x ^= x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16
