"""The divergence of two categorical distributions on the GPU: forward and backward, a launch each.

With ``u = (x - max x) / temperature`` of the logits, ``v`` of those of the reference, and ``X`` and
``Y`` the sums of ``e^u`` and ``e^v``

    KL = (sum of e^u (u - v)) / X + ln Y - ln X

A program owns a row. The forward pass reads each logit of both once, in bf16 four bytes per token
of the vocabulary; the backward pass reads them once and writes the gradients that are wanted, six
bytes for one and eight for both. Beside that a row moves some thirty bytes; a masked row moves no
logits at all. Maxima and sums are online as in ``logprobs.py``, kept per lane: lanes meet only at
the end of a row.
"""

import torch
import triton
import triton.language as tl

from ._layout import as_bytes
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


@triton.jit
def _gap(shift, ref_shift):
    """How much one shift exceeds the other; what has no probability gives some finite number."""
    return tl.maximum(shift - ref_shift, FLOOR)


@triton.jit
def _origin(highest):
    # While all is negative infinity any finite origin gives weights of zero.
    return tl.where(highest == float("-inf"), 0.0, highest)


@triton.jit
def _absorb(x, y, peak, total, ref_peak, ref_total, weighted, scale):
    """Take tiles ``[CHUNKS, any]`` of both into the lanes' maxima, sums and weighted sums."""
    highest = tl.maximum(peak, tl.max(x, 1))
    ref_highest = tl.maximum(ref_peak, tl.max(y, 1))
    origin, ref_origin = _origin(highest), _origin(ref_highest)
    shift, factor = exp2_of_difference(peak, origin, scale)
    ref_shift, ref_factor = exp2_of_difference(ref_peak, ref_origin, scale)
    u, weight = exp2_of_difference(x, origin[:, None], scale)
    v, ref_weight = exp2_of_difference(y, ref_origin[:, None], scale)
    weighted = factor * (weighted + _gap(shift, ref_shift) * total)
    weighted += tl.sum(weight * _gap(u, v), 1)
    total = total * factor + tl.sum(weight, 1)
    ref_total = ref_total * ref_factor + tl.sum(ref_weight, 1)
    return highest, total, ref_highest, ref_total, weighted


@triton.jit
def _finished(peak, total, ref_peak, ref_total, weighted, scale):
    """Maxima and logarithms of the sums of a whole row, and the divergence; natural logarithms."""
    highest, ref_highest = tl.max(peak, 0), tl.max(ref_peak, 0)
    shift, factor = exp2_of_difference(peak, _origin(highest), scale)
    ref_shift, ref_factor = exp2_of_difference(ref_peak, _origin(ref_highest), scale)
    row_sum, ref_sum = tl.sum(total * factor, 0), tl.sum(ref_total * ref_factor, 0)
    against = tl.sum(factor * (weighted + _gap(shift, ref_shift) * total), 0)
    log_sum, ref_log_sum = tl.log(row_sum), tl.log(ref_sum)
    divergence = LN_2 * (against / row_sum) + (ref_log_sum - log_sum)
    # A token that the reference excludes and the policy does not is infinitely far away; where its
    # probability rounds to zero the product of both is not a number.
    divergence = tl.where(against != against, float("inf"), divergence)
    divergence = tl.where(divergence < 0.0, 0.0, divergence)
    known = (row_sum > 0.0) & (ref_sum > 0.0)
    divergence = tl.where(known, divergence, float("nan"))
    return divergence, highest, log_sum, ref_highest, ref_log_sum


_SIZES = [
    "vocabulary",
    "inner",
    "stride_outer",
    "stride_inner",
    "ref_inner",
    "ref_stride_outer",
    "ref_stride_inner",
]


@triton.jit(do_not_specialize=_SIZES)
def _forward_kernel(
    logits,
    ref_logits,
    mask,
    divergences,
    statistics,
    vocabulary,
    inner,
    stride_outer,
    stride_inner,
    ref_inner,
    ref_stride_outer,
    ref_stride_inner,
    inverse_temperature: "fp64",  # noqa: F821
    HAS_MASK: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    CHUNKS: tl.constexpr,
    VECTOR: tl.constexpr,
    LINE: tl.constexpr,
):
    """A program owns a row."""
    STEP: tl.constexpr = CHUNKS * VECTOR
    scale = tl.full([], inverse_temperature * LOG2_E, ACCUMULATOR)
    number = tl.program_id(0).to(tl.int64)
    valid = True
    if HAS_MASK:
        # A masked row has no columns.
        valid = tl.load(mask + number) != 0
        vocabulary = tl.where(valid, vocabulary, 0)
    row = logits + row_start(inner, stride_outer, stride_inner)
    ref_row = ref_logits + row_start(ref_inner, ref_stride_outer, ref_stride_inner)
    head = head_of(row, vocabulary, LINE)
    size: tl.constexpr = row.dtype.element_ty.primitive_bitwidth // 8
    middle = tl.multiple_of(row + head, 16)
    ref_middle = tl.multiple_of(ref_row + head, VECTOR * size)
    chunk = tl.arange(0, CHUNKS)[:, None] * VECTOR
    place = chunk + tl.arange(0, VECTOR)[None, :]
    peak = tl.full([CHUNKS], float("-inf"), ACCUMULATOR)
    total = tl.zeros([CHUNKS], ACCUMULATOR)
    ref_peak, ref_total, weighted = peak, total, total
    left = vocabulary - head
    while left >= STEP:
        x = tl.load(middle + place).to(ACCUMULATOR)
        y = tl.load(ref_middle + place).to(ACCUMULATOR)
        peak, total, ref_peak, ref_total, weighted = _absorb(
            x, y, peak, total, ref_peak, ref_total, weighted, scale
        )
        middle += STEP
        ref_middle += STEP
        left -= STEP
    if left >= VECTOR:
        inside = chunk + VECTOR <= left
        x = tl.load(middle + place, mask=inside, other=float("-inf")).to(ACCUMULATOR)
        y = tl.load(ref_middle + place, mask=inside, other=float("-inf")).to(ACCUMULATOR)
        peak, total, ref_peak, ref_total, weighted = _absorb(
            x, y, peak, total, ref_peak, ref_total, weighted, scale
        )
    ragged = vocabulary - (vocabulary - head) % VECTOR
    for step in tl.static_range((2 * LINE + CHUNKS - 1) // CHUNKS):
        column, inside = edge_of(step, head, ragged, CHUNKS, LINE)
        inside &= column < vocabulary
        x = tl.load(row + column, mask=inside, other=float("-inf")).to(ACCUMULATOR)
        y = tl.load(ref_row + column, mask=inside, other=float("-inf")).to(ACCUMULATOR)
        peak, total, ref_peak, ref_total, weighted = _absorb(
            x, y, peak, total, ref_peak, ref_total, weighted, scale
        )
    divergence, highest, log_sum, ref_highest, ref_log_sum = _finished(
        peak, total, ref_peak, ref_total, weighted, scale
    )
    tl.store(divergences + number, tl.where(valid, divergence, 0.0))
    tl.store(statistics + 4 * number, highest)
    tl.store(statistics + 4 * number + 1, log_sum)
    tl.store(statistics + 4 * number + 2, ref_highest)
    tl.store(statistics + 4 * number + 3, ref_log_sum)


@triton.jit
def _store_gradients(
    x,
    y,
    grad_logits,
    grad_ref,
    inside,
    peak,
    log_sum,
    ref_peak,
    ref_log_sum,
    divergence,
    slope,
    scale,
    WANT_LOGITS: tl.constexpr,
    WANT_REF: tl.constexpr,
):
    """The gradients of a tile; all logarithms are to base two."""
    log_p = (x - peak) * scale - log_sum
    log_q = (y - ref_peak) * scale - ref_log_sum
    p = tl.exp2(log_p)
    if WANT_LOGITS:
        gradient = slope * LN_2 * p * (_gap(log_p, log_q) - divergence)
        tl.store(grad_logits, gradient, mask=inside)
    if WANT_REF:
        tl.store(grad_ref, slope * (tl.exp2(log_q) - p), mask=inside)


@triton.jit
def _store_zeros(target, first, vocabulary, STEP: tl.constexpr, LINE: tl.constexpr):
    """Zeros in the columns from ``first`` on; whole cache lines where there are."""
    start = first + head_of(target + first, vocabulary, LINE) - LINE
    while start < vocabulary:
        column = start + tl.arange(0, STEP)
        tl.store(target + column, 0.0, mask=(column >= first) & (column < vocabulary))
        start += STEP


@triton.jit(do_not_specialize=_SIZES)
def _backward_kernel(
    logits,
    ref_logits,
    mask,
    grad,
    divergences,
    statistics,
    grad_logits,
    grad_ref,
    vocabulary,
    inner,
    stride_outer,
    stride_inner,
    ref_inner,
    ref_stride_outer,
    ref_stride_inner,
    inverse_temperature: "fp64",  # noqa: F821
    WANT_LOGITS: tl.constexpr,
    WANT_REF: tl.constexpr,
    HAS_MASK: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    CHUNKS: tl.constexpr,
    VECTOR: tl.constexpr,
    LINE: tl.constexpr,
):
    """A program owns a row."""
    STEP: tl.constexpr = CHUNKS * VECTOR
    scale = tl.full([], inverse_temperature * LOG2_E, ACCUMULATOR)
    number = tl.program_id(0).to(tl.int64)
    target = grad_logits + number * vocabulary
    ref_target = grad_ref + number * vocabulary
    if HAS_MASK:
        # A masked row has no columns to compute.
        width = vocabulary
        vocabulary = tl.where(tl.load(mask + number) != 0, vocabulary, 0)
        if WANT_LOGITS:
            _store_zeros(target, vocabulary, width, STEP, LINE)
        if WANT_REF:
            _store_zeros(ref_target, vocabulary, width, STEP, LINE)
    slope = tl.load(grad + number) * tl.full([], inverse_temperature, ACCUMULATOR)
    divergence = tl.load(divergences + number) * LOG2_E
    # No direction leads from an infinite divergence.
    divergence = tl.where(divergence == float("inf"), float("nan"), divergence)
    peak = tl.load(statistics + 4 * number)
    log_sum = tl.load(statistics + 4 * number + 1) * LOG2_E
    ref_peak = tl.load(statistics + 4 * number + 2)
    ref_log_sum = tl.load(statistics + 4 * number + 3) * LOG2_E

    row = logits + row_start(inner, stride_outer, stride_inner)
    ref_row = ref_logits + row_start(ref_inner, ref_stride_outer, ref_stride_inner)
    head = head_of(row, vocabulary, LINE)
    size: tl.constexpr = row.dtype.element_ty.primitive_bitwidth // 8
    middle = tl.multiple_of(row + head, 16)
    ref_middle = tl.multiple_of(ref_row + head, VECTOR * size)
    target_middle = tl.multiple_of(target + head, VECTOR * size)
    ref_target_middle = tl.multiple_of(ref_target + head, VECTOR * size)
    chunk = tl.arange(0, CHUNKS)[:, None] * VECTOR
    place = chunk + tl.arange(0, VECTOR)[None, :]
    left = vocabulary - head
    while left >= VECTOR:
        inside = chunk + VECTOR <= left
        x = tl.load(middle + place, mask=inside, other=0.0).to(ACCUMULATOR)
        y = tl.load(ref_middle + place, mask=inside, other=0.0).to(ACCUMULATOR)
        _store_gradients(
            x,
            y,
            target_middle + place,
            ref_target_middle + place,
            inside,
            peak,
            log_sum,
            ref_peak,
            ref_log_sum,
            divergence,
            slope,
            scale,
            WANT_LOGITS,
            WANT_REF,
        )
        middle += STEP
        ref_middle += STEP
        target_middle += STEP
        ref_target_middle += STEP
        left -= STEP
    ragged = vocabulary - (vocabulary - head) % VECTOR
    for step in tl.static_range((2 * LINE + CHUNKS - 1) // CHUNKS):
        column, inside = edge_of(step, head, ragged, CHUNKS, LINE)
        inside &= column < vocabulary
        x = tl.load(row + column, mask=inside, other=0.0).to(ACCUMULATOR)
        y = tl.load(ref_row + column, mask=inside, other=0.0).to(ACCUMULATOR)
        _store_gradients(
            x,
            y,
            target + column,
            ref_target + column,
            inside,
            peak,
            log_sum,
            ref_peak,
            ref_log_sum,
            divergence,
            slope,
            scale,
            WANT_LOGITS,
            WANT_REF,
        )


def launch_forward(
    logits: torch.Tensor,
    ref_logits: torch.Tensor,
    mask: torch.Tensor | None,
    temperature: float,
    divergences: torch.Tensor,
    statistics: torch.Tensor,
) -> None:
    """Write the divergences and what the backward pass needs of each row.

    Both logits are ``[outer, inner, V]``, of as many rows each; ``divergences`` and
    ``statistics``, ``[rows, 4]``, are contiguous, and so is ``mask``.
    """
    alignment = common_alignment(logits, ref_logits)
    arrays = (divergences, statistics)
    _launch(_forward_kernel, logits, ref_logits, mask, arrays, temperature, alignment)


def launch_backward(
    logits: torch.Tensor,
    ref_logits: torch.Tensor,
    mask: torch.Tensor | None,
    temperature: float,
    grad: torch.Tensor,
    divergences: torch.Tensor,
    statistics: torch.Tensor,
    grad_logits: torch.Tensor | None,
    grad_ref: torch.Tensor | None,
) -> None:
    """Write those gradients that are there, contiguous and ``[1, rows, V]``."""
    # What is not wanted is not written, wherever it points.
    targets = (logits if x is None else x for x in (grad_logits, grad_ref))
    _launch(
        _backward_kernel,
        logits,
        ref_logits,
        mask,
        (grad, divergences, statistics, *targets),
        temperature,
        common_alignment(logits, ref_logits, grad_logits, grad_ref),
        WANT_LOGITS=grad_logits is not None,
        WANT_REF=grad_ref is not None,
    )


def _launch(kernel, logits, ref_logits, mask, arrays, temperature, alignment, **wanted):
    outer, inner, vocabulary = logits.shape
    config = row_config(vocabulary, logits.element_size(), alignment)
    with current(logits.device):
        kernel[(outer * inner,)](
            logits,
            ref_logits,
            None if mask is None else as_bytes(mask),
            *arrays,
            vocabulary,
            inner,
            *logits.stride()[:2],
            ref_logits.shape[1],
            *ref_logits.stride()[:2],
            1.0 / temperature,
            HAS_MASK=mask is not None,
            **wanted,
            **row_constants(logits, config),
            # As in logprobs.py: a product fused into the first addition of a sum over lanes would
            # differ by lane.
            enable_fp_fusion=kernel is _backward_kernel,
        )
