"""Random views of the images of a store under its model, for measures that compare views: LiDAR and alignment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslk.data.augment import BatchSimCLRTransform
from sslk.data.dataset import Dataset, UnreadableImageError
from sslk.data.decode import rgb
from sslk.data.load import load_dataset
from sslk.data.source import DataSource
from sslk.distributed import require_device
from sslk.features.forward import Forward
from sslk.features.settings import ExtractSettings
from sslk.features.store import FeatureStore
from sslk.models.source import ModelSource, named, random_seed
from sslk.progress import Progress

if TYPE_CHECKING:
    from sslk.models import Backbone

LARGEST = 1.5  # sides of the views: larger images are reduced to it first, because the crop's sampling does not antialias
_PASS = 64  # views of 224 x 224 in one forward pass, or as many as have their pixels


class NoViews(ValueError):
    """The images of a store, or its model, cannot be had again; the message says why."""


@dataclass(frozen=True)
class ViewSource:
    """Where the views of stores come from: their models and images, loaded again.

    Attributes:
        models: with their weights, in any order: each store finds its own by the hash of the weights. A store of a packaged
            or randomly initialised network, or of a function of the user's, needs none.
        data: the images; by default the data set that the store names.
        device: where the models run.
        root: folder of the published data sets, where a store's own name is looked up.
    """

    models: tuple[ModelSource, ...] = ()
    data: DataSource | None = None
    device: str = "cpu"
    root: str | None = None

    def of(
        self, store: FeatureStore, images: int = 1000, views: int = 10, seed: int = 0, progress: Progress | None = None
    ) -> Tensor:
        """Representations of random views of images of a store, see `encode_views`.

        Args:
            store: says which model and data.
            images: how many of its images, drawn at random; all where it has fewer.
            views: of each image.
            seed: of the choice and of the views; images and views are the same for every model.
            progress: called with the views encoded and to encode.

        Returns:
            float32 `[images, views, D]`.

        Raises:
            NoViews: the model or the data set cannot be had again.
        """
        try:
            dataset, backbone = self._images(store), self._backbone(store)
        except NoViews:
            raise
        except (ValueError, OSError, ImportError) as error:
            raise NoViews(f"the model or the images cannot be loaded again: {str(error).rstrip('.')}.") from None
        return encode_views(backbone, dataset, images, views, seed, progress=progress)

    def _images(self, store: FeatureStore) -> Dataset:
        if store.spec.imported:
            raise NoViews("the store was imported and has no images.")
        if self.data is not None:
            dataset = self.data.load()
            store.require_images(dataset)
            return dataset
        # The name of some data sets ends in their split, that of a file or a folder in a part of its path.
        whole = store.spec.dataset
        name, _, split = whole.rpartition("/")
        try:
            dataset = load_dataset(name, split, root=self.root)
            store.require_images(dataset)
        except (ValueError, OSError):
            dataset = load_dataset(whole, root=self.root)
            store.require_images(dataset)
        return dataset

    def _backbone(self, store: FeatureStore) -> Backbone:
        spec, seen = store.spec, False
        for source in self.models or (_recorded(spec.model),):
            if named(source.name, random_seed(source.weights)) != spec.model:
                continue
            seen = True
            backbone = source.load(device=self.device)
            if spec.feature not in ("", backbone.feature) and " of " in spec.feature:
                token, _, layer = spec.feature.partition(" of ")
                (backbone,) = backbone.read_out([layer], [token])  # type: ignore[list-item]
            if (backbone.weights_hash, backbone.num_features) == (spec.weights_hash, spec.num_features):
                return backbone
        what = "has other weights or another representation" if seen else "is not among the models given"
        raise NoViews(f"{spec.model} {what}: name the model with its checkpoint and layer.")


def _recorded(model: str) -> ModelSource:
    """A model by the name in a store, which says all about those that bring their weights, and about random ones.

    Raises:
        ValueError: the name is none of a model.

    >>> _recorded("cifar:compact (random weights, seed 3)").model, _recorded("embedded").model
    ('cifar:compact@random:3', 'embedded')
    """
    name, random, rest = model.partition(" (random weights")
    seed = rest.removeprefix(", seed ").removesuffix(")") or "0"
    return ModelSource(name, weights=f"random:{seed}" if random else None)


def encode_views(
    backbone: Backbone, images: Dataset, count: int = 1000, views: int = 10, seed: int = 0, progress: Progress | None = None
) -> Tensor:
    """Representations of random views of images under an encoder in evaluation mode.

    A view is SimCLR's: a crop of 20 to 100 % of the area, flip, colour jitter, greyscale (`BatchSimCLRTransform`). Which images,
    and the random numbers of every view, depend on `seed` alone, so that all models see the same views at their own size.

    Args:
        backbone: on its device.
        images: of which `count` are drawn without replacement; unreadable ones are left out.
        count: images.
        views: of each.
        seed: of the choice and of the views.
        progress: called with the views encoded and to encode.

    Returns:
        float32 `[n, views, D]`; n = count, less what the set lacks and what cannot be read.

    Raises:
        ValueError: a count that is not positive, or a model whose images are not square.
        NoViews: no image can be read.

    Examples:
        >>> from sslk.data import load_dataset
        >>> from sslk.models import load_backbone
        >>> encode_views(load_backbone("embedded"), load_dataset("sample", "test"), count=4, views=2).shape
        torch.Size([4, 2, 256])
    """
    if count < 1 or views < 1:
        raise ValueError(f"count and views must be at least 1, got {count} and {views}.")
    height, width = backbone.input_size
    if height != width:
        raise ValueError(f"views need a model of square images, {backbone.name!r} takes {height} x {width} pixels.")
    device = next((p.device for p in backbone.parameters()), require_device("cpu"))
    augment = BatchSimCLRTransform(height, normalization=(backbone.mean, backbone.std))
    parts: list[Tensor] = []
    with Forward(backbone, None, ExtractSettings(), device) as forward:
        forward.batch_size = max(views, _PASS * 224 * 224 // (height * width))
        per_pass = max(1, forward.batch_size // views)
        pending: list[Tensor] = []
        chosen = _choose(len(images), count, seed)
        for done, batch in enumerate(_views_of(images, chosen, augment, views, seed, backbone.interpolation), 1):
            pending.append(batch)
            if len(pending) == per_pass or done == len(chosen):
                parts += [out[0].float().cpu() for out in forward(torch.cat(pending))]
                pending = []
                if progress is not None:
                    progress(done * views, len(chosen) * views, "encoding views")
        if pending:  # images at the end could not be read
            parts += [out[0].float().cpu() for out in forward(torch.cat(pending))]
    if not parts:
        raise NoViews(f"no image of {images.name} can be read.")
    encoded = torch.cat(parts)
    return encoded.view(-1, views, encoded.shape[1])


def _choose(rows: int, count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(rows, generator=generator)[:count].sort().values.tolist()


def _views_of(
    images: Dataset, chosen: list[int], augment: BatchSimCLRTransform, views: int, seed: int, interpolation: str
) -> Iterator[Tensor]:
    """The views `[views, 3, H, W]` of every chosen image that can be read."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    numbers = augment.draw(len(chosen) * views, torch.Generator().manual_seed(seed))
    for place, index in enumerate(chosen):
        try:
            image = rgb(images.image(index))
        except UnreadableImageError:
            continue
        side = int(LARGEST * augment.size)
        if min(image.size) > side:
            image = F.resize(image, [side], InterpolationMode(interpolation))
        pixels = F.pil_to_tensor(image).expand(views, -1, -1, -1)
        yield augment.render(pixels, numbers[:, place * views : (place + 1) * views])
