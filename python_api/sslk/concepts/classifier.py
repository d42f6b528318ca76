"""Concepts that an image classifier sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from sslk.concepts.expert import ConceptSample
from sslk.concepts.table import ConceptError, ConceptTable
from sslk.features.store import FeatureStore
from sslk.models import Backbone, load_backbone
from sslk.models.transforms import evaluation_transform


class Classifier:
    """Any image classifier: its arg-max, or every class above a probability.

    Args:
        logits: normalised images `[n, 3, H, W]` -> class scores `[n, M]`.
        names: of the classes.
        transform: PIL image -> tensor `[3, H, W]`.
        group: of the columns: `"objects"`, `"scene"` for Places-365, `"texture"` for DTD, `"material"` for MINC.
        threshold: None for the arg-max; else classes whose softmax probability exceeds it (sigmoid where multi_label).
        multi_label: scores are independent, as those of an attribute network.
        title: what the table remembers the network by.
        head: the last layer alone, features `[n, D]` -> class scores, for features that are already stored.
    """

    def __init__(
        self,
        logits: Callable[[Tensor], Tensor],
        names: Sequence[str],
        transform: Callable[[Image.Image], Tensor],
        *,
        group: str = "objects",
        threshold: float | None = None,
        multi_label: bool = False,
        title: str = "classifier",
        head: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if multi_label and threshold is None:
            raise ValueError("multi_label needs a threshold, got None: independent scores have no one answer.")
        self.logits, self.names, self.transform, self.group = logits, list(names), transform, group
        self.threshold, self.multi_label, self.title = threshold, multi_label, title
        self.head = head or logits

    @torch.inference_mode()
    def __call__(self, samples: Sequence[ConceptSample]) -> list[list[int]]:
        scores = self.logits(torch.stack([self.transform(sample.image) for sample in samples]))
        if scores.shape != (len(samples), len(self.names)):
            raise ConceptError(f"{self.title} has {scores.shape[-1]} classes, but {len(self.names)} names were given.")
        return positions(scores, self.threshold, self.multi_label)

    def __repr__(self) -> str:
        rule = "arg-max" if self.threshold is None else f"> {self.threshold}"
        return f"Classifier({self.title}, {len(self.names)} classes, {rule}, {self.transform}, group={self.group!r})"


def positions(scores: Tensor, threshold: float | None, multi_label: bool = False) -> list[list[int]]:
    """The classes that a row of scores `[n, M]` stands for: the arg-max, or those of a probability above threshold."""
    if threshold is None:
        return scores.argmax(1, keepdim=True).tolist()
    probability = scores.sigmoid() if multi_label else scores.softmax(1)
    return [row.nonzero().flatten().tolist() for row in probability > threshold]


def backbone_classifier(
    model: str,
    names: Sequence[str] | None = None,
    *,
    weights: str | None = None,
    group: str = "objects",
    threshold: float | None = None,
    image_size: int | None = None,
    device: str = "cpu",
) -> Classifier:
    """A classifier by the name of its network, as `sslk.models.load_backbone` reads it.

    Args:
        model: `efficientnet-lite0` (weights packaged), `torchvision:resnet50`, `timm:NAME`, ...
        names: of the classes; ImageNet's where there are 1,000 and none are given.
        weights: `"pretrained"`, or a checkpoint with its linear classifier (Places-365, DTD, MINC).
        group, threshold: see `Classifier`.
        image_size: side of the crop; the network's own by default.
        device: where it runs.

    Raises:
        ConceptError: the weights hold no classifier, or names do not fit it.
    """
    backbone: Backbone = load_backbone(model, weights, image_size=image_size, device=device)
    if backbone.classifier is None:
        raise ConceptError(f"{model} with weights={weights!r} has no trained classifier: give weights that hold one.")
    names = imagenet_names() if names is None and backbone.classifier.out_features == 1000 else names
    if names is None or len(names) != backbone.classifier.out_features:
        raise ConceptError(
            f"names must name the {backbone.classifier.out_features} classes of {model}, "
            f"got {0 if names is None else len(names)}."
        )
    transform = evaluation_transform(backbone, image_size=image_size)
    title = f"{model} {backbone.weights_hash[:12]}"

    def logits(images: Tensor) -> Tensor:
        return backbone.logits(images.to(device)).cpu()

    return Classifier(logits, names, transform, group=group, threshold=threshold, title=title, head=backbone.classifier)


def imagenet_names() -> list[str]:
    """The 1,000 class names of ImageNet-1k in the order of classifiers, numbered where a name occurs twice."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    plain = [info.index_to_description(index).split(",")[0] for index in range(info.num_classes())]
    return [f"{name} ({index})" if plain.count(name) > 1 else name for index, name in enumerate(plain)]


def classify_store(
    store: FeatureStore,
    model: str,
    names: Sequence[str] | None = None,
    *,
    weights: str | None = None,
    group: str = "objects",
    threshold: float | None = None,
) -> ConceptTable:
    """What a classifier says about images whose features under it are already stored: no second pass over images.

    Args:
        store: features of `model`; its weights must be the same.
        model, names, weights, group, threshold: as for `backbone_classifier`.

    Raises:
        ConceptError: the store is of other weights, or the weights hold no classifier.
    """
    expert = backbone_classifier(model, names, weights=weights, group=group, threshold=threshold)
    if not expert.title.endswith(store.spec.weights_hash[:12]):
        raise ConceptError(
            f"{store.path} holds features of {store.spec.model} {store.spec.weights_hash[:12]}, the classifier is "
            f"{expert.title}: extract with the same weights."
        )
    rows: list[list[int]] = []
    samples: list[Tensor] = []
    with torch.inference_mode():
        for batch in store.require().batches(4096):
            rows += positions(expert.head(batch.features.float()), threshold)
            samples.append(batch.indices.clone())
    about = {"dataset": store.spec.dataset, "samples": len(store), "experts": [f"stored features: {expert!r}"]}
    return ConceptTable.from_rows(rows, expert.names, group, torch.cat(samples), about)
