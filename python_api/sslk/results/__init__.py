"""What a study leaves: its `Run`, figures with their numbers, provenance, and files that are whole or absent."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
