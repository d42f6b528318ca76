"""Streaming metrics over representations: any batch split and any number of ranks give the same answer."""

from sslk.metrics.activation import ActivationRate
from sslk.metrics.cca import CCA
from sslk.metrics.column_l1 import ColumnL1
from sslk.metrics.failure import FailureAUPRC, FailureAUROC
from sslk.metrics.heatmap_iou import HeatmapIoU
from sslk.metrics.linear_cka import LinearCKA
from sslk.metrics.moments import FeatureMoments
from sslk.metrics.qscore import QScoreSummary
from sslk.metrics.similarity import Similarity

__all__ = [
    "CCA",
    "ActivationRate",
    "ColumnL1",
    "FailureAUPRC",
    "FailureAUROC",
    "FeatureMoments",
    "HeatmapIoU",
    "LinearCKA",
    "QScoreSummary",
    "Similarity",
]
