"""A frozen-interface encoder: images in, representations out, and what a protocol has to know about it."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from sslk.models.checkpoints import CheckpointReport
from sslk.models.dependence import unused_parameters


class Backbone(nn.Module):
    """An encoder without its head, in eval mode, together with its preprocessing and the nature of its features.

    What the features are is measured, not declared: one forward pass over two images of noise, with hooks, finds the
    last module whose `[2, D, h, w]` output averages to the representation.

    Args:
        net: Network without its head, `[N, 3, H, W]` -> `[N, D]`, on the device it shall stay on.
        name: Name it was asked for.
        input_size: Height and width of the images.
        mean, std: Per-channel normalisation of images in [0, 1].
        interpolation: Of the resize: `bilinear`, `bicubic`, `lanczos` or `nearest`.
        classifier: Trained linear head `[N, D]` -> `[N, classes]`, kept for `logits`.
        checkpoint: Report of the checkpoint the weights came from.

    Attributes:
        num_features: D.
        pooled: Whether feature j is the spatial mean of channel j of a feature map.
        feature_layer: Dotted name of the module that puts out this map (`backbone.get_submodule(name)` is it); None
            where `pooled` is False.
        signed: Whether features can be negative: some were on the noise. Features after a ReLU are not.

    Raises:
        ValueError: The network does not return `[N, D]`.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> backbone = Backbone(net, name="tiny", input_size=(8, 8))
    >>> backbone.num_features, backbone.feature_layer, backbone.signed
    (8, 'net.1', False)
    >>> backbone.forward_features(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 8, 6, 6])
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        name: str,
        input_size: tuple[int, int],
        mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        std: tuple[float, ...] = (0.229, 0.224, 0.225),
        interpolation: str = "bilinear",
        classifier: nn.Linear | None = None,
        checkpoint: CheckpointReport | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.classifier = classifier
        self.name = name
        self.input_size = input_size
        self.mean, self.std = tuple(mean), tuple(std)
        self.interpolation = interpolation
        self.checkpoint = checkpoint
        self.num_features: int
        self.signed: bool
        self.feature_layer: str | None
        self.eval()
        self._measure_features()

    @property
    def pooled(self) -> bool:
        return self.feature_layer is not None

    @property
    def weights_hash(self) -> str:
        """SHA-256 over names, dtypes, shapes and bytes of the network's state, in hex; computed at each call.

        Parameters on which the representation does not depend are left out: what a checkpoint lacks of them is drawn at
        random, anew each time.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(self.net.state_dict().items()):
            if name in self._unused:
                continue
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            # Flattened before the view: a tensor without dimensions has no last one to re-interpret.
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def forward(self, images: Tensor) -> Tensor:
        """Representations `[N, D]` of normalised images `[N, 3, H, W]`."""
        return self.net(images)

    def forward_features(self, images: Tensor) -> Tensor:
        """The feature map `[N, D, h, w]` whose spatial mean is the representation; differentiable.

        Raises:
            ValueError: The features are no pooled channels (vision transformers).
        """
        if self.feature_layer is None:
            raise ValueError(
                f"forward_features needs features that are spatial means of channels, those of {self.name!r} are not"
            )
        maps: list[Tensor] = []
        layer = self.get_submodule(self.feature_layer)
        handle = layer.register_forward_hook(lambda module, args, output: maps.append(output))
        try:
            self.net(images)
        finally:
            handle.remove()
        return maps[-1]

    def logits(self, images: Tensor) -> Tensor:
        """Class scores `[N, classes]` of the trained classifier.

        Raises:
            ValueError: The weights came without a classifier.
        """
        if self.classifier is None:
            raise ValueError(f"logits needs weights with a classifier trained on the features, {self.name!r} has none")
        return self.classifier(self.net(images))

    def extra_repr(self) -> str:
        return (
            f"name={self.name!r}, num_features={self.num_features}, input_size={self.input_size}, "
            f"feature_layer={self.feature_layer!r}, signed={self.signed}"
        )

    @torch.no_grad()
    def _measure_features(self) -> None:
        outputs: list[tuple[str, Tensor]] = []

        def record(name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                    outputs.append((name, output))

            return hook

        handles = [
            module.register_forward_hook(record(name))
            for name, module in self.named_modules()
            if name.startswith("net.") and not isinstance(module, nn.Identity)
        ]
        weight = next(self.net.parameters())
        # Its own generator: building a model must not move the caller's random numbers.
        noise = torch.randn(2, 3, *self.input_size, generator=torch.Generator().manual_seed(0))
        try:
            features = self.net(noise.to(weight))
        finally:
            for handle in handles:
                handle.remove()
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 2:
            shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"a backbone must return [N, D], {self.name!r} returns {shape} for 2 images")
        if not bool(torch.isfinite(features).all()):
            tensors = self.net.state_dict().items()
            bad = next((name for name, t in tensors if t.is_floating_point() and not bool(torch.isfinite(t).all())), None)
            reason = f"{bad} holds NaN or infinity" if bad else "no weight does, so that the network itself overflows"
            raise ValueError(f"a backbone must return finite features, those of {self.name!r} are not: {reason}.")
        self._unused = unused_parameters(self.net, noise[:1].to(weight))
        self.num_features = features.shape[1]
        self.signed = bool((features < 0).any())
        tolerance = 1e-4 * features.float().abs().max().item()
        # Modules finish inside out, so the last one that fits is the outermost of the last stage.
        self.feature_layer = next(
            (
                name
                for name, output in reversed(outputs)
                if output.shape[:2] == features.shape
                and torch.allclose(output.float().mean((2, 3)), features.float(), rtol=1e-3, atol=tolerance)
            ),
            None,
        )
