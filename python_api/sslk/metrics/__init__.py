"""Streaming metrics over representations: any batch split and any number of ranks give the same answer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
