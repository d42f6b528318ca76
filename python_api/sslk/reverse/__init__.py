"""Quantized reverse probing: how well concepts that people name predict the clusters of a representation.

Laina, Asano and Vedaldi, "Measuring the Interpretability of Unsupervised Representations via Quantized Reverse
Probing" (ICLR 2022). `concepts` holds tables and experts, `experiments` the paper's experiments.
"""

from sslk.reverse.metrics import ReverseMetrics, reverse_metrics
from sslk.reverse.probe import ConceptPredictor, fit_predictor
from sslk.reverse.probe_settings import ProbeSettings
from sslk.reverse.protocol import ProbeResult, ReverseProbe, quantize_store, reverse_probe, reverse_probes
from sslk.reverse.quantizer import Clusterings, KMeansSettings, quantize
from sslk.reverse.split import Split, stratified_split

__all__ = [
    "Clusterings",
    "ConceptPredictor",
    "KMeansSettings",
    "ProbeResult",
    "ProbeSettings",
    "ReverseMetrics",
    "ReverseProbe",
    "Split",
    "fit_predictor",
    "quantize",
    "quantize_store",
    "reverse_metrics",
    "reverse_probe",
    "reverse_probes",
    "stratified_split",
]
