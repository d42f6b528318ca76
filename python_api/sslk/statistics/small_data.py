"""What the size of the data does not allow to say, as sentences among the findings of a study."""

from __future__ import annotations

from collections.abc import Sequence


def standard_error(count: int) -> float:
    """The largest standard error of an accuracy on `count` samples, in points.

    >>> round(standard_error(117), 1)
    4.6
    """
    return 100 * (0.25 / count) ** 0.5


def auroc_standard_error(auroc: float, correct: int, wrong: int) -> float:
    """Standard error of an AUROC over `correct` and `wrong` samples (Hanley and McNeil 1982); infinite without either.

    >>> round(auroc_standard_error(0.55, 676, 324), 3)
    0.019
    """
    if not correct or not wrong:
        return float("inf")
    first, second = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc) + (correct - 1) * (first - auroc**2) + (wrong - 1) * (second - auroc**2)
    return (max(variance, 0.0) / (correct * wrong)) ** 0.5


def lost_in_noise(span: float, error: float, what: str, samples: int, digits: int = 3) -> list[str]:
    """One sentence where settings range over less than two standard errors of what they are compared by; else none.

    >>> lost_in_noise(0.01, 0.02, "an AUROC", 1000)
    ['The range, 0.010, is less than two standard errors of an AUROC on 1000 samples (0.020 each): it shows no difference.']
    """
    if not span < 2 * error:
        return []
    return [
        f"The range, {span:.{digits}f}, is less than two standard errors of {what} on {samples} samples "
        f"({error:.{digits}f} each): it shows no difference."
    ]


def few_rows(samples: int, features: int) -> list[str]:
    """One sentence where a set of features is chosen from fewer samples than there are features; else none.

    >>> few_rows(233, 2048)
    ['Small data: 233 samples choose among 2048 features: an activation percentage is uncertain by up to 3.3 points.']
    """
    if samples >= features:
        return []
    return [
        f"Small data: {samples} samples choose among {features} features: an activation percentage is uncertain by up to "
        f"{standard_error(samples):.1f} points."
    ]


def small_data(*, train: int | None = None, features: int | None = None, test: int, classes: int) -> list[str]:
    """One sentence where training samples are fewer than features, or test samples fewer than classes; else none.

    >>> small_data(train=233, features=2048, test=117, classes=10)
    ['Small data: 233 training samples have 2048 features, so that a linear probe can fit them whatever the labels.']
    >>> small_data(train=5000, features=256, test=1000, classes=10)
    []
    """
    reasons = []
    if train is not None and features is not None and train < features:
        reasons.append(
            f"{train} training samples have {features} features, so that a linear probe can fit them whatever the labels"
        )
    if test < classes:
        reasons.append(f"{test} test samples are fewer than the {classes} classes, some of which are not tested")
    return [f"Small data: {'; '.join(reasons)}."] if reasons else []


def tied_settings(accuracies: Sequence[float], samples: int) -> list[str]:
    """One sentence where several settings share the best accuracy on `samples` validation samples; else none.

    >>> tied_settings([0.5, 0.75, 0.75], 4)
    ['2 of 3 settings tie for the best accuracy on 4 validation samples: their order is chance.']
    """
    tied = sum(value == max(accuracies) for value in accuracies)
    if tied < 2:
        return []
    return [
        f"{tied} of {len(accuracies)} settings tie for the best accuracy on {samples} validation samples: their order is chance."
    ]


def empty_sets(train: float, test: float) -> list[str]:
    """One sentence where the share of samples without an active feature is much larger in the test set; else none.

    >>> empty_sets(0.05, 0.2)
    ['Without any discriminative active feature are 5.0 % of the training samples but 20.0 % of the test samples.']
    """
    if not test > max(2 * train, 0.05):  # not so either where the share of training samples is unknown (NaN)
        return []
    return [
        f"Without any discriminative active feature are {100 * train:.1f} % of the training samples but "
        f"{100 * test:.1f} % of the test samples."
    ]
