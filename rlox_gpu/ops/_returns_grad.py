"""The estimators as differentiable operations around one scan.

What autograd has to see is written out: selections, products, and ``x[t] = a[t] x[t + 1] + b[t]``,
whose backward pass is its transpose, ``x[t] = a[t - 1] x[t - 1] + b[t]``. Steps that do not exist
are replaced by zeros before anything is computed from them, so that no NaN gets into a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad

from .. import _dispatch, _rust
from ._returns_checks import Inputs
from ._returns_specs import DISCOUNTED_RETURNS, ELIGIBILITY_TRACES, Spec

_Results = tuple[torch.Tensor, ...]


def differentiable(spec: Spec, inputs: Inputs, scalars: list[float], time_dim: int) -> _Results:
    """The results of one estimator, in the graph of its inputs."""
    count = len(spec.steps)
    like = inputs[0]
    terminated, boundary, truncated, final_values, *ragged = inputs[count:-2]
    if like.numel() == 0:
        return tuple(like.clone() for _ in spec.results)
    dim = 0 if like.ndim == 1 or time_dim == 0 else 1
    dtype = torch.float64 if like.dtype is torch.float64 else torch.float32
    where = _Steps(like, dim, *ragged)

    def clean(x: Any) -> Any:
        return None if x is None else where.clean(x.to(dtype))

    numbers = dict(zip(spec.numbers, scalars, strict=True))
    for name, rate in zip(spec.numbers, inputs[-2:], strict=False):
        if rate is not None:
            numbers[name] = clean(rate)
    call = _Call(
        where,
        [clean(x) for x in inputs[:count]],
        terminated != 0,
        None if truncated is None else truncated != 0,
        clean(final_values),
        None if boundary is None else where.of_trajectory(boundary.to(dtype)),
        numbers,
    )
    return tuple(where.clean(x).to(like.dtype) for x in _ESTIMATORS[spec.name](call))


class _Call(NamedTuple):
    """What an estimator is made of; ``last`` is the number of each step's trajectory."""

    where: _Steps
    steps: list[torch.Tensor]
    ended: torch.Tensor
    stopped: torch.Tensor | None
    final: torch.Tensor | None
    last: torch.Tensor | None
    numbers: dict[str, Any]

    @property
    def cut(self) -> torch.Tensor:
        return self.ended if self.stopped is None else self.ended | self.stopped

    def bootstrap(self, values: torch.Tensor | None) -> torch.Tensor:
        """``V'``; of None only what stands behind the ends."""
        assert self.last is not None, "only traces do without last_values"
        following = self.where.following(values, self.last)
        if self.stopped is not None and self.final is not None:
            following = torch.where(self.stopped, self.final, following)
        return torch.where(self.ended, 0.0, following)


class _Steps:
    """Which steps exist, and which follow each other."""

    def __init__(
        self, like: torch.Tensor, dim: int, mask: Any, lengths: Any, cu_seqlens: Any
    ) -> None:
        self.dim = dim
        self.count = like.shape[dim]
        self.shape = like.shape
        self.sequence: torch.Tensor | None = None
        self.valid = None if mask is None else mask != 0
        times = torch.arange(self.count, device=like.device)
        self.times = times if like.ndim == 1 else times.unsqueeze(1 - dim)
        if lengths is not None:
            inside = self.times < lengths.unsqueeze(dim)
            self.valid = inside if self.valid is None else self.valid & inside
        if cu_seqlens is not None:
            self.sequence = torch.searchsorted(cu_seqlens[1:], times, right=True, out_int32=False)
        if self.valid is not None or self.sequence is not None:
            self.next = self._next_steps(like)

    def _next_steps(self, like: torch.Tensor) -> torch.Tensor:
        """The index of the step that follows each one, ``count`` where there is none."""
        end = self.count
        here = self.times.expand(self.shape)
        if self.valid is not None:
            here = torch.where(self.valid, here, end)
        nearest = here.flip(self.dim).cummin(self.dim).values.flip(self.dim)
        behind = torch.full_like(nearest.narrow(self.dim, 0, 1), end)
        following = torch.cat([nearest.narrow(self.dim, 1, end - 1), behind], self.dim)
        if self.sequence is None:
            return following
        inside = following < end
        theirs = self.sequence[following.clamp(max=end - 1)]
        return torch.where(inside & (theirs == self.sequence), following, end)

    def clean(self, x: torch.Tensor) -> torch.Tensor:
        """``x``, and zero where there is no step."""
        return x if self.valid is None else torch.where(self.valid, x, 0.0)

    def of_trajectory(self, x: torch.Tensor) -> torch.Tensor:
        """One number per trajectory, as the number of each of its steps."""
        if self.sequence is not None:
            return x[self.sequence]
        return x.unsqueeze(self.dim).expand(self.shape)

    def following(self, x: torch.Tensor | None, last: torch.Tensor) -> torch.Tensor:
        """``x`` of the next step, ``last`` behind the last one; zero inside if ``x`` is None."""
        if self.valid is None and self.sequence is None:
            inside = torch.zeros_like(last) if x is None else x
            parts = [inside.narrow(self.dim, 1, self.count - 1), last.narrow(self.dim, 0, 1)]
            return torch.cat(parts, self.dim)
        if x is None:
            return torch.where(self.next == self.count, last, 0.0)
        ahead = x.gather(self.dim, self.next.clamp(max=self.count - 1))
        return torch.where(self.next == self.count, last, ahead)

    def scan(
        self, decays: Any, cut: torch.Tensor, offsets: torch.Tensor, forward: bool = False
    ) -> torch.Tensor:
        """The recurrence over the steps that exist; nothing crosses a cut."""
        if not isinstance(decays, torch.Tensor):
            decays = torch.full_like(offsets, decays)
        decays = torch.where(cut, 0.0, decays)
        if self.valid is not None:
            decays = torch.where(self.valid, decays, 1.0)
        if self.sequence is not None:
            last = pad(self.sequence[1:] != self.sequence[:-1], (0, 1), value=True)
            decays = torch.where(last, 0.0, decays)
        x: torch.Tensor = _scan_op(decays, offsets, self.dim, forward)
        return x

    def first(self) -> torch.Tensor:
        """The place in which each trajectory starts, whether its step exists or not."""
        if self.sequence is None:
            return (self.times == 0).expand(self.shape)
        return pad(self.sequence[1:] != self.sequence[:-1], (1, 0), value=True)


def _advantages(call: _Call, gamma: Any, trace: Any) -> torch.Tensor:
    rewards, values = call.steps
    delta = rewards + gamma * call.bootstrap(values) - values
    return call.where.scan(gamma * trace, call.cut, call.where.clean(delta))


def _gae(call: _Call) -> _Results:
    advantages = _advantages(call, call.numbers["gamma"], call.numbers["gae_lambda"])
    return advantages, advantages + call.steps[1]


def _td_lambda_returns(call: _Call) -> _Results:
    return (_advantages(call, call.numbers["gamma"], call.numbers["td_lambda"]) + call.steps[1],)


def _discounted_returns(call: _Call) -> _Results:
    gamma = call.numbers["gamma"]
    offsets = call.steps[0] + gamma * call.bootstrap(None)
    return (call.where.scan(gamma, call.cut, call.where.clean(offsets)),)


def _n_step_returns(call: _Call) -> _Results:
    rewards, returns = call.steps
    for _ in range(min(int(call.numbers["n"]), call.where.count)):
        returns = call.where.clean(rewards + call.numbers["gamma"] * call.bootstrap(returns))
    return (returns,)


def _vtrace(call: _Call) -> _Results:
    log_rhos, rewards, values = call.steps
    gamma, rho_bar, c_bar = call.numbers.values()
    ratios = log_rhos.exp()
    rho, c = ratios.clamp(max=rho_bar), ratios.clamp(max=c_bar)
    delta = rho * (rewards + gamma * call.bootstrap(values) - values)
    targets = values + call.where.scan(gamma * c, call.cut, call.where.clean(delta))
    targets = call.where.clean(targets)
    return targets, rho * (rewards + gamma * call.bootstrap(targets) - values)


def _retrace(call: _Call) -> _Results:
    log_rhos, rewards, q_values, values = call.steps
    gamma, trace = call.numbers.values()
    delta = rewards + gamma * call.bootstrap(values) - q_values
    next_trace = call.where.following(
        trace * log_rhos.exp().clamp(max=1.0), torch.zeros_like(delta)
    )
    return (q_values + call.where.scan(gamma * next_trace, call.cut, call.where.clean(delta)),)


def _eligibility_traces(call: _Call) -> _Results:
    (x,) = call.steps
    gamma, trace = call.numbers.values()
    if call.last is not None:
        x = x + torch.where(call.where.first(), call.last, 0.0)
    return (call.where.scan(gamma * trace, call.cut, x, forward=True),)


_ESTIMATORS: dict[str, Callable[[_Call], _Results]] = {
    "gae": _gae,
    "discounted_returns": _discounted_returns,
    "td_lambda_returns": _td_lambda_returns,
    "n_step_returns": _n_step_returns,
    "vtrace": _vtrace,
    "retrace": _retrace,
    "eligibility_traces": _eligibility_traces,
}


# ``forward`` false: x[t] = offsets[t] + decays[t] x[t + 1]. True, its transpose:
# x[t] = offsets[t] + decays[t - 1] x[t - 1]. Outside there are zeros.


def _scan_rust(
    decays: torch.Tensor, offsets: torch.Tensor, dim: int, forward: bool
) -> torch.Tensor:
    x = torch.empty_like(offsets)
    spec = ELIGIBILITY_TRACES if forward else DISCOUNTED_RETURNS
    code = 3 if x.dtype is torch.float64 else 2
    no_flags = torch.zeros(1, dtype=torch.uint8).expand(x.shape)
    last = torch.zeros((), dtype=x.dtype).expand(() if x.ndim == 1 else (x.shape[1 - dim],))
    arrays: list[Any] = [
        (offsets.data_ptr(), offsets.stride(), code),
        (no_flags.data_ptr(), no_flags.stride(), 4),
        (last.data_ptr(), last.stride(), code),
        *[None] * 5,
        (decays.data_ptr(), decays.stride(), code),
        None,
    ]
    numbers = [1.0] * len(spec.numbers)
    results = [(x.data_ptr(), x.stride(), code)]
    _rust.estimate_raw(spec.code, arrays, results, x.shape, 0, dim, numbers)
    return x


@torch.no_grad()
def _scan_triton(
    decays: torch.Tensor, offsets: torch.Tensor, dim: int, forward: bool
) -> torch.Tensor:
    from ..kernels.returns import launch_discounted_returns, launch_eligibility_traces

    x = torch.empty_like(offsets)
    if x.numel() == 0:
        return x
    a, b, to = (
        y.unsqueeze(1) if y.ndim == 1 else y if dim == 0 else y.T for y in (decays, offsets, x)
    )
    if forward:
        launch_eligibility_traces(b, None, None, None, to, a, 1.0)
    else:
        launch_discounted_returns(b, None, None, None, None, to, a)
    return x


def _scan_fake(
    decays: torch.Tensor, offsets: torch.Tensor, dim: int, forward: bool
) -> torch.Tensor:
    _dispatch.same_device(offsets, decays)
    return torch.empty_like(offsets)


def _setup(ctx: Any, inputs: Any, output: torch.Tensor) -> None:
    decays, _, ctx.dim, ctx.forward = inputs
    ctx.save_for_backward(decays, output)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    decays, x = ctx.saved_tensors
    dim, count = ctx.dim, x.shape[ctx.dim]
    back = _scan_op(decays, grad, dim, not ctx.forward)
    if not ctx.needs_input_grad[0]:
        return None, back, None, None
    # Each decay joins a step with the next: one of them is moved to where the other is.
    earlier, later = (x, back) if ctx.forward else (back, x)
    joined = earlier.narrow(dim, 0, count - 1) * later.narrow(dim, 1, count - 1)
    end = torch.zeros_like(x.narrow(dim, 0, 1))
    return torch.cat([joined, end], dim), back, None, None


_scan_op = _dispatch.register(
    "linear_scan(Tensor decays, Tensor offsets, int dim, bool forward) -> Tensor",
    cpu=_scan_rust,
    cuda=_scan_triton,
    fake=_scan_fake,
    setup_context=_setup,
    backward=_backward,
)
