"""The compiled core: checks, thread pool and CPU kernels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

# -- array operations ------------------------------------------------------------------------

def array_address(array: NDArray[Any], /) -> int:
    """Where the elements of ``array`` begin in memory."""

def gae(
    rewards: NDArray[Any],
    values: NDArray[Any],
    terminated: NDArray[Any],
    last_values: NDArray[Any] | float,
    truncated: NDArray[Any] | None,
    final_values: NDArray[Any] | None,
    gamma: float,
    gae_lambda: float,
    time_dim: int,
    out: tuple[NDArray[Any], NDArray[Any]] | None,
    /,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Advantages and returns of NumPy arrays; checks everything, errors name the argument.

    Fresh results are C-contiguous and of the values' dtype; with ``out`` they are its arrays.
    """

def gae_contiguous(
    rewards: int,
    values: int,
    terminated: int,
    last_values: int,
    advantages: int,
    returns: int,
    shape: tuple[int, ...],
    time_dim: int,
    value_code: int,
    flag_code: int,
    gamma: float,
    gae_lambda: float,
    /,
) -> None:
    """``gae`` on the bare memory of C-contiguous arrays ``[T, N]`` (``time_dim`` 0) or ``[N, T]``.

    The codes are those of ``estimate_raw``, and the caller vouches for the same.
    """

def empty_results(
    count: int, shape: tuple[int, ...], code: int, inputs: list[int], /
) -> list[NDArray[Any]]:
    """One or two arrays still to be written; memory for bfloat16 comes in the name of float16.

    Long ones lie where writing to them does not slow down reading from the addresses ``inputs``.
    """

def share_memory(first: NDArray[Any], second: NDArray[Any], /) -> bool:
    """Whether two arrays of at most two dimensions have an element in common."""

def estimate_raw(
    op: int,
    arrays: list[NDArray[Any] | tuple[int, tuple[int, ...], int] | None],
    results: list[NDArray[Any]] | list[tuple[int, tuple[int, ...], int]],
    shape: tuple[int, ...],
    sequences: int,
    time_dim: int,
    numbers: list[float],
    /,
) -> None:
    """Any of the estimators on bare memory.

    Ops: 0 gae, 1 discounted_returns, 2 td_lambda_returns, 3 n_step_returns, 4 vtrace, 5 retrace,
    6 eligibility_traces, 7 gae with moments; ``numbers`` are those of the op, discounts first.

    An array is one of NumPy's, or ``(address, strides in elements, type code)``. ``arrays`` are
    those of the op with one value per transition, then terminated, last_values (of traces:
    initial), truncated, final_values, mask, lengths, cu_seqlens, gammas and lambdas; None stands
    for one that is not given. ``shape`` is that of the first one, ``[T]``, ``[T, N]`` (``time_dim``
    0) or ``[N, T]`` (``time_dim`` 1 or -1); ``sequences`` is one less than the length of
    cu_seqlens. ``results`` are those of the op, of the type of the first array; moments are
    float64 ``[3]``.

    Codes: 0 float16, 1 bfloat16, 2 float32, 3 float64, and for flags also 4 any one-byte type,
    5 two-byte, 6 four-byte, 7 eight-byte integer.

    The caller vouches for addresses, shapes, numbers, truncated with final_values, and for results
    that overlap neither an input nor each other. Checked here: codes, numbers of strides, arrays
    and results, and the contents of lengths and cu_seqlens.
    """

def token_logprobs_raw(
    logits: int,
    shape: Sequence[int],
    strides: Sequence[int],
    code: int,
    tokens: int,
    temperature: float,
    logprobs: int,
    entropies: int,
    maxima: int,
    log_sums: int,
    /,
) -> None:
    """Log-probabilities of tokens on bare memory.

    ``logits`` has ``shape`` ``(outer, inner, V)`` and the ``strides``, in elements, of the first
    two dimensions; a row is contiguous. ``tokens`` are ``outer * inner`` int64. The results are as
    many float32, float64 for float64 logits: with ``u = (logits - max) / temperature`` the token's
    ``u - ln(sum)``, the entropy (address 0: not wanted), the maximum and ``ln(sum)`` of ``e^u``. A
    token outside the vocabulary gives NaN.

    Codes of logits: 0 float16, 1 bfloat16, 2 float32, 3 float64. The caller vouches for the rest.
    """

def token_logprobs_backward_raw(
    logits: int,
    shape: Sequence[int],
    strides: Sequence[int],
    code: int,
    tokens: int,
    temperature: float,
    maxima: int,
    log_sums: int,
    entropies: int,
    grad_logprobs: int,
    grad_entropies: int,
    grad_logits: int,
    /,
) -> None:
    """The gradient of the logits, C-contiguous and of their type, from what the forward pass gave.

    ``entropies`` and ``grad_entropies`` are both addresses or both 0. A token outside the
    vocabulary has no logit of its own.
    """

def token_kl_of_arrays(
    logprobs: NDArray[Any], ref_logprobs: object, kind: int, /
) -> NDArray[Any] | None:
    """Divergence estimates of contiguous arrays of one shape and floating dtype.

    ``kind`` as for :func:`token_kl_raw`. None if the arrays are any other.
    """

def token_kl_contiguous(
    logprobs: int, ref_logprobs: int, out: int, count: int, code: int, kind: int, /
) -> None:
    """Divergence estimates of ``count`` tokens on bare, contiguous memory.

    Codes as for :func:`token_kl_raw`. The caller vouches for the memory.
    """

def token_kl_raw(
    logprobs: tuple[int, int, int],
    ref_logprobs: tuple[int, int, int],
    ratio: tuple[int, int, int] | None,
    mask: tuple[int, int, int] | None,
    out: int,
    shape: tuple[int, int],
    codes: tuple[int, int],
    kind: int,
    reduction: int,
    /,
) -> int:
    """Divergence estimates of ``[rows, lanes]`` on bare memory.

    Each input is its address and the strides of rows and lanes in elements. ``codes`` are the
    dtypes of the values and of the mask, as for :func:`gae_raw`; ``kind`` 0, 1, 2 is k1, k2, k3.
    ``reduction`` 0 fills ``out`` with ``[rows, lanes]`` estimates, 1 with their sum, 2 with their
    mean, 3 with the sums of the rows; ``out`` is contiguous and of the values' type.

    Returns how many tokens count (with reduction 0 it is not counted, and 0). The caller vouches
    for all memory.
    """

def token_kl_backward_raw(
    grad: tuple[int, int, int],
    divisor: float,
    logprobs: tuple[int, int, int],
    ref_logprobs: tuple[int, int, int],
    ratio: tuple[int, int, int] | None,
    mask: tuple[int, int, int] | None,
    gradients: tuple[int, int, int],
    shape: tuple[int, int],
    codes: tuple[int, int],
    kind: int,
    /,
) -> None:
    """Gradients of the estimates for ``logprobs``, ``ref_logprobs`` and ``ratio``.

    ``gradients`` are the addresses of contiguous results, 0 for one that is not wanted; ``grad``
    is the gradient from above, one per token, to be divided by ``divisor``. The rest as for
    :func:`token_kl_raw`.
    """

def full_kl_raw(
    logits: tuple[int, tuple[int, int], tuple[int, int]],
    ref_logits: tuple[int, tuple[int, int], tuple[int, int]],
    vocabulary: int,
    code: int,
    mask: int,
    temperature: float,
    divergences: int,
    statistics: int,
    /,
) -> None:
    """Divergences of categorical distributions on bare memory.

    The logits are an address, ``(outer, inner)`` and the strides of both in elements; a row of
    ``vocabulary`` logits is contiguous, and both have as many rows. ``mask`` are as many bytes, or
    0 for none. The results, contiguous and float32 (float64 for float64 logits), are ``[rows]``
    divergences and ``[rows, 4]`` statistics: with ``u = (logits - max) / temperature`` the maximum
    and the logarithm of the sum of ``e^u``, of the logits and then of the reference's.

    Codes of logits: 0 float16, 1 bfloat16, 2 float32, 3 float64. The caller vouches for the rest.
    """

def full_kl_backward_raw(
    logits: tuple[int, tuple[int, int], tuple[int, int]],
    ref_logits: tuple[int, tuple[int, int], tuple[int, int]],
    vocabulary: int,
    code: int,
    mask: int,
    temperature: float,
    grad: int,
    divergences: int,
    statistics: int,
    grad_logits: int,
    grad_ref: int,
    /,
) -> None:
    """The gradients of both logits, C-contiguous and of their type, 0 for one that is not wanted.

    ``grad``, ``[rows]``, is the gradient of the divergences; the rest as for :func:`full_kl_raw`.
    """

def dpo_loss_raw(
    logps: tuple[
        tuple[int, int],
        tuple[int, int],
        tuple[int, int],
        tuple[int, int],
    ],
    results: tuple[int, int, int, int],
    count: int,
    code: int,
    kind: int,
    beta: float,
    label_smoothing: float,
    reduction: int,
    /,
) -> None:
    """A loss on ``count`` preference pairs on bare memory.

    ``logps`` are addresses and strides in elements of the policy's log-probabilities of chosen and
    rejected answers and of the reference's, ``results`` addresses of contiguous memory for the
    loss, its slopes (float64 for float64, else float32), and the rewards of chosen and rejected.
    ``kind`` 0, 1, 2 is sigmoid, hinge, ipo; ``reduction`` 0, 1, 2 is none, sum, mean.

    The caller vouches for all memory.
    """

def group_advantages(
    rewards: NDArray[Any],
    group_size: int | None,
    ids: NDArray[Any] | None,
    mask: NDArray[Any] | None,
    tokens: NDArray[Any] | None,
    leave_one_out: bool,
    scale: int,
    ddof: float,
    eps: float,
    least: float,
    /,
) -> NDArray[Any]:
    """Advantages of rewards ``[P, K]`` or ``[P * K]`` in their groups.

    ``ids`` are int64, as many as rewards; rewards and mask are contiguous then. With ``tokens``
    ``[number of rewards, T]`` the result has that shape. ``scale``: 0 none, 1 the group's
    deviation, 2 that of all rewards. A deviation below ``least`` counts as zero.
    """

def group_advantages_raw(
    rewards: int,
    strides: tuple[int, ...],
    shape: tuple[int, int],
    code: int,
    ids: int,
    mask: int,
    mask_strides: tuple[int, ...],
    mask_code: int,
    tokens: int,
    token_strides: tuple[int, ...],
    token_code: int,
    width: int,
    out: int,
    leave_one_out: bool,
    scale: int,
    ddof: float,
    eps: float,
    least: float,
    /,
) -> None:
    """The same on bare memory: addresses (0 for none), strides in elements, type codes.

    ``shape`` is that of rewards and mask, ``[groups, size]``; with ids, int64 side by side, it is
    ``[1, N]``. ``tokens`` is ``[groups * size, width]``. ``out`` is contiguous. The caller vouches
    for the memory.
    """

def update_moments_raw(
    state: int,
    x: tuple[int, int, int],
    mask: tuple[int, int] | None,
    shape: tuple[int, int],
    codes: tuple[int, int],
    /,
) -> None:
    """Take ``x [B, D]``, an address and two strides in elements, into the contiguous float64 state.

    ``mask`` is the address of the rows' flags and their stride; ``codes`` are those of ``x`` and of
    the flags, as in ``estimate_raw``, and are checked. The caller vouches for all else.
    """

def normalize_raw(
    x: tuple[int, int, int],
    mean: int,
    var: int,
    out: int,
    shape: tuple[int, int],
    code: int,
    clip: float,
    eps: float,
    /,
) -> None:
    """``(x - mean) / max(sqrt(var), eps)`` within ``clip`` of ``x [R, D]``, into contiguous memory.

    ``x`` is an address and two strides in elements, ``mean`` and ``var`` are contiguous float64
    ``[D]``. The code is checked, the caller vouches for all else.
    """

def uniform_raw(out: int, count: int, seed: int, step: int, stream: int, /) -> None:
    """Fill ``count`` float32 at address ``out`` with uniform numbers in [0, 1).

    Element i is word i % 4 of ``philox(seed, i // 4, step, stream)``, its upper 24 bits.
    """

def permutation_raw(out: int, count: int, seed: int, step: int, /) -> None:
    """Fill ``count`` int64 at address ``out`` with a permutation of 0 .. count - 1.

    Counter-based: the same for the same (count, seed, step), count at most 2**32.
    """

def ppo_loss_raw(
    logits: int,
    actions: int,
    columns: tuple[int, ...],
    gradient: int,
    terms: tuple[int, ...],
    count: int,
    classes: int,
    code: int,
    coefficients: tuple[float, float, float],
    /,
) -> None:
    """PPO's loss of contiguous ``[N, A]`` logits, int64 ``[N]`` actions and columns ``[N]``.

    ``columns`` are the addresses of old log-probabilities, advantages, returns, values, and of old
    values and the mask of bytes or 0; ``terms`` those of the loss, its five parts and the scale,
    of the type that sums have (float64 for float64, else float32). ``gradient``, unless 0, is room
    for ``N * A`` numbers of the logits and ``N`` of the values: the gradient of the sum over the
    samples, to be multiplied by the scale.

    ``coefficients`` are clip_eps, vf_coef and ent_coef. The caller vouches for addresses, sizes
    and dtypes; the code (that of a floating-point type) is checked.
    """

def gaussian_ppo_loss_raw(
    policy: tuple[int, ...],
    shared: bool,
    columns: tuple[int, ...],
    gradients: tuple[int, int],
    terms: tuple[int, ...],
    count: int,
    dimensions: int,
    code: int,
    coefficients: tuple[float, float, float],
    /,
) -> None:
    """PPO's loss of a Gaussian policy, of contiguous memory.

    ``policy`` are the addresses of the means ``[N, A]``, of the logarithms of the deviations,
    ``[A]`` if ``shared`` and else ``[N, A]``, and of the actions ``[N, A]``. ``gradients``, unless
    0, are room for ``N * A`` numbers of the means, as many of ``log_std`` unless ``shared``, and
    ``N`` of the values, to be multiplied by the scale; and, if ``shared``, for ``[A]`` of the type
    that sums have, which are scaled already. All else is as for ``ppo_loss_raw``.
    """

def grpo_loss_raw(
    tokens: tuple[int, ...],
    per_token: bool,
    gradient: int,
    terms: tuple[int, ...],
    size: tuple[int, ...],
    code: int,
    interval: tuple[float, float],
    kl: tuple[float, int],
    per_sequence: bool,
    aggregation: tuple[int, float],
    /,
) -> None:
    """The loss of GRPO and its relatives, of contiguous ``[B, T]`` memory; ``size`` is ``(B, T)``.

    ``tokens`` are the addresses of log-probabilities, old ones, advantages (``[B, T]`` if
    ``per_token``, else ``[B]``), and of the reference's log-probabilities and the mask of bytes or
    0; ``terms`` those of the loss, its three parts and the scales ``[B]``, of the type that sums
    have. ``gradient``, unless 0, is room for ``[B, T]``, to be multiplied by the scales.

    ``kl`` is the coefficient and 0, 1, 2 for k1, k2, k3; ``aggregation`` is 0, 1, 2 for the
    sequence's tokens, a constant and all tokens, with the constant.
    """

def scaled_raw(
    gradient: int, scale: int, factor: int, out: int, rows: int, columns: int, code: int, /
) -> None:
    """``out[r, c] = gradient[r, c] * scale[r] * factor`` of contiguous memory.

    ``scale [R]`` and ``factor []`` have the type that sums have.
    """

def sample_categorical_raw(
    logits: tuple[int, int, int],
    rows: int,
    classes: int,
    code: int,
    log_prob: int,
    entropy: int,
    actions: int,
    seed: int,
    step: int,
    /,
) -> None:
    """Draw from ``logits [rows, classes]``: an address and two strides in elements.

    ``actions`` are int64, ``log_prob`` and ``entropy`` float32 (float64 for code 3), contiguous;
    the codes are those of ``estimate_raw``. The caller vouches for all of it.
    """

def sample_categorical_backward_raw(
    logits: tuple[int, int, int],
    out: tuple[int, int, int],
    rows: int,
    classes: int,
    code: int,
    log_prob: int,
    entropy: int,
    actions: int,
    log_prob_gradients: int,
    entropy_gradients: int,
    /,
) -> None:
    """Write the gradient of the logits, whose dtype it has; the rest as above."""

def sample_gaussian_raw(
    mean: tuple[int, int, int],
    log_std: tuple[int, int, int],
    actions: tuple[int, int, int],
    rows: int,
    dimensions: int,
    code: int,
    log_prob: int,
    seed: int,
    step: int,
    squash: bool,
    /,
) -> None:
    """Draw from Gaussians ``[rows, dimensions]``, as ``sample_categorical_raw`` does."""

def sample_gaussian_backward_raw(
    mean: tuple[int, int, int],
    log_std: tuple[int, int, int],
    action_gradients: tuple[int, int, int],
    mean_gradients: tuple[int, int, int],
    log_std_gradients: tuple[int, int, int],
    rows: int,
    dimensions: int,
    code: int,
    log_prob_gradients: int,
    seed: int,
    step: int,
    squash: bool,
    /,
) -> None:
    """Write the gradients of mean and ``log_std``; the rest as above."""

# -- environments ----------------------------------------------------------------------------

class EnvBatch:
    """The rules of a batch of environments, applied to arrays given by their addresses."""

    def __init__(
        self, task: str, params: Sequence[float], autoreset_mode: int, max_episode_steps: int
    ) -> None: ...
    def step(
        self, num_envs: int, state: Sequence[int], actions: int, outputs: Sequence[int]
    ) -> int: ...
    def rollout(
        self,
        num_envs: int,
        num_steps: int,
        state: Sequence[int],
        actions: int,
        drawn: bool,
        outputs: Sequence[int],
    ) -> int: ...
    def reset(self, num_envs: int, state: Sequence[int], mask: int, obs: int) -> None: ...
    def bind(
        self,
        state: NDArray[np.float32] | NDArray[np.int32],
        elapsed: NDArray[np.int32],
        episode: NDArray[np.uint32],
        seed: NDArray[np.uint64],
        ended: NDArray[np.bool_],
        episode_return: NDArray[np.float32],
        params: NDArray[np.float32] | None = None,
        limits: NDArray[np.int32] | None = None,
    ) -> EnvArrays: ...

class EnvArrays:
    """A batch of environments on NumPy state arrays."""

    def step(
        self, actions: NDArray[np.int64] | NDArray[np.float32]
    ) -> tuple[
        NDArray[np.float32],
        NDArray[np.float32],
        NDArray[np.bool_],
        NDArray[np.bool_],
        int,
        NDArray[np.float32],
        NDArray[np.float32],
        NDArray[np.int32],
    ]: ...
    def rollout(self, num_steps: int, actions: int, drawn: bool, outputs: Sequence[int]) -> int: ...
    def reset(self, mask: NDArray[np.bool_] | None = None) -> NDArray[np.float32]: ...

class CartPoleEnv:
    """One cart-pole."""

    def __new__(cls, params: Sequence[float], max_episode_steps: int, seed: int) -> Self: ...
    def reset(self, seed: int | None = None) -> NDArray[np.float32]: ...
    def step(self, action: int) -> dict[str, Any]: ...
    def render(self) -> str | None: ...

class CartPoleVec:
    """Many cart-poles that are reset in the step that ends an episode."""

    def __new__(
        cls, params: Sequence[float], max_episode_steps: int, seed: int, num_envs: int
    ) -> Self: ...
    def num_envs(self) -> int: ...
    def reset_all(self, seed: int | None = None) -> NDArray[np.float32]: ...
    def step_all(self, actions: list[int] | NDArray[Any]) -> dict[str, Any]: ...

# -- buffers ---------------------------------------------------------------------------------

def draw_slots(count: int, len: int, seed: int, step: int, /) -> NDArray[np.uint32]:
    """The slots that a uniform sample of a buffer of ``len`` transitions consists of."""

_Part = tuple[str | None, np.dtype[Any], list[int]]

class ReplayStore:
    """A ring of transitions."""

    def __new__(
        cls,
        capacity: int,
        obs: list[_Part],
        action: tuple[np.dtype[Any], list[int]],
        num_envs: int,
        deduplicate: bool,
        n_step: int,
        gamma: float,
        seed: int,
        /,
    ) -> Self: ...
    def push(
        self,
        obs: Any,
        action: Any,
        reward: float,
        terminated: bool,
        truncated: bool,
        next_obs: Any = None,
        *,
        env: int = 0,
    ) -> None: ...
    def push_batch(
        self,
        obs: Any,
        next_obs: Any,
        actions: Any,
        rewards: Any,
        terminated: Any,
        truncated: Any,
        *,
        envs: Any = None,
    ) -> None: ...
    def sample(
        self, batch_size: int, seed: int | None = None, *, out: dict[str, Any] | None = None
    ) -> dict[str, Any]: ...
    def sample_sequences(
        self,
        batch_size: int,
        length: int,
        *,
        stride: int = 1,
        burn_in: int = 0,
        seed: int | None = None,
        out: dict[str, Any] | None = None,
    ) -> dict[str, Any]: ...
    def sample_with_later(
        self, batch_size: int, share: float, seed: int | None = None
    ) -> tuple[dict[str, Any], dict[str, Any], NDArray[np.bool_]]: ...
    def clear(self) -> None: ...
    def contents(self) -> dict[str, NDArray[np.uint8]]: ...
    def restore(self, contents: dict[str, NDArray[np.uint8]]) -> None: ...
    def __len__(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def num_envs(self) -> int: ...

class PrioritizedStore(ReplayStore):
    """A ring of transitions with priorities."""

    def __new__(
        cls,
        capacity: int,
        obs: list[_Part],
        action: tuple[np.dtype[Any], list[int]],
        num_envs: int,
        deduplicate: bool,
        n_step: int,
        gamma: float,
        seed: int,
        alpha: float,
        beta: float,
        /,
    ) -> Self: ...
    def push(
        self,
        obs: Any,
        action: Any,
        reward: float,
        terminated: bool,
        truncated: bool,
        next_obs: Any = None,
        priority: float | None = None,
        *,
        env: int = 0,
    ) -> None: ...
    def push_batch(
        self,
        obs: Any,
        next_obs: Any,
        actions: Any,
        rewards: Any,
        terminated: Any,
        truncated: Any,
        priorities: Any = None,
        *,
        envs: Any = None,
    ) -> None: ...
    def update_priorities(self, indices: Any, priorities: Any) -> None: ...
    def set_beta(self, beta: float) -> None: ...
    @property
    def alpha(self) -> float: ...
    @property
    def beta(self) -> float: ...
    @property
    def total_weight(self) -> float: ...
