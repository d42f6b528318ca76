"""Which representation is read out of a network: of which layer, and how its tokens or its map become one vector."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from sslk.models.settings import Token

_CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")
_OTHER_TOKENS = {"register_tokens": 1, "reg_token": 1, "storage_tokens": 1, "dist_token": 1, "distillation_token": 1}
_CONTAINERS = ("blocks", "layers", "layer", "stages", "features", "trunk")


@dataclass(frozen=True)
class Tap:
    """Where a representation is taken, and how it is pooled.

    Attributes:
        module: dotted name in the network; the empty one is the network itself.
        pool: what becomes of tokens `[N, T, D]` or a map: `cls`, `mean`, `cls+mean`, or `pooler`, the model's own vector.
        prefix: tokens in front of the patches.
        channels_last: whether a map is `[N, h, w, D]`.
    """

    module: str
    pool: Token
    prefix: int = 0
    channels_last: bool = False

    def read(self, output: Any) -> Tensor:
        """The representation `[N, D]`."""
        if self.pool == "pooler":
            return _vector(getattr(output, "pooler_output", output))
        tensor = first_tensor(output)
        if tensor.ndim == 4:
            return tensor.mean((1, 2) if self.channels_last else (2, 3))
        if tensor.ndim == 2:
            return tensor
        parts = {"cls": tensor[:, 0], "mean": tensor[:, self.prefix :].mean(1)}
        return torch.cat([parts[name] for name in self.pool.split("+")], 1)


class Selected(nn.Module):
    """A network whose representation is taken at a tap; `[N, C, H, W]` -> `[N, D]`."""

    def __init__(self, net: nn.Module, tap: Tap) -> None:
        super().__init__()
        self.net = net
        self.tap = tap

    def forward(self, images: Tensor) -> Tensor:
        (found,) = read_taps(self.net, [self.tap], images)
        return found


def read_taps(net: nn.Module, taps: Sequence[Tap], images: Tensor) -> list[Tensor]:
    """The representations at several taps in one forward pass."""
    outputs: dict[str, Any] = {}
    with watching(net, lambda name, output: outputs.__setitem__(name, output), {tap.module for tap in taps}):
        outputs[""] = net(images)
    missing = [tap.module for tap in taps if tap.module not in outputs]
    if missing:
        raise ValueError(f"layer={missing[0]!r} does not run when the network does: choose another.")
    return [tap.read(outputs[tap.module]) for tap in taps]


@contextmanager
def watching(net: nn.Module, see: Callable[[str, Any], None], modules: set[str] | None = None) -> Any:
    """Call `see` with the name and the output of every module that runs, or of some, in the order in which they end."""

    def hook_for(name: str) -> Any:
        return lambda module, arguments, output: see(name, output)

    chosen = [(name, module) for name, module in net.named_modules() if name and (modules is None or name in modules)]
    handles = [module.register_forward_hook(hook_for(name)) for name, module in chosen]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def choose_tap(net: nn.Module, images: Tensor, layer: str | None, token: Token | None) -> Tap:
    """The tap that a user's choice stands for.

    Args:
        net: in eval mode.
        images: two images, as the network takes them.
        layer: dotted name of a module, or the number of a block, from 0 or backwards from -1; the last by default.
        token: see `Tap`; the class token where the layer has one, else the mean, by default.

    Raises:
        ValueError: there is no such layer or token.
    """
    if token == "pooler":
        return _own_pooler(net, images, layer)
    module = _last_layer(net, images) if layer is None else resolve_layer(net, layer)
    seen: list[Any] = []
    with torch.no_grad(), watching(net, lambda _, output: seen.append(output), {module}):
        output = net(images)
    if module and not seen:
        raise ValueError(f"layer={layer!r} does not run when the network does: choose another.")
    tensor = first_tensor(seen[-1] if module else output)
    if tensor.ndim not in (2, 3, 4) or len(tensor) != len(images):
        raise ValueError(f"layer={layer!r} gives {list(tensor.shape)} for 2 images; tokens [N, T, D] or a map are needed.")
    if tensor.ndim != 3:
        if token not in (None, "mean"):
            what = "a map" if tensor.ndim == 4 else "a vector"
            raise ValueError(f"token={token!r} needs a class token, and layer {module or 'of the output'!r} gives {what}.")
        return Tap(module, "mean", channels_last=tensor.ndim == 4 and _is_channels_last(net, tensor))
    has_class, prefix = prefix_tokens(net)
    if not _is_grid(tensor.shape[1] - prefix) and _is_grid(tensor.shape[1]):
        has_class, prefix = False, 0  # a layer in front of the one that adds the class token
    if token is None:
        token = "cls" if has_class else "mean"
    if token != "mean" and not has_class:
        raise ValueError(f"token={token!r} needs a class token, and the tokens of layer {module!r} have none; take 'mean'.")
    return Tap(module, token, prefix)


def resolve_layer(net: nn.Module, layer: str) -> str:
    """The dotted name of a layer given by name or number.

    Raises:
        ValueError: there is none (near ones are listed).

    >>> net = nn.Sequential()
    >>> net.blocks = nn.ModuleList([nn.Identity() for _ in range(4)])
    >>> resolve_layer(net, "-1"), resolve_layer(net, "blocks.0")
    ('blocks.3', 'blocks.0')
    """
    names = {name for name, _ in net.named_modules() if name}
    if re.fullmatch(r"-?\d+", layer):
        blocks = block_names(net)
        if not blocks:
            raise ValueError(f"layer={layer} needs a network of numbered blocks; name one of its modules instead.")
        if not -len(blocks) <= int(layer) < len(blocks):
            raise ValueError(f"layer={layer} is out of range: the network has {len(blocks)} blocks, {blocks[0]} to {blocks[-1]}.")
        return blocks[int(layer)]
    bare = layer.removeprefix("net.")
    # A transformers model is one attribute deeper than its own names say.
    for name in (layer, bare, f"model.{bare}"):
        if name in names:
            return name
    near = difflib.get_close_matches(bare, sorted(names), n=5, cutoff=0.5) or block_names(net)[:5]
    raise ValueError(f"layer must name a module of the network or number a block, got {layer!r}; near ones: {', '.join(near)}.")


def block_names(net: nn.Module) -> list[str]:
    """The blocks or stages of a network, in order; empty where it has no such list.

    >>> from torchvision.models import resnet18
    >>> block_names(resnet18())
    ['layer1', 'layer2', 'layer3', 'layer4']
    """
    lists: list[tuple[int, int, list[str]]] = []
    for path, module in [("", net), *((f"{name}.", module) for name, module in net.named_modules() if name)]:
        children = [name for name, _ in module.named_children()]
        numbered = [name for name in children if re.fullmatch(r"(layer|stage|block)_?\d+", name)]
        listed = (
            isinstance(module, nn.ModuleList | nn.Sequential) and path.split(".")[-2:-1] and path.split(".")[-2] in _CONTAINERS
        )
        found = numbered if len(numbered) > 1 else children if listed and len(children) > 1 else []
        if found:
            lists.append((path.count("."), -len(found), [f"{path}{name}" for name in found]))
    return min(lists, key=lambda entry: entry[:2])[2] if lists else []


def prefix_tokens(net: nn.Module) -> tuple[bool, int]:
    """Whether the tokens begin with a class token, and how many stand in front of the patches."""
    parameters = {name.rpartition(".")[2]: p for name, p in net.named_parameters() if p.ndim}
    has_class = any(name in parameters for name in _CLASS_TOKENS)
    others = sum(parameters[name].shape[-2] if parameters[name].ndim > 1 else 1 for name in _OTHER_TOKENS if name in parameters)
    return has_class, int(has_class) + int(others)


def first_tensor(output: Any) -> Tensor:
    """The tensor of a module's output: itself, the last hidden state, or the first of several."""
    if isinstance(output, Tensor):
        return output
    hidden = getattr(output, "last_hidden_state", None)
    if isinstance(hidden, Tensor):
        return hidden
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    raise ValueError(f"the output of the layer must hold a tensor, got {described(output)}: name another by layer.")


def described(output: Any) -> str:
    """What an output is, for a message: its shape, or what it holds."""
    if isinstance(output, Tensor):
        return f"{list(output.shape)}"
    if isinstance(output, dict):
        return f"a dictionary of {', '.join(map(str, list(output)[:5]))}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)} ({', '.join(described(part) for part in output[:3])})"
    return f"a {type(output).__name__}"


def _vector(output: Any) -> Tensor:
    tensor = first_tensor(output)
    return tensor.flatten(1) if tensor.ndim == 4 else tensor


def _own_pooler(net: nn.Module, images: Tensor, layer: str | None) -> Tap:
    if layer is not None:
        raise ValueError(f"token='pooler' is the model's own vector, so layer must not be given, got {layer!r}.")
    seen: list[Any] = []
    with torch.no_grad(), watching(net, lambda _, output: seen.append(output), {"model"}):
        net(images)
    if seen and getattr(seen[-1], "pooler_output", None) is not None:
        return Tap("model", "pooler")
    if hasattr(net, "forward_head"):  # timm's networks pool by themselves
        return Tap("", "pooler")
    raise ValueError("token='pooler' needs a model with a pooler, and this one has none: take 'cls' or 'mean'.")


def _last_layer(net: nn.Module, images: Tensor) -> str:
    """The module whose output is pooled: tokens, or a map; the network itself where it does not pool."""
    ended: list[tuple[str, Any]] = []
    with torch.no_grad(), watching(net, lambda name, output: ended.append((name, output))):
        output = net(images)
    if not isinstance(output, Tensor) or output.ndim in (3, 4):
        return ""
    names = [name for name, part in ended if getattr(part, "last_hidden_state", None) is not None]
    if names:
        return names[-1]
    if hasattr(net, "forward_features"):
        with torch.no_grad():
            features = cast(Any, net).forward_features(images)
        ended = [(name, part) for name, part in ended if isinstance(part, Tensor) and part.shape == features.shape]
        ended = [(name, part) for name, part in ended if torch.equal(part, features)]
    tensors = [(name, part) for name, part in ended if isinstance(part, Tensor) and part.ndim in (3, 4)]
    spread = [name for name, part in tensors if part[0].numel() > max(part.shape[1], part.shape[-1])]
    if not spread:
        raise ValueError("token needs a network with tokens or a map in front of its output; name a layer.")
    return spread[-1]


def _is_channels_last(net: nn.Module, output: Tensor) -> bool:
    """Whether a map `[N, ., ., .]` ends with its channels: images are square, so two of the three sizes are equal."""
    if (output.shape[1] == output.shape[2]) != (output.shape[2] == output.shape[3]):
        return output.shape[1] == output.shape[2]
    return str(getattr(net, "output_fmt", "")).endswith("NHWC")


def _is_grid(count: int) -> bool:
    return count > 0 and math.isqrt(count) ** 2 == count
