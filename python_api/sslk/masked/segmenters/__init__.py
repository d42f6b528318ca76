"""Segmenters: which pixels of an image belong to its object. `segmenter(name)` makes one from its name."""

from sslk.masked.segmenters.annotated import BoxSegmenter, LabelMapSegmenter
from sslk.masked.segmenters.by_name import SEGMENTER_NAMES, segmenter
from sslk.masked.segmenters.deeplab import DeepLabSegmenter
from sslk.masked.segmenters.files import FileSegmenter
from sslk.masked.segmenters.grabcut import GrabCutSegmenter
from sslk.masked.segmenters.scene import Scene, Segmenter
from sslk.masked.segmenters.segment_anything import SegmentAnything

__all__ = [
    "SEGMENTER_NAMES",
    "BoxSegmenter",
    "DeepLabSegmenter",
    "FileSegmenter",
    "GrabCutSegmenter",
    "LabelMapSegmenter",
    "Scene",
    "SegmentAnything",
    "Segmenter",
    "segmenter",
]
