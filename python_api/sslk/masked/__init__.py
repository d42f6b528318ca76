"""Representations of images with parts removed: masks, variants, similarity, neighbours, evaluation, the study."""

from sslk.masked.extract import MaskedBackbone, extract_variants, variant_features
from sslk.masked.images import MaskedImages, choose_images
from sslk.masked.masks import Masks, build_masks
from sslk.masked.segmenters import segmenter
from sslk.masked.settings import StudySettings
from sslk.masked.similarity import compare_variants
from sslk.masked.study import masked_study
from sslk.masked.variants import VARIANTS, VariantRenderer

__all__ = [
    "VARIANTS",
    "MaskedBackbone",
    "MaskedImages",
    "Masks",
    "StudySettings",
    "VariantRenderer",
    "build_masks",
    "choose_images",
    "compare_variants",
    "extract_variants",
    "masked_study",
    "segmenter",
    "variant_features",
]
