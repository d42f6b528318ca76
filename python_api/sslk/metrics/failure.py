"""How well a score predicts which samples a classifier gets right: exact AUROC and AUPRC."""

import torch
from torch import Tensor

from sslk.metrics.exact import ExactMetric


class _Failure(ExactMetric):
    """Keeps the scores and outcomes of all samples: 16 bytes each, since exact curves need them all."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    scores: list[Tensor]
    correct: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.set_dtype(torch.float64)  # also of the empty tensor that torchmetrics sends for a rank without data
        self.add_state("scores", [], dist_reduce_fx="cat", persistent=True)
        self.add_state("correct", [], dist_reduce_fx="cat", persistent=True)

    def update(self, scores: Tensor, correct: Tensor) -> None:
        """Add scores `[n]` and whether the classifier was right, bool `[n]`.

        Raises:
            ValueError: the shapes differ, correct is not bool, or a score is NaN.
        """
        if scores.shape != correct.shape or scores.dim() != 1 or correct.dtype != torch.bool:
            raise ValueError(
                f"scores must be [n] and correct bool [n], got {list(scores.shape)} and {correct.dtype} {list(correct.shape)}."
            )
        if (missing := int(scores.isnan().sum())) > 0:
            raise ValueError(f"scores must not be NaN, got {missing} of {len(scores)}: leave those samples out.")
        self.scores.append(scores.detach().double())
        self.correct.append(correct.double())

    def thresholds(self) -> tuple[Tensor, Tensor, Tensor]:
        """Distinct scores, descending, with the correct and incorrect samples at or above each; float64."""
        scores, correct = _joined(self.scores), _joined(self.correct)
        order = scores.argsort(descending=True, stable=True)
        levels, sizes = torch.unique_consecutive(scores[order], return_counts=True)
        last = sizes.cumsum(0) - 1
        hits = correct[order].cumsum(0)[last]
        return levels, hits, last + 1 - hits


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    """A list state is one tensor after a synchronisation, and may be empty before."""
    if isinstance(state, Tensor):
        return state
    return torch.cat(state) if state else torch.zeros(0, dtype=torch.float64)


class FailureAUROC(_Failure):
    """Area under the ROC curve of a score, positive class: the classifier was right. Ties count half.

    `update(scores, correct)` takes `[n]` and bool `[n]`; scores of any range. `compute()` gives a float64 scalar, NaN
    where one class is missing; `curve()` the points.

    Examples:
        >>> auroc = FailureAUROC()
        >>> auroc.update(torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([True, True, False, False]))
        >>> auroc.compute().item()
        0.875
    """

    def curve(self) -> tuple[Tensor, Tensor]:
        """False and true positive rates, ascending from (0, 0) to (1, 1); float64."""
        _, hits, misses = self.thresholds()
        zero = hits.new_zeros(1)
        return torch.cat([zero, misses / misses[-1:]]), torch.cat([zero, hits / hits[-1:]])

    def compute(self) -> Tensor:
        """The area."""
        false_positive, true_positive = self.curve()
        if len(false_positive) == 1:
            return torch.full((), torch.nan, dtype=torch.float64)
        return torch.trapezoid(true_positive, false_positive)


class FailureAUPRC(_Failure):
    """Average precision of a score, positive class: the classifier was right.

    `sum_k (R_k - R_{k-1}) P_k` over the distinct scores, as scikit-learn's `average_precision_score`. A score that
    knows nothing reaches the accuracy. `update(scores, correct)` takes `[n]` and bool `[n]`; `compute()` gives a
    float64 scalar, NaN where nothing is correct; `curve()` the points.

    Examples:
        >>> auprc = FailureAUPRC()
        >>> auprc.update(torch.tensor([0.9, 0.5, 0.1]), torch.tensor([True, False, True]))
        >>> round(auprc.compute().item(), 4)
        0.8333
    """

    def curve(self) -> tuple[Tensor, Tensor]:
        """Recall, ascending, and precision at every distinct score; float64."""
        _, hits, misses = self.thresholds()
        return hits / hits[-1:], hits / (hits + misses)

    def compute(self) -> Tensor:
        """The average precision."""
        recall, precision = self.curve()
        if not len(recall):
            return torch.full((), torch.nan, dtype=torch.float64)
        return (recall.diff(prepend=recall.new_zeros(1)) * precision).sum()
