"""The experiments of the paper; each returns tables, figures and findings that save as a run."""

from sslk.reverse.experiments.groups import breakdown, gain
from sslk.reverse.experiments.pairs import ClusterPair, cluster_pairs, separated_pairs
from sslk.reverse.experiments.ranking import ranking
from sslk.reverse.experiments.result import ExperimentResult, Picture
from sslk.reverse.experiments.toy import toy
from sslk.reverse.experiments.transfer import shifted_test, transfer
from sslk.reverse.experiments.variants import labels_from_concepts, self_labels, vary_clusters

__all__ = [
    "ClusterPair",
    "ExperimentResult",
    "Picture",
    "breakdown",
    "cluster_pairs",
    "gain",
    "labels_from_concepts",
    "ranking",
    "self_labels",
    "separated_pairs",
    "shifted_test",
    "toy",
    "transfer",
    "vary_clusters",
]
