"""Pairs of clusters that a group of concepts tells apart (figures 5, 8 to 11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from sslk.concepts.table import ConceptTable
from sslk.results.run import Run, RunTable
from sslk.reverse import figures
from sslk.reverse.experiments.result import drawn, experiment
from sslk.reverse.protocol import ProbeResult, probe_clustering
from sslk.reverse.quantizer import Clusterings
from sslk.reverse.settings import ProbeSettings
from sslk.reverse.split import stratified_split


@dataclass(frozen=True)
class ClusterPair:
    """Two clusters, how often test rows of one were taken for the other, and what tells them apart.

    Attributes:
        first, second: cluster numbers.
        before, after: share of the two clusters' test rows confused, without and with the group.
        words: concept -> difference of its coefficients, first minus second, weighted by how much more often the
            clusters' images show it.
    """

    first: int
    second: int
    before: float
    after: float
    words: dict[str, float]


def confused(probe: ProbeResult, clusters: Tensor, num_clusters: int) -> Tensor:
    """Share of the rows of each two clusters that are taken for the other, symmetric, `[K, K]`; the diagonal is 0."""
    truth, predicted = clusters[probe.split.test].long(), probe.logits.argmax(1)
    counts = torch.bincount(truth * num_clusters + predicted, minlength=num_clusters**2).view(num_clusters, -1).double()
    size = counts.sum(1)
    mixed = (counts + counts.T) / (size[:, None] + size[None]).clamp(min=1)
    return mixed.fill_diagonal_(0)


def separated_pairs(
    clusters: Tensor, num_clusters: int, concepts: ConceptTable, group: str, count: int, settings: ProbeSettings
) -> list[ClusterPair]:
    """The pairs of clusters whose confusion drops most when a group of concepts is added to all others.

    Args:
        clusters: integers `[N]`, as the rows of concepts.
        num_clusters: K.
        concepts: all groups.
        group: the one that is added.
        count: pairs wanted; fewer where fewer are confused less.
        settings: of the predictor.
    """
    added = concepts.select([group])
    others = [name for name in concepts.group_sizes if name != group]
    split = stratified_split(clusters, seed=settings.seed)
    without = concepts.select(others) if others else concepts.take_columns(torch.zeros(concepts.num_concepts).bool())
    before = confused(probe_clustering(clusters, num_clusters, without, split, settings), clusters, num_clusters)
    full = probe_clustering(clusters, num_clusters, concepts, split, settings)
    after = confused(full, clusters, num_clusters)
    drop = (before - after).triu(1)
    best = drop.flatten().argsort(descending=True, stable=True)[:count]
    columns = torch.tensor([name == group for name in concepts.groups])
    coefficients = full.predictor.weight[columns]
    dense = added.dense().float()
    pairs = []
    for position in best.tolist():
        first, second = divmod(position, num_clusters)
        if drop[first, second] <= 0:
            break
        shown = [dense[clusters == cluster].mean(0) for cluster in (first, second)]
        difference = (coefficients[:, first] - coefficients[:, second]) * torch.maximum(*shown)
        words = {name: float(value) for name, value in zip(added.names, difference, strict=True) if abs(value) > 1e-3}
        pairs.append(ClusterPair(first, second, float(before[first, second]), float(after[first, second]), words))
    return pairs


def cluster_pairs(
    clusterings: Clusterings,
    concepts: ConceptTable,
    group: str,
    image: Callable[[int], Image.Image],
    settings: ProbeSettings | None = None,
    *,
    count: int = 4,
    examples: int = 9,
) -> Run:
    """Word clouds and example images of the pairs of clusters that a group of concepts separates; first clustering.

    Args:
        clusterings: of the images.
        concepts: of the images.
        group: the group that is added to all others.
        image: number in the data set -> image.
        settings: of the predictor.
        count: pairs.
        examples: images per cluster.
    """
    table = concepts.join(clusterings.samples)
    clusters = clusterings.assignments[0].long()
    found = separated_pairs(clusters, clusterings.num_clusters, table, group, count, settings or ProbeSettings())
    pictures, rows, findings = [], [], []
    for number, pair in enumerate(found, 1):
        sides = []
        for cluster in (pair.first, pair.second):
            members = (clusters == cluster).nonzero().flatten()[:examples]
            sides.append([image(int(clusterings.samples[row])) for row in members])
        ranked = sorted(pair.words, key=lambda word: pair.words[word])
        towards = (ranked[::-1][:3], ranked[:3])
        text = (
            f"clusters {pair.first} and {pair.second}: {100 * pair.before:.0f} % of their test images are confused without "
            f"{group}, {100 * pair.after:.0f} % with it"
        )
        findings.append(f"{text[0].upper()}{text[1:]}; {', '.join(towards[0])} against {', '.join(towards[1])}.")
        names = f"cluster {pair.first}", f"cluster {pair.second}"
        draw = partial(figures.cluster_pair, (sides[0], sides[1]), pair.words, names, text)
        alt = f"Images of clusters {pair.first} and {pair.second} and the {group} words that tell them apart."
        data = [[word, pair.words[word]] for word in ranked[::-1]]
        header = ["concept", "weighted difference"]
        pictures.append(drawn(f"pair_{number}", f"Pair {number}", alt, draw, header, data))
        rows.append([pair.first, pair.second, 100 * pair.before, 100 * pair.after, ", ".join(towards[0]), ", ".join(towards[1])])
    if not found:
        findings = [f"No two clusters are confused less when {group} is added."]
    columns = ["first", "second", "confused without [%]", "confused with [%]", "for the first", "for the second"]
    title = f"Cluster pairs that {group} tells apart"
    return experiment(title, findings, {"pairs": len(found)}, [RunTable(title, columns, rows)], pictures)
