"""Agreement of a model's heatmaps with annotated regions: mIoU with core and spurious masks, with controls."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from sslk.data import Dataset
from sslk.data.workers import loading_processes
from sslk.features.identity import weights_hash
from sslk.interpret.annotated import AnnotatedImages
from sslk.interpret.controls import center_prior, random_features
from sslk.interpret.heatmaps import active_features, combine
from sslk.interpret.maps import map_method
from sslk.interpret.masks import MaskSource
from sslk.interpret.parts import Parts
from sslk.interpret.raw_maps import MapMethod, evaluating
from sslk.metrics import HeatmapIoU
from sslk.models import EvaluationTransform
from sslk.progress import Progress
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.statistics.bootstrap import Interval
from sslk.statistics.intervals import group_difference, mean_interval, paired_difference

#: The maps that are compared with the masks: the model's, and what it has to beat.
MAPS = ("discriminative", "random features", "centre prior", "uniform")


@dataclass(frozen=True)
class AgreementSettings:
    """How agreement is measured.

    Attributes:
        eps, two_sided, layer: as in `HeatmapSettings`.
        threshold: in units of heat, which is in [0, 1].
        keep_representations: also keep `[N, D]`.
        batch_size, workers: of the loading.
        seed: of the random features.
    """

    eps: float | None = None
    two_sided: bool | None = None
    layer: str | None = None
    threshold: float = 0.0
    keep_representations: bool = False
    batch_size: int = 64
    workers: int = 0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class MaskAgreement:
    """How well heatmaps agree with masks, image by image.

    Attributes:
        overlaps: (map, mask kind) -> float64 `[N]`, in the order of the data set; NaN where an image has no map or no
            mask of that kind. Maps are those of `MAPS`.
        without_mask: mask kind -> number of images that lack it, or of which the crop leaves nothing.
        without_map: number of images with an empty `L_i` in S, or a map without heat.
        images: N.
        threshold: heat above which a pixel belongs to the map's region.
        method: how the maps were computed.
        representations: float `[N, D]`, where asked for.
        correct: bool `[N]`, whether a classifier was right on the image; None where unknown.
    """

    overlaps: dict[tuple[str, str], np.ndarray]
    without_mask: dict[str, int]
    without_map: int
    images: int
    threshold: float
    method: str
    representations: Tensor | None = None
    correct: np.ndarray | None = None

    def with_correct(self, correct: Sequence[bool] | np.ndarray | Tensor | None) -> MaskAgreement:
        """The same with what is known of a classifier: whether it is right on each image, bool `[N]`.

        Raises:
            ValueError: another length.
        """
        if correct is None:
            return replace(self, correct=None)
        if len(correct) != self.images:
            raise ValueError(f"correct must hold one value per image, got {len(correct)} for {self.images}.")
        return replace(self, correct=np.asarray(correct).astype(bool))

    @property
    def kinds(self) -> list[str]:
        """Kinds of masks."""
        return list(self.without_mask)

    def miou(self, kind: str = "core", which: str = "discriminative", correct: bool | None = None) -> Interval:
        """mIoU of one map with one kind of mask, over all images or those classified correctly or incorrectly.

        Raises:
            KeyError: no such map or kind.
            ValueError: the split is asked for where it is unknown.
        """
        return mean_interval(self._values(kind, which, correct))

    def compared(self) -> dict[str, Interval]:
        """The differences that the paper's claims and the controls are about, by name, positive where the claim holds."""
        out: dict[str, Interval] = {}
        if {"core", "spurious"} <= set(self.kinds):
            both = self._values("core", "discriminative"), self._values("spurious", "discriminative")
            out["core - spurious"] = paired_difference(*both)
            even = self._values("core", "uniform"), self._values("spurious", "uniform")
            # Masks differ in size: what counts is by how much the heat prefers each over its share of the image.
            out["core - spurious beyond uniform heat"] = paired_difference(both[0] - even[0], both[1] - even[1])
        for kind in self.kinds:
            if self.correct is not None:
                right, wrong = (self._values(kind, "discriminative", side) for side in (True, False))
                out[f"{kind}: correct - incorrect"] = group_difference(right, wrong)
                # Images with a larger object are easier too: compare what the heat adds to the mask's share.
                flat = (self._values(kind, "uniform", side) for side in (True, False))
                right, wrong = (heat - even for heat, even in zip((right, wrong), flat, strict=True))
                out[f"{kind}: correct - incorrect beyond uniform heat"] = group_difference(right, wrong)
            for control in MAPS[1:]:
                pair = self._values(kind, "discriminative"), self._values(kind, control)
                out[f"{kind}: discriminative - {control}"] = paired_difference(*pair)
        return out

    def _values(self, kind: str, which: str, correct: bool | None = None) -> np.ndarray:
        if (which, kind) not in self.overlaps:
            raise KeyError(f"no overlaps of {which!r} with {kind!r}; there are {sorted(self.overlaps)}.")
        values = self.overlaps[which, kind]
        if correct is None:
            return values
        if self.correct is None:
            raise ValueError("correct is unknown: set it with `with_correct`.")
        return values[self.correct == correct]


def mask_agreement(
    model: nn.Module,
    dataset: Dataset,
    masks: MaskSource,
    discriminative: DiscriminativeFeatures | Tensor,
    transform: EvaluationTransform,
    settings: AgreementSettings = AgreementSettings(),
    *,
    parts: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> MaskAgreement:
    """mIoU of the discriminative features' heatmaps with every kind of mask, and of three controls with the same masks.

    `mIoU = mean_i s(R & M) / s(R | M)` with R the pixels above the threshold and s the sum of heat (Kalibhat et al.,
    AAAI 2024). The controls see the same images: as many random features (maps of those above zero in the image), a
    Gaussian at the centre, and uniform heat, whose mIoU is the mask's share of the image. At the threshold 0 the mIoU is
    the share of the heat inside the mask, so a mask that covers more of the image has a larger one by that alone.

    One batch of images and masks is in memory at a time; a few numbers per image are kept.

    Args:
        model: a `Backbone` or module, on its device.
        dataset: of PIL images: its own `transform` must be None.
        masks: called with index, height and width; see `sslk.interpret.masks`. A mask that has not the image's size
            must have the size of the model's input.
        discriminative: as for `feature_heatmaps`.
        transform: of images and masks into the model's input.
        settings: thresholds, layer, loading.
        parts: folder in which finished batches are kept; after a kill the same call goes on behind them and ends with
            the same numbers. Parts of a call with other arguments are removed; pixels and mask files are not compared.
        progress: called with the images done and to do, after every batch.

    Raises:
        ValueError: the data set has a transform, a mask has another size than allowed, or
            `parts` is given and the masks have no repr that names them.
    """
    if dataset.transform is not None:
        raise ValueError("dataset must give untransformed images here, its transform must be None; pass transform=.")
    kinds = masks.kinds
    device = next(model.parameters()).device
    method = map_method(model, (3, *transform.size), layer=settings.layer)
    generator = torch.Generator().manual_seed(settings.seed)
    metrics = {(name, kind): HeatmapIoU(settings.threshold).to(device) for name in MAPS for kind in kinds}
    prior = center_prior(*transform.size).to(device)
    kept: list[Tensor] = []
    store: Parts | None = None
    if parts is not None:
        told = (
            settings.eps,
            settings.two_sided,
            transform,
            settings.threshold,
            settings.keep_representations,
            settings.batch_size,
            settings.seed,
        )
        store = Parts(parts, _identity(method, dataset, masks, discriminative, told))
        for part in store.finished:
            _restore(metrics, kept, generator, part)
    done = saved = len(next(iter(metrics.values())).values())
    held = len(kept)
    rest = Subset(AnnotatedImages(dataset, masks, transform), range(done, len(dataset)))
    loader = DataLoader(rest, settings.batch_size, num_workers=loading_processes(settings.workers))
    with evaluating(method.model):
        for images, regions in loader:
            images, regions = images.to(device), regions.to(device)
            raw = method(images)
            active, signs = active_features(raw.features, discriminative, settings.eps, settings.two_sided)
            heat = combine(raw, active, signs, transform.size)
            has_map = heat.flatten(1).amax(1, keepdim=True)[..., None] > 0
            at_random = random_features(raw.features, active, generator)
            shown = {
                "discriminative": heat,
                "random features": combine(raw, at_random, torch.ones_like(signs), transform.size),
                # Controls are taken on the images that have a map, so that differences are paired.
                "centre prior": prior * has_map,
                "uniform": torch.ones_like(heat) * has_map,
            }
            for (name, kind), metric in metrics.items():
                metric.update(shown[name], regions[:, kinds.index(kind)])
            if settings.keep_representations:
                kept.append(raw.features.float().cpu())
            done += len(images)
            if store is not None and (store.due or done == len(dataset)):
                store.add(_part(metrics, saved, kept[held:], generator))
                saved, held = done, len(kept)
            if progress is not None:
                progress(done, len(dataset), "heatmaps")
    first = metrics["discriminative", kinds[0]]
    return MaskAgreement(
        overlaps={key: metric.values().cpu().numpy() for key, metric in metrics.items()},
        without_mask={kind: int(metrics["discriminative", kind].without_mask) for kind in kinds},
        without_map=int(first.without_map),
        images=len(dataset),
        threshold=settings.threshold,
        method=method.name,
        representations=torch.cat(kept) if kept else None,
    )


_Metrics = dict[tuple[str, str], HeatmapIoU]


def _identity(
    method: MapMethod,
    dataset: Dataset,
    masks: MaskSource,
    discriminative: DiscriminativeFeatures | Tensor,
    settings: tuple[object, ...],
) -> str:
    """SHA-256 of everything that decides the numbers but pixels and mask files."""
    source = repr(masks)
    if re.search(r" at 0x[0-9a-fA-F]+", source):
        raise ValueError(f"masks must have a repr that names them for parts to be recognised, got {source}.")
    found = discriminative if isinstance(discriminative, DiscriminativeFeatures) else None
    mask = found.mask if found else discriminative
    chosen = mask.tolist(), found and found.eps, found and found.two_sided  # type: ignore[union-attr]
    model = method.name, method.layer, weights_hash(method.model)
    data = dataset.name, dataset.fingerprint, len(dataset)
    return hashlib.sha256(repr((model, data, source, chosen, settings)).encode()).hexdigest()


def _part(metrics: _Metrics, start: int, kept: list[Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """What was found from image `start` on, and the state behind it."""
    part = {
        "overlaps": torch.stack([metric.values()[start:].cpu() for metric in metrics.values()]),
        "missing": torch.stack([torch.stack([m.without_map, m.without_mask]).cpu() for m in metrics.values()]),
        "generator": generator.get_state(),
    }
    return part | ({"representations": torch.cat(kept)} if kept else {})


def _restore(metrics: _Metrics, kept: list[Tensor], generator: torch.Generator, part: dict[str, Tensor]) -> None:
    for metric, overlaps, (without_map, without_mask) in zip(metrics.values(), part["overlaps"], part["missing"], strict=True):
        metric.overlaps.append(overlaps.to(metric.device))
        metric.without_map, metric.without_mask = without_map.to(metric.device), without_mask.to(metric.device)
    if "representations" in part:
        kept.append(part["representations"])
    generator.set_state(part["generator"])
