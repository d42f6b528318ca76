"""Reads the backbone, and the parts around it, out of the checkpoints self-supervised code bases write."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslk.files.regular import require_regular_file
from sslk.files.tensors import read_tensors
from sslk.models.layouts import CONTAINERS, LAYOUT_NAMES, LAYOUTS, Layout

MINIMUM_MATCHED = 0.95

# First tensors of the usual networks: where they stand shows the prefix when no network is at hand to compare with.
_ANCHORS = ("conv1.weight", "cls_token", "patch_embed.proj.weight", "conv_stem.weight", "stem.0.weight", "0.weight")
_MOMENTUM = re.compile(r"momentum|teacher|target|ema|_k\b")
# Only these layouts come with a head that was trained together with the backbone, in the backbone's own place.
_WITH_TRAINED_HEAD = ("torchvision", "timm", "lightning")

# How numpy pickles a scalar; the module it is named by has moved between numpy 1 and 2.
_NUMPY_SCALAR = np.float64(0).__reduce__()[0]
# Plain data holders that training scripts leave beside the tensors; none of them runs code of the file.
_SAFE_GLOBALS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
    (_NUMPY_SCALAR, "numpy._core.multiarray.scalar"),
    *(type(np.dtype(code)) for code in "fdlqi"),
]


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit the network; the message is one sentence."""


@dataclass(frozen=True)
class CheckpointReport:
    """How a checkpoint's tensors fit a network; names are the network's, `num_batches_tracked` left aside.

    Attributes:
        layout: Name of the layout that was read.
        matched: Tensors loaded.
        missing: Tensors of the network that the file lacks or has in another shape; they keep their random values.
        unexpected: Backbone tensors of the file that the network has no place for.
    """

    layout: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    @property
    def share_matched(self) -> float:
        """Matched share of the network's tensors, 0 to 1."""
        return len(self.matched) / max(1, len(self.matched) + len(self.missing))


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint by role, each under its name inside that part.

    Attributes:
        layout: Name of the layout, one of `LAYOUT_NAMES`.
        backbone: The encoder's tensors.
        parts: What else was found: `projector`, `predictor`, `momentum_encoder`, `momentum_projector`, `prototypes`,
            `student`, `student_projector`, `decoder`, `classifier`.
    """

    layout: str
    backbone: dict[str, Tensor]
    parts: dict[str, dict[str, Tensor]]


def read_checkpoint(path: str | Path, layout: str | None = None) -> Checkpoint:
    """Read a checkpoint's tensors by role, without a network.

    Args:
        path: A file of `torch.save` or safetensors. Pickles are read with `weights_only=True`.
        layout: Name of the layout; detected from the keys by default.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is truncated, needs more than tensors, or has no layout we know.
        ValueError: `layout` is not a known name.

    >>> import tempfile
    >>> weights = {"module.encoder_q.conv1.weight": torch.ones(4), "module.encoder_q.fc.0.weight": torch.zeros(2)}
    >>> with tempfile.NamedTemporaryFile(suffix=".pth") as file:
    ...     torch.save({"state_dict": weights}, file.name)
    ...     checkpoint = read_checkpoint(file.name)
    >>> checkpoint.layout, list(checkpoint.backbone), list(checkpoint.parts["projector"])
    ('moco', ['conv1.weight'], ['0.weight'])
    """
    tensors, container = _read_addresses(Path(path))
    chosen = _named_layout(layout) if layout is not None else detect_layout(tensors, container)
    return _split(tensors, chosen, _ANCHORS)


def load_checkpoint(
    net: nn.Module, path: str | Path, layout: str | None = None, *, head: str | None = None
) -> tuple[Checkpoint, CheckpointReport]:
    """Load a checkpoint's backbone into a network, in place.

    Args:
        net: The network without its head.
        path, layout: See `read_checkpoint`. An attribute prefix that no layout knows is found by the network's names.
        head: Dotted name the classifier had in the network, so that a supervised file's classifier becomes a part.

    Returns:
        The checkpoint, read by the network's own names, and the report. Warns where a tensor is missing.

    Raises:
        CheckpointError: Fewer than 95 % of the network's tensors are matched; the network is left as it was.
            Also what `read_checkpoint` raises.
    """
    tensors, container = _read_addresses(Path(path))
    chosen = _named_layout(layout) if layout is not None else detect_layout(tensors, container)
    expected = [name for name in net.state_dict() if not name.endswith("num_batches_tracked")]
    checkpoint, report = _align(_split(tensors, chosen, expected), net, head)
    if layout is None and report.share_matched < MINIMUM_MATCHED:
        # Another code base may share the signature of a known one and still nest its network one attribute deeper.
        by_prefix = _align(_split(tensors, _named_layout("lightning"), expected), net, head)
        if by_prefix[1].share_matched >= MINIMUM_MATCHED:
            checkpoint, report = by_prefix
    total = len(report.matched) + len(report.missing)
    if report.share_matched < MINIMUM_MATCHED:
        how = "detected" if layout is None else "given"
        raise CheckpointError(
            f"{path}: only {len(report.matched)} of the network's {total} tensors match in the layout "
            f"{report.layout!r} ({how}), at least {MINIMUM_MATCHED:.0%} are needed; first missing: "
            f"{', '.join(report.missing[:3])}; first unexpected: {', '.join(report.unexpected[:3]) or 'none'}; "
            f"layouts are {', '.join(LAYOUT_NAMES)}"
        )
    if report.missing:
        warnings.warn(
            f"{path}: {len(report.missing)} of {total} tensors keep their random values: {', '.join(report.missing)}",
            stacklevel=3,
        )
    net.load_state_dict(checkpoint.backbone, strict=False)
    return checkpoint, report


def detect_layout(addresses: Collection[str], container: str = "") -> Layout:
    """The first layout of the table whose signature the addresses have; `lightning` (any prefix) where none has."""
    return next((layout for layout in LAYOUTS if layout.fits(addresses, container)), LAYOUTS[-1])


def _named_layout(name: str) -> Layout:
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise ValueError(f"checkpoint_format must be one of {', '.join(LAYOUT_NAMES)}, got {name!r}")


def _read_addresses(path: Path) -> tuple[dict[str, Tensor], str]:
    content = read_state(path)
    container = next((key for key in CONTAINERS if isinstance(content.get(key), Mapping)), "")
    tensors: dict[str, Tensor] = {}
    try:
        flat = dict(_flatten(content))
    except RecursionError:
        raise CheckpointError(f"{path}: its dictionaries are nested too deeply, or hold themselves") from None
    for address, tensor in flat.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise CheckpointError(f"{path}: {address[:80]!r} must be a plain tensor, got {tensor.layout} on {tensor.device}")
        for prefix in CONTAINERS:
            address = address.removeprefix(f"{prefix}/")
        # DINO's student is wrapped inside its own dictionary: the wrapper follows a slash there.
        tensors[re.sub(r"(^|/)((?:module|_orig_mod)\.)+", r"\1", address)] = tensor
    if not tensors:
        keys = ", ".join(map(str, list(content)[:5]))
        raise CheckpointError(f"{path}: holds no tensors under string keys, only {keys or 'nothing'}")
    return tensors, container


def _flatten(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items():
        # An optimizer numbers its states, so integer keys lead to no network.
        if not isinstance(key, str) or key.startswith("optimizer"):
            continue
        if isinstance(value, Tensor):
            yield prefix + key, value
        elif isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}/")


def read_state(path: Path) -> Mapping[str, Any]:
    """The dictionary in a file of `torch.save` or safetensors; the pickle may hold nothing but plain data.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is no such file, damaged, or needs more than plain data.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint file {path}")
    try:
        size = require_regular_file(path, "the checkpoint")
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix == ".safetensors" or (start[8:9] == b"{" and not start.startswith(b"PK")):
        try:
            return read_tensors(path, "the checkpoint", CheckpointError)[0]
        except CheckpointError as error:
            raise CheckpointError(f"{path}: truncated or damaged safetensors file ({size} bytes): {error}") from None
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            # Memory-mapped, the optimizer state of a full checkpoint is never read; the old format cannot be mapped.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        needed = re.search(r"GLOBAL ([\w.]+)|global ([\w.]+)|class ([\w.]+)", str(error))
        if needed is None:
            raise CheckpointError(f"{path}: neither a torch.save nor a safetensors file, or damaged ({size} bytes)") from None
        name = next(group for group in needed.groups() if group)
        raise CheckpointError(
            f"{path}: refused, because unpickling it needs {name}, and a pickle that needs more than tensors and plain "
            "data can run any code; re-save only its state_dict with torch.save where you trust the file"
        ) from None
    except Exception as error:  # bytes that are no pickle make the unpickler fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: truncated or damaged checkpoint ({size} bytes): {reason}") from None
    if isinstance(content, Mapping):
        return content
    raise CheckpointError(f"{path}: a checkpoint must be a dictionary of tensors, got {type(content).__name__}")


def _split(tensors: Mapping[str, Tensor], layout: Layout, expected: Collection[str]) -> Checkpoint:
    if layout.backbone:
        occurring = (prefix for prefix in layout.backbone if any(a.startswith(prefix) for a in tensors))
        prefix = next(occurring, layout.backbone[0])
    else:
        prefix = _find_prefix(tensors, expected)
    roles = {prefix: "backbone"} | {p: role for role, prefixes in layout.parts.items() for p in prefixes}
    longest_first = sorted(roles, key=len, reverse=True)
    found: dict[str, dict[str, Tensor]] = {"backbone": {}}
    for address, tensor in tensors.items():
        owner = next((p for p in longest_first if address.startswith(p)), None)
        if owner is not None:
            found.setdefault(roles[owner], {})[address[len(owner) :]] = tensor
    return Checkpoint(layout.name, found.pop("backbone"), found)


def _find_prefix(addresses: Collection[str], expected: Collection[str]) -> str:
    votes: Counter[str] = Counter()
    names = set(expected)
    for address in addresses:
        # Every cut after a separator, and the whole address with the empty prefix.
        cuts = [0, *(match.end() for match in re.finditer(r"[./]", address))]
        votes.update(address[:cut] for cut in cuts if address[cut:] in names)
    if not votes:
        return ""
    return max(votes, key=lambda prefix: (votes[prefix], not _MOMENTUM.search(prefix), -len(prefix)))


def _align(checkpoint: Checkpoint, net: nn.Module, head: str | None) -> tuple[Checkpoint, CheckpointReport]:
    """Bring the tensors to the network's names: `Sequential`-numbered children, chunked blocks, timm's conversions."""
    targets = net.state_dict()
    children = [name for name, _ in net.named_children()]

    def numbered(name: str) -> str:
        number, dot, rest = name.partition(".")
        return f"{children[int(number)]}.{rest}" if dot and number.isdigit() and int(number) < len(children) else name

    def unchunked(name: str) -> str:  # DINOv2 trains with blocks in chunks: blocks.CHUNK.BLOCK.
        return re.sub(r"^blocks\.\d+\.(\d+\.)", r"blocks.\1", name)

    def fits(state: Mapping[str, Tensor]) -> int:
        return sum(name in targets and tensor.shape == targets[name].shape for name, tensor in state.items())

    renamed = [{rename(name): t for name, t in checkpoint.backbone.items()} for rename in (str, numbered, unchunked)]
    state = max((_timm_names(candidate, net) for candidate in renamed), key=fits)
    parts = dict(checkpoint.parts)
    if head is not None and checkpoint.layout in _WITH_TRAINED_HEAD and f"{head}.weight" in state:
        owned = [name for name in state if name.startswith(f"{head}.")]
        parts["classifier"] = {name[len(head) + 1 :]: state.pop(name) for name in owned}
    expected = [name for name in targets if not name.endswith("num_batches_tracked")]
    fitting = {name: t for name, t in state.items() if name in targets and t.shape == targets[name].shape}
    report = CheckpointReport(
        checkpoint.layout,
        matched=tuple(name for name in expected if name in fitting),
        missing=tuple(name for name in expected if name not in fitting),
        unexpected=tuple(name for name in state if name not in targets),
    )
    return replace(checkpoint, backbone=fitting, parts=parts), report


def _timm_names(state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """timm's own conversion of vision transformers: DINOv2's registers and SwiGLU, position embeddings resampled."""
    if type(net).__module__ != "timm.models.vision_transformer":
        return state
    converted = sys.modules[type(net).__module__].checkpoint_filter_fn(dict(state), net)
    # It would also resample patches of another size: that is another network, so let the shapes tell.
    patches = "patch_embed.proj.weight"
    if patches in state and state[patches].ndim == 4:
        converted[patches] = state[patches]
    return converted
