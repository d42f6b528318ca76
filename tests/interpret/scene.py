"""A small labelled data set with awkward names, its store under a small CNN, and the set S."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sslk.data import Dataset
from sslk.features import FeatureStore, extract
from sslk.features.settings import ExtractSettings
from sslk.models import Backbone, EvaluationTransform
from sslk.quality.discriminative import DiscriminativeFeatures
from tests.interpret.small import cnn

CLASSES = ["cat & <b>dog</b>", '"><script>window.hacked=1</script>', "tree"]
TRANSFORM = EvaluationTransform((16, 16), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@dataclass
class Scene:
    model: Backbone
    data: Dataset
    store: FeatureStore
    found: DiscriminativeFeatures


def make_scene(folder: Path, n: int = 90) -> Scene:
    """Images whose colour depends on their class, in random order; features are active at eps = 0.7."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    pixels = rng.integers(0, 120, (n, 16, 16, 3), dtype=np.uint8)
    pixels[np.arange(n), :, :, labels] += 130
    names = [f"images/<i>{k}</i>'.png" for k in range(n)]

    def dataset(transform=None):
        return Dataset("scene", lambda i: Image.fromarray(pixels[i]), names, labels, CLASSES, transform=transform)

    model = Backbone(cnn().net.float(), name="small", input_size=(16, 16))
    store = extract(model, dataset(TRANSFORM), folder / "store", ExtractSettings(batch_size=32, shard_rows=40, workers=0))
    counts, _ = torch.ops.sslk.activation_counts(store.load().features, 0.7, False)
    found = DiscriminativeFeatures.from_counts(counts, n, eps=0.7, lower=25, upper=80)
    return Scene(model, dataset(), store, found)
