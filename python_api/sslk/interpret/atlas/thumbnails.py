"""One picture per feature: its top images, and below each the heatmap of that feature."""

from __future__ import annotations

import io
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sslk.data import Dataset
from sslk.interpret.overlay import overlay
from sslk.interpret.raw_maps import MapMethod, evaluating, resize_and_scale
from sslk.models import EvaluationTransform
from sslk.progress import Progress
from sslk.results.atomic import write_atomically

SIDE = 112  # pixels of a thumbnail
_CHUNK = 256  # features whose thumbnails are in memory at a time
_BATCH = 64


def write_pictures(
    method: MapMethod,
    dataset: Dataset,
    transform: EvaluationTransform,
    features: Tensor,
    rows: Tensor,
    folder: Path,
    *,
    two_sided: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Write `feature-<j>.jpg` for every feature; two rows of K thumbnails, images above, heatmaps below.

    Args:
        method: how to compute maps.
        dataset: of untransformed images.
        transform: into the model's input.
        features: int64 `[F]`.
        rows: int64 `[F, K]`, indices into the data set; -1 leaves the place empty.
        folder: where to; it must exist.
        two_sided: a feature below its row's mean is drawn with the map of `-h_j`.
        progress: called with the features done and to do.

    Returns:
        The names of the files.
    """
    names: list[str] = []
    for chunk in torch.arange(len(features)).split(_CHUNK):
        pictures = _pictures(method, dataset, transform, features[chunk], rows[chunk], two_sided)
        for feature, picture in zip(features[chunk].tolist(), pictures, strict=True):
            name = f"feature-{feature}.jpg"
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "JPEG", quality=82)
            write_atomically(folder / name, buffer.getvalue())
            names.append(name)
        if progress is not None:
            progress(len(names), len(features), "drawing features")
    return names


def _pictures(
    method: MapMethod, dataset: Dataset, transform: EvaluationTransform, features: Tensor, rows: Tensor, two_sided: bool
) -> np.ndarray:
    """uint8 `[F, 2 SIDE, K SIDE, 3]`."""
    count, top = rows.shape
    out = np.zeros((count, 2, top, SIDE, SIDE, 3), dtype=np.uint8)
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)  # every image is loaded and run once
    for place, row in enumerate(rows.flatten().tolist()):
        if row >= 0:
            places[row].append((place // top, place % top))
    images = sorted(places)
    device = next(method.model.parameters()).device
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (transform.mean, transform.std))
    for start in range(0, len(images), _BATCH):
        part = images[start : start + _BATCH]
        batch = torch.stack([transform(dataset[row][0]) for row in part]).to(device)
        shown = F.interpolate(batch * std + mean, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        pixels = (shown.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        pairs = [(number, *place) for number, row in enumerate(part) for place in places[row]]
        where = torch.tensor([number for number, _, _ in pairs], device=device)
        columns = features[torch.tensor([feature for _, feature, _ in pairs])].to(device)
        with evaluating(method.model):
            raw = method(batch)
        signs = torch.ones(len(pairs), device=device)
        if two_sided:
            signs[raw.features[where, columns] < raw.features.mean(1)[where]] = -1.0
        heat = resize_and_scale(raw.pairs(where, columns, signs), (SIDE, SIDE)).cpu().numpy()
        for (number, feature, rank), map_ in zip(pairs, heat, strict=True):
            out[feature, 0, rank] = pixels[number]
            out[feature, 1, rank] = overlay(pixels[number], map_)
    return out.transpose(0, 1, 3, 2, 4, 5).reshape(count, 2 * SIDE, top * SIDE, 3)
