"""`segmenter`: a segmenter by name, as the command line writes it."""

from __future__ import annotations

import difflib

import torch

from sslk.masked.segmenters.annotated import BoxSegmenter, LabelMapSegmenter
from sslk.masked.segmenters.deeplab import NETWORKS, DeepLabSegmenter
from sslk.masked.segmenters.files import FileSegmenter
from sslk.masked.segmenters.grabcut import GrabCutSegmenter
from sslk.masked.segmenters.scene import Segmenter
from sslk.masked.segmenters.segment_anything import SegmentAnything

SEGMENTER_NAMES = ("grabcut", "grabcut:box", "labels:CLASS,...", "boxes", "files:FOLDER[=VALUES]", "deeplab", "sam")


def segmenter(name: str, device: str | torch.device = "cpu") -> Segmenter:
    """A segmenter by name.

    Args:
        name: `grabcut` (from the middle of the image) or `grabcut:box`; `labels:car,pedestrian` (classes of the data
            set's label maps); `boxes`; `files:FOLDER` (masks) or `files:FOLDER=1,7` (label maps, values of the
            foreground); `deeplab` or `deeplab:WEIGHTS`, or a network of torchvision such as `deeplabv3_resnet101`;
            `sam`, `sam:box`, `sam:grid`, with `@CHECKPOINT` behind it for other weights than `facebook/sam-vit-base`.
        device: for those with a network.

    Raises:
        ValueError: an unknown name; near ones are listed.

    >>> segmenter("grabcut:box").settings, segmenter("labels:car,bicyclist").settings
    ('grabcut:box x5', 'labels:bicyclist,car')
    """
    kind, _, rest = name.partition(":")
    if kind == "grabcut" and rest in ("", "center", "box"):
        return GrabCutSegmenter("box" if rest == "box" else "center")
    if kind == "labels" and rest:
        return LabelMapSegmenter([part.strip() for part in rest.split(",") if part.strip()])
    if name == "boxes":
        return BoxSegmenter()
    if kind == "files" and rest:
        folder, equals, values = rest.rpartition("=")
        if not equals:
            return FileSegmenter(rest)
        try:
            return FileSegmenter(folder, [int(value) for value in values.split(",")])
        except ValueError:
            raise ValueError(f"files:FOLDER=VALUES needs whole numbers after the =, got {values!r}.") from None
    if kind == "deeplab" or kind in NETWORKS:
        return DeepLabSegmenter("deeplabv3_resnet50" if kind == "deeplab" else kind, rest or "pretrained", device=device)
    if kind.partition("@")[0] == "sam":
        prompt, _, checkpoint = name.removeprefix("sam").removeprefix(":").partition("@")
        chosen = prompt or "center"
        if chosen not in ("box", "center", "grid"):
            raise ValueError(f"sam takes the prompts box, center and grid, got {chosen!r}.")
        return SegmentAnything(checkpoint or "facebook/sam-vit-base", chosen, device=device)  # type: ignore[arg-type]
    known = [known.partition(":")[0] for known in SEGMENTER_NAMES]
    near = difflib.get_close_matches(kind, known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else f"; known are {', '.join(SEGMENTER_NAMES)}."
    raise ValueError(f"unknown segmenter {name!r}{hint}")
