"""Raw maps of (image, feature) pairs: in closed form for pooled channels, by captum for other layers, from tokens."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sslk.interpret.gradcam import gradcam_maps
from sslk.interpret.raw_maps import MapMethod, Method, RawMaps, evaluating
from sslk.interpret.vit import token_layer, token_maps
from sslk.models import Backbone


def closed_form_maps(method: MapMethod, images: Tensor) -> RawMaps:
    """Without a backward pass: `h_j = mean(A_j)`, so the gradient's weight is `1 / (h w)` on channel j, 0 elsewhere.

    GradCAM of `h_j` at that layer is therefore `relu(A_j)` up to its scale, and that of a linear head's output k is
    `relu(sum_j W_kj A_j)` (Zhou et al., 2016). `h` is the pooled feature itself, before any division by its norm.
    """
    outputs: list[Tensor] = []
    hook = method.model.get_submodule(method.layer).register_forward_hook(lambda m, i, output: outputs.append(output))
    try:
        with torch.no_grad():
            # The forward pass is all the cost there is, and convolutions are faster on channels-last images.
            features = method.output(images.contiguous(memory_format=torch.channels_last))
    finally:
        hook.remove()
    channels = outputs[-1].detach()

    def pairs(rows: Tensor, columns: Tensor, signs: Tensor) -> Tensor:
        if isinstance(method.head, nn.Linear):
            used, position = columns.unique(return_inverse=True)
            weight = method.head.weight.detach()[used].to(channels)
            chosen = torch.einsum("cd,ndhw->nchw", weight, channels)[rows, position]
        else:
            chosen = channels[rows, columns]
        return (chosen * signs.to(chosen)[:, None, None]).relu_()

    return RawMaps(features, pairs)


def map_method(
    model: nn.Module, image_shape: tuple[int, ...], *, layer: str | None = None, head: nn.Module | None = None
) -> MapMethod:
    """Choose how to compute a model's maps; anything but the closed form is announced by a warning.

    Args:
        model: a `Backbone`, or any module from images `[N, C, H, W]` to `[N, D]`, whose layers are then looked at once.
        image_shape: `(C, H, W)` of the images to come.
        layer: dotted name of the layer to look at; the closed form's by default where there is one, else the last
            feature map of a CNN, or the last tokens of a transformer that the features depend on.
        head: a module on the representations whose outputs are explained instead of the features.

    Raises:
        ValueError: the layer does not exist, or none can be found.

    Examples:
        >>> from sslk.models import load_backbone
        >>> method = map_method(load_backbone("embedded"), (3, 32, 32))
        >>> method.name, method.layer
        ('closed form', 'net.stages')
    """
    backbone = model if isinstance(model, Backbone) else _as_backbone(model, image_shape)
    if layer is not None:
        layer = _resolve(backbone, layer)
    linear = head is None or isinstance(head, nn.Linear)
    if backbone.feature_layer is not None and linear and layer in (None, backbone.feature_layer):
        return MapMethod("closed form", backbone.feature_layer, backbone, head, closed_form_maps)
    name, found = _general_method(backbone, image_shape, layer)
    reason = "the layer is another one" if backbone.pooled and linear else "its features are no spatial means of channels"
    if backbone.pooled and not linear:
        reason = "the head is not linear"
    warnings.warn(
        f"{backbone.name}: the closed form does not apply ({reason}); using {name} at {found}, which needs backward passes.",
        stacklevel=3,
    )
    return MapMethod(name, found, backbone, head, gradcam_maps if name == "GradCAM" else token_maps)


def _as_backbone(model: nn.Module, image_shape: tuple[int, ...]) -> Backbone:
    training = [module for module in model.modules() if module.training]
    try:
        return Backbone(model, name=type(model).__name__, input_size=(image_shape[-2], image_shape[-1]))
    finally:  # a Backbone puts its network into eval mode
        for module in training:
            module.training = True


def _resolve(backbone: Backbone, layer: str) -> str:
    names = {name for name, _ in backbone.named_modules()}
    for name in (layer, f"net.{layer}"):
        if name and name in names:
            return name
    raise ValueError(f"layer must be the dotted name of a module of {backbone.name!r}, such as net.layer4, got {layer!r}.")


def _general_method(backbone: Backbone, image_shape: tuple[int, ...], layer: str | None) -> tuple[Method, str]:
    """GradCAM or gradient x token, and the layer, from what the modules put out for one image."""
    outputs: list[tuple[str, Tensor]] = []

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) and output else output
            if isinstance(tensor, Tensor) and tensor.ndim in (3, 4) and math.prod(tensor.shape[1:]) > tensor.shape[1]:
                outputs.append((name, tensor))

        return hook

    modules = [(name, module) for name, module in backbone.named_modules() if name.startswith("net.")]
    handles = [module.register_forward_hook(record(name)) for name, module in modules]
    weight = next(backbone.parameters())
    try:
        with evaluating(backbone), torch.no_grad():
            backbone(torch.zeros(1, *image_shape).to(weight))
    finally:
        for handle in handles:
            handle.remove()
    if layer is not None:
        tensor = next((tensor for name, tensor in outputs if name == layer), None)
        if tensor is None:
            raise ValueError(f"layer must put out a feature map [n, C, h, w] or tokens [n, T, C], {layer!r} does not.")
        return ("GradCAM" if tensor.ndim == 4 else "gradient x token"), layer
    if not outputs:
        raise ValueError(f"{backbone.name!r} has no layer with a feature map or tokens to draw a heatmap from.")
    if outputs[-1][1].ndim == 3:
        with evaluating(backbone):
            return "gradient x token", token_layer(backbone, image_shape)
    maps = [(name, tensor) for name, tensor in outputs if tensor.ndim == 4 and tensor.shape[2] * tensor.shape[3] > 1]
    if maps and maps[-1][1].shape[-1] == backbone.num_features != maps[-1][1].shape[1]:
        raise ValueError(
            f"the last feature map of {backbone.name!r} is channels-last, {list(maps[-1][1].shape)}: "
            "give layer=NAME of one that puts out [n, C, h, w]."
        )
    if not maps:
        raise ValueError(f"{backbone.name!r} has no layer with a feature map [n, C, h, w] to draw a heatmap from.")
    return "GradCAM", maps[-1][0]
