"""Binary logistic regressions of many labels on shared rows, some of their entries unknown; trained as one batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from sslk.probes.lbfgs import Objective, minimize

HISTORY = 8
MEMORY_BYTES = 2 << 30  # of optimiser state; more problems than fit are solved in groups
LOGIT_BYTES = 64 << 20
_COVARIANCE_ROWS = 20_000


class LogisticLoss:
    """Loss and gradient of G regressions `[G, D + 1]` on rows `[N, D + 1]` whose last column is one.

    `f_g = sum_i w_ci (softplus(z_gi) - y_ci z_gi) + l2_g / 2 ||V_g[:-1]||^2` with `z_g = x V_g`, `c` the label of problem g and
    `w_ci = known_ci / |known_c|`.

    Args:
        x: `[N, D + 1]`.
        labels: int8 `[C, N]`: 1, 0, or -1 for unknown.
        member: int64 `[G]`, the label of every problem.
        l2: `[G]`.
    """

    def __init__(self, x: Tensor, labels: Tensor, member: Tensor, l2: Tensor) -> None:
        self.x, self.labels, self.member, self.l2 = x, labels, member, l2
        self.share = 1 / (labels >= 0).sum(1).to(x)

    def select(self, kept: Tensor) -> LogisticLoss:
        """The loss of some of the problems."""
        part = object.__new__(LogisticLoss)
        part.__dict__.update(self.__dict__)
        part.member, part.l2 = self.member[kept], self.l2[kept]
        return part

    def begin(self) -> Tensor:
        """Zero weights, and the log odds of every label."""
        position = self.x.new_zeros(len(self.member), self.x.shape[1])
        position[:, -1] = log_odds(self.labels).to(self.x)[self.member]
        return position

    def gap(self, position: Tensor, gradient: Tensor) -> Tensor:
        """Bound `[G]` on how far the loss lies above its minimum, in nats; as `SoftmaxLoss.gap`."""
        l2 = self.l2.double()
        moved = (gradient.abs() * (1 + position.abs())).double()
        weights = gradient[:, :-1].double().square().sum(1) / (2 * l2)
        return torch.where(l2 > 0, weights, moved[:, :-1].sum(1)) + moved[:, -1]

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Loss float64 `[G]` and gradient `[G, D + 1]`."""
        loss = position.new_zeros(len(position), dtype=torch.float64)
        gradient = torch.zeros_like(position)
        share = self.share[self.member, None]
        rows = max(1, LOGIT_BYTES // (position.itemsize * len(position)))
        for start in range(0, len(self.x), rows):
            x, y = self.x[start : start + rows], self.labels[:, start : start + rows]
            z = position @ x.T
            weight = (y >= 0).to(z)[self.member] * share
            target = (y > 0).to(z)[self.member]
            loss += ((functional.softplus(z) - target * z) * weight).sum(1, dtype=torch.float64)
            gradient.addmm_((z.sigmoid_() - target) * weight, x)
        loss += 0.5 * self.l2.double() * position[:, :-1].square().sum(1, dtype=torch.float64)
        gradient[:, :-1] += self.l2[:, None] * position[:, :-1]
        return loss, gradient


class BoundPreconditioner:
    """Inverse of Boehning's bound on the Hessian, `(1/4) X^T X / N + l2 I`; one factorisation per distinct penalty."""

    def __init__(self, x: Tensor, l2: Tensor) -> None:
        rows = x[:: max(1, len(x) // _COVARIANCE_ROWS)]
        bound = (rows.T @ rows).double() * (0.25 / len(rows))
        penalties, self.member = torch.unique(l2, return_inverse=True)
        self.inverses = []
        for penalty in penalties.tolist():
            block = bound.clone()
            block.diagonal().add_(penalty + 1e-6)  # collinear features without a penalty would leave it singular
            self.inverses.append(torch.cholesky_inverse(torch.linalg.cholesky(block)).to(x))

    def select(self, kept: Tensor) -> BoundPreconditioner:
        """The preconditioner of some of the problems."""
        part = object.__new__(BoundPreconditioner)
        part.inverses, part.member = self.inverses, self.member[kept]
        return part

    def __call__(self, gradient: Tensor) -> Tensor:
        """`P^-1 g` for gradients `[G, D + 1]`."""
        out = torch.empty_like(gradient)
        for number in self.member.unique().tolist():
            chosen = self.member == number
            out[chosen] = gradient[chosen] @ self.inverses[number]
        return out


def fit_labels(
    x: Tensor,
    labels: Tensor,
    l2: Tensor,
    *,
    tolerance: float,
    max_iterations: int,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Tensor, Tensor]:
    """One-vs-rest logistic regressions of C labels with each of L penalties, all as one batch.

    A label whose known entries are all 1, all 0 or none cannot be fitted: it keeps zero weights and its log odds as bias.

    Args:
        x: `[N, D]`, standardised.
        labels: int8 `[N, C]`: 1, 0, or -1 for unknown, which is left out.
        l2: `[L]`, weights of the penalty; biases are not penalised.
        tolerance, max_iterations: as of `FitSettings`.
        progress: called with the problems solved, of L C.

    Returns:
        Weights and biases `[L, C, D + 1]`, and whether each converged, bool `[L, C]`.

    >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]); y = torch.tensor([[0, 1], [0, 1], [1, 1], [-1, 1]]).to(torch.int8)
    >>> found, converged = fit_labels(x, y, torch.tensor([0.1]), tolerance=1e-6, max_iterations=100)
    >>> bool(found[0, 0, 0] > 0), found[0, 1, 0].item(), converged.tolist()
    (True, 0.0, [[True, True]])
    """
    count, penalties = labels.shape[1], len(l2)
    found = x.new_zeros(penalties, count, x.shape[1] + 1)
    found[..., -1] = log_odds(labels.T).to(x)
    converged = torch.ones(penalties, count, dtype=torch.bool, device=x.device)
    fitted = (((labels == 1).any(0)) & ((labels == 0).any(0))).nonzero().squeeze(1)
    problems = torch.cartesian_prod(torch.arange(penalties, device=x.device), fitted).reshape(-1, 2)
    if not len(problems):
        return found, converged
    rows = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    by_label, every_l2 = labels.T.contiguous(), l2.to(x)
    at_once = max(1, MEMORY_BYTES // ((2 * HISTORY + 6) * rows.shape[1] * x.itemsize))
    for part in problems.split(at_once):
        chosen = every_l2[part[:, 0]]
        loss = LogisticLoss(rows, by_label, part[:, 1], chosen)
        objective = Objective(loss, BoundPreconditioner(rows, chosen), x.new_ones(len(part), 1, dtype=torch.bool))
        result = minimize(
            objective, loss.begin(), history=HISTORY, max_iterations=max_iterations, tolerance=tolerance, progress=progress
        )
        found[part[:, 0], part[:, 1]] = result.position
        converged[part[:, 0], part[:, 1]] = result.converged
    return found, converged


def log_odds(labels: Tensor) -> Tensor:
    """Logarithm of the odds of 1 among the known entries of labels int8 `[C, N]`, float64 `[C]`; 0 where none is known."""
    known = (labels >= 0).sum(1).double()
    share = torch.where(known > 0, (labels == 1).sum(1).double() / known.clamp(min=1), 0.5)
    return share.clamp(1e-9, 1 - 1e-9).logit()
