"""L-BFGS for many small problems at once: shared evaluations, one line search per problem."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

ARMIJO = 1e-4
BACKTRACK = 0.4


class Loss(Protocol):
    """Loss `[G]` and gradient of G problems, which can be narrowed to some of them."""

    def select(self, kept: Tensor) -> Loss:
        """The loss of the problems `kept`, an index."""
        ...

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Loss float64 `[G]` and gradient."""
        ...

    def gap(self, position: Tensor, gradient: Tensor) -> Tensor:
        """How far above its minimum the loss is at most, float64 `[G]`."""
        ...


class InverseHessian(Protocol):
    """A positive definite linear map per problem, which can be narrowed to some of them."""

    def select(self, kept: Tensor) -> InverseHessian:
        """The maps of the problems `kept`, an index."""
        ...

    def __call__(self, gradient: Tensor) -> Tensor:
        """The maps applied."""
        ...


@dataclass(frozen=True)
class Objective:
    """Loss and gradient, an approximate inverse Hessian, and which coordinates may move (broadcastable bool)."""

    loss: Loss
    precondition: InverseHessian
    free: Tensor

    def evaluate(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Loss float64 `[G]` and gradient, zero at coordinates that may not move."""
        value, gradient = self.loss(position)
        return value, gradient * self.free

    def select(self, kept: Tensor) -> Objective:
        """The objective of some of the problems."""
        return Objective(self.loss.select(kept), self.precondition.select(kept), self.free[kept])


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where the problems ended: position, value `[G]`, evaluations `[G]`, converged `[G]`."""

    position: Tensor
    value: Tensor
    evaluations: Tensor
    converged: Tensor


@dataclass
class _State:
    """The problems still running; `number` are their places in the batch."""

    number: Tensor
    position: Tensor
    value: Tensor
    gradient: Tensor
    direction: Tensor
    slope: Tensor
    step: Tensor
    lowest: Tensor
    waited: Tensor
    pairs: deque[tuple[Tensor, Tensor, Tensor]]

    def keep(self, kept: Tensor) -> None:
        for name in ("number", "position", "value", "gradient", "direction", "slope", "step", "lowest", "waited"):
            setattr(self, name, getattr(self, name)[kept])
        pairs = [(s[kept], y[kept], rho[kept]) for s, y, rho in self.pairs]
        self.pairs = deque(pairs, maxlen=self.pairs.maxlen)


def minimize(
    objective: Objective,
    begin: Tensor,
    *,
    history: int,
    max_iterations: int,
    tolerance: float,
    progress: Callable[[int], None],
    stall: int | None = None,
) -> Minimum:
    """Minimise G smooth convex functions of `[G, ...]`, each until its loss is within `tolerance` of the least.

    Every evaluation tries one step of all problems that still run; where a step does not lower the loss enough (Armijo)
    it is shortened and tried again in the next one. Problems that are done are taken out, so work follows need; with `stall`
    also those whose loss has not fallen by more than rounding in so many evaluations, which have not converged.

    Nocedal and Wright, "Numerical Optimization" (2006), algorithm 7.4, with the given inverse Hessian as `H_0`.
    """
    groups = len(begin)
    result = Minimum(
        begin.clone(),
        begin.new_zeros(groups, dtype=torch.float64),
        torch.zeros(groups, dtype=torch.int64, device=begin.device),
        torch.zeros(groups, dtype=torch.bool, device=begin.device),
    )
    value, gradient = objective.evaluate(begin)
    number = torch.arange(groups, device=begin.device)
    waited = torch.zeros_like(number)
    state = _State(number, begin, value, gradient, gradient, value, value, value, waited, deque(maxlen=history))
    _aim(state, objective)
    rounding = 10 * torch.finfo(begin.dtype).eps
    for evaluation in range(1, max_iterations + 1):
        done = objective.loss.gap(state.position, state.gradient) <= tolerance
        # A step this short no longer changes float32 weights: rounding allows no more, which is not convergence.
        stuck = state.step < 1e-6
        if stall is not None:
            fell = state.value < state.lowest - rounding * state.lowest.abs()
            state.lowest = torch.where(fell, state.value, state.lowest)
            state.waited = torch.where(fell, 0, state.waited + 1)
            stuck |= state.waited > stall
        over = done | stuck
        if evaluation == max_iterations:
            over = torch.ones_like(over)
        if bool(over.any()):
            _record(result, state, over, done, evaluation)
            progress(groups - int((~over).sum()))
            kept = (~over).nonzero().squeeze(1)
            if not len(kept):
                break
            objective = objective.select(kept)
            state.keep(kept)
        _advance(state, objective)
    return result


def _record(result: Minimum, state: _State, over: Tensor, converged: Tensor, evaluation: int) -> None:
    places = state.number[over]
    result.position[places] = state.position[over]
    result.value[places] = state.value[over]
    result.evaluations[places] = evaluation
    result.converged[places] = converged[over]


def _advance(state: _State, objective: Objective) -> None:
    """Try the current step of every problem; accept it, or shorten it."""
    trial = state.position + _wide(state.step, state.direction) * state.direction
    value, gradient = objective.evaluate(trial)
    rounding = 1e-7 * state.value.abs() if trial.dtype == torch.float32 else 0.0
    accepted = value <= state.value + ARMIJO * state.step * state.slope + rounding
    wide = _wide(accepted, trial)
    s = torch.where(wide, trial - state.position, 0.0)
    y = torch.where(wide, gradient - state.gradient, 0.0)
    curvature = _dot(s, y)
    useful = curvature > 1e-10 * _dot(y, y)
    rho = torch.where(useful, 1 / curvature, 0.0)
    state.position = torch.where(wide, trial, state.position)
    state.gradient = torch.where(wide, gradient, state.gradient)
    state.value = torch.where(accepted, value, state.value)
    if bool(accepted.any()):
        state.pairs.append((s, y, rho))
        shortened = state.step * BACKTRACK, state.direction, state.slope
        _aim(state, objective)
        state.step = torch.where(accepted, state.step, shortened[0])
        state.direction = torch.where(wide, state.direction, shortened[1])
        state.slope = torch.where(accepted, state.slope, shortened[2])
    else:
        state.step = state.step * BACKTRACK


def _aim(state: _State, objective: Objective) -> None:
    """New directions by the two-loop recursion, and full steps along them."""
    q = state.gradient.clone()
    alphas = []
    for s, y, rho in reversed(state.pairs):
        alpha = rho * _dot(s, q)
        q -= _wide(alpha, q) * y
        alphas.append(alpha)
    r = objective.precondition(q)
    if state.pairs:
        s, y, rho = state.pairs[-1]
        size = _dot(y, objective.precondition(y))
        scale = torch.where((rho > 0) & (size > 0), 1 / (rho * size).clamp(min=1e-30), 1.0)
        r = r * _wide(scale, r)
    for (s, y, rho), alpha in zip(state.pairs, reversed(alphas), strict=True):
        r += _wide(alpha - rho * _dot(y, r), r) * s
    state.direction = -r
    state.slope = _dot(state.gradient, state.direction)
    state.step = torch.ones_like(state.value)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1, dtype=torch.float64)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """Values `[G]` shaped to scale `[G, ...]`, in its dtype unless they are bools."""
    shaped = values.view(-1, *[1] * (like.ndim - 1))
    return shaped if shaped.dtype == torch.bool else shaped.to(like.dtype)
