"""A model's discriminative features: those that activate highly on neither very few nor very many samples."""

from __future__ import annotations

import json
import math
import os
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from sslk.files.tensors import read_tensors, require_tensors
from sslk.files.text import from_fields, parse_json
from sslk.probes.usable import RowCounts
from sslk.results.atomic import write_atomically

_FORMAT = "sslk-discriminative-features-1"


class NoDiscriminativeFeatures(ValueError):
    """No feature is discriminative at this eps and these percentiles."""


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
        num_samples: N, how many samples A was computed from; those that are not finite are not among them.
        mean_active: mean `|L_i|`, highly activating features per sample.
        empty_share: share of samples with an empty `L_i` in S, NaN if it was not computed.
        model: name of the model, None where it is unknown: the set was found on a tensor, not on a feature store.
        weights_hash: SHA-256 of its weights, or None; the set belongs to no other model (`sslk.quality.belonging`).
        nonfinite: samples that were left out because they hold NaN or infinity.
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
    nonfinite: int = 0

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

    def said(self) -> list[str]:
        """One sentence where training rows were not finite; else none."""
        return RowCounts(self.num_samples + self.nonfinite, nonfinite=self.nonfinite).said("training")

    def described(self) -> dict[str, str | int | float]:
        """What it is, by name; what is not known is left out."""
        fields = {
            "model": self.model,
            "weights": (self.weights_hash or "unknown")[:12],
            "eps": self.eps,
            "features": self.num_features,
            "discriminative": self.num_discriminative,
            "mean_active": self.mean_active,
            "empty_share": self.empty_share,
            "samples": self.num_samples,
            "nonfinite": self.nonfinite or None,
        }
        return {name: value for name, value in fields.items() if value is not None and value == value}

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
            NoDiscriminativeFeatures: no feature is left in S.
            ValueError: percentiles out of order, or no samples.
        """
        check_percentiles(lower, upper)
        if num_samples < 1:
            raise ValueError("features must hold at least one sample to find discriminative features, got none.")
        percent = counts.detach().cpu().double() * (100.0 / num_samples)
        low, high = np.percentile(percent.numpy(), [lower, upper])
        mask = (percent >= low) & (percent <= high) & (percent > 0)
        if not mask.any():
            raise NoDiscriminativeFeatures(
                f"No feature is discriminative: at eps={eps:g} the activation percentages between the percentiles "
                f"{lower:g} and {upper:g} are all zero; use a smaller eps (or eps='auto') or other percentiles."
            )
        mean_active = float(counts.sum()) / num_samples
        return cls(mask, percent, eps, lower, upper, float(low), float(high), two_sided, num_samples, mean_active, empty_share)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one safetensors file, atomically."""
        path = Path(path)
        settings = {field.name: getattr(self, field.name) for field in fields(_Settings)}
        tensors = {"mask": self.mask.contiguous(), "activation_percent": self.activation_percent.contiguous()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save(tensors, {"format": _FORMAT, "settings": json.dumps(settings)}))

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
    nonfinite: int = 0

    def __post_init__(self) -> None:
        check_percentiles(self.lower, self.upper)
        numbers = (self.eps, self.lower_percent, self.upper_percent, self.mean_active)
        if self.eps < 0 or not all(math.isfinite(number) for number in numbers) or not 0 < self.num_samples < 2**63:
            raise ValueError(f"eps, percentages and samples must be numbers of a set, got {numbers}, {self.num_samples}")


def check_percentiles(lower: float, upper: float) -> None:
    """Raise ValueError unless `0 <= lower < upper <= 100`."""
    if not 0 <= lower < upper <= 100:
        raise ValueError(f"lower and upper must be percentiles with 0 <= lower < upper <= 100, got {lower} and {upper}.")


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
