"""Brings a backbone's tensors to the names of the network at hand, and finds the prefix under which a file keeps them."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

_MOMENTUM = re.compile(r"momentum|teacher|target|ema|_k\b")
_DEEPEST_PREFIX = 8
_NUMBERED = re.compile(r"(\d{1,4})\.(.+)")
# OpenMMLab's vision transformer, and timm's names for its parts.
_OPENMMLAB = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^layers\.(\d+)\.ln(\d)\.", r"blocks.\1.norm\2."),
    (r"^layers\.(\d+)\.ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
    (r"^layers\.(\d+)\.ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
    (r"^layers\.(\d+)\.ffn\.gamma2\.weight$", r"blocks.\1.ls2.gamma"),
    (r"^layers\.(\d+)\.attn\.gamma1\.weight$", r"blocks.\1.ls1.gamma"),
    (r"^layers\.(\d+)\.attn\.", r"blocks.\1.attn."),
    (r"^ln1\.", "norm."),
    (r"^ln2\.", "fc_norm."),
)


class Names:
    """The names of a network's tensors, and under which others a file may hold them.

    Args:
        net: The network; its `num_batches_tracked` are left aside.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.targets = net.state_dict()
        self.expected = [name for name in self.targets if not name.endswith("num_batches_tracked")]
        self._wrapper = _wrapper(self.expected)
        self._own = {name.removeprefix(self._wrapper) for name in self.targets} | set(self.targets)
        inside = net.get_submodule(self._wrapper[:-1]) if self._wrapper else net
        # A `Sequential` of the network's children numbers them; those without tensors count, or were left out.
        self._children = [name for name, child in inside.named_children() if child.state_dict()]
        self._tails = {name.partition(".")[2] for name in self._own}
        self._renames = [_unchunked, _openmmlab, *_transformers(net)]

    def knows(self, name: str) -> bool:
        """Whether the network has such a tensor under this name, or under one that a code base is known to give it."""
        if name in self._own or any(rename(name) in self._own for rename in self._renames):
            return True
        numbered = _NUMBERED.fullmatch(name)
        return numbered is not None and numbered[2] in self._tails

    def brought(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors under the names that fit the network best."""
        return max(self._candidates(dict(state)), key=self.fits)

    def fits(self, state: Mapping[str, Tensor]) -> int:
        """How many tensors have a name and shape of the network's."""
        return sum(name in self.targets and tensor.shape == self.targets[name].shape for name, tensor in state.items())

    def _candidates(self, state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        renamed = [state, self._numbered(state)]
        renamed += [{rename(name): tensor for name, tensor in state.items()} for rename in self._renames]
        for candidate in renamed:
            converted = _timm_names(candidate, self.net)
            # Where both fit, only a vision transformer's names mean something else than they say: DINOv2's positions.
            first = type(self.net).__module__ == "timm.models.vision_transformer"
            yield from (converted, candidate) if first else (candidate, converted)
            if self._wrapper:
                yield {self._wrapper + name: tensor for name, tensor in candidate.items()}

    def _numbered(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`0.weight` is the first child's: children are taken in their order, as `nn.Sequential(*children)` does."""
        found = {name: _NUMBERED.fullmatch(name) for name in state}
        numbers = sorted({int(match[1]) for match in found.values() if match})
        children = dict(zip(numbers, self._children, strict=False))
        return {
            f"{children[int(match[1])]}.{match[2]}" if match and int(match[1]) in children else name: state[name]
            for name, match in found.items()
        }


def find_prefix(addresses: Collection[str], knows: Callable[[str], bool], averaged: bool = False) -> str:
    """The prefix behind which most names are known; of equals the trained copy's, or with `averaged` the average's."""
    votes: Counter[str] = Counter()
    for address in addresses:
        # Every cut after a separator, and the whole address with the empty prefix.
        ends = [match.end() for match in re.finditer(r"[./]", address)][:_DEEPEST_PREFIX]
        votes.update(address[:cut] for cut in (0, *ends) if knows(address[cut:]))
    if averaged:
        votes = Counter({prefix: count for prefix, count in votes.items() if _MOMENTUM.search(prefix)})
    if not votes:
        return ""
    return max(votes, key=lambda prefix: (votes[prefix], not _MOMENTUM.search(prefix), -len(prefix)))


def _wrapper(names: Collection[str]) -> str:
    """`model.` where every tensor is below one attribute."""
    first = {name.partition(".")[0] for name in names if "." in name}
    return f"{first.pop()}." if len(first) == 1 and all("." in name for name in names) else ""


def _unchunked(name: str) -> str:
    """DINOv2 trains with blocks in chunks: blocks.CHUNK.BLOCK."""
    return re.sub(r"^blocks\.\d+\.(\d+\.)", r"blocks.\1", name)


def _openmmlab(name: str) -> str:
    for pattern, replacement in _OPENMMLAB:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def _transformers(net: nn.Module) -> list[Callable[[str], str]]:
    """transformers' own renaming of the names that files of its models have, where the installed version has one."""
    model: Any = next((module for module in net.modules() if type(module).__module__.startswith("transformers.models.")), None)
    if model is None:
        return []
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping

        steps = [step for step in get_model_conversion_mapping(model) if type(step).__name__ == "WeightRenaming"]
    except (ImportError, AttributeError, TypeError):  # older versions load files as they are
        return []

    def rename(name: str) -> str:
        for step in steps:
            name = step.rename_source_key(name)[0]
        return name

    return [rename]


def _timm_names(state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """timm's own conversion from the names of whoever published the network, position embeddings resampled."""
    module = type(net).__module__
    convert = getattr(sys.modules.get(module), "checkpoint_filter_fn", None) if module.startswith("timm.models.") else None
    if convert is None:
        return state
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints which biases a network lacks
            converted = convert(dict(state), net)
    except Exception:  # written for the files it knows, it fails in any way on others
        return state
    # It would also resample patches of another size: that is another network, so let the shapes tell.
    patches = "patch_embed.proj.weight"
    if patches in state and patches in converted and state[patches].ndim == 4:
        converted[patches] = state[patches]
    return {name: tensor for name, tensor in converted.items() if isinstance(tensor, Tensor)}
