"""Concepts of images: sparse tables of named binary columns, and the experts that fill them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
