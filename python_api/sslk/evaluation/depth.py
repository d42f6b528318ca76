"""A network layer by layer: Q-Score, probes, CKA between layers and reverse probing over depth, as one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslk.evaluation.settings import DepthSettings
from sslk.features import FeatureStore
from sslk.probes import knn_probe, linear_probe
from sslk.probes.outputs import accuracy_interval
from sslk.probes.settings import KnnSettings, LinearSettings
from sslk.probes.source import described
from sslk.progress import Progress, renamed
from sslk.quality import discover, qscore
from sslk.quality.discriminative import NoDiscriminativeFeatures
from sslk.results.figure import picture
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable, Value
from sslk.results.style import BLUE, GREEN, ORANGE, new_axes
from sslk.reverse import KMeansSettings, ProbeSettings, ReverseInputs, reverse_study
from sslk.similarity import SimilaritySettings, compare
from sslk.statistics.bootstrap import mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sslk.concepts import ConceptTable

COLUMNS = [
    "layer",
    "D",
    "mean Q-Score",
    "low",
    "high",
    "discriminative",
    "eps",
    "linear top-1 [%]",
    "low [%]",
    "high [%]",
    "k-NN top-1 [%]",
    "CKA with the last",
    "reverse I/H [%]",
]
Stores = Mapping[str, tuple[FeatureStore, FeatureStore]]


def depth_study(
    layers: Stores,
    settings: DepthSettings = DepthSettings(),  # noqa: B008 (frozen)
    *,
    concepts: ConceptTable | None = None,
    device: str | None = None,
    out: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Run:
    """Every measure at every layer of a network, in the order given.

    Args:
        layers: name of the layer -> labelled training and test store of the same images; `extract_pairs` makes them.
        settings: of the probes and of reverse probing.
        concepts: of the training images, for reverse probing.
        device: where to compute.
        out: folder in which clusterings are kept.
        progress: called with what is done, what is to do, and the stage.

    Returns:
        A table and a figure over layers, and the CKA between all layers.

    Raises:
        StoreError: a store is incomplete or without labels.
        ValueError: there are fewer than two layers, or their stores are not of the same images.
    """
    _require_same_images(layers)
    rows = {name: _measured(name, *stores, settings, device, progress) for name, stores in layers.items()}
    cka = _cka({name: test for name, (_, test) in layers.items()}, progress)
    last = list(layers)[-1]
    information = _reverse(layers, concepts, settings, out, progress) if concepts is not None else {}
    table = [[name, *row, cka[name, last], information.get(name)] for name, row in rows.items()]
    tables = [
        RunTable("Measures over depth", COLUMNS, table),
        RunTable("Linear CKA between layers, debiased", ["layer", *layers], [[a, *(cka[a, b] for b in layers)] for a in layers]),
    ]
    origin = provenance(
        {"command": "depth", "config": asdict(settings), "seed": settings.seed, "test": described(layers[last][1])}
    )
    columns = dict(zip(COLUMNS, map(list, zip(*table, strict=True)), strict=True))
    alt = "Linear and k-NN accuracy, mean Q-Score, and CKA with the last layer over the layers."
    drawn = picture("depth", "Over depth", alt, lambda: _figure(columns), columns)
    model = layers[last][1].spec.model
    measures = [measure for row in table for measure in _measures(row, layers[row[0]][1], model)]
    title = f"{model} over depth"
    return Run("evaluation", title, _findings(columns), origin, _summary(columns), tables, [drawn], measures=measures)


def _measures(row: list[Any], test: FeatureStore, model: str) -> list[Measure]:
    """The numbers of one layer."""
    of = dict(zip(COLUMNS, row, strict=True))
    data, layer = test.spec.dataset, f"{model}, {of['layer']}"
    found = [
        Measure(data, layer, "linear probe", "top-1 [%]", of["linear top-1 [%]"], of["low [%]"], of["high [%]"], len(test)),
        Measure(data, layer, "k-NN", "top-1 [%]", of["k-NN top-1 [%]"], samples=len(test)),
    ]
    if of["mean Q-Score"] is not None:
        found.append(Measure(data, layer, "Q-Score", "mean Q-Score", of["mean Q-Score"], of["low"], of["high"], len(test)))
    return found


def _require_same_images(layers: Stores) -> None:
    if len(layers) < 2:
        raise ValueError(f"layers must name at least two, got {', '.join(layers) or 'none'}.")
    first = next(iter(layers.values()))
    for name, stores in layers.items():
        for store, other in zip(stores, first, strict=True):
            store.require(labels=True)
            if store.spec.data_hash != other.spec.data_hash or len(store) != len(other):
                raise ValueError(f"layers must be of the same images, {store.path} of {name!r} is of others than {other.path}.")


def _measured(
    name: str, train: FeatureStore, test: FeatureStore, settings: DepthSettings, device: str | None, progress: Progress | None
) -> list[Any]:
    """One row: D, Q-Score with its interval, set, probes."""
    said = renamed(progress, f"probing {name}")
    scored: list[Any] = [None, None, None, 0, None]
    try:
        found = discover(train, "auto")
        scores = qscore(test, found).scores
        mean = mean_interval(scores[scores.isfinite()])
        scored = [mean.value, mean.low, mean.high, found.num_discriminative, found.eps]
    except NoDiscriminativeFeatures:
        pass
    linear = linear_probe(
        train, test, LinearSettings(epochs=settings.epochs, seed=settings.seed), device=device or "cpu", progress=said
    )
    correct, count = int(linear.correct.sum()), len(linear.correct)
    interval = accuracy_interval(correct, count)
    nearest = knn_probe(train, test, KnnSettings(seed=settings.seed), device=device or "cpu")
    return [train.num_features, *scored, *(100 * v for v in (linear.top1, *interval, nearest.top1))]


def _cka(stores: Mapping[str, FeatureStore], progress: Progress | None) -> dict[tuple[str, str], float]:
    """Debiased CKA of every pair."""
    settings = SimilaritySettings(measures=("cka_debiased",), permutations=0, resamples=0)
    found = compare(stores, settings, progress=renamed(progress, "comparing layers"))
    return {(a, b): found.at("cka_debiased", (a, b)).value for a in stores for b in stores}


def _reverse(
    layers: Stores, concepts: ConceptTable, settings: DepthSettings, out: str | PathLike[str] | None, progress: Progress | None
) -> dict[str, float]:
    """Mutual information of clusters and concepts, as a share of the clusters' entropy, in percent."""
    inputs = ReverseInputs({name: train for name, (train, _) in layers.items()}, concepts)
    kmeans, probe = KMeansSettings(clusters=settings.clusters, seed=settings.seed), ProbeSettings(seed=settings.seed)
    kept = None if out is None else Path(out) / "reverse"
    table = reverse_study("ranking", inputs, kmeans=kmeans, probe=probe, out=kept, progress=progress).tables[0]
    model, share = table.columns.index("model"), table.columns.index("I/H [%]")
    return {row[model]: row[share] for row in table.rows}


def _findings(columns: dict[str, list[Any]]) -> list[str]:
    names, linear = columns["layer"], columns["linear top-1 [%]"]
    best = max(range(len(names)), key=linear.__getitem__)
    low, high = columns["low [%]"][best], columns["high [%]"][best]
    found = [f"The linear probe is best at {names[best]}: {linear[best]:.1f} % [{low:.1f}, {high:.1f}]."]
    last = len(names) - 1
    if best != last:
        overlap = columns["high [%]"][last] >= low
        what = "the intervals overlap" if overlap else "the intervals do not overlap"
        found.append(
            f"At {names[last]} it reaches {linear[last]:.1f} %: {what}. The best of several layers was chosen on the test set."
        )
    empty = [name for name, count in zip(names, columns["discriminative"], strict=True) if not count]
    if empty:
        found.append(f"No discriminative features at {', '.join(empty)}: Q-Score is not defined there.")
    return found


def _summary(columns: dict[str, list[Any]]) -> dict[str, Value]:
    return {f"linear top-1 {name} [%]": value for name, value in zip(columns["layer"], columns["linear top-1 [%]"], strict=True)}


def _figure(columns: dict[str, list[Any]]) -> Figure:
    """Accuracies with the interval of the linear probe; Q-Score; CKA and mutual information."""
    information = [value is not None for value in columns["reverse I/H [%]"]]
    figure, (left, middle, right) = new_axes(width=4.6, columns=3)
    places = range(len(columns["layer"]))
    left.plot(places, columns["linear top-1 [%]"], color=BLUE, marker="o", label="linear")
    left.fill_between(places, columns["low [%]"], columns["high [%]"], color=BLUE, alpha=0.2, lw=0)
    left.plot(places, columns["k-NN top-1 [%]"], color=ORANGE, marker="o", label="k-NN")
    left.set(ylabel="top-1 [%]", title="Probes")
    scored = [place for place in places if columns["mean Q-Score"][place] is not None]
    middle.plot(scored, [columns["mean Q-Score"][p] for p in scored], color=BLUE, marker="o", label="mean Q-Score")
    middle.fill_between(
        scored, [columns["low"][p] for p in scored], [columns["high"][p] for p in scored], color=BLUE, alpha=0.2, lw=0
    )
    middle.set(ylabel="mean Q-Score, D differs", title="Q-Score")
    right.plot(places, columns["CKA with the last"], color=GREEN, marker="o", label="CKA with the last")
    if all(information):
        right.plot(places, [v / 100 for v in columns["reverse I/H [%]"]], color=ORANGE, marker="o", label="reverse I/H")
    right.set(title="Similarity", ylim=(None, 1.05))
    for ax in (left, middle, right):
        ax.set_xticks(list(places), columns["layer"], rotation=45, ha="right", fontsize=8)
        ax.legend(frameon=False, fontsize=8)
    return figure
