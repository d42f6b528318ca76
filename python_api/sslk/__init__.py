"""Protocols for measuring and improving self-supervised visual representations, on the kernels of `ssl_kernels`.

Importing the package registers `torch.ops.sslk.*`. The functions named here are the ones most people need; the rest is
in the sub-packages `data`, `models`, `features`, `metrics`, `probes`, `qscore` and `report`.
"""

import ssl_kernels as _kernels  # registers the ops
from sslk.probes.linear import LinearProbe, linear_probe
from sslk.qscore.discover import DiscriminativeFeatures, discover, eps_sweep
from sslk.qscore.failure import FailurePrediction, failure_prediction
from sslk.qscore.regularizer import QScoreRegularizer
from sslk.qscore.score import QScores, qscore

__version__ = _kernels.__version__

__all__ = [
    "DiscriminativeFeatures",
    "FailurePrediction",
    "LinearProbe",
    "QScoreRegularizer",
    "QScores",
    "__version__",
    "discover",
    "eps_sweep",
    "failure_prediction",
    "linear_probe",
    "qscore",
]
