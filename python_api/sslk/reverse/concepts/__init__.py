"""Concepts of images: sparse tables of named binary columns, and the experts that fill them."""

from sslk.reverse.concepts.build import build_concepts
from sslk.reverse.concepts.classifier import Classifier, backbone_classifier, classify_store, imagenet_names
from sslk.reverse.concepts.colour import COLOURS, Colours
from sslk.reverse.concepts.detector import Detector
from sslk.reverse.concepts.expert import ConceptSample, Expert
from sslk.reverse.concepts.labels import ClassAttributes, ClassLabels, LabelMaps
from sslk.reverse.concepts.prompts import Prompts, clip_prompts
from sslk.reverse.concepts.segmenter import Segmenter
from sslk.reverse.concepts.table import ConceptError, ConceptTable, merge
from sslk.reverse.concepts.text import TextPresence

__all__ = [
    "COLOURS",
    "ClassAttributes",
    "ClassLabels",
    "Classifier",
    "Colours",
    "ConceptError",
    "ConceptSample",
    "ConceptTable",
    "Detector",
    "Expert",
    "LabelMaps",
    "Prompts",
    "Segmenter",
    "TextPresence",
    "backbone_classifier",
    "build_concepts",
    "classify_store",
    "clip_prompts",
    "imagenet_names",
    "merge",
]
