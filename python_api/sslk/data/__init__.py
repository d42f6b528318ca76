"""Datasets, transforms and the embedded sample."""

from sslk.data.dataset import Annotation, Dataset, UnreadableImageError
from sslk.data.load import DATASET_NAMES, load_dataset
from sslk.data.transforms import EvaluationTransform, evaluation_transform

__all__ = [
    "DATASET_NAMES",
    "Annotation",
    "Dataset",
    "EvaluationTransform",
    "UnreadableImageError",
    "evaluation_transform",
    "load_dataset",
]
