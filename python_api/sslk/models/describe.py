"""One line about a network that was loaded: enough to notice that it is not the one that was meant."""

from __future__ import annotations

from torch import nn

from sslk.models.backbone import Backbone


def loading_line(backbone: Backbone, weights: str | None = None) -> str:
    """Layout and tensors matched, preprocessing, representation, strides and epsilons.

    >>> from sslk.models import load_backbone
    >>> loading_line(load_backbone("embedded"))
    'embedded: 32 x 32 bilinear, mean 0.491 0.482 0.447, std 0.247 0.243 0.262; feature: mean of stages, 256, not negative; batch norm eps 1e-05'
    """  # noqa: E501 (one line is one line)
    parts = [f"{backbone.name}@{weights}" if weights else backbone.name]
    report = backbone.checkpoint
    if report is not None:
        total = len(report.matched) + len(report.missing)
        parts[0] += f": layout {report.layout}, {len(report.matched)} of {total} tensors"
        if report.unexpected:
            parts[0] += f", {len(report.unexpected)} of the file unused (first {report.unexpected[0]})"
        if report.copy:
            parts[0] += f", averaged copy {report.copy}"
        if report.copies:
            parts[0] += f", which also holds averaged copies {', '.join(report.copies)} (--checkpoint-format ema)"
        if ignored := report.ignored:
            parts[0] += f", {len(ignored)} of its classes ignored ({', '.join(ignored[:3])}{', ...' if ignored[3:] else ''})"
    height, width = backbone.input_size
    numbers = [" ".join(f"{value:.3g}" for value in values) for values in (backbone.mean, backbone.std)]
    images = f"{height} x {width} {backbone.interpolation}, mean {numbers[0]}, std {numbers[1]}"
    parts[0] += f"; {images}" if report is not None else f": {images}"
    sign = "signed" if backbone.signed else "not negative"
    parts.append(f"feature: {backbone.feature}, {backbone.num_features}, {sign}")
    return "; ".join([*parts, *_details(backbone.network)])


def _details(net: nn.Module) -> list[str]:
    """What two networks of equal tensors can differ in."""
    found = []
    strides = [_strided(module) for module in net.modules()]
    places = sorted({place for place in strides if place})
    if places:
        found.append(f"bottleneck stride in {' and '.join(places)}")
    epsilons = sorted({module.eps for module in net.modules() if isinstance(module, nn.BatchNorm2d)})
    if epsilons:
        found.append(f"batch norm eps {' '.join(f'{eps:g}' for eps in epsilons)}")
    return found


def _strided(block: nn.Module) -> str:
    """Which convolution of a bottleneck is strided: the first in the ResNet of 2015, the second in version 1.5."""
    convolutions = [(name, getattr(block, name, None)) for name in ("conv1", "conv2", "conv3")]
    plain = [(name, conv) for name, conv in convolutions if isinstance(conv, nn.Conv2d)]
    return next((name for name, conv in plain if conv.stride[0] > 1), "") if len(plain) == 3 else ""
