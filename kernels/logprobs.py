"""Log-probabilities of tokens on the GPU: forward and backward, one launch each.

The forward pass reads each logit once, the backward pass reads it once and writes its gradient
once: in bf16 two bytes per element and four; beside that a row moves some forty bytes. The running
maximum and sums are those of Milakov and Gimelshein, "Online normalizer calculation for softmax",
2018, https://arxiv.org/abs/1805.02867, kept per lane: lanes meet only at the end of a row.
"""

import torch
import triton
import triton.language as tl

from ._runtime import current
from ._vocabulary import (
    FLOOR,
    LN_2,
    LOG2_E,
    common_alignment,
    edge_of,
    exp2_of_difference,
    head_of,
    row_config,
    row_constants,
    row_start,
)

# Accesses of a lane that are under way together.
_AHEAD = 2


@triton.jit
def _absorb(tiles, peak, total, weighted, scale, ENTROPY: tl.constexpr):
    """Take tiles ``[CHUNKS, any]`` into the lanes' maxima, sums and weighted sums."""
    highest = peak
    for i in tl.static_range(len(tiles)):
        highest = tl.maximum(highest, tl.max(tiles[i], 1))
    # While all is negative infinity any finite origin gives weights of zero.
    origin = tl.where(highest == float("-inf"), 0.0, highest)
    shift, factor = exp2_of_difference(peak, origin, scale)
    if ENTROPY:
        weighted = factor * (weighted + tl.maximum(shift, FLOOR) * total)
    total *= factor
    for i in tl.static_range(len(tiles)):
        u, weight = exp2_of_difference(tiles[i], origin[:, None], scale)
        total += tl.sum(weight, 1)
        if ENTROPY:
            weighted += tl.sum(weight * tl.maximum(u, FLOOR), 1)
    return highest, total, weighted


@triton.jit(do_not_specialize=["vocabulary", "inner", "stride_outer", "stride_inner"])
def _forward_kernel(
    logits,
    tokens,
    logprobs,
    entropies,
    maxima,
    log_sums,
    vocabulary,
    inner,
    stride_outer,
    stride_inner,
    inverse_temperature: "fp64",  # noqa: F821
    ENTROPY: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    CHUNKS: tl.constexpr,
    VECTOR: tl.constexpr,
    AHEAD: tl.constexpr,
    LINE: tl.constexpr,
):
    """A program owns a row."""
    STEP: tl.constexpr = CHUNKS * VECTOR
    scale = tl.full([], inverse_temperature * LOG2_E, ACCUMULATOR)
    row = logits + row_start(inner, stride_outer, stride_inner)
    head = head_of(row, vocabulary, LINE)
    middle = tl.multiple_of(row + head, 16)
    chunk = tl.arange(0, CHUNKS)[:, None] * VECTOR
    place = chunk + tl.arange(0, VECTOR)[None, :]
    peak = tl.full([CHUNKS], float("-inf"), ACCUMULATOR)
    total = tl.zeros([CHUNKS], ACCUMULATOR)
    weighted = tl.zeros([CHUNKS], ACCUMULATOR)
    left = vocabulary - head
    while left >= AHEAD * STEP:
        tiles = ()
        for i in tl.static_range(AHEAD):
            tiles += (tl.load(middle + (i * STEP + place)).to(ACCUMULATOR),)
        peak, total, weighted = _absorb(tiles, peak, total, weighted, scale, ENTROPY)
        middle += AHEAD * STEP
        left -= AHEAD * STEP
    while left >= VECTOR:
        inside = chunk + VECTOR <= left
        tile = tl.load(middle + place, mask=inside, other=float("-inf"))
        tiles = (tile.to(ACCUMULATOR),)
        peak, total, weighted = _absorb(tiles, peak, total, weighted, scale, ENTROPY)
        middle += STEP
        left -= STEP
    ragged = vocabulary - (vocabulary - head) % VECTOR
    for step in tl.static_range((2 * LINE + CHUNKS - 1) // CHUNKS):
        column, inside = edge_of(step, head, ragged, CHUNKS, LINE)
        inside &= column < vocabulary
        tiles = (tl.load(row + column, mask=inside, other=float("-inf")).to(ACCUMULATOR),)
        peak, total, weighted = _absorb(tiles, peak, total, weighted, scale, ENTROPY)

    highest = tl.max(peak, 0)
    origin = tl.where(highest == float("-inf"), 0.0, highest)
    shift, factor = exp2_of_difference(peak, origin, scale)
    row_sum = tl.sum(total * factor, 0)
    log_sum = tl.log(row_sum)
    number = tl.program_id(0).to(tl.int64)
    token = tl.load(tokens + number)
    known = (token >= 0) & (token < vocabulary)
    logit = tl.load(row + token, mask=known, other=float("nan")).to(ACCUMULATOR)
    tl.store(logprobs + number, (logit - highest) * scale * LN_2 - log_sum)
    tl.store(maxima + number, highest)
    tl.store(log_sums + number, log_sum)
    if ENTROPY:
        against_row = factor * (weighted + tl.maximum(shift, FLOOR) * total)
        tl.store(entropies + number, log_sum - LN_2 * (tl.sum(against_row, 0) / row_sum))


@triton.jit
def _gradient(
    x, column, token, peak, log_sum, slope, log_slope, chosen, scale, ENTROPY: tl.constexpr
):
    log_p = (x - peak) * scale - log_sum
    factor = slope
    if ENTROPY:
        log_p = tl.maximum(log_p, FLOOR, propagate_nan=tl.PropagateNan.ALL)
        factor = slope + log_slope * log_p
    return tl.exp2(log_p) * factor + tl.where(column == token, chosen, 0.0)


@triton.jit(do_not_specialize=["vocabulary", "inner", "stride_outer", "stride_inner"])
def _backward_kernel(
    logits,
    tokens,
    maxima,
    log_sums,
    entropies,
    grad_logprobs,
    grad_entropies,
    grad_logits,
    vocabulary,
    inner,
    stride_outer,
    stride_inner,
    inverse_temperature: "fp64",  # noqa: F821
    ENTROPY: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    CHUNKS: tl.constexpr,
    VECTOR: tl.constexpr,
    AHEAD: tl.constexpr,
    LINE: tl.constexpr,
):
    """A program owns a row. Logarithms are to base two."""
    STEP: tl.constexpr = CHUNKS * VECTOR
    scale = tl.full([], inverse_temperature * LOG2_E, ACCUMULATOR)
    number = tl.program_id(0).to(tl.int64)
    # A token outside the vocabulary is no column: -1 and below never are, the rest is too large.
    token = tl.minimum(tl.maximum(tl.load(tokens + number), -1), vocabulary).to(tl.int32)
    peak = tl.load(maxima + number)
    log_sum = tl.load(log_sums + number) * LOG2_E
    chosen = tl.load(grad_logprobs + number) * tl.full([], inverse_temperature, ACCUMULATOR)
    slope = -chosen
    log_slope = slope
    if ENTROPY:
        natural = tl.load(grad_entropies + number) * tl.full([], inverse_temperature, ACCUMULATOR)
        slope -= natural * tl.load(entropies + number)
        log_slope = -natural * LN_2

    row = logits + row_start(inner, stride_outer, stride_inner)
    target = grad_logits + number * vocabulary
    head = head_of(row, vocabulary, LINE)
    middle = tl.multiple_of(row + head, 16)
    target_middle = tl.multiple_of(
        target + head, VECTOR * (row.dtype.element_ty.primitive_bitwidth // 8)
    )
    chunk = tl.arange(0, CHUNKS)[:, None] * VECTOR
    place = chunk + tl.arange(0, VECTOR)[None, :]
    at = token - head
    left = vocabulary - head
    while left >= AHEAD * STEP:
        tiles = ()
        for i in tl.static_range(AHEAD):
            tiles += (tl.load(middle + (i * STEP + place)).to(ACCUMULATOR),)
        for i in tl.static_range(AHEAD):
            gradient = _gradient(
                tiles[i],
                i * STEP + place,
                at,
                peak,
                log_sum,
                slope,
                log_slope,
                chosen,
                scale,
                ENTROPY,
            )
            tl.store(target_middle + (i * STEP + place), gradient)
        middle += AHEAD * STEP
        target_middle += AHEAD * STEP
        left -= AHEAD * STEP
        at -= AHEAD * STEP
    while left >= VECTOR:
        inside = chunk + VECTOR <= left
        x = tl.load(middle + place, mask=inside, other=0.0).to(ACCUMULATOR)
        gradient = _gradient(x, place, at, peak, log_sum, slope, log_slope, chosen, scale, ENTROPY)
        tl.store(target_middle + place, gradient, mask=inside)
        middle += STEP
        target_middle += STEP
        left -= STEP
        at -= STEP
    ragged = vocabulary - (vocabulary - head) % VECTOR
    for step in tl.static_range((2 * LINE + CHUNKS - 1) // CHUNKS):
        column, inside = edge_of(step, head, ragged, CHUNKS, LINE)
        inside &= column < vocabulary
        x = tl.load(row + column, mask=inside, other=0.0).to(ACCUMULATOR)
        gradient = _gradient(
            x, column, token, peak, log_sum, slope, log_slope, chosen, scale, ENTROPY
        )
        tl.store(target + column, gradient, mask=inside)


def launch_forward(
    logits: torch.Tensor,
    tokens: torch.Tensor,
    temperature: float,
    logprobs: torch.Tensor,
    entropies: torch.Tensor | None,
    maxima: torch.Tensor,
    log_sums: torch.Tensor,
) -> None:
    """Write the results, ``[outer * inner]``, of ``logits`` ``[outer, inner, V]``."""
    _launch(
        _forward_kernel,
        logits,
        (tokens, logprobs, entropies, maxima, log_sums),
        temperature,
        entropies is not None,
        row_config(logits.shape[2], logits.element_size()),
    )


def launch_backward(
    logits: torch.Tensor,
    tokens: torch.Tensor,
    temperature: float,
    maxima: torch.Tensor,
    log_sums: torch.Tensor,
    entropies: torch.Tensor | None,
    grad_logprobs: torch.Tensor,
    grad_entropies: torch.Tensor | None,
    grad_logits: torch.Tensor,
) -> None:
    """Write ``grad_logits``, contiguous and of the shape of ``logits`` ``[outer, inner, V]``."""
    alignment = common_alignment(logits, grad_logits)
    _launch(
        _backward_kernel,
        logits,
        (tokens, maxima, log_sums, entropies, grad_logprobs, grad_entropies, grad_logits),
        temperature,
        entropies is not None,
        row_config(logits.shape[2], logits.element_size(), alignment),
    )


def _launch(kernel, logits, arrays, temperature, entropy, config):
    outer, inner, vocabulary = logits.shape
    with current(logits.device):
        kernel[(outer * inner,)](
            logits,
            *arrays,
            vocabulary,
            inner,
            *logits.stride()[:2],
            1.0 / temperature,
            ENTROPY=entropy,
            AHEAD=_AHEAD,
            **row_constants(logits, config),
            # A product fused into the first addition of a sum over lanes would differ by lane.
            enable_fp_fusion=kernel is _backward_kernel,
        )
