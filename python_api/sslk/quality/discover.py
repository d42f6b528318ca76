"""Finds a model's discriminative features: those that activate highly on neither very few nor very many samples."""

from __future__ import annotations

import json
import math
import os
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

import ssl_kernels  # noqa: F401 (registers the ops)
from sslk.files.tensors import read_tensors, require_tensors
from sslk.files.text import from_fields, parse_json

EPS_STEP = 0.25
MAX_AUTO_EPS = 8.0
MAX_EMPTY_SHARE = 0.05
_FORMAT = "sslk-discriminative-features-1"


@dataclass(frozen=True, eq=False)
class DiscriminativeFeatures:
    """The discriminative features S of one model on one data set, with the settings and statistics they came from.

    Attributes:
        mask: bool `[D]`, True for features in S.
        activation_percent: float64 `[D]`, `A_j`: the percentage of samples in which feature j is highly activating.
        eps: threshold in standard deviations.
        lower, upper: percentiles of A between which S lies.
        lower_percent, upper_percent: the values of A at those percentiles.
        two_sided: whether large negative deviations count as activations too (signed features).
        num_samples: N, how many samples A was computed from.
        mean_active: mean `|L_i|`, highly activating features per sample.
        empty_share: share of samples with an empty `L_i` in S, NaN if it was not computed.
        model: name of the model, None where it is unknown: the set was found on a tensor, not on a feature store.
        weights_hash: SHA-256 of its weights, or None; the set belongs to no other model (`sslk.quality.belonging`).
    """

    mask: Tensor
    activation_percent: Tensor
    eps: float
    lower: float
    upper: float
    lower_percent: float
    upper_percent: float
    two_sided: bool
    num_samples: int
    mean_active: float
    empty_share: float
    model: str | None = None
    weights_hash: str | None = None

    @property
    def num_features(self) -> int:
        """D."""
        return self.mask.numel()

    @property
    def num_discriminative(self) -> int:
        """`|S|`."""
        return int(self.mask.sum())

    @property
    def lower_tail(self) -> Tensor:
        """bool `[D]`: features below S, image-specific or dead."""
        return ~self.mask & ((self.activation_percent < self.lower_percent) | (self.activation_percent == 0))

    @property
    def upper_tail(self) -> Tensor:
        """bool `[D]`: features above S, generic ones."""
        return self.activation_percent > self.upper_percent

    def summary(self) -> str:
        """One line with eps, mean |L_i|, |S| and the share of empty sets."""
        return (
            f"eps {self.eps:g}, mean |L_i| {self.mean_active:.1f} of {self.num_features}, |S| {self.num_discriminative}, "
            f"empty sets {100 * self.empty_share:.1f} %"
        )

    @classmethod
    def from_counts(
        cls,
        counts: Tensor,
        num_samples: int,
        *,
        eps: float,
        lower: float = 50.0,
        upper: float = 95.0,
        two_sided: bool = False,
        empty_share: float = math.nan,
    ) -> DiscriminativeFeatures:
        """S from how often each feature is highly activating (`torch.ops.sslk.activation_counts`, summed over batches).

        `S = {j : P_lower(A) <= A_j <= P_upper(A), A_j > 0}`, percentiles with linear interpolation.

        Args:
            counts: int64 `[D]`.
            num_samples: N, how many samples were counted.

        Raises:
            ValueError: percentiles out of order, no samples, or no feature left in S.
        """
        check_percentiles(lower, upper)
        if num_samples < 1:
            raise ValueError("features must hold at least one sample to find discriminative features, got none.")
        percent = counts.detach().cpu().double() * (100.0 / num_samples)
        low, high = np.percentile(percent.numpy(), [lower, upper])
        mask = (percent >= low) & (percent <= high) & (percent > 0)
        if not mask.any():
            raise ValueError(
                f"No feature is discriminative: at eps={eps:g} the activation percentages between the percentiles "
                f"{lower:g} and {upper:g} are all zero; use a smaller eps (or eps='auto') or other percentiles."
            )
        mean_active = float(counts.sum()) / num_samples
        return cls(
            mask, percent, eps, lower, upper, float(low), float(high), two_sided, num_samples, mean_active, empty_share
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one safetensors file, atomically."""
        path = Path(path)
        settings = {field.name: getattr(self, field.name) for field in fields(_Settings)}
        temporary = path.with_name(path.name + ".tmp")
        try:
            save_file(
                {"mask": self.mask.contiguous(), "activation_percent": self.activation_percent.contiguous()},
                temporary,
                {"format": _FORMAT, "settings": json.dumps(settings)},
            )
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DiscriminativeFeatures:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged or holds something else.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"No discriminative features at {path}: the file does not exist.")
        try:
            tensors, metadata = read_tensors(path, "the file")
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as discriminative features, it is damaged: {error}") from None
        if metadata.get("format") != _FORMAT:
            found = str(metadata.get("format"))[:80]
            raise ValueError(f"{path} holds no discriminative features (format {found!r}).")
        require_tensors(tensors, {"mask": "bool 1", "activation_percent": "float64 1"}, str(path), ValueError)
        if len(tensors["mask"]) != len(tensors["activation_percent"]) or not len(tensors["mask"]):
            raise ValueError(f"{path} is damaged: mask and activation_percent must both be [D].")
        where = f"the settings in {path}"
        settings = from_fields(_Settings, parse_json(metadata.get("settings", ""), where), where)
        return cls(tensors["mask"], tensors["activation_percent"], **asdict(settings))


@dataclass(frozen=True)
class _Settings:
    """What the file of a set holds beside its tensors; see `DiscriminativeFeatures`."""

    eps: float
    lower: float
    upper: float
    lower_percent: float
    upper_percent: float
    two_sided: bool
    num_samples: int
    mean_active: float
    empty_share: float
    model: str | None = None
    weights_hash: str | None = None

    def __post_init__(self) -> None:
        check_percentiles(self.lower, self.upper)
        numbers = (self.eps, self.lower_percent, self.upper_percent, self.mean_active)
        if self.eps < 0 or not all(math.isfinite(number) for number in numbers) or not 0 < self.num_samples < 2**63:
            raise ValueError(
                f"eps, percentages and samples must be numbers of a set, got {numbers}, {self.num_samples}"
            )


def check_percentiles(lower: float, upper: float) -> None:
    """Raise ValueError unless `0 <= lower < upper <= 100`."""
    if not 0 <= lower < upper <= 100:
        raise ValueError(
            f"lower and upper must be percentiles with 0 <= lower < upper <= 100, got {lower} and {upper}."
        )


def check_features(features: Tensor) -> Tensor:
    """A floating-point matrix `[N, D]` with D > 0, or TypeError/ValueError saying what came instead."""
    if not isinstance(features, Tensor):
        features = torch.as_tensor(np.asarray(features))
    if not features.is_floating_point():
        raise TypeError(f"features must be floating point, got {features.dtype}; convert them with .float() first.")
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"features must be a matrix [N, D] with D > 0, got shape {list(features.shape)}.")
    return features


def warn_if_unreachable(eps: float, num_features: int) -> None:
    """Warn when no feature can be highly activating: the largest z-score of D numbers is sqrt(D - 1)."""
    if eps >= math.sqrt(num_features - 1):
        warnings.warn(
            f"eps={eps:g} cannot be reached: the largest z-score among D={num_features} features is "
            f"sqrt(D - 1) = {math.sqrt(num_features - 1):.2f}, so no feature is ever highly activating.",
            stacklevel=3,
        )


def discover(
    features: Tensor,
    eps: float | Literal["auto"] = 4.0,
    lower: float = 50.0,
    upper: float = 95.0,
    *,
    two_sided: bool = False,
) -> DiscriminativeFeatures:
    """Find the discriminative features of a model from its representations of a training set; no labels are needed.

    A feature activates highly in sample i when `h_ij > mu_i + eps sigma_i`. Of the features sorted by how often that
    happens, the lower tail is image-specific, the upper tail generic, and the middle discriminative
    (Kalibhat et al., AAAI 2024, section 3).

    Args:
        features: representations `[N, D]`, floating point; rows need not be normalised.
        eps: threshold in standard deviations. 4 suits long-trained networks with D = 2048; `"auto"` takes the largest
            multiple of 0.25 for which at most 5 % of the samples have no discriminative active feature.
        lower, upper: percentiles of the activation percentages between which features are discriminative.
        two_sided: count `|h_ij - mu_i| > eps sigma_i`, for signed features (vision transformers).

    Raises:
        TypeError, ValueError: features of another shape or dtype, lower >= upper, or no feature discriminative.

    Warns:
        UserWarning: eps >= sqrt(D - 1), which no feature can reach.

    Examples:
        >>> import torch, sslk
        >>> features = torch.relu(torch.randn(1000, 256, generator=torch.Generator().manual_seed(0)))
        >>> found = sslk.discover(features, eps="auto")
        >>> found.eps, found.num_discriminative
        (2.75, 119)
    """
    features = check_features(features)
    check_percentiles(lower, upper)
    if eps == "auto":
        return _discover_auto(features, lower, upper, two_sided)
    eps = float(eps)
    if not eps >= 0:
        raise ValueError(f"eps must be zero or positive, or 'auto', got {eps}.")
    warn_if_unreachable(eps, features.shape[1])
    return _discover_at(features, eps, lower, upper, two_sided)


def _discover_at(features: Tensor, eps: float, lower: float, upper: float, two_sided: bool) -> DiscriminativeFeatures:
    counts, _ = torch.ops.sslk.activation_counts(features, eps, two_sided)
    found = DiscriminativeFeatures.from_counts(
        counts, len(features), eps=eps, lower=lower, upper=upper, two_sided=two_sided
    )
    empty = empty_share(features, found)
    return DiscriminativeFeatures(**{**vars(found), "empty_share": empty})


def empty_share(features: Tensor, found: DiscriminativeFeatures) -> float:
    """Share of samples without any highly activating discriminative feature: exactly those with a Q-Score of 0."""
    scores = torch.ops.sslk.qscore(features, found.mask.to(features.device), found.eps, False, found.two_sided)
    return float((scores == 0).double().mean())


def _discover_auto(features: Tensor, lower: float, upper: float, two_sided: bool) -> DiscriminativeFeatures:
    highest = min(MAX_AUTO_EPS, math.sqrt(features.shape[1] - 1))
    for step in range(int(highest / EPS_STEP), 0, -1):
        try:
            found = _discover_at(features, step * EPS_STEP, lower, upper, two_sided)
        except ValueError:  # no feature in S at this eps: a smaller one may have some
            continue
        if found.empty_share <= MAX_EMPTY_SHARE:
            return found
    raise ValueError(
        f"eps='auto' found no eps up to {highest:g} that leaves at most {100 * MAX_EMPTY_SHARE:g} % of the samples "
        "without a discriminative active feature; many rows may be constant. Give eps as a number."
    )


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
    sweep = []
    for eps in grid:
        try:
            sweep.append(_discover_at(features, eps, lower, upper, two_sided))
        except ValueError:
            continue
    return sweep
