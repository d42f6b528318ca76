"""Many linear probes at once: one product of matrices serves all folds, sub-spaces and settings."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from sslk.distributed import require_device
from sslk.probes.lbfgs import Objective, minimize
from sslk.probes.settings import FitSettings
from sslk.probes.softmax_loss import SoftmaxLoss, SubspacePreconditioner
from sslk.probes.usable import UNLABELLED, RowCounts, finite_rows, matrix, whole_labels
from sslk.progress import Progress

HISTORY = 8
MEMORY_BYTES = 2 << 30  # of optimiser state; more probes than fit are trained in groups
LOGIT_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class LinearClassifiers:
    """G trained multinomial logistic regressions on the same features.

    Attributes:
        weight: `[G, C, D]`, for standardised features; zero where a feature was masked out.
        bias: `[G, C]`.
        classes: int64 `[C]`, the sorted labels.
        mean, scale: `[D]`, what standardises a feature: `(x - mean) / scale`.
        loss: `[G]`, mean cross-entropy plus penalty at the end.
        iterations: int64 `[G]`, evaluations of loss and gradient.
        converged: bool `[G]`, whether its loss is within the tolerance of the least possible.
        rows: how many rows there were, and how many were left out for being unlabelled or not finite.
    """

    weight: Tensor
    bias: Tensor
    classes: Tensor
    mean: Tensor
    scale: Tensor
    loss: Tensor
    iterations: Tensor
    converged: Tensor
    rows: RowCounts

    def __len__(self) -> int:
        return len(self.weight)

    def logits(self, features: Tensor) -> Tensor:
        """Class scores `[G, N, C]` of features `[N, D]`; `predict` needs less memory."""
        x = (features.to(self.weight) - self.mean) / self.scale
        return torch.einsum("nd,gcd->gnc", x, self.weight) + self.bias[:, None]

    def predict(self, features: Tensor) -> Tensor:
        """Predicted labels int64 `[G, N]` of features `[N, D]`; -1, no label, of a row that is not finite."""
        groups, classes, dim = self.weight.shape
        flat = self.weight.reshape(groups * classes, dim)
        parts = []
        for rows in features.split(max(1, LOGIT_BYTES // (4 * groups * classes))):
            x = (rows.to(self.weight) - self.mean) / self.scale
            scores = (flat @ x.T).view(groups, classes, -1) + self.bias[..., None]
            parts.append(torch.where(finite_rows(rows).to(x.device), self.classes[scores.argmax(1)], UNLABELLED))
        return torch.cat(parts, dim=1) if parts else self.classes.new_zeros(groups, 0)

    def cross_entropy(self, features: Tensor, labels: Tensor, sample_masks: Tensor) -> Tensor:
        """Mean cross-entropy of each probe on its own rows, float64 `[G]`, in nats.

        Args:
            features: `[N, D]`.
            labels: `[N]`, among `classes`.
            sample_masks: bool `[G, N]`, the rows of each probe; NaN for one without any.
        """
        targets = torch.searchsorted(self.classes, labels.to(self.classes))
        found = []
        for weight, bias, rows in zip(self.weight, self.bias, sample_masks.to(self.weight.device), strict=True):
            x = (features[rows.to(features.device)].to(weight) - self.mean) / self.scale
            found.append(functional.cross_entropy(torch.addmm(bias, x, weight.T), targets[rows]).double())
        return torch.stack(found)

    def accuracy(self, features: Tensor, labels: Tensor) -> Tensor:
        """Share of the rows that are labelled and finite whose label is predicted, float64 `[G]`."""
        predicted = self.predict(features)
        wanted = labels.to(self.classes)
        judged = (wanted >= 0) & (predicted[0] >= 0)
        return (predicted == wanted)[:, judged].double().mean(1)


def fit_linear_probes(
    features: Tensor,
    labels: Tensor,
    *,
    l2: float | Tensor = 3e-2,
    feature_masks: Tensor | None = None,
    sample_masks: Tensor | None = None,
    settings: FitSettings = FitSettings(),  # noqa: B008 (frozen)
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> LinearClassifiers:
    """Train G multinomial logistic regressions on one feature matrix, all at once.

    Probe g minimises `mean_i CE(W_g x_i + b_g, y_i) + l2_g / 2 ||W_g||^2` over its rows and features: what
    scikit-learn's `LogisticRegression(C=1 / (l2 * n))` does on `StandardScaler().fit_transform(x[rows][:, columns])`.
    All probes share one product `W [G C, D] @ X^T` per evaluation and its transpose for the gradient. The optimiser is
    L-BFGS with one line search per probe, preconditioned by Boehning's bound `H <= (1/2) I (x) X^T X / n` on the
    probe's own features, which saves most of the iterations.

    G is the common length of `l2`, `feature_masks` and `sample_masks`; one of length 1 serves all probes. For a grid
    (folds times settings, say) repeat the entries, e.g. with `Tensor.repeat` and `Tensor.repeat_interleave`.

    Args:
        features: `[N, D]`, floating point; float64 is computed in float64, all else in float32.
        labels: integers `[N]`; classes need not be contiguous, nor all in every sample mask. Rows that are unlabelled (a label
            below 0, NaN, None) or not finite are left out, counted and warned of.
        l2: weight of the penalty, a number or `[G]`. Biases are not penalised. No value suits all data: `PENALTIES` is the
            grid that `kfold_probe` and `compression` choose from on held-out rows.
        feature_masks: bool `[G, D]`, the features each probe may use; all by default.
        sample_masks: bool `[G, N]`, the rows each probe is trained on; all by default.
        settings: standardisation, and when a probe is done.
        device: where to compute; where the features are by default.
        progress: called with the probes done and G.

    Returns:
        The probes, in the order of the masks, on `device`.

    Raises:
        TypeError, ValueError: shapes or dtypes do not match, no row is labelled and finite, l2 is negative, there are fewer
            than two classes, or a mask selects nothing.

    Examples:
        >>> x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0)); y = (x[:, 0] > 0).long()
        >>> masks = torch.eye(8, dtype=torch.bool)[:3]  # three probes of one feature each
        >>> probes = fit_linear_probes(x, y, feature_masks=masks)
        >>> [round(value, 1) for value in probes.accuracy(x, y).tolist()]
        [1.0, 0.6, 0.6]
    """
    features, labels, usable, counts = _usable(features, labels)
    device = require_device(features.device if device is None else device)
    x = features.to(device, non_blocking=True)
    classes, targets = torch.unique(labels.to(device), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"labels must hold at least two classes, got {len(classes)}.")
    penalties = torch.as_tensor(l2, dtype=torch.float64).reshape(-1)
    if not bool((penalties >= 0).all()):
        raise ValueError(f"l2 must be zero or positive, got {penalties.min().item():g}.")
    feature_masks = _checked_mask("feature_masks", feature_masks, x.shape[1])
    sample_masks = _checked_mask("sample_masks", sample_masks, len(usable), usable)
    groups = _common_length(l2=len(penalties), feature_masks=len(feature_masks), sample_masks=len(sample_masks))

    mean, scale = _standardization(x, settings.standardize)
    x = torch.cat([(x.to(mean) - mean) / scale, mean.new_ones(len(x), 1)], dim=1)  # the last column is the bias
    per_probe = (2 * HISTORY + 6) * len(classes) * x.shape[1] * x.itemsize + x.shape[1] ** 2 * x.itemsize
    at_once = max(1, MEMORY_BYTES // per_probe)
    found = []
    for start in range(0, groups, at_once):
        chosen = slice(start, min(start + at_once, groups))
        count = chosen.stop - chosen.start
        loss = SoftmaxLoss(
            x,
            targets,
            len(classes),
            _part(penalties, chosen).to(x),
            _part(sample_masks, chosen).to(device),
            settings.standardize and not bool(sample_masks.all()),
            LOGIT_BYTES,
        )
        masks = _part(feature_masks, chosen).to(device).expand(count, -1)
        precondition = SubspacePreconditioner(x, masks, _part(penalties, chosen).expand(count))
        free = torch.cat([masks, masks.new_ones(count, 1)], dim=1)[:, None]
        objective = Objective(loss, precondition, free)
        report = partial(_report, progress, start, groups)
        result = minimize(
            objective,
            loss.begin(count),
            history=HISTORY,
            max_iterations=settings.max_iterations,
            tolerance=settings.tolerance,
            progress=report,
        )
        found.append((loss.raw(result.position), result))
    weights = torch.cat([weight for weight, _ in found])
    return LinearClassifiers(
        weights[..., :-1],
        weights[..., -1],
        classes,
        mean,
        scale,
        torch.cat([result.value for _, result in found]),
        torch.cat([result.evaluations for _, result in found]),
        torch.cat([result.converged for _, result in found]),
        counts,
    )


def _report(progress: Progress | None, start: int, groups: int, done: int) -> None:
    if progress is not None:
        progress(start + done, groups, "training probes")


def _usable(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, RowCounts]:
    """Features and labels of the rows that are labelled and finite, which they are, and how many are not."""
    features, labels = matrix(features, "features"), whole_labels(labels)
    if not features.is_floating_point():
        raise TypeError(f"features must be a floating-point matrix [N, D], got {features.dtype} {list(features.shape)}.")
    if len(labels) != len(features):
        raise ValueError(f"labels must be integers [N] with N = {len(features)}, got {list(labels.shape)}.")
    labelled, finite = labels >= 0, finite_rows(features).cpu()
    usable = labelled & finite
    if not bool(usable.any()):
        raise ValueError(f"features must hold a row that is labelled and finite, got none in {len(features)}.")
    counts = RowCounts(len(labels), int((~labelled).sum()), int((labelled & ~finite).sum()))
    for sentence in counts.said():
        warnings.warn(sentence, stacklevel=3)
    if bool(usable.all()):
        return features, labels, usable, counts
    return features[usable.to(features.device)], labels[usable], usable, counts


def _checked_mask(name: str, mask: Tensor | None, width: int, usable: Tensor | None = None) -> Tensor:
    """bool `[G, width]`, less the columns that are not usable."""
    if mask is None:
        return torch.ones(1, width if usable is None else int(usable.sum()), dtype=torch.bool)
    if mask.dtype != torch.bool or mask.ndim != 2 or mask.shape[1] != width:
        raise ValueError(f"{name} must be bool [G, {width}], got {mask.dtype} {list(mask.shape)}.")
    if usable is not None and not bool(usable.all()):
        mask = mask[:, usable.to(mask.device)]
    if not bool(mask.any(dim=1).all()):
        raise ValueError(f"{name} must select something for every probe, row {int(mask.any(1).int().argmin())} is empty.")
    return mask


def _common_length(**lengths: int) -> int:
    longest = max(lengths.values())
    if any(length not in (1, longest) for length in lengths.values()):
        raise ValueError(
            "l2, feature_masks and sample_masks must have the same length G or length 1, got "
            + ", ".join(f"{name} {length}" for name, length in lengths.items())
            + "."
        )
    return longest


def _part(values: Tensor, chosen: slice) -> Tensor:
    return values if len(values) == 1 else values[chosen]


def _standardization(x: Tensor, standardize: bool) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every feature over all rows; a probe's own rows correct them where they differ."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if not standardize:
        return torch.zeros(x.shape[1], dtype=dtype, device=x.device), torch.ones(x.shape[1], dtype=dtype, device=x.device)
    total, square = (torch.zeros(x.shape[1], dtype=torch.float64, device=x.device) for _ in range(2))
    for rows in x.split(65536):
        total += rows.sum(0, dtype=torch.float64)
    mean = total / len(x)
    for rows in x.split(8192):
        square += (rows.double() - mean).square().sum(0)
    std = (square / len(x)).sqrt()
    # What is constant up to rounding would be blown up to noise.
    std = torch.where(std > 1e-6 * mean.abs(), std, 1.0)
    return mean.to(dtype), std.to(dtype)
