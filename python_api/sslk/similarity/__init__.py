"""How alike representations of the same samples are: CKA, CCA, Procrustes, neighbours, RSA, with intervals."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
