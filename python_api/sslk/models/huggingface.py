"""Vision models of transformers as backbones: the class token, or the pooled map of a convolutional network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslk.models.architectures import IMAGENET_MEAN, IMAGENET_STD, Architecture, optional_import

_INTERPOLATION = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's numbers, as image processors store


class HuggingFaceEncoder(nn.Module):
    """`[N, 3, H, W]` -> `[N, D]` of a transformers vision model.

    Convolutional models (a `[N, D, h, w]` last hidden state) give its spatial mean, transformers the class token of
    the last hidden state: their pooler, where there is one, is a layer that self-supervised checkpoints do not train.
    A masked autoencoder sees every patch, in order.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        config: Any = model.config
        self.patch_size: int | None = None  # of a masked autoencoder
        if getattr(config, "mask_ratio", None) is not None:
            config.mask_ratio = 0.0
            self.patch_size = int(config.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        options: dict[str, Any] = {}
        if self.patch_size is not None:
            patches = (images.shape[-2] // self.patch_size) * (images.shape[-1] // self.patch_size)
            options["noise"] = torch.arange(patches, dtype=torch.float32, device=images.device).repeat(len(images), 1)
        hidden = self.model(images, **options).last_hidden_state
        return hidden.mean((2, 3)) if hidden.ndim == 4 else hidden[:, 0]


def build_huggingface(name: str, pretrained: bool, image_size: int | None) -> Architecture:
    """A transformers vision model by hub id or local folder; random weights unless `pretrained`.

    Raises:
        ImportError: transformers is not installed.
        OSError: Its configuration or weights cannot be had.
    """
    transformers = optional_import("transformers", f"the backbone 'hf:{name}'", "transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        config = getattr(config, "vision_config", config)
        if pretrained:
            model = transformers.AutoModel.from_pretrained(name)
            model = getattr(model, "vision_model", model)
        else:
            model = transformers.AutoModel.from_config(config)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"'hf:{name}' could not be had ({reason}); give a folder written by save_pretrained") from error
    side: Any = image_size or getattr(config, "image_size", 224)
    size = (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))
    mean, std, interpolation = IMAGENET_MEAN, IMAGENET_STD, "bilinear"
    if not Path(name).is_dir() or (Path(name) / "preprocessor_config.json").exists():
        # Only the numbers are wanted: the dictionary needs no image-processor class and its dependencies.
        processor, _ = transformers.image_processing_utils.BaseImageProcessor.get_image_processor_dict(name)
        mean = tuple(processor.get("image_mean", mean))
        std = tuple(processor.get("image_std", std))
        interpolation = _INTERPOLATION.get(processor.get("resample", 2), "bilinear")
    return Architecture(HuggingFaceEncoder(model), size, mean, std, interpolation)
