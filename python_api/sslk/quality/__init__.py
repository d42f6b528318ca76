"""Q-Score (Kalibhat et al., AAAI 2024): discriminative features, per-sample quality, failure prediction, regulariser."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
