"""Protocols for measuring and improving self-supervised visual representations, on the kernels of `ssl_kernels`.

The functions named here are the ones most people need; the rest is in the sub-packages `data`, `models`, `features`,
`metrics`, `probes`, `quality` (Q-Score) and `report`. Each name is imported when it is first used, so that the command
line starts at once; `import ssl_kernels` is what registers `torch.ops.sslk.*`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_kernels.version import __version__ as __version__
    from sslk.interpret.heatmaps import feature_heatmaps as feature_heatmaps
    from sslk.models import load_backbone as load_backbone
    from sslk.probes.linear import LinearProbe as LinearProbe
    from sslk.probes.linear import linear_probe as linear_probe
    from sslk.quality.discover import DiscriminativeFeatures as DiscriminativeFeatures
    from sslk.quality.discover import discover as discover
    from sslk.quality.discover import eps_sweep as eps_sweep
    from sslk.quality.failure import FailurePrediction as FailurePrediction
    from sslk.quality.failure import failure_prediction as failure_prediction
    from sslk.quality.regularizer import QScoreRegularizer as QScoreRegularizer
    from sslk.quality.score import QScores as QScores
    from sslk.quality.score import qscore as qscore

_MODULE_OF = {
    "__version__": "ssl_kernels.version",
    "DiscriminativeFeatures": "sslk.quality.discover",
    "FailurePrediction": "sslk.quality.failure",
    "LinearProbe": "sslk.probes.linear",
    "QScoreRegularizer": "sslk.quality.regularizer",
    "QScores": "sslk.quality.score",
    "discover": "sslk.quality.discover",
    "eps_sweep": "sslk.quality.discover",
    "failure_prediction": "sslk.quality.failure",
    "feature_heatmaps": "sslk.interpret.heatmaps",
    "linear_probe": "sslk.probes.linear",
    "load_backbone": "sslk.models",
    "qscore": "sslk.quality.score",
}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'sslk' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
