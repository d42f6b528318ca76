"""Quantized reverse probing: how well concepts that people name predict the clusters of a representation.

Laina, Asano and Vedaldi, "Measuring the Interpretability of Unsupervised Representations via Quantized Reverse
Probing" (ICLR 2022). `concepts` holds tables and experts, `experiments` the paper's experiments.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
