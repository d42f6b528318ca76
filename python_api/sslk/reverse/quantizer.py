"""The quantiser: features to clusters, several independent clusterings, saved and applied to other features."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

import ssl_kernels
from sslk.distributed import first_row, world
from sslk.features.store import FeatureStore
from sslk.files.tensors import read_tensors, require_tensors
from sslk.files.text import from_fields, parse_json
from sslk.probes.settings import changed
from sslk.probes.usable import RowCounts, finite_rows, matrix, warn_nonfinite, whole_labels
from sslk.progress import Progress
from sslk.results.atomic import write_atomically
from sslk.reverse.kmeans import KMeansFit, lloyd, plus_plus_start, random_start
from sslk.reverse.settings import KMeansSettings
from sslk.reverse.standardize import Standardizer

_FORMAT = "sslk-clusterings-1"


@dataclass(frozen=True, eq=False)
class Clusterings:
    """R assignments of N rows to K clusters, and what it takes to assign further rows.

    Attributes:
        assignments: int32 `[R, N]`.
        num_clusters: K.
        samples: number of each row in its data set, int64 `[N]`.
        centroids: float32 `[R, K, D]`, of standardised features; None where the assignment was given.
        standardizer: of the features; None where the assignment was given.
        inertia: float64 `[R, restarts]`, of every restart; empty where the assignment was given.
        about: settings, rows that k-means saw, iterations, empty clusters repaired; rows left out for being `unlabelled` or
            `nonfinite`.
    """

    assignments: Tensor
    num_clusters: int
    samples: Tensor
    centroids: Tensor | None = None
    standardizer: Standardizer | None = None
    inertia: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def given(cls, assignments: Tensor, samples: Tensor | None = None, title: str = "given") -> Clusterings:
        """Self-labels, or any other assignment `[N]` or `[R, N]`, instead of k-means; cluster numbers are compacted.

        Rows with a number below 0 (unlabelled, or noise) or NaN in some assignment are left out, counted and warned of.

        >>> Clusterings.given(torch.tensor([7, 3, 7])).assignments.tolist()
        [[1, 0, 1]]
        """
        shape = list(assignments.shape) if isinstance(assignments, Tensor) else list(np.shape(assignments))
        if len(shape) not in (1, 2) or 0 in shape:
            raise ValueError(f"assignments must be integers [N] or [R, N], got {shape}.")
        rows = [assignments] if len(shape) == 1 else list(assignments)
        labels = torch.stack([whole_labels(row, "assignments") for row in rows])
        numbers = torch.arange(labels.shape[1]) if samples is None else samples
        if len(numbers) != labels.shape[1]:
            raise ValueError(f"samples must number the {labels.shape[1]} rows of assignments, got {len(numbers)}.")
        known = (labels >= 0).all(0)
        about = {"given": title, "samples": int(known.sum())}
        if missing := int((~known).sum()):
            if missing == len(known):
                raise ValueError(f"assignments must hold a row with a cluster of 0 or more, got none in {missing} rows.")
            about["unlabelled"] = missing
            warnings.warn(RowCounts(len(known), unlabelled=missing).said()[0], stacklevel=2)
            labels, numbers = labels[:, known], numbers[known]
        values, compact = labels.unique(return_inverse=True)
        return cls(compact.int(), len(values), numbers, about=about)

    def __len__(self) -> int:
        return len(self.assignments)

    def sizes(self) -> Tensor:
        """Rows of each cluster, int64 `[R, K]`."""
        return torch.stack([torch.bincount(row.long(), minlength=self.num_clusters) for row in self.assignments])

    @property
    def empty(self) -> list[int]:
        """Clusters without a row, of each clustering."""
        return (self.sizes() == 0).sum(1).tolist()

    @property
    def rows(self) -> RowCounts:
        """How many rows there were, and how many were left out for being unlabelled or not finite."""
        missing = [int(self.about.get(reason, 0)) for reason in ("unlabelled", "nonfinite")]
        return RowCounts(len(self.samples) + sum(missing), *missing)

    def assign(self, features: Tensor) -> Tensor:
        """The clusters of other rows of the same encoder, int32 `[R, n]`.

        Raises:
            ValueError: the assignment was given, or the features do not fit.
        """
        if self.centroids is None or self.standardizer is None:
            raise ValueError("assign needs centroids, but these clusterings were given as assignments.")
        rows = self.standardizer(features)
        return torch.stack([ssl_kernels.kmeans_assign(rows, centroids)[0] for centroids in self.centroids])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file, whole or not at all."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        tensors = {"assignments": self.assignments, "samples": self.samples, "inertia": self.inertia}
        if self.centroids is not None and self.standardizer is not None:
            tensors |= {"centroids": self.centroids, "mean": self.standardizer.mean, "std": self.standardizer.std}
        header = {"format": _FORMAT, "num_clusters": self.num_clusters, "about": self.about}
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        write_atomically(target, save(contiguous, {"clusterings": json.dumps(header)}))
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Clusterings:
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds no clusterings, or is damaged.
            FileNotFoundError: no file.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"there are no clusterings {path}")
        tensors, metadata = read_tensors(path, "the clusterings")
        where = f"the header of {path}"
        header = parse_json(metadata.get("clusterings", "{}"), where)
        if not isinstance(header, dict) or header.pop("format", None) != _FORMAT:
            raise ValueError(f"{path} holds no clusterings of the format {_FORMAT}.")
        told = from_fields(_Header, header, where)
        fitted = {"centroids": "float32 3", "mean": "float64 1", "std": "float64 1"} if "mean" in tensors else {}
        wanted = {"assignments": "int32 2", "samples": "int64 1", "inertia": "float64 2", **fitted}
        require_tensors(tensors, wanted, str(path), ValueError)
        _check(tensors, told.num_clusters, path)
        standardizer = Standardizer(tensors.pop("mean"), tensors.pop("std")) if fitted else None
        return cls(num_clusters=told.num_clusters, about=told.about, standardizer=standardizer, **tensors)


@dataclass(frozen=True)
class _Header:
    """What the file of clusterings holds beside its tensors; see `Clusterings`."""

    num_clusters: int
    about: dict[str, Any]


def _check(tensors: dict[str, Tensor], clusters: int, path: str | os.PathLike[str]) -> None:
    """Refuse tensors of a file that contradict each other, or clusters that they cannot hold."""
    found, samples = tensors["assignments"], tensors["samples"]
    if not found.numel() or len(samples) != found.shape[1]:
        raise ValueError(f"{path} is damaged: {len(samples)} samples do not fit assignments of {list(found.shape)}.")
    if not 0 <= int(found.min()) <= int(found.max()) < clusters:
        raise ValueError(f"{path} is damaged: its assignments must lie in [0, {clusters}).")
    if "mean" not in tensors:
        if clusters > found.numel():  # those that were given are numbered without gaps
            raise ValueError(f"{path} is damaged: {clusters} clusters in {found.numel()} assignments.")
        return
    width = len(tensors["mean"])
    if tensors["centroids"].shape != (len(found), clusters, width) or len(tensors["std"]) != width:
        raise ValueError(f"{path} is damaged: its centroids are {list(tensors['centroids'].shape)}.")


def quantize(
    features: Tensor | np.ndarray | FeatureStore | str | os.PathLike[str],
    settings: KMeansSettings | None = None,
    *,
    samples: Tensor | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Clusterings:
    """Standardise features and cluster them by k-means, several times.

    Under `torchrun` every process passes its own rows; centroids are the same everywhere, assignments each its own.

    Args:
        features: `[N, D]`; or a complete feature store, or its folder, which is loaded into memory. Rows that are not finite
            are left out, counted and warned of.
        settings: the paper's by default.
        samples: number of each row in its data set; those of the store, or 0, 1, ... by default.
        device: where k-means runs; where the features are by default.
        progress: called with restarts done and in all.
        changes: fields of the settings by name, such as `clusters=100`.

    Raises:
        TypeError: features are neither a matrix nor a store, or there is no such setting.
        ValueError: more clusters than rows, no row that is finite, or faiss with several processes.
        ImportError: engine="faiss" without faiss.

    >>> x = torch.cat([torch.zeros(5, 2), torch.ones(5, 2)]) + 0.01 * torch.arange(20.0).view(10, 2)
    >>> found = quantize(x, clusters=2, clusterings=1, restarts=2)
    >>> found.sizes().tolist(), found.inertia.shape
    ([[5, 5]], torch.Size([1, 2]))
    """
    settings = changed(settings or KMeansSettings(), changes, "quantize")
    if isinstance(features, FeatureStore | str | os.PathLike):
        batch = (features if isinstance(features, FeatureStore) else FeatureStore(features)).require().load()
        features, samples = batch.features.float(), batch.indices if samples is None else samples
    features, samples, missing = _finite(matrix(features, "features"), samples)
    features = features if device is None else features.to(device)
    standardizer = Standardizer.fit(features)
    x = standardizer(features)
    offset, total = first_row(len(x), x.device)
    if settings.clusters > total:
        raise ValueError(f"clusters must not exceed the rows, got K={settings.clusters} for N={total}.")
    if settings.engine == "faiss" and world()[1] > 1:
        raise ValueError("engine='faiss' runs in one process; engine='sslk' sums over several.")
    points = min(settings.max_points or total, total)
    if points < settings.clusters:
        raise ValueError(f"max_points must be at least clusters, got {points} for K={settings.clusters}.")
    best: list[KMeansFit] = []
    inertia = torch.zeros(settings.clusterings, settings.restarts, dtype=torch.float64)
    for clustering in range(settings.clusterings):
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + clustering)
        seen = x
        if points < total:
            chosen = torch.randperm(total, generator=generator)[:points].sort().values - offset
            seen = x[chosen[(chosen >= 0) & (chosen < len(x))].to(x.device)]
        fits = []
        for restart in range(settings.restarts):
            fits.append(_fit(seen, settings, generator))
            inertia[clustering, restart] = fits[-1].inertia
            if progress is not None:
                progress(clustering * settings.restarts + restart + 1, inertia.numel(), "clustering")
        best.append(fits[int(inertia[clustering].argmin())])
    centroids = torch.stack([fit.centroids for fit in best])
    assignments = torch.stack([ssl_kernels.kmeans_assign(x, c)[0] for c in centroids]).cpu()
    about = {
        "settings": asdict(settings),
        "samples": total,
        "points": points,
        "iterations": [fit.iterations for fit in best],
        "repaired": [fit.repaired for fit in best],
    }
    if missing:
        about["nonfinite"] = missing
    standardizer = Standardizer(standardizer.mean.cpu(), standardizer.std.cpu())
    return Clusterings(assignments, settings.clusters, samples.cpu(), centroids.cpu(), standardizer, inertia, about)


def _finite(features: Tensor, samples: Tensor | None) -> tuple[Tensor, Tensor, int]:
    """The rows that are finite, the numbers of their samples, and how many rows of this process are not."""
    offset, _ = first_row(len(features), features.device)
    numbers = torch.arange(offset, offset + len(features)) if samples is None else samples
    finite = finite_rows(features)
    missing = int((~finite).sum())
    if not missing:
        return features, numbers, 0
    if missing == len(finite):
        raise ValueError(f"features must hold a row that is finite, got NaN or infinity in all {missing}.")
    warn_nonfinite(missing, len(finite))
    return features[finite], numbers[finite.to(numbers.device)], missing


def _fit(x: Tensor, settings: KMeansSettings, generator: torch.Generator) -> KMeansFit:
    start = random_start if settings.start == "random" else plus_plus_start
    centroids = start(x, settings.clusters, generator)
    if settings.engine == "sslk":
        return lloyd(x, centroids, settings.iterations)
    return _fit_faiss(x, centroids, settings.iterations)


def _fit_faiss(x: Tensor, start: Tensor, iterations: int) -> KMeansFit:
    """k-means of faiss on every row: its default would quietly take 256 a centroid."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError(f"engine='faiss' needs the package faiss-cpu or faiss-gpu: {error}") from error
    kmeans = faiss.Kmeans(
        x.shape[1],
        len(start),
        niter=iterations,
        nredo=1,
        gpu=faiss.get_num_gpus() if x.is_cuda else False,
        min_points_per_centroid=1,
        max_points_per_centroid=-(-len(x) // len(start)),
    )
    kmeans.train(x.cpu().numpy(), init_centroids=start.cpu().numpy())
    centroids = torch.from_numpy(kmeans.centroids).to(x.device)
    inertia = float(ssl_kernels.kmeans_assign(x, centroids)[1].double().sum())
    return KMeansFit(centroids, inertia, iterations, 0)
