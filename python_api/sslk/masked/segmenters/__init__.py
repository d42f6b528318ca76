"""Segmenters: which pixels of an image belong to its object. `segmenter(name)` makes one from its name."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
