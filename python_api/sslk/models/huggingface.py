"""Vision models of transformers as backbones: the vector that their family takes for the image."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslk.models.architectures import IMAGENET_MEAN, IMAGENET_STD, Architecture, optional_import
from sslk.models.checkpoints import CheckpointError, CheckpointReport
from sslk.models.readout import Tap, choose_tap, prefix_tokens
from sslk.models.settings import Token

_INTERPOLATION = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's numbers, as image processors store


class HuggingFaceEncoder(nn.Module):
    """`[N, 3, H, W]` -> `[N, D]` of a transformers vision model: the vector that its family takes for the image.

    That is the model's `pooler_output`, but for families whose pooler is a dense layer that self-supervised checkpoints do
    not train (ViT, DeiT): there, and where there is no pooler, the class token of the last hidden state, or the mean of
    its tokens or map where it has none. A masked autoencoder sees every patch, in order.

    Args:
        model: of transformers.
        images: `[n, 3, H, W]`, to find out what it gives.

    Attributes:
        pool: `pooler`, `cls` or `mean`.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.model = model.eval()
        config: Any = model.config
        self.patch_size: int | None = None  # of a masked autoencoder
        if getattr(config, "mask_ratio", None) is not None:
            config.mask_ratio = 0.0
            self.patch_size = int(config.patch_size)
        self.pool: Token = "mean"
        with torch.no_grad():
            output = self._run(images.to(next(model.parameters())))
        trained = getattr(output, "pooler_output", None) is not None
        dense = hasattr(getattr(model, "pooler", None), "dense")
        self.pool = "pooler" if trained and not dense else choose_tap(self, images, "model", None).pool

    def forward(self, images: Tensor) -> Tensor:
        prefix = prefix_tokens(self.model)[1] if self.pool == "mean" else 0
        return Tap("", self.pool, prefix).read(self._run(images))

    def _run(self, images: Tensor) -> Any:
        options: dict[str, Any] = {}
        if self.patch_size is not None:
            patches = (images.shape[-2] // self.patch_size) * (images.shape[-1] // self.patch_size)
            options["noise"] = torch.arange(patches, dtype=torch.float32, device=images.device).repeat(len(images), 1)
        return self.model(images, **options)


def build_huggingface(name: str, pretrained: bool, image_size: int | None) -> Architecture:
    """A transformers vision model by hub id or local folder; random weights unless `pretrained`.

    Raises:
        ImportError: transformers is not installed.
        OSError: Its configuration or weights cannot be had.
        CheckpointError: The weights lack tensors of the network.
    """
    transformers = optional_import("transformers", f"the backbone 'hf:{name}'", "transformers")
    report = None
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        config = getattr(config, "vision_config", config)
        if pretrained:
            model, found = transformers.AutoModel.from_pretrained(name, output_loading_info=True)
            inner = getattr(model, "vision_model", model)
            report = _report(inner, "vision_model." if inner is not model else "", found)
            model = inner
        else:
            model = transformers.AutoModel.from_config(config)
            model = getattr(model, "vision_model", model)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"'hf:{name}' could not be had ({reason}); give a folder written by save_pretrained") from error
    mean, std, interpolation = IMAGENET_MEAN, IMAGENET_STD, "bilinear"
    if not Path(name).is_dir() or (Path(name) / "preprocessor_config.json").exists():
        # Only the numbers are wanted: the dictionary needs no image-processor class and its dependencies.
        processor, _ = transformers.image_processing_utils.BaseImageProcessor.get_image_processor_dict(name)
        mean = tuple(processor.get("image_mean", mean))
        std = tuple(processor.get("image_std", std))
        interpolation = _INTERPOLATION.get(processor.get("resample", 2), "bilinear")
    return huggingface_architecture(model, image_size, mean=mean, std=std, interpolation=interpolation, report=report)


def huggingface_architecture(model: nn.Module, image_size: int | None, **preprocessing: Any) -> Architecture:
    """A transformers model that is there already, with the image size of its configuration."""
    side: Any = image_size or getattr(model.config, "image_size", 224)
    size = (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))
    encoder = HuggingFaceEncoder(model, torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)))
    return Architecture(encoder, size, feature=encoder.pool, **preprocessing)


def _report(model: nn.Module, prefix: str, found: Any) -> CheckpointReport:
    """What of the network transformers found in the files; the rest it drew at random."""
    names = list(model.state_dict())
    # transformers draws a pooler of its own where the files have none.
    missing = {name.removeprefix(prefix) for name in found["missing_keys"] if name.startswith(prefix)}
    missing |= {name.removeprefix(prefix) for name, *_ in found.get("mismatched_keys", ()) if name.startswith(prefix)}
    report = CheckpointReport(
        "transformers",
        matched=tuple(name for name in names if name not in missing),
        missing=tuple(name for name in names if name in missing),
        unexpected=tuple(found["unexpected_keys"]),
    )
    lacking = [name for name in report.missing if not name.startswith("pooler.")]
    if len(lacking) > 0.05 * len(names):
        raise CheckpointError(
            f"the weights lack {len(lacking)} of the network's {len(names)} tensors, first {', '.join(lacking[:3])}: they "
            "would stay random."
        )
    if lacking:
        warnings.warn(f"{len(lacking)} of {len(names)} tensors keep their random values: {', '.join(lacking)}", stacklevel=2)
    return report
