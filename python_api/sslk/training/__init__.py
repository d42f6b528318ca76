"""Self-supervised training, from scratch or further, with and without the Q-Score regulariser."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
