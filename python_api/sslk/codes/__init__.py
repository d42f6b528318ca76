"""Sparse codes: features, signed or not, as sums of a few directions with weights that are not negative."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
