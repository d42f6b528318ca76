"""Datasets, their annotations and the embedded sample."""

from sslk.data.dataset import Annotation, Dataset, UnreadableImageError
from sslk.data.load import DATASET_NAMES, load_dataset

__all__ = [
    "DATASET_NAMES",
    "Annotation",
    "Dataset",
    "UnreadableImageError",
    "load_dataset",
]
