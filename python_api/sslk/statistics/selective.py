"""How well a score tells which samples will be right: areas under the ROC, precision-recall and risk-coverage curves.

All samples are ranked by a score, the highest first; a classifier that answers only the first k of N has coverage `k / N`.
With `e_i = 1` where the sample of rank i is wrong, `E_k = e_1 + ... + e_k`:

* selective risk `r_k = E_k / k`, generalised risk `E_k / N`;
* **AURC** `= 1/N sum_k r_k`, the mean over the N coverages (Geifman, Uziel and El-Yaniv 2019; the curve is that of El-Yaniv
  and Wiener 2010 and of Geifman and El-Yaniv 2017). Low is good;
* **E-AURC** = AURC less that of the best possible order of these N samples, all right ones first:
  `1/N sum_{k > n} (k - n) / k` for n right ones. It is the exact sum and not its limit `(1 - a) + a ln a` of large N, a = n / N;
* **AUGRC** = area under the generalised risk over coverage, by the trapezoid from (0, 0) (Traub et al. 2024). It equals
  `(1 - AUROC) a (1 - a) + (1 - a)^2 / 2` exactly. Low is good;
* **FPR at 95 % TPR**: positive is right. At the highest threshold that keeps at least 95 % of the right samples, the share of
  the wrong ones that it keeps too; a threshold keeps all samples of its score, and nothing is interpolated. Low is good.

Samples of equal score have no order. The areas are then the expectation over all orders among them: `r_k` inside a tie of g
samples, m of them wrong, behind a others is `(E_a + (k - a) m / g) / k`, whose sum over the tie is
`m + (E_a - a m / g) (H_{a+g} - H_a)` with the harmonic numbers H. So no measure depends on the order of the input. (Read with
every sample's own score as threshold, as the definition of 2019 may be, a tie has the risk of the whole tie; other code takes
the trapezoid between thresholds. Without ties all are the same.)
"""

from __future__ import annotations

import torch
from torch import Tensor

MEASURES = ("AUROC", "AUPRC", "AURC", "E-AURC", "AUGRC", "FPR at 95 % TPR")


class Ranking:
    """Samples in the order of a score, the highest first.

    Args:
        scores: `[N]`; higher should mean right.
        correct: bool `[N]`.

    Attributes:
        order: int64 `[N]`, the samples in descending order of their score.
        last: int64 `[T]`, the last place of every distinct score.

    >>> ranking = Ranking(torch.tensor([0.9, 0.2, 0.9, 0.5]), torch.tensor([True, False, True, False]))
    >>> ranking.order.tolist(), ranking.last.tolist()
    ([0, 2, 3, 1], [1, 2, 3])
    """

    def __init__(self, scores: Tensor, correct: Tensor) -> None:
        values = scores.detach().cpu().double()
        self.order = values.argsort(descending=True, stable=True)
        _, sizes = torch.unique_consecutive(values[self.order], return_counts=True)
        self.last = sizes.cumsum(0) - 1
        self._right = correct.detach().cpu()[self.order].float()

    def counts(self, times: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Right and wrong samples down to every distinct score, none at first: float64 `[B, T + 1]` each.

        Args:
            times: `[B, N]`, how often each sample occurs in each resample; every sample once by default.
        """
        ordered = torch.ones(1, len(self.order)) if times is None else times[:, self.order]
        right = (ordered * self._right).cumsum(1, dtype=torch.float64)[:, self.last]
        both = ordered.cumsum(1, dtype=torch.float64)[:, self.last]
        zero = right.new_zeros(len(right), 1)
        return torch.cat([zero, right], 1), torch.cat([zero, both - right], 1)

    def measures(self, times: Tensor | None = None, *, areas_only: bool = False) -> Tensor:
        """All measures, float64 `[B, 6]` in the order of `MEASURES`; NaN where they need a right or a wrong sample.

        Args:
            times: as for `counts`.
            areas_only: AUROC and AUPRC alone, `[B, 2]`.

        >>> ranking = Ranking(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([True, False, True]))
        >>> dict(zip(MEASURES, ranking.measures()[0].mul(1000).round().tolist(), strict=True))
        {'AUROC': 500.0, 'AUPRC': 833.0, 'AURC': 278.0, 'E-AURC': 167.0, 'AUGRC': 167.0, 'FPR at 95 % TPR': 1000.0}
        """
        hits, misses = self.counts(times)
        right, wrong = hits[:, -1:], misses[:, -1:]
        gained, lost = hits.diff(dim=1), misses.diff(dim=1)
        auroc = torch.trapezoid(hits, misses, dim=1) / (right * wrong).squeeze(1)
        precision = hits[:, 1:] / (hits + misses)[:, 1:].clamp(min=1)
        auprc = (gained * precision).sum(1) / right.squeeze(1)
        if areas_only:
            return torch.stack([auroc, auprc], 1)
        return torch.stack([auroc, auprc, *_risks(hits, misses, gained, lost), _false_rate(hits, misses)], 1)


def _risks(hits: Tensor, misses: Tensor, gained: Tensor, lost: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """AURC, E-AURC and AUGRC, each `[B]`."""
    covered = (hits + misses).long()
    samples, right = covered[:, -1], hits[:, -1]
    harmonic = torch.zeros(int(samples.max()) + 1, dtype=torch.float64)
    harmonic[1:] = torch.arange(1, len(harmonic), dtype=torch.float64).reciprocal().cumsum(0)
    tie, before = gained + lost, misses[:, :-1]
    slope = lost / tie.clamp(min=1)
    reached = harmonic.take(covered)
    risk = (lost + (before - covered[:, :-1] * slope) * reached.diff(dim=1)).sum(1) / samples
    best = (misses[:, -1] - right * (reached[:, -1] - harmonic[right.long()])) / samples
    general = (tie * (before + lost / 2)).sum(1) / samples.double().square()
    return risk, risk - best, general


def _false_rate(hits: Tensor, misses: Tensor) -> Tensor:
    """Share of the wrong samples at or above the highest threshold that keeps 95 % of the right ones, `[B]`."""
    enough = 20 * hits[:, 1:] >= 19 * hits[:, -1:]  # in whole numbers: 0.95 has no exact floating-point value
    kept = misses[:, 1:].gather(1, enough.float().argmax(1, keepdim=True)).squeeze(1)
    return torch.where(hits[:, -1] > 0, kept / misses[:, -1], torch.nan)


def risk_coverage(scores: Tensor, correct: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coverage, selective risk and generalised risk at every distinct score, the highest first, each float64 `[T]`.

    >>> risk_coverage(torch.tensor([3.0, 2.0, 2.0]), torch.tensor([True, False, True]))[1].tolist()
    [0.0, 0.3333333333333333]
    """
    hits, misses = (part[0, 1:] for part in Ranking(scores, correct).counts())
    covered = hits + misses
    return covered / len(correct), misses / covered, misses / len(correct)
