"""Builds a method around an encoder, its heads taken from a checkpoint where they fit and fresh where they do not."""

from __future__ import annotations

import difflib
import inspect
import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sslk.training.methods import METHODS, Method, MomentumMethod

# The parts of `sslk.models.Checkpoint` that each head is read from.
PART_OF = {
    "projection_head": "projector",
    "prediction_head": "predictor",
    "prototypes": "prototypes",
    "backbone_momentum": "momentum_encoder",
    "projection_head_momentum": "momentum_projector",
}
Parts = Mapping[str, Mapping[str, Tensor]]


def build_method(
    name: str,
    backbone: nn.Module,
    num_features: int,
    parts: Parts | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    warn: bool = True,
) -> tuple[Method, list[str]]:
    """A method around `backbone`, with the heads that a checkpoint holds.

    Args:
        name: one of `METHODS`.
        backbone: the encoder, images -> `[N, D]`; used itself, not copied.
        num_features: D.
        parts: `Checkpoint.parts`; widths of the heads are taken from them.
        options: keyword arguments of the method's class; they win over the checkpoint's widths.
        seed: of the fresh heads; torch's global generator is left alone.
        warn: name fresh heads in a warning where `parts` is given.

    Returns:
        The method and the names of the heads that are fresh.

    Raises:
        ValueError: an unknown method or option, naming near ones.

    >>> method, fresh = build_method("simsiam", nn.Flatten(), 12, options={"hidden_dim": 8, "output_dim": 8})
    >>> fresh
    ['projection_head', 'prediction_head']
    """
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {name!r}.")
    cls = METHODS[name]
    known = list(inspect.signature(cls).parameters)[2:]
    for option in options or {}:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}."
            raise ValueError(f"options: {name} has no {option!r}, {hint}")
    found = dict(parts or {})
    if "projector" in found and "prototypes" in found and name == "dino":
        # The layout reads the last layer of DINO's head as prototypes.
        found["projector"] = {**found["projector"], **{f"last_layer.{k}": v for k, v in found["prototypes"].items()}}
    sizes = {key: value for key, value in _sizes(name, found).items() if key in known}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = cls(backbone, num_features, **{**sizes, **(options or {})})
    fresh = [head for head in cls.head_names if not _load(getattr(method, head), found.get(PART_OF[head]))]
    if "criterion" in found:  # queue or centre of a run of this package; other files have none
        _load(method.criterion, found["criterion"])
    if isinstance(method, MomentumMethod) and any(head.endswith("_momentum") for head in fresh):
        method.reset_momentum()
    # A momentum copy made from weights that were there is as good as read: only trained heads can be missed.
    fresh = [head for head in fresh if not head.endswith("_momentum")]
    if warn and parts is not None and fresh:
        warnings.warn(
            f"{name} needs {' and '.join(fresh)}, which the checkpoint does not hold in a shape that fits: they start "
            "at random; train them first with the encoder frozen (head_warmup_epochs) or give a checkpoint with them.",
            stacklevel=2,
        )
    return method, fresh


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", name)]


def _in_order(tensors: Mapping[str, Tensor]) -> list[str]:
    return sorted((name for name in tensors if not name.endswith("num_batches_tracked")), key=_natural)


def _sizes(name: str, parts: Parts) -> dict[str, Any]:
    """Widths of the heads, from the shapes of a checkpoint's."""
    sizes: dict[str, Any] = {}
    projector = parts.get("projector", {})
    weights = [projector[n] for n in _in_order(projector) if projector[n].ndim == 2 and projector[n].shape[1] > 1]
    if name == "dino":
        if last := [t for n, t in projector.items() if n.startswith("last_layer.") and t.ndim == 2 and t.shape[1] > 1]:
            sizes["output_dim"], sizes["bottleneck_dim"] = last[0].shape
            sizes["batch_norm"] = any(n.endswith("running_mean") for n in projector)
            sizes["hidden_dim"] = weights[1].shape[0] if len(weights) > 1 else weights[0].shape[0]
        return sizes
    if (queue := parts.get("criterion", {}).get("memory_bank.bank")) is not None:
        sizes["queue_size"] = queue.shape[0]
    if weights:
        sizes["hidden_dim"], sizes["output_dim"] = weights[0].shape[0], weights[-1].shape[0]
    if predictor := parts.get("predictor"):
        sizes["prediction_dim"] = next(iter(predictor[n].shape[0] for n in _in_order(predictor)), 0)
    if prototypes := [t for t in parts.get("prototypes", {}).values() if t.ndim == 2]:
        sizes["prototypes"] = prototypes[0].shape[0]
    return sizes


def _load(head: nn.Module, tensors: Mapping[str, Tensor] | None) -> bool:
    """Load by name, or by order where code bases number the same layers differently; False where neither fits."""
    if not tensors:
        return False
    target = head.state_dict()
    names, given = _in_order(target), _in_order(tensors)
    if set(names) <= set(given):
        pairs = [(name, name) for name in names]
    else:
        missing_bias = len(names) == len(given) + 1 and names[0] == "heads.0.bias"  # SwAV's own prototypes have none
        pairs = list(zip(names[1:] if missing_bias else names, given, strict=False))
        if len(given) != len(names) - missing_bias:
            return False
        if missing_bias:
            target["heads.0.bias"] = torch.zeros_like(target["heads.0.bias"])
    for own, other in pairs:
        if target[own].shape != tensors[other].shape:
            return False
        target[own] = tensors[other].to(target[own].dtype)
    head.load_state_dict(target)
    return True
