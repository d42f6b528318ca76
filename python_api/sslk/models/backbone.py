"""A frozen-interface encoder: images in, representations out, and what a protocol has to know about it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from sslk.models.checkpoints import CheckpointReport
from sslk.models.dependence import unused_parameters
from sslk.models.readout import Selected, Tap, block_names, choose_tap, described, read_taps, watching
from sslk.models.settings import ChannelOrder, Token


class Backbone(nn.Module):
    """An encoder without its head, in eval mode, together with its preprocessing and the nature of its features.

    What the features are is measured, not declared: one forward pass over two images of noise, with hooks, finds the
    last module whose `[2, D, h, w]` output averages to the representation.

    Args:
        net: Network without its head, on the device it shall stay on: `[N, 3, H, W]` -> `[N, D]`, or a map or tokens,
            which are pooled.
        name: Name it was asked for.
        input_size: Height and width of the images.
        mean, std: Per-channel normalisation of images in [0, input_scale], in the network's channel order.
        interpolation: Of the resize: `bilinear`, `bicubic`, `lanczos` or `nearest`.
        channel_order: `bgr` turns the channels round in front of the network; images stay RGB everywhere else.
        input_scale: Value of white in the network's input, 1 or 255.
        layer: Where the representation is taken: dotted name of a module, or the number of a block; the output by default.
        token: Which token of a transformer it is: `cls`, `mean` (of the patches), `cls+mean`, `pooler`; the model's own
            choice by default, and at a layer the class token where there is one, else the mean.
        feature: What the network's own output is, for reports; measured by default.
        classifier: Trained linear head `[N, D]` -> `[N, classes]`, kept for `logits`.
        checkpoint: Report of the checkpoint the weights came from.

    Attributes:
        num_features: D.
        pooled: Whether feature j is the spatial mean of channel j of a feature map.
        feature_layer: Dotted name of the module that puts out this map (`backbone.get_submodule(name)` is it); None
            where `pooled` is False.
        feature: What the representation is, in words: `mean of layer4`, `cls`, `cls+mean of blocks.5`.
        signed: Whether features can be negative: some were on the noise. Features after a ReLU are not.
        mean, std: For images in [0, 1], RGB.

    Raises:
        ValueError: The network takes no images or gives nothing that can be pooled, or has no such layer or token.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> backbone = Backbone(net, name="tiny", input_size=(8, 8))
    >>> backbone.num_features, backbone.feature_layer, backbone.feature, backbone.signed
    (8, 'net.1', 'mean of 1', False)
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
        channel_order: ChannelOrder = "rgb",
        input_scale: float = 1.0,
        layer: str | None = None,
        token: Token | None = None,
        feature: str | None = None,
        classifier: nn.Linear | None = None,
        checkpoint: CheckpointReport | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.classifier = classifier
        self.name = name
        self.input_size = input_size
        order = -1 if channel_order == "bgr" else 1
        self.mean = tuple(value / input_scale for value in mean)[::order]
        self.std = tuple(value / input_scale for value in std)[::order]
        self.interpolation = interpolation
        self.checkpoint = checkpoint
        self.num_features: int
        self.signed: bool
        self.feature_layer: str | None
        if channel_order == "bgr":
            net.register_forward_pre_hook(_turn_channels_round)
        self.eval()
        self._select(layer, token)
        self._measure_features()
        self.feature = self._describe_feature(feature)

    @property
    def pooled(self) -> bool:
        return self.feature_layer is not None

    @property
    def network(self) -> nn.Module:
        """The network itself, under `net` or, where a layer or token was chosen, below it."""
        return self.net.net if isinstance(self.net, Selected) else self.net

    @property
    def weights_hash(self) -> str:
        """SHA-256 over names, dtypes, shapes and bytes of the network's state, in hex; computed at each call.

        Parameters on which the representation does not depend are left out: what a checkpoint lacks of them is drawn at
        random, anew each time.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
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
        with watching(self, lambda _, output: maps.append(output), {self.feature_layer}):
            self.net(images)
        return maps[-1]

    def read_out(self, layers: Sequence[str | None] = (), tokens: Sequence[Token | None] = ()) -> list[Backbone]:
        """This backbone with its representation taken elsewhere: every layer with every token; the weights are shared.

        Args:
            layers, tokens: As in the class; the backbone's own where empty. `all` stands for every block.

        Raises:
            ValueError: There is no such layer or token.

        >>> from sslk.models import load_backbone
        >>> print(*(part.feature for part in load_backbone("embedded").read_out(["0", "-1"])), sep=", ")
        mean of stages.0, mean of stages.3
        """
        named: list[str | None] = []
        for layer in layers:
            named += block_names(self.network) if layer == "all" else [layer]
        if layers and not named:
            raise ValueError(f"layer='all' needs a network of numbered blocks, {self.name!r} is none; name its modules instead.")
        return [
            Backbone(
                self.network,
                name=self.name,
                input_size=self.input_size,
                mean=self.mean,
                std=self.std,
                interpolation=self.interpolation,
                layer=layer,
                token=token,
                checkpoint=self.checkpoint,
            )
            for layer in named or (None,)
            for token in tokens or (None,)
        ]

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

    def _noise(self) -> Tensor:
        """Two images of noise, from a generator of its own: building a model must not move the caller's random numbers."""
        noise = torch.randn(2, 3, *self.input_size, generator=torch.Generator().manual_seed(0))
        weight = next(self.net.parameters(), None)
        return noise if weight is None else noise.to(weight)

    @torch.no_grad()
    def _select(self, layer: str | None, token: Token | None) -> None:
        """Put a readout round the network where one is asked for, or where it does not give vectors by itself."""
        noise = self._noise()
        try:
            output = self.net(noise)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"a backbone must take images [N, 3, {noise.shape[2]}, {noise.shape[3]}], {self.name!r} does not: {reason}"
            ) from error
        plain = isinstance(output, Tensor) and output.ndim == 2 and len(output) == 2
        if plain and layer is None and token is None:
            return
        if layer is None and not (isinstance(output, Tensor) and len(output) == 2 and output.ndim in (2, 3, 4)):
            raise ValueError(
                f"a backbone must return [N, D], {self.name!r} returns {described(output)} for 2 images: name the layer "
                "whose output is the representation."
            )
        self.classifier = None  # it was trained on the network's own output
        self.net = Selected(self.net, choose_tap(self.net, noise, layer, token))

    def _describe_feature(self, own: str | None) -> str:
        if not isinstance(self.net, Selected):
            layer = (self.feature_layer or "").removeprefix("net.")
            return own or (f"mean of {layer}" if layer else "output")
        tap = self.net.tap
        return f"{tap.pool} of {tap.module}" if tap.module else tap.pool

    @torch.no_grad()
    def _measure_features(self) -> None:
        outputs: list[tuple[str, Tensor]] = []

        def record(name: str, output: Any) -> None:
            spread = isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1
            if spread and name.startswith("net.") and not isinstance(self.get_submodule(name), nn.Identity):
                outputs.append((name, output))

        noise = self._noise()
        with watching(self, record):
            features = cast(Tensor, self.net(noise))
        if not bool(torch.isfinite(features).all()):
            tensors = self.network.state_dict().items()
            bad = next((name for name, t in tensors if t.is_floating_point() and not bool(torch.isfinite(t).all())), None)
            reason = f"{bad} holds NaN or infinity" if bad else "no weight does, so that the network itself overflows"
            raise ValueError(f"a backbone must return finite features, those of {self.name!r} are not: {reason}.")
        unused = unused_parameters(self.net, noise[:1])
        self._unused = {name.removeprefix("net.") for name in unused} if isinstance(self.net, Selected) else unused
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


class Readouts(nn.Module):
    """Several representations of one network in one forward pass.

    Args:
        backbones: of `Backbone.read_out`.

    Attributes:
        representations: backbone by what its representation is (`feature`).

    >>> from sslk.models import load_backbone
    >>> readouts = Readouts(load_backbone("embedded").read_out(["0", "1"]))
    >>> {name: tuple(x.shape) for name, x in readouts(torch.zeros(2, 3, 32, 32)).items()}
    {'mean of stages.0': (2, 16), 'mean of stages.1': (2, 32)}
    """

    def __init__(self, backbones: Sequence[Backbone]) -> None:
        super().__init__()
        self.net = backbones[0].network
        self.name = backbones[0].name
        self.representations = {backbone.feature: backbone for backbone in backbones}
        if len(self.representations) < len(backbones):
            raise ValueError(f"layers and tokens must differ, got {', '.join(backbone.feature for backbone in backbones)}.")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Representations `[N, D]` by name."""
        taps = [b.net.tap if isinstance(b.net, Selected) else Tap("", "mean") for b in self.representations.values()]
        return dict(zip(self.representations, read_taps(self.net, taps, images), strict=True))


def _turn_channels_round(module: nn.Module, images: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (images[0].flip(1), *images[1:])
