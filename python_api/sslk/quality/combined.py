"""What a score adds to others: logistic regressions on scores with it and without it, judged on answers they have not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslk.statistics.bootstrap import Interval, bootstrap_measures, percentile_interval
from sslk.statistics.selective import MEASURES, Ranking


@dataclass(frozen=True, eq=False)
class Combination:
    """Two combinations of scores, with and without one of them.

    Attributes:
        names: of the scores, the one in question first.
        with_it, without_it: float64 `[N]`, log-odds of being right, each from a regression fitted on other samples.
        measures: of both, by `with` and `without`, then by name of the measure.
        gains: of the combination with it less that without it, by name of the measure, on the same resamples.
        coefficients: of the regression on all samples, per standard deviation of each score, by name.
        folds: of the cross-fitting.
    """

    names: tuple[str, ...]
    with_it: Tensor
    without_it: Tensor
    measures: dict[str, dict[str, Interval]]
    gains: dict[str, Interval]
    coefficients: dict[str, Interval]
    folds: int


def combined(
    scores: Mapping[str, Tensor], correct: Tensor, first: str = "Q-Score", *, folds: int = 5, resamples: int = 1000, seed: int = 0
) -> Combination:
    """Fit logistic regressions on scores with `first` and without it, each fold judged by a fit on the others.

    The answers (and through them labels) are used for the fits: a combination of label-free scores is not label-free. Scores
    are standardised by the samples of the fit; scikit-learn's `LogisticRegression` with its default penalty, C = 1. Folds are
    drawn by class, so that the share of right samples is the same in all. The bootstrap draws the out-of-fold log-odds and
    does not fit again. Intervals of the coefficients are Wald's, +- 1.96 standard errors of the penalised likelihood.

    Args:
        scores: finite `[N]` by name, `first` and at least one other.
        correct: bool `[N]`.
        first: the score in question.
        folds: at least 2; no more than the rarer answer has samples.
        resamples, seed: of the bootstrap; the seed also draws the folds.

    Raises:
        ValueError: `first` or another score is missing, or there are too few samples for the folds.

    >>> generator = torch.Generator().manual_seed(0)
    >>> right = torch.rand(600, generator=generator) < 0.6
    >>> told, noise = torch.randn(600, generator=generator) + right, torch.randn(600, generator=generator)
    >>> found = combined({"Q-Score": told, "noise": noise}, right, resamples=200)
    >>> found.gains["AUROC"].low > 0.1, found.coefficients["Q-Score"].low > 0.5
    (True, True)
    """
    names = (first, *(name for name in scores if name != first))
    if first not in scores or len(names) < 2:
        raise ValueError(f"scores must hold {first} and another score, got {', '.join(scores) or 'none'}.")
    right = correct.cpu().numpy().astype(bool)
    rarer = int(min(right.sum(), (~right).sum()))
    if not 2 <= folds <= rarer:
        raise ValueError(f"folds must lie in [2, {rarer}], the samples of the rarer answer, got {folds}.")
    columns = np.stack([scores[name].detach().cpu().double().numpy() for name in names], 1)
    if not np.isfinite(columns).all():
        raise ValueError("scores must be finite: leave the samples without a score out first.")
    odds = {"with": _cross_fitted(columns, right, folds, seed), "without": _cross_fitted(columns[:, 1:], right, folds, seed)}
    drawn = bootstrap_measures(odds, correct, resamples, seed)
    values = {which: Ranking(part, correct.cpu()).measures()[0].tolist() for which, part in odds.items()}
    measures = {
        which: {name: percentile_interval(values[which][c], drawn[which][:, c]) for c, name in enumerate(MEASURES)}
        for which in odds
    }
    gains = {
        name: percentile_interval(values["with"][c] - values["without"][c], drawn["with"][:, c] - drawn["without"][:, c])
        for c, name in enumerate(MEASURES)
    }
    coefficients = dict(zip(names, _coefficients(columns, right), strict=True))
    return Combination(names, odds["with"], odds["without"], measures, gains, coefficients, folds)


def _cross_fitted(columns: np.ndarray, right: np.ndarray, folds: int, seed: int) -> Tensor:
    """Log-odds of every sample by a regression on the other folds, float64 `[N]`."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return torch.from_numpy(cross_val_predict(_regression(), columns, right, cv=splits, method="decision_function"))


def _regression():  # type: ignore[no-untyped-def]  # scikit-learn's pipeline; its import takes a second
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression())


def _coefficients(columns: np.ndarray, right: np.ndarray) -> list[Interval]:
    """Of a regression on all samples, per standard deviation, with Wald's intervals."""
    model = _regression().fit(columns, right)
    x = np.column_stack([model[0].transform(columns), np.ones(len(columns))])
    share = model.predict_proba(columns)[:, 1]
    penalty = np.diag([1.0] * columns.shape[1] + [0.0])  # 1 / C, the intercept is free
    information = (x * (share * (1 - share))[:, None]).T @ x + penalty
    errors = np.sqrt(np.diag(np.linalg.pinv(information)))[:-1]
    return [Interval(float(c), float(c - 1.96 * e), float(c + 1.96 * e)) for c, e in zip(model[1].coef_[0], errors, strict=True)]
