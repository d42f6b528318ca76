"""Finds the discriminative features of a matrix or a feature store of any size."""

from __future__ import annotations

import math
from dataclasses import replace
from numbers import Real
from typing import Literal

import torch
from torch import Tensor

import ssl_kernels
from sslk.distributed import require_device
from sslk.features.store import FeatureStore
from sslk.probes.usable import finite_rows, warn_nonfinite
from sslk.progress import Progress
from sslk.quality.batches import Features, feature_batches, opened
from sslk.quality.discriminative import (
    DiscriminativeFeatures,
    NoDiscriminativeFeatures,
    check_features,
    check_percentiles,
    warn_if_unreachable,
)

EPS_STEP = 0.25
MAX_AUTO_EPS = 8.0
MAX_EMPTY_SHARE = 0.05


def discover(
    features: Features,
    eps: float | Literal["auto"] = "auto",
    lower: float = 50.0,
    upper: float = 95.0,
    *,
    two_sided: bool | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> DiscriminativeFeatures:
    """Find the discriminative features of a model from its representations of a training set; no labels are needed.

    A feature activates highly in sample i when `h_ij > mu_i + eps sigma_i`. Of the features sorted by how often that
    happens, the lower tail is image-specific, the upper tail generic, and the middle discriminative
    (Kalibhat et al., AAAI 2024, section 3).

    Args:
        features: representations `[N, D]`, floating point, whose rows need not be normalised; or a feature store, or its
            folder, of any size: it is read once for a given eps, and the share of empty sets, which would need a second
            pass, is left NaN (`qscore` gives it); twice for `"auto"`. Rows that are not finite are left out and counted.
        eps: threshold in standard deviations. The paper's 4 suits long-trained networks with D = 2048; `"auto"`, the default
            here as in `sslk qscore discover`, takes the largest multiple of 0.25 for which at most 5 % of the samples have no
            discriminative active feature. (The op `ssl_kernels.qscore` knows no data set: its default is 4.)
        lower, upper: percentiles of the activation percentages between which features are discriminative.
        two_sided: count `|h_ij - mu_i| > eps sigma_i`, for signed features (vision transformers); by default where a
            store's model has signed features, and not for a matrix.
        device: where a store is counted, the CPU by default; a matrix is counted where it is.
        progress: called with the rows of a store read and to read.

    Raises:
        NoDiscriminativeFeatures: no feature is discriminative.
        StoreError: the store is incomplete or damaged.
        TypeError, ValueError: features of another shape or dtype, no row that is finite, eps is negative or text other than
            `"auto"`, or lower >= upper.

    Warns:
        UserWarning: eps >= sqrt(D - 1), which no feature can reach; or rows that are not finite.

    Examples:
        >>> import torch, sslk
        >>> features = torch.relu(torch.randn(1000, 256, generator=torch.Generator().manual_seed(0)))
        >>> found = sslk.discover(features)
        >>> found.eps, found.num_discriminative
        (2.75, 119)
    """
    source = opened(features)
    check_percentiles(lower, upper)
    if eps != "auto" and (isinstance(eps, str) or not isinstance(eps, Real) or not eps >= 0):
        raise ValueError(f"eps must be zero or positive, or 'auto', got {eps!r}.")
    eps = eps if eps == "auto" else float(eps)
    if isinstance(source, FeatureStore):
        two_sided = source.spec.signed if two_sided is None else two_sided
        found = _of_store(source, eps, (lower, upper), two_sided, require_device(device or "cpu"), progress)
        found = replace(found, model=source.spec.model, weights_hash=source.spec.weights_hash)
    elif eps == "auto":
        found = _auto(source, lower, upper, bool(two_sided), _finite(source))
    else:
        warn_if_unreachable(eps, source.shape[1])
        found = _at(source, eps, lower, upper, bool(two_sided), _finite(source))
    warn_nonfinite(found.nonfinite, found.num_samples + found.nonfinite)
    return found


def _finite(features: Tensor) -> int:
    """How many rows are finite."""
    count = int(finite_rows(features).sum())
    _require_some(count, len(features))
    return count


def _require_some(finite: int, rows: int) -> None:
    if rows and not finite:
        raise ValueError(f"features must hold a row that is finite, got NaN or infinity in all {rows}.")


def _at(features: Tensor, eps: float, lower: float, upper: float, two_sided: bool, finite: int) -> DiscriminativeFeatures:
    counts, _ = ssl_kernels.activation_counts(features, eps, two_sided)
    found = DiscriminativeFeatures.from_counts(counts, finite, eps=eps, lower=lower, upper=upper, two_sided=two_sided)
    return replace(found, empty_share=empty_share(features, found), nonfinite=len(features) - finite)


def empty_share(features: Tensor, found: DiscriminativeFeatures) -> float:
    """Share of finite samples without any highly activating discriminative feature: exactly those with a Q-Score of 0."""
    scores = ssl_kernels.qscore(features, found.mask.to(features.device), found.eps, False, found.two_sided)
    return float((scores[~scores.isnan()] == 0).double().mean())


def _auto(features: Tensor, lower: float, upper: float, two_sided: bool, finite: int) -> DiscriminativeFeatures:
    highest = min(MAX_AUTO_EPS, math.sqrt(features.shape[1] - 1))
    for step in range(int(highest / EPS_STEP), 0, -1):
        try:
            found = _at(features, step * EPS_STEP, lower, upper, two_sided, finite)
        except NoDiscriminativeFeatures:  # no feature in S at this eps: a smaller one may have some
            continue
        if found.empty_share <= MAX_EMPTY_SHARE:
            return found
    raise _no_eps(highest)


def eps_sweep(
    features: Tensor, grid: list[float], lower: float = 50.0, upper: float = 95.0, *, two_sided: bool = False
) -> list[DiscriminativeFeatures]:
    """`discover` at every eps of `grid` at which some feature is discriminative, in the order of the grid.

    Examples:
        >>> import torch, sslk
        >>> features = torch.relu(torch.randn(500, 128, generator=torch.Generator().manual_seed(0)))
        >>> [found.eps for found in sslk.eps_sweep(features, [1.0, 2.0, 30.0])]
        [1.0, 2.0]
    """
    features = check_features(features)
    check_percentiles(lower, upper)
    finite = _finite(features)
    warn_nonfinite(len(features) - finite, len(features))
    sweep = []
    for eps in grid:
        try:
            sweep.append(_at(features, eps, lower, upper, two_sided, finite))
        except NoDiscriminativeFeatures:
            continue
    return sweep


def _no_eps(highest: float) -> ValueError:
    return ValueError(
        f"eps='auto' found no eps up to {highest:g} that leaves at most {100 * MAX_EMPTY_SHARE:g} % of the samples "
        "without a discriminative active feature; many rows may be constant. Give eps as a number."
    )


def _of_store(
    store: FeatureStore,
    eps: float | Literal["auto"],
    band: tuple[float, float],
    two_sided: bool,
    device: torch.device,
    progress: Progress | None,
) -> DiscriminativeFeatures:
    """One pass for a given eps; for auto all thresholds are counted in one pass and the empty sets of all in another."""
    if eps != "auto":
        warn_if_unreachable(eps, store.num_features)
        counted, finite = _count(store, [eps], two_sided, device, progress, passes=1)
        return replace(_found(counted[0], finite, eps, band, two_sided), nonfinite=len(store) - finite)
    highest = min(MAX_AUTO_EPS, math.sqrt(store.num_features - 1))
    grid = [step * EPS_STEP for step in range(int(highest / EPS_STEP), 0, -1)]
    candidates = []
    counted, finite = _count(store, grid, two_sided, device, progress, passes=2)
    for value, counts in zip(grid, counted, strict=True):
        try:
            candidates.append(_found(counts, finite, value, band, two_sided))
        except NoDiscriminativeFeatures:  # a smaller one may have some
            continue
    masks = [candidate.mask.to(device) for candidate in candidates]
    empty = torch.zeros(len(candidates), dtype=torch.int64, device=device)
    done = len(store)
    for features in feature_batches(store, device):
        for number, (candidate, mask) in enumerate(zip(candidates, masks, strict=True)):
            empty[number] += (ssl_kernels.qscore(features, mask, candidate.eps, False, two_sided) == 0).sum()
        done += len(features)
        if progress is not None:
            progress(done, 2 * len(store), "discovering")
    for candidate, share in zip(candidates, (empty.double() / finite).tolist(), strict=True):
        if share <= MAX_EMPTY_SHARE:
            return replace(candidate, empty_share=share, nonfinite=len(store) - finite)
    raise _no_eps(highest)


def _found(counts: Tensor, rows: int, eps: float, band: tuple[float, float], two_sided: bool) -> DiscriminativeFeatures:
    return DiscriminativeFeatures.from_counts(counts, rows, eps=eps, lower=band[0], upper=band[1], two_sided=two_sided)


def _count(
    store: FeatureStore, grid: list[float], two_sided: bool, device: torch.device, progress: Progress | None, *, passes: int
) -> tuple[Tensor, int]:
    """How often each feature is highly activating at every eps of the grid, int64 `[G, D]`, and the finite rows: in one pass."""
    finite = torch.zeros((), dtype=torch.int64, device=device)
    counts = [torch.zeros(store.num_features, dtype=torch.int64, device=device) for _ in grid]
    done = 0
    for features in feature_batches(store, device):
        for total, eps in zip(counts, grid, strict=True):
            total += ssl_kernels.activation_counts(features, eps, two_sided)[0]
        finite += finite_rows(features).sum()
        done += len(features)
        if progress is not None:
            progress(done, passes * len(store), "discovering")
    _require_some(int(finite), len(store))
    return torch.stack(counts).cpu(), int(finite)
