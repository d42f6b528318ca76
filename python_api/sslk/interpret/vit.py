"""Maps of vision transformers: attention roll-out, and gradient x token. They are not GradCAM and not called so.

Attention roll-out says which patches the model as a whole attends to; it knows no feature. Gradient x token is about
one feature: to first order, how much less of it there would be without a patch's token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sslk.interpret.gradcam import rounds
from sslk.interpret.raw_maps import MapMethod, RawMaps, evaluating, resize_and_scale
from sslk.models import Backbone


def token_maps(method: MapMethod, images: Tensor) -> RawMaps:
    """`relu(sum_c t_pc dh_j / dt_pc)` per patch p, with the tokens t that `method.layer` puts out.

    One forward pass; the backward passes go through what follows the layer, and parameters get no gradient.
    """
    seen: list[Tensor] = []

    def leaf(module: nn.Module, args: Any, output: Any) -> Any:
        tokens = (output[0] if isinstance(output, tuple) else output).detach().requires_grad_()
        seen.append(tokens)
        return (tokens, *output[1:]) if isinstance(output, tuple) else tokens

    handle = method.model.get_submodule(method.layer).register_forward_hook(leaf)
    try:
        with torch.enable_grad():
            features = method.output(images)
    finally:
        handle.remove()
    tokens = seen[-1]
    height, width, prefix = patch_grid(method.model, images, tokens.shape[1])

    def pairs(rows: Tensor, columns: Tensor, signs: Tensor) -> Tensor:
        out = features.new_zeros(len(rows), height, width, requires_grad=False)
        for part in rounds(rows):
            chosen = (features[rows[part], columns[part]] * signs[part].to(features)).sum()
            (gradient,) = torch.autograd.grad(chosen, tokens, retain_graph=True)
            product = (gradient[rows[part]] * tokens[rows[part]]).detach().sum(-1)
            out[part] = product[:, prefix:].relu().view(-1, height, width)
        return out

    return RawMaps(features.detach(), pairs)


def attention_rollout(model: nn.Module, images: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
    """Attention roll-out of Abnar and Zuidema (ACL 2020): how much each patch reaches the representation.

    The product over blocks of `0.5 A + 0.5 I`, with A the mean attention over heads; the row of the class token, or the
    mean over patches where there is no class token. It is one map per image, the same for every feature.

    Args:
        model: a `Backbone` (or module) whose attention goes through `scaled_dot_product_attention` or
            `nn.MultiheadAttention`, as in timm, torchvision and transformers.
        images: `[N, C, H, W]`, normalised.
        size: height and width of the maps; those of the images by default.

    Returns:
        `[N, H, W]` in [0, 1], each map divided by its maximum.

    Raises:
        ValueError: no attention over patch tokens was seen.

    Examples:
        >>> from sslk.models import load_backbone
        >>> maps = attention_rollout(load_backbone("timm:vit_tiny_patch16_224", "random"), torch.randn(2, 3, 224, 224))
        >>> maps.shape, maps.amax((1, 2)).tolist()
        (torch.Size([2, 224, 224]), [1.0, 1.0])
    """
    recorder = _AttentionRecorder()
    with evaluating(model), torch.no_grad(), recorder:
        model(images)
    if not recorder.attention:
        raise ValueError(
            "attention_rollout needs a transformer whose attention can be seen: neither scaled_dot_product_attention nor "
            "nn.MultiheadAttention ran."
        )
    tokens = recorder.attention[0].shape[-1]
    if any(a.shape[-2:] != (tokens, tokens) or len(a) != len(images) for a in recorder.attention):
        raise ValueError("attention_rollout needs the same tokens in every block; this model attends within windows.")
    height, width, prefix = patch_grid(model, images, tokens)
    identity = torch.eye(tokens, device=images.device, dtype=recorder.attention[0].dtype)
    rollout = identity.expand(len(images), -1, -1)
    for attention in recorder.attention:
        rollout = (0.5 * attention + 0.5 * identity) @ rollout
    reached = rollout[:, 0] if prefix else rollout.mean(1)
    return resize_and_scale(reached[:, prefix:].view(-1, height, width), size or images.shape[-2:])


def patch_grid(model: nn.Module, images: Tensor, tokens: int) -> tuple[int, int, int]:
    """Rows and columns of patches, and how many tokens stand in front of them, from the patch embedding's stride.

    Raises:
        ValueError: the model has no patch embedding, or the tokens are fewer than the patches.
    """
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    embedding = next((conv for conv in convolutions if conv.kernel_size == conv.stride != (1, 1)), None)
    if embedding is None:
        raise ValueError("the model has no patch embedding, a convolution whose stride is its kernel size.")
    height, width = images.shape[-2] // int(embedding.stride[0]), images.shape[-1] // int(embedding.stride[1])
    if tokens < height * width:
        raise ValueError(f"the model has {tokens} tokens for {height} x {width} patches: patches were merged or dropped.")
    return height, width, tokens - height * width


def token_layer(backbone: Backbone, image_shape: tuple[int, ...]) -> str:
    """The last layer whose tokens tell patches apart: a normalisation, or the last block, that passes the features a
    gradient at the patches.

    Behind the last attention, a class token that is read alone has no gradient at the patches. In front of a layer
    normalisation gradient x token vanishes, because the norm undoes any scaling of its input: so not every layer serves.

    Raises:
        ValueError: there is none.
    """
    blocks = _last_block(backbone)
    seen: list[tuple[str, Tensor]] = []

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tokens = output[0] if isinstance(output, tuple) and output else output
            if isinstance(tokens, Tensor) and tokens.ndim == 3 and tokens.requires_grad:
                seen.append((name, tokens))

        return hook

    handles = [
        module.register_forward_hook(record(name))
        for name, module in backbone.named_modules()
        if name == blocks or "norm" in type(module).__name__.lower()
    ]
    noise = torch.randn(1, *image_shape, generator=torch.Generator().manual_seed(0)).to(next(backbone.parameters()))
    try:
        with torch.enable_grad():
            features = backbone(noise.requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    gradients = torch.autograd.grad(features.square().sum(), [tokens for _, tokens in seen], allow_unused=True) if seen else ()
    for (name, tokens), gradient in reversed(list(zip(seen, gradients, strict=True))):
        if gradient is None:
            continue
        _, _, prefix = patch_grid(backbone, noise, tokens.shape[1])
        if gradient[:, prefix:].abs().max() > 1e-6 * gradient.abs().max():
            return name
    raise ValueError(f"{backbone.name!r} has no layer whose patch tokens the features depend on: give layer=NAME.")


def _last_block(backbone: Backbone) -> str:
    """Dotted name of the last child of the list of equal modules that holds the most parameters; "" without one."""
    stacks = [
        (sum(p.numel() for p in module.parameters()), name)
        for name, module in backbone.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1 and len({type(child) for child in module}) == 1
    ]
    if not stacks:
        return ""
    name = max(stacks)[1]
    *_, child = dict(backbone.get_submodule(name).named_children())
    return f"{name}.{child}"


class _AttentionRecorder(TorchFunctionMode):
    """Attention averaged over heads `[n, T, T]`, in the order of the blocks, of every attention that runs inside."""

    def __init__(self) -> None:
        super().__init__()
        self.attention: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.multi_head_attention_forward:
            output, weights = func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": True})
            self.attention.append(weights)
            return output, None
        if func is F.scaled_dot_product_attention:
            self.attention.append(_attention(*args, **kwargs).mean(1))
        return func(*args, **kwargs)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The weights `[n, heads, T, T]` that `scaled_dot_product_attention` applies to the values."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1)
