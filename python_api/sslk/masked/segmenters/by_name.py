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
SIDES = {"grabcut": 256, "deeplab": 520, "sam": 768}


def segmenter(name: str, device: str | torch.device = "cpu", side: int | None = None) -> Segmenter:
    """A segmenter by name.

    Args:
        name: `grabcut` (from the middle of the image) or `grabcut:box`; `labels:car,pedestrian` (classes of the data
            set's label maps); `boxes`; `files:FOLDER` (masks) or `files:FOLDER=1,7` (label maps, values of the
            foreground); `deeplab` or `deeplab:WEIGHTS`, or a network of torchvision such as `deeplabv3_resnet101`;
            `sam`, `sam:box`, `sam:grid`, with `@CHECKPOINT` behind it for other weights than `facebook/sam-vit-base`.
        device: for those with a network.
        side: shorter side to which those that look at pixels reduce larger images before, 0 for none; `SIDES` by default.

    Raises:
        ValueError: an unknown name; near ones are listed. A side for masks that the data set or files give.

    >>> segmenter("grabcut:box").settings, segmenter("labels:car,bicyclist").settings
    ('grabcut:box x5 256px', 'labels:bicyclist,car')
    """
    kind, _, rest = name.partition(":")
    if side is not None and side < 0:
        raise ValueError(f"side must be a number of pixels, or 0 for the images' own size, got {side}.")
    if side is not None and kind in ("labels", "boxes", "files"):
        raise ValueError(f"side is for segmenters that look at the pixels, not for {name!r}, whose masks are given.")
    chosen_side = side or (None if side == 0 else SIDES.get("deeplab" if kind in NETWORKS else kind.partition("@")[0]))
    if kind == "grabcut" and rest in ("", "center", "box"):
        return GrabCutSegmenter("box" if rest == "box" else "center", side=chosen_side)
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
        if chosen_side is None:
            raise ValueError("side must be at least 1 for deeplab, whose network needs a size, got 0.")
        network = "deeplabv3_resnet50" if kind == "deeplab" else kind
        return DeepLabSegmenter(network, rest or "pretrained", size=chosen_side, device=device)
    if kind.partition("@")[0] == "sam":
        prompt, _, checkpoint = name.removeprefix("sam").removeprefix(":").partition("@")
        chosen = prompt or "center"
        if chosen not in ("box", "center", "grid"):
            raise ValueError(f"sam takes the prompts box, center and grid, got {chosen!r}.")
        weights = checkpoint or "facebook/sam-vit-base"
        return SegmentAnything(weights, chosen, device=device, side=chosen_side)  # type: ignore[arg-type]
    known = [known.partition(":")[0] for known in SEGMENTER_NAMES]
    near = difflib.get_close_matches(kind, known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else f"; known are {', '.join(SEGMENTER_NAMES)}."
    raise ValueError(f"unknown segmenter {name!r}{hint}")
