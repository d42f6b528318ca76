"""Softmax regressions for a whole path of penalties: neighbours start from each other, a batch of them shares its products."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from sslk.probes.lbfgs import Minimum, Objective, minimize
from sslk.probes.logreg_rows import RotatedRows
from sslk.probes.settings import LogregSettings

HISTORY = 10
STALL = 40  # evaluations without progress: rounding allows no more
LOGIT_BYTES = 32 << 20
COLUMNS = {"cuda": 2048}  # of one product of matrices: fewer leave a GPU idle; more make neighbours start further away
CPU_COLUMNS = 64
_FARTHEST = 6.0  # steps that are extrapolated at most


class PathLoss:
    """Loss and gradient of G classifiers `[G, K, R + 1]` on rows `[N, R + 1]` whose last column is one.

    `f_g = (1 / N) sum_i CE(V_g z_i, y_i) + l2_g / 2 ||V_g[:, :-1]||^2`. The error of the right class is computed as minus the
    sum of the others: as `p - 1` it would be lost to rounding where the classifier is sure, which at a large C is everywhere.

    Args:
        z: `[N, R + 1]`, on the device or in the host's memory.
        targets: int64 `[N]` in [0, K), on the device.
        num_classes: K.
        l2: float64 `[G]`, on the device.
    """

    def __init__(self, z: Tensor, targets: Tensor, num_classes: int, l2: Tensor) -> None:
        self.z, self.targets, self.num_classes, self.l2 = z, targets, num_classes, l2

    def select(self, kept: Tensor) -> PathLoss:
        """The loss of some of the classifiers."""
        return PathLoss(self.z, self.targets, self.num_classes, self.l2[kept])

    def begin(self) -> Tensor:
        """The best constant classifier `[1, K, R + 1]`: zero weights, and the logarithm of every class's share."""
        position = self.z.new_zeros(1, self.num_classes, self.z.shape[1], device=self.targets.device)
        share = torch.bincount(self.targets, minlength=self.num_classes).double() / len(self.targets)
        # A class without rows would go to minus infinity, step by step; here nothing pulls it any more.
        position[..., -1] = share.clamp(min=2e-9).log().to(position)
        return position

    def gap(self, position: Tensor, gradient: Tensor) -> Tensor:
        """How far the weights are from the best at most, relative to their norm, float64 `[G]`: `||df|| / (l2 ||W||)`.

        `f` is `l2`-strongly convex in the weights, so `||W - W*|| <= ||df|| / l2`, and `f - f* <= ||df||^2 / (2 l2)`, which is
        the square of this times the penalty.
        """
        slope = gradient.flatten(1).double().norm(dim=1)
        return slope / (self.l2 * position[..., :-1].flatten(1).double().norm(dim=1)).clamp(min=1e-300)

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Loss float64 `[G]` and gradient `[G, K, R + 1]`."""
        groups, classes, width = position.shape
        flat = position.reshape(groups * classes, width)
        loss = position.new_zeros(groups, dtype=torch.float64)
        gradient = torch.zeros_like(flat)
        size = LOGIT_BYTES // (flat.itemsize * groups * classes)
        if self.z.device != flat.device:
            size = min(size, LOGIT_BYTES // (flat.itemsize * width))
        for z, y in zip(self.z.split(max(1, size)), self.targets.split(max(1, size)), strict=True):
            z = z.to(flat.device, non_blocking=True)
            # Rows last: the softmax over the few classes then runs along contiguous memory.
            logits = (flat @ z.T).view(groups, classes, len(z))
            value, error = _cross_entropy(logits, y.expand(groups, 1, -1))
            loss += value
            gradient.addmm_(error.view(groups * classes, len(z)), z)
        count = len(self.targets)
        gradient = gradient.view(groups, classes, width).div_(count)
        weights = position[..., :-1]
        gradient[..., :-1] += self.l2[:, None, None].to(weights) * weights
        return loss / count + 0.5 * self.l2 * weights.square().sum((1, 2), dtype=torch.float64), gradient


def _cross_entropy(logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Sums float64 `[G]` of the cross-entropy of logits `[G, K, N]`, which are overwritten, and its gradient."""
    logits -= logits.amax(1, keepdim=True)
    right = logits.gather(1, index)
    share = logits.exp_().scatter_(1, index, 0.0)
    others = share.sum(1, keepdim=True)
    total = others + right.exp()
    value = torch.where(right == 0, others.log1p(), total.log() - right).sum((1, 2), dtype=torch.float64)
    return value, share.scatter_(1, index, -others).div_(total)


class AxesPreconditioner:
    """Inverse of Boehning's bound on the Hessian, `(1/2) Z^T Z / N + l2 I`, which is diagonal in the axes of `Z`."""

    def __init__(self, spread: Tensor, l2: Tensor, dtype: torch.dtype) -> None:
        penalty = l2[:, None].repeat(1, len(spread))
        penalty[:, -1] = 0
        self.inverse = (1 / (0.5 * spread + penalty).clamp(min=1e-30)).to(dtype)[:, None]

    def select(self, kept: Tensor) -> AxesPreconditioner:
        """The preconditioner of some of the classifiers."""
        part = object.__new__(AxesPreconditioner)
        part.inverse = self.inverse[kept]
        return part

    def __call__(self, gradient: Tensor) -> Tensor:
        """`P^-1 g` for gradients `[G, K, R + 1]`."""
        return gradient * self.inverse


def batch_width(settings: LogregSettings, num_classes: int, columns: int, dtype: torch.dtype, device: torch.device) -> int:
    """How many values of C are trained as one batch."""
    wanted = settings.at_once or max(1, COLUMNS.get(device.type, CPU_COLUMNS) // num_classes)
    per_problem = (2 * HISTORY + 8) * num_classes * columns * dtype.itemsize
    return max(1, min(wanted, int(settings.memory * 2**30) // per_problem))


def fit_path(
    rows: RotatedRows,
    targets: Tensor,
    num_classes: int,
    strengths: Sequence[float],
    settings: LogregSettings,
    *,
    count: int | None = None,
    begin: Tensor | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[range, Minimum]]:
    """Multinomial logistic regressions with scikit-learn's penalty, for ascending values of C, batch by batch.

    Each minimises `C sum_i CE(V z_i, y_i) + 1/2 ||W||^2`, or with two classes, as scikit-learn does, the logistic loss of the
    one vector `w = w_1 - w_0`, whose penalty is twice that of the two halves. Every batch starts from the largest C before it.

    Args:
        rows: the features.
        targets: int64 `[N]` in [0, K), on the device where to compute.
        num_classes: K.
        strengths: values of C, ascending.
        settings: when a regression is done, and the memory for those that are trained at once.
        count: the first so many rows are trained on; all by default.
        begin: `[1, K, R + 1]`, where to start; the constant classifier by default.
        progress: called with the regressions done.

    Yields:
        Places in `strengths` and their classifiers; `converged` is whether the weights are within `tolerance` of the best.
    """
    count = len(targets) if count is None else count
    z, targets = rows.z[:count], targets[:count]
    device = targets.device
    factor = 2.0 if num_classes == 2 else 1.0
    l2 = factor / (torch.tensor(strengths, dtype=torch.float64, device=device) * count)
    exponents = torch.tensor(strengths, dtype=torch.float64).log()
    ends: list[Tensor] = []  # the last two classifiers found
    width = batch_width(settings, num_classes, z.shape[1], z.dtype, device)
    for start in range(0, len(strengths), width):
        part = l2[start : start + width]
        loss = PathLoss(z, targets, num_classes, part)
        free = torch.ones(len(part), 1, 1, dtype=torch.bool, device=device)
        objective = Objective(loss, AxesPreconditioner(rows.spread.to(device), part, z.dtype), free)
        if not start:
            position = (loss.begin() if begin is None else begin).repeat(len(part), 1, 1)
        else:
            position = _ahead(ends, exponents[max(0, start - 2) : start + len(part)])
        found = minimize(
            objective,
            position,
            history=HISTORY,
            max_iterations=settings.max_iterations,
            tolerance=settings.tolerance,
            progress=partial(_report, progress, start),
            stall=STALL,
        )
        ends = [*ends, *found.position[-2:].split(1)][-2:]
        yield range(start, start + len(part)), found


def _report(progress: Callable[[int], None], before: int, done: int) -> None:
    progress(before + done)


def _ahead(ends: list[Tensor], exponents: Tensor) -> Tensor:
    """Where the next values of C start: as the weights went from the last but one to the last, over log C, they go on."""
    last = ends[-1]
    if len(ends) < 2:
        return last.repeat(len(exponents) - 1, 1, 1)
    steps = (exponents[2:] - exponents[1]) / (exponents[1] - exponents[0])
    return last + steps.clamp(max=_FARTHEST).to(last)[:, None, None] * (last - ends[0])
