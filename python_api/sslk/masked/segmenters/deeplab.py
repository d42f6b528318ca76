"""DeepLab: torchvision's semantic segmentation networks as segmenters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from sslk.distributed import require_device
from sslk.masked.segmenters.scene import Scene
from sslk.models.checkpoints import read_state

# The 20 classes of Pascal VOC, by output channel; 0 is background.
VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "dining table",
    "dog",
    "horse",
    "motorbike",
    "person",
    "potted plant",
    "sheep",
    "sofa",
    "train",
    "television",
)
NETWORKS = ("deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large")


class DeepLabSegmenter:
    """Everything torchvision's DeepLabv3 (Chen et al., 2017) does not call background, or only the named classes.

    Args:
        network: `deeplabv3_resnet50`, `deeplabv3_resnet101` or `deeplabv3_mobilenet_v3_large`.
        weights: `"pretrained"` for torchvision's (downloaded by it, COCO with the classes of Pascal VOC), or the path
            of a state dict with 21 classes.
        classes: of Pascal VOC; all by default.
        size: shorter side of the network's input and of the masks of larger images, pixels.
        device: where to compute.

    Raises:
        ValueError: an unknown network or class, or weights that do not fit.
        OSError: the weights cannot be downloaded or read.
    """

    def __init__(
        self,
        network: str = "deeplabv3_resnet50",
        weights: str = "pretrained",
        classes: Sequence[str] = (),
        size: int = 520,
        device: str | torch.device = "cpu",
    ) -> None:
        from torchvision import models

        if network not in NETWORKS:
            raise ValueError(f"network must be one of {', '.join(NETWORKS)}, got {network!r}.")
        unknown = [name for name in classes if name not in VOC_CLASSES[1:]]
        if unknown:
            raise ValueError(f"classes must be among {', '.join(VOC_CLASSES[1:])}, got {unknown[0]!r}.")
        self.classes, self.size, self.device = tuple(classes), size, require_device(device)
        self.side: int | None = size
        self.settings = f"deeplab:{network} {weights} {','.join(sorted(classes)) or 'all'}, masks of {size}px"
        if weights == "pretrained":
            try:
                net = models.get_model(network, weights="DEFAULT")
            except OSError as error:
                raise OSError(f"the weights of {network} could not be downloaded ({error}); pass a path.") from error
        else:
            net = models.get_model(network, weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
            state = read_state(Path(weights))
            problems = net.load_state_dict(state, strict=False)
            missing = [name for name in problems.missing_keys if not name.startswith("aux_classifier.")]
            if missing or problems.unexpected_keys:
                first = [*missing, *problems.unexpected_keys][0]
                raise ValueError(f"{weights} does not fit {network} with 21 classes: {first} is missing or unknown.")
        self.net = net.eval().to(self.device)

    def __call__(self, scene: Scene) -> np.ndarray:
        """True where the most likely class is no background, or one of the classes."""
        from torchvision.transforms import functional as transforms

        image = transforms.to_tensor(scene.image.convert("RGB"))
        resized = transforms.resize(image, [self.size], antialias=True)
        resized = transforms.normalize(resized, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        with torch.inference_mode():
            logits = self.net(resized[None].to(self.device))["out"]
            logits = F.interpolate(logits, image.shape[1:], mode="bilinear", align_corners=False)
        labels = logits[0].argmax(0).cpu().numpy()
        chosen = [VOC_CLASSES.index(name) for name in self.classes]
        return np.isin(labels, chosen) if chosen else labels != 0
