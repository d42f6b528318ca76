"""What features look at: heatmaps, their agreement with annotated regions, the feature atlas, galleries."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
