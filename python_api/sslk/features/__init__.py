"""Extraction of representations and the store that holds them, larger than memory if need be."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
