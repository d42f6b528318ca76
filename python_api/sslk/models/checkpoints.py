"""Reads the backbone, and the parts around it, out of the checkpoints self-supervised code bases write."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from sslk.models.addresses import Addresses, find_addresses
from sslk.models.checkpoint_files import CheckpointError as CheckpointError
from sslk.models.checkpoint_files import read_content
from sslk.models.checkpoint_files import read_state as read_state
from sslk.models.layouts import LAYOUT_NAMES, LAYOUTS, Layout
from sslk.models.renaming import Names, find_prefix

MINIMUM_MATCHED = 0.95
AVERAGED = "ema"

# First tensors of the usual networks: where they stand shows the prefix when no network is at hand to compare with.
_ANCHORS = ("conv1.weight", "cls_token", "patch_embed.proj.weight", "conv_stem.weight", "stem.0.weight", "0.weight")
# Only these layouts come with a head that was trained together with the backbone, in the backbone's own place.
_WITH_TRAINED_HEAD = ("torchvision", "timm", "lightning")


@dataclass(frozen=True)
class CheckpointReport:
    """How a checkpoint's tensors fit a network; names are the network's, `num_batches_tracked` left aside.

    Attributes:
        layout: Name of the layout that was read.
        matched: Tensors loaded.
        missing: Tensors of the network that the file lacks or has in another shape; they keep their random values.
        unexpected: Backbone tensors of the file that the network has no place for.
        ignored: Dotted names of the classes and functions that the file names; nothing of them was imported or called.
        copies: Averaged copies of the weights that the file also holds and that were not loaded: the keys they are under.
        copy: The averaged copy that was loaded, "" for the layout's own weights.
    """

    layout: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    copy: str = ""

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
    """Read a checkpoint's tensors by role, without a network. Nothing in the file is imported or run.

    Args:
        path: A file of `torch.save` or safetensors, or the index of its parts.
        layout: Name of the layout, detected from the keys by default; `ema` or `NAME+ema` for the averaged copy of the
            weights that the file keeps beside the trained ones.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is another kind of file, damaged, has no layout we know, or no averaged copy.
        ValueError: `layout` is not a known name.

    >>> import tempfile, torch
    >>> weights = {"module.encoder_q.conv1.weight": torch.ones(4), "module.encoder_q.fc.0.weight": torch.zeros(2)}
    >>> with tempfile.NamedTemporaryFile(suffix=".pth") as file:
    ...     torch.save({"state_dict": weights}, file.name)
    ...     checkpoint = read_checkpoint(file.name)
    >>> checkpoint.layout, list(checkpoint.backbone), list(checkpoint.parts["projector"])
    ('moco', ['conv1.weight'], ['0.weight'])
    """
    wanted, averaged = _requested(layout)
    addresses = find_addresses(read_content(Path(path)), str(path))
    return _split(addresses, wanted, averaged, _ANCHORS.__contains__, str(path))[0]


def load_checkpoint(
    net: nn.Module, path: str | Path, layout: str | None = None, *, head: str | None = None
) -> tuple[Checkpoint, CheckpointReport]:
    """Load a checkpoint's backbone into a network, in place. Nothing in the file is imported or run.

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
    wanted, averaged = _requested(layout)
    addresses = find_addresses(read_content(Path(path)), str(path))
    names = Names(net)
    checkpoint, report = _align(*_split(addresses, wanted, averaged, names.knows, str(path)), names, head)
    if wanted is None and report.share_matched < MINIMUM_MATCHED:
        # Another code base may share the signature of a known one and still nest its network one attribute deeper.
        by_prefix = _align(*_split(addresses, LAYOUTS[-1], averaged, names.knows, str(path)), names, head)
        if by_prefix[1].share_matched >= MINIMUM_MATCHED:
            checkpoint, report = by_prefix
    report = replace(report, ignored=addresses.ignored)
    total = len(report.matched) + len(report.missing)
    if report.share_matched < MINIMUM_MATCHED:
        raise CheckpointError(f"{path}: {_why_too_few(report, total, detected=wanted is None)}")
    if report.missing:
        warnings.warn(
            f"{path}: {len(report.missing)} of {total} tensors keep their random values: {', '.join(report.missing)}",
            stacklevel=3,
        )
    net.load_state_dict(checkpoint.backbone, strict=False)
    return checkpoint, report


def detect_layout(addresses: Mapping[str, Tensor], container: str = "") -> Layout:
    """The first layout of the table whose signature the addresses have; `lightning` (any prefix) where none has."""
    return next((layout for layout in LAYOUTS if layout.fits(addresses, container)), LAYOUTS[-1])


def _requested(layout: str | None) -> tuple[Layout | None, bool]:
    """The layout that was asked for, and whether its averaged copy was."""
    if layout is None or layout == AVERAGED:
        return None, layout == AVERAGED
    name = layout.removesuffix(f"+{AVERAGED}")
    found = next((known for known in LAYOUTS if known.name == name), None)
    if found is None:
        raise ValueError(f"checkpoint_format must be one of {', '.join(LAYOUT_NAMES)}, ema or NAME+ema, got {layout!r}")
    return found, name != layout


def _why_too_few(report: CheckpointReport, total: int, detected: bool) -> str:
    ignored = ", ".join(name[:80] for name in report.ignored[:3])
    return (
        f"only {len(report.matched)} of the network's {total} tensors match in the layout "
        f"{report.layout!r} ({'detected' if detected else 'given'}), at least {MINIMUM_MATCHED:.0%} are needed; first missing: "
        f"{', '.join(report.missing[:3])}; first unexpected: {', '.join(report.unexpected[:3]) or 'none'}; "
        f"{f'classes in the file that are not read: {ignored}; ' if ignored else ''}"
        f"layouts are {', '.join(LAYOUT_NAMES)}"
    )


def _split(
    addresses: Addresses, wanted: Layout | None, averaged: bool, knows: Callable[[str], bool], where: str
) -> tuple[Checkpoint, str, tuple[str, ...]]:
    """The tensors by role, the averaged copy they are of, and the averaged copies left aside."""
    tensors, copy = addresses.tensors, ""
    others = list(addresses.averaged)
    if averaged and others:
        copy = others.pop(0)
        tensors = addresses.averaged[copy]
    layout = wanted or detect_layout(tensors, addresses.container)
    if layout.backbone:
        occurring = (prefix for prefix in layout.backbone if any(a.startswith(prefix) for a in tensors))
        prefix = next(occurring, layout.backbone[0])
    else:
        prefix = find_prefix(tensors, knows, averaged and not copy)
        copy = copy or (prefix.rstrip("./") if averaged else "")
    roles = {prefix: "backbone"} | {p: role for role, prefixes in layout.parts.items() for p in prefixes}
    longest_first = sorted(roles, key=len, reverse=True)
    found: dict[str, dict[str, Tensor]] = {"backbone": {}}
    for address, tensor in tensors.items():
        owner = next((p for p in longest_first if address.startswith(p)), None)
        if owner is not None:
            found.setdefault(roles[owner], {})[address[len(owner) :]] = tensor
    if averaged and not copy and "momentum_encoder" in found:
        found["backbone"], copy = found.pop("momentum_encoder"), "momentum_encoder"
    if averaged and not copy and prefix.startswith("teacher"):
        copy = prefix.rstrip("./")
    if averaged and not copy:
        raise CheckpointError(f"{where}: holds no averaged copy of the weights that is known in the layout {layout.name!r}")
    others += ["momentum_encoder"] if "momentum_encoder" in found else []
    return Checkpoint(layout.name, found.pop("backbone"), found), copy, tuple(others)


def _align(
    checkpoint: Checkpoint, copy: str, copies: tuple[str, ...], names: Names, head: str | None
) -> tuple[Checkpoint, CheckpointReport]:
    """Bring the tensors to the network's names."""
    state = names.brought(checkpoint.backbone)
    parts = dict(checkpoint.parts)
    if head is not None and checkpoint.layout in _WITH_TRAINED_HEAD and f"{head}.weight" in state:
        owned = [name for name in state if name.startswith(f"{head}.")]
        parts["classifier"] = {name[len(head) + 1 :]: state.pop(name) for name in owned}
    fitting = {name: t for name, t in state.items() if name in names.targets and t.shape == names.targets[name].shape}
    report = CheckpointReport(
        checkpoint.layout,
        matched=tuple(name for name in names.expected if name in fitting),
        missing=tuple(name for name in names.expected if name not in fitting),
        unexpected=tuple(name for name in state if name not in names.targets),
        copy=copy,
        copies=copies,
    )
    return replace(checkpoint, backbone=fitting, parts=parts), report
