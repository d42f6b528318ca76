"""The label-free panel of one representation: its numbers, and how sure they are."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from sslk.distributed import require_device
from sslk.features.store import FeatureStore
from sslk.metrics import FeatureSpectrum, LiDAR, SelfCluster, dead_features, uniformity
from sslk.probes.usable import finite_rows
from sslk.progress import Progress, renamed
from sslk.quality import panel_influence as influence
from sslk.quality.batches import BATCH_BYTES, Features, feature_batches, opened
from sslk.quality.discovery import discover
from sslk.quality.learnability import cluster_learnability
from sslk.quality.score import qscore
from sslk.quality.settings import PanelSettings
from sslk.statistics.bootstrap import Interval, percentile_interval
from sslk.statistics.influence import resampled_means

Better = Literal["higher", "lower", "near 1"]
# Which way each number is claimed to be better, by those who proposed it.
CLAIMS: Mapping[str, Better] = {
    "RankMe": "higher",
    "effective rank": "higher",
    "alpha-ReQ": "near 1",
    "NESum": "higher",
    "SelfCluster": "lower",
    "LiDAR": "higher",
    "uniformity": "lower",
    "alignment": "lower",
    "cluster learnability": "higher",
    "mean Q-Score": "higher",
    "dead features [%]": "lower",
}
_NO_VIEWS = "no views of its images were given."


@dataclass(frozen=True, eq=False)
class Panel:
    """Label-free numbers of one representation.

    Attributes:
        values: by name, in the order of `CLAIMS`, each with its 95 % bootstrap interval (NaN where there is none); what could
            not be computed is not among them.
        absent: why a number, or its interval, is missing: one sentence by name.
        draws: what the bootstrap adds to each number, float64 `[resamples]`; of models on the same data and settings in pairs.
        samples: rows, all finite.
        nonfinite: rows that hold NaN or infinity, left out.
        num_features: D.
        rank: of the centred rows, numerical.
    """

    values: Mapping[str, Interval]
    absent: Mapping[str, str]
    draws: Mapping[str, Tensor] = field(repr=False)
    samples: int
    nonfinite: int
    num_features: int
    rank: int


def panel(
    features: Features,
    settings: PanelSettings = PanelSettings(),  # noqa: B008 (frozen)
    *,
    views: Tensor | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Panel:
    """Measure a representation without labels: RankMe, effective rank, alpha-ReQ, NESum, SelfCluster, uniformity, cluster
    learnability, mean Q-Score, share of dead features, and of views LiDAR and alignment.

    One pass over the rows gives the sums of all that follows from a covariance, and the sample of rows for the rest; Q-Score
    reads a store three times more (eps is chosen in two passes). Intervals are of the infinitesimal jackknife
    (`sslk.quality.panel_influence`): how far a number would move with as many other rows, not how far it is from its value
    on infinitely many.

    Args:
        features: `[N, D]`, or a feature store of any size, or its folder.
        settings: rows of the sample, resamples, seed.
        views: `[n, q, D]`, q views of n images, from `sslk.quality.views.ViewSource`; LiDAR and alignment are absent without.
        device: where to compute; the CPU by default.
        progress: called with the rows read and to read.

    Raises:
        StoreError: the store is incomplete or damaged.
        TypeError, ValueError: features or views of another shape, no row that is finite, or fewer than two resamples.

    Examples:
        >>> import torch
        >>> from sslk.quality import panel
        >>> found = panel(torch.randn(500, 16, generator=torch.Generator().manual_seed(0)))
        >>> found.rank, round(found.values["RankMe"].value, 1)
        (16, 15.9)
    """
    source = opened(features)
    if settings.rows < 2 or settings.resamples < 2:
        raise ValueError(f"rows and resamples must be at least 2, got {settings.rows} and {settings.resamples}.")
    on = require_device(device or "cpu")
    sums = _one_pass(source, settings, on, progress)
    found = _Numbers(settings, finite=sums.finite)
    _spectral(found, sums)
    _of_sample(found, sums, settings.seed)
    _quality(found, source, sums, on, progress)
    if views is None:
        found.absent |= dict.fromkeys(("LiDAR", "alignment"), _NO_VIEWS)
    else:
        _of_views(found, views.to(on))
    return Panel(
        {name: found.values[name] for name in CLAIMS if name in found.values},
        found.absent,
        found.draws,
        sums.finite,
        sums.nonfinite,
        sums.width,
        sums.rank,
    )


@dataclass(eq=False)
class _Sums:
    """What one pass over the rows leaves."""

    spectrum: FeatureSpectrum
    cluster: SelfCluster
    sample: Tensor  # [n, D], finite or not
    finite: int
    nonfinite: int
    rank: int = 0

    @property
    def width(self) -> int:
        return self.spectrum.num_features


@dataclass(eq=False)
class _Numbers:
    """The numbers so far."""

    settings: PanelSettings
    finite: int
    values: dict[str, Interval] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    draws: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, value: float, influences: Tensor | None, usable: Tensor, of: int, why: str = "") -> None:
        """A number with the influences of the usable ones among the sampled rows, bool `[n]`; `of` rows the number is of."""
        if not math.isfinite(value):
            self.absent[name] = why or "it is not defined on these rows."
            return
        low = high = math.nan
        if influences is None:
            self.absent |= {name: why} if why else {}
        else:
            # Rows that are left out keep their place, so that models on the same rows are resampled in pairs.
            spread = torch.zeros(len(usable), 1, dtype=torch.float64)
            spread[usable.cpu(), 0] = (influences - influences.mean()).cpu()
            kept = int(usable.sum())
            means = resampled_means(spread, self.settings.resamples, self.settings.seed)[:, 0]
            self.draws[name] = means * (len(usable) / math.sqrt(kept * of))
            _, low, high, _ = percentile_interval(value, value + self.draws[name])
        self.values[name] = Interval(value, low, high, of)


def _batches(source: Tensor | FeatureStore, device: torch.device) -> Iterator[Tensor]:
    if isinstance(source, FeatureStore):
        yield from feature_batches(source, device)
    else:
        for rows in source.split(max(1, BATCH_BYTES // (source.shape[1] * source.element_size()))):
            yield rows.to(device)


def _one_pass(source: Tensor | FeatureStore, settings: PanelSettings, device: torch.device, progress: Progress | None) -> _Sums:
    width = source.shape[1] if isinstance(source, Tensor) else source.num_features
    spectrum, cluster = FeatureSpectrum(width).to(device), SelfCluster(width).to(device)
    places = torch.tensor(sorted(random.Random(settings.seed).sample(range(len(source)), min(settings.rows, len(source)))))
    parts, done, finite = [], 0, 0
    for rows in _batches(source, device):
        usable = finite_rows(rows)
        good = rows if bool(usable.all()) else rows[usable]
        if len(good):
            spectrum.update(good)
            cluster.update(good)
        inside = places[(places >= done) & (places < done + len(rows))] - done
        parts.append(rows[inside.to(device)])
        done, finite = done + len(rows), finite + len(good)
        if progress is not None:
            progress(done, len(source), "reading rows")
    if not finite:
        raise ValueError(f"features must hold a row that is finite, got NaN or infinity in all {done}.")
    sample = torch.cat(parts)
    return _Sums(spectrum, cluster, sample if sample.dtype == torch.float64 else sample.float(), finite, done - finite)


def _spectral(found: _Numbers, sums: _Sums) -> None:
    """All that follows from the sums of the one pass."""
    answer = sums.spectrum.compute()
    eigenvalues, usable = answer["eigenvalues"], finite_rows(sums.sample)
    sums.rank = int((eigenvalues > 0).sum())
    rows, few = sums.sample[usable], ""
    influences: dict[str, Tensor] = {}
    if sums.finite <= sums.width and sums.rank >= min(sums.finite - 1, sums.width):
        few = (
            f"no interval: {sums.finite} rows of {sums.width} features span no more directions than there are rows, and the "
            "spectrum's end says how many rows there are."
        )
    elif len(rows):
        influences = influence.spectral_influences(sums.spectrum, rows)
    for name, measure in {**influence.NOT_CENTRED, **influence.CENTRED}.items():
        values = eigenvalues if name in influence.CENTRED else answer["singular_values"].square()
        found.add(name, float(measure(values)), influences.get(name), usable, sums.finite, few)
    moved = influence.self_cluster_influences(sums.cluster, rows) if len(rows) else None
    found.add("SelfCluster", float(sums.cluster.compute()["self_cluster"]), moved, usable, sums.finite)
    dead = 100 * float(dead_features(answer["mean"], answer["variance"]).double().mean())
    found.add("dead features [%]", dead, None, usable, sums.finite)  # a count of features: other rows can only lower it


def _of_sample(found: _Numbers, sums: _Sums, seed: int) -> None:
    """What is computed on the sampled rows: pairs and neighbours."""
    usable = finite_rows(sums.sample)
    rows = sums.sample[usable]
    value = float(uniformity(rows))
    moved = influence.uniformity_influences(rows) if math.isfinite(value) else None
    found.add("uniformity", value, moved, usable, len(rows), "fewer than two sampled rows are finite.")
    try:
        learned = cluster_learnability(rows, seed=seed)
    except ValueError as error:
        found.absent["cluster learnability"] = str(error)
        return
    # A share of rows told right; which ones is not known, so that its interval is that of as many draws, not in pairs.
    generator = torch.Generator().manual_seed(int(learned.value * 2**52))
    right = torch.randperm(len(rows), generator=generator) < learned.value * len(rows)
    found.add("cluster learnability", learned.value, right.double(), usable, len(rows))


def _quality(
    found: _Numbers, source: Tensor | FeatureStore, sums: _Sums, device: torch.device, progress: Progress | None
) -> None:
    """Mean Q-Score over the rows, of the set that is found on them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rows that are not finite are said once, by the panel
        try:
            chosen = discover(source, device=device, progress=progress)
            scores = qscore(source, chosen, device=device, progress=renamed(progress, "scoring")).scores.cpu()
        except ValueError as error:
            found.absent["mean Q-Score"] = str(error)
            return
    places = random.Random(found.settings.seed).sample(range(len(scores)), min(found.settings.rows, len(scores)))
    sampled = scores[torch.tensor(sorted(places))]
    usable = sampled.isfinite()
    value = float(scores[scores.isfinite()].double().mean())
    found.add("mean Q-Score", value, sampled[usable].double(), usable, sums.finite)


def _of_views(found: _Numbers, views: Tensor) -> None:
    """LiDAR and alignment."""
    if views.ndim != 3 or views.shape[1] < 2:
        raise ValueError(f"views must be [images, views, D] with at least 2 views, got {list(views.shape)}.")
    usable = views.isfinite().all(2).all(1)
    kept = views[usable]
    images, width = len(kept), views.shape[2]
    if images < 2:
        found.absent |= dict.fromkeys(("LiDAR", "alignment"), f"{images} of {len(views)} images have views that are finite.")
        return
    metric = LiDAR(width).to(views.device)
    metric.update(kept)
    few = images <= width
    moved = None if few else influence.lidar_influences(metric, kept)
    why = f"no interval: {images} images of {width} features span no more directions than there are images." if few else ""
    found.add("LiDAR", float(metric.compute()["lidar"]), moved, usable, images, why)
    pairs = influence.alignment_per_image(kept)
    found.add("alignment", float(pairs.mean()), pairs, usable, images)
