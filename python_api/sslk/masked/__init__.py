"""Representations of images with parts removed: masks, variants, similarity, neighbours, evaluation, the study."""

from sslk.masked.extract import MaskedBackbone, extract_variants, variant_features
from sslk.masked.images import MaskedImages, choose_images
from sslk.masked.masks import Masks, build_masks
from sslk.masked.segmenters import segmenter
from sslk.masked.variants import VARIANTS, VariantRenderer

__all__ = [
    "VARIANTS",
    "MaskedBackbone",
    "MaskedImages",
    "Masks",
    "VariantRenderer",
    "build_masks",
    "choose_images",
    "extract_variants",
    "segmenter",
    "variant_features",
]
