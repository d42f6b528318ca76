"""The experiments of reverse probing as studies: stores and concepts in, a `Run` out; finished clusterings are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslk.concepts import ConceptTable, read_concepts
from sslk.concepts.same_images import require_same_classes
from sslk.data import Dataset
from sslk.features.store import FeatureStore
from sslk.files.tables import read_rows
from sslk.progress import Progress, renamed
from sslk.results.run import Run
from sslk.reverse import experiments
from sslk.reverse.quantizer import Clusterings, quantize
from sslk.reverse.settings import EXPERIMENTS, Experiment, ExperimentSettings, KMeansSettings, ProbeSettings

_KS = {"vary-k": (500, 1000, 1500, 2000, 2500, 3000), "transfer": (500, 1000)}


@dataclass(frozen=True, eq=False)
class ReverseInputs:
    """What is probed.

    Attributes:
        stores: features of the same images by name of the encoder; one for shifted, labels and pairs, none for
            self-labels and toy.
        concepts: of these images; None for toy.
        assignments: of self-labels, in place of k-means.
        shifted: of shifted: the other data set's store and concepts, under the same encoder.
        images: of pairs: the data set, for the example images.
        recorded: what the provenance says of where they come from.
    """

    stores: Mapping[str, FeatureStore]
    concepts: ConceptTable | None = None
    assignments: Clusterings | None = None
    shifted: tuple[FeatureStore, ConceptTable] | None = None
    images: Dataset | None = None
    recorded: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for store in self.stores.values():
            store.require()
            if self.concepts is not None:
                require_same_classes(store, self.concepts)
        if self.shifted is not None:
            require_same_classes(self.shifted[0].require(), self.shifted[1])


def reverse_study(
    experiment: Experiment,
    inputs: ReverseInputs,
    settings: ExperimentSettings = ExperimentSettings(),  # noqa: B008 (frozen)
    kmeans: KMeansSettings = KMeansSettings(),  # noqa: B008
    probe: ProbeSettings = ProbeSettings(),  # noqa: B008
    *,
    out: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Run:
    """One experiment of Laina et al. (ICLR 2022) on feature stores.

    Args:
        experiment: ranking (table 2, figure 3), breakdown (figure 4), gain (table 3), vary-k (figure 6), transfer (table
            4), shifted (table 7), self-labels (table 6), labels (appendix D.1), pairs (figures 5 and 8), toy (figure 2).
        inputs: features and concepts.
        settings: of the experiment.
        kmeans, probe: of the quantiser and the predictor.
        out: folder in which finished clusterings are kept and looked for.
        progress: called with what is done, what is to do, and the stage.

    Raises:
        ConceptError: the concepts are of other images, or a group is unknown.
        ValueError: something that the experiment needs is missing, or the images are not those of the store.
    """
    if experiment not in EXPERIMENTS:
        raise ValueError(f"experiment must be one of {', '.join(EXPERIMENTS)}, got {experiment!r}.")
    if experiment == "pairs":  # of one clustering
        kmeans = replace(kmeans, clusterings=1)
    study = _Study(inputs, settings, kmeans, probe, None if out is None else Path(out) / "clusterings", progress)
    run = _EXPERIMENTS[experiment](study)
    seed = settings.seed if experiment == "toy" else probe.seed
    config = {**(inputs.recorded or {}), "kmeans": asdict(kmeans), "probe": asdict(probe), **asdict(settings)}
    origin = {"command": f"reverse study {experiment}", "seed": seed, "config": config}
    data = next((store.spec.dataset for store in inputs.stores.values()), "")
    return replace(run, provenance={**origin, **run.provenance}, measures=[replace(m, data=data) for m in run.measures])


@dataclass(frozen=True, eq=False)
class _Study:
    inputs: ReverseInputs
    settings: ExperimentSettings
    kmeans: KMeansSettings
    probe: ProbeSettings
    kept: Path | None
    progress: Progress | None

    @property
    def concepts(self) -> ConceptTable:
        return self.select(_given(self.inputs.concepts, "concepts"))

    def select(self, table: ConceptTable) -> ConceptTable:
        """The groups of a table that are used."""
        return table.select(list(self.settings.groups)) if self.settings.groups else table

    @property
    def labels(self) -> str | None:
        """The group of the labels, if there is one."""
        return None if self.settings.label_group == "none" else self.settings.label_group

    @property
    def ks(self) -> tuple[int, ...]:
        return self.settings.ks

    def only(self) -> FeatureStore:
        """The one store."""
        if len(self.inputs.stores) != 1:
            raise ValueError(f"this experiment takes one feature store, got {len(self.inputs.stores)}.")
        return next(iter(self.inputs.stores.values()))

    def features(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Features and sample numbers of every store."""
        loaded = {name: store.load() for name, store in _given(self.inputs.stores, "stores").items()}
        return {name: (batch.features.float(), batch.indices) for name, batch in loaded.items()}

    def clusterings(self) -> dict[str, Clusterings]:
        """Of every store."""
        stores = _given(self.inputs.stores, "stores")
        return cluster_stores(stores, self.kmeans, self.kept, device=self.probe.device, progress=self.progress)


def cluster_stores(
    stores: Mapping[str, FeatureStore],
    settings: KMeansSettings,
    folder: Path | None = None,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Clusterings]:
    """The clusterings of every store; those that the folder has of this store with the same settings are used again."""
    found: dict[str, Clusterings] = {}
    for name, store in stores.items():
        file = folder and folder / f"{name.replace('/', '-').replace(':', '-')}.safetensors"
        if file is not None and file.exists():
            earlier = Clusterings.load(file)
            about = earlier.about
            if about.get("settings") == asdict(settings) and about.get("store") == store.spec.identity:
                found[name] = earlier
                continue
        found[name] = quantize(store, settings, device=device, progress=renamed(progress, f"clustering {name}"))
        found[name].about["store"] = store.spec.identity
        if file is not None:
            found[name].save(file)
    return found


def _ranking(study: _Study) -> Run:
    known = read_accuracies(study.settings.accuracy) if study.settings.accuracy else None
    return experiments.ranking(study.clusterings(), study.concepts, study.probe, accuracy=known, progress=study.progress)


def _breakdown(study: _Study) -> Run:
    return experiments.breakdown(
        study.clusterings(),
        _given(study.inputs.concepts, "concepts"),
        study.probe,
        order=study.settings.groups or None,
        labels=study.labels,
        progress=study.progress,
    )


def _gain(study: _Study) -> Run:
    labels = _given(study.labels, "label_group")
    return experiments.gain(study.clusterings(), study.concepts, study.probe, labels=labels, progress=study.progress)


def _vary_k(study: _Study) -> Run:
    ks = study.ks or _KS["vary-k"]
    return experiments.vary_clusters(study.features(), study.concepts, ks, study.kmeans, study.probe, progress=study.progress)


def _transfer(study: _Study) -> Run:
    return experiments.transfer(study.features(), study.concepts, study.ks or _KS["transfer"], study.kmeans, study.probe)


def _shifted(study: _Study) -> Run:
    first, (second, table) = study.only(), _given(study.inputs.shifted, "shifted")
    if first.spec.weights_hash != second.spec.weights_hash:
        raise ValueError(f"both stores must be of one encoder, got {first.spec.model} and {second.spec.model}.")
    found, batch, title = next(iter(study.clusterings().values())), second.load(), study.settings.title or "shifted"
    return experiments.shifted_test(
        found, study.concepts, batch.features.float(), batch.indices, study.select(table), study.probe, title=title
    )


def _self_labels(study: _Study) -> Run:
    given = {study.settings.title or "given": _given(study.inputs.assignments, "assignments")}
    return experiments.self_labels(given, study.concepts, study.probe)


def _labels(study: _Study) -> Run:
    store = study.only().require(labels=True)
    samples = torch.cat([shard.indices for shard in store.shards()])
    return experiments.labels_from_concepts(
        store.labels(), samples, study.concepts, study.probe, repeats=study.settings.repeats, exclude=study.labels
    )


def _pairs(study: _Study) -> Run:
    group, images = _given(study.settings.group, "group"), _given(study.inputs.images, "data")
    study.only().require_images(images)
    found = next(iter(study.clusterings().values()))
    return experiments.cluster_pairs(
        found, study.concepts, group, lambda number: images[number][0], study.probe, count=study.settings.count
    )


_EXPERIMENTS: dict[Experiment, Callable[[_Study], Run]] = {
    "ranking": _ranking,
    "breakdown": _breakdown,
    "gain": _gain,
    "vary-k": _vary_k,
    "transfer": _transfer,
    "shifted": _shifted,
    "self-labels": _self_labels,
    "labels": _labels,
    "pairs": _pairs,
    "toy": lambda study: experiments.toy(study.settings.seed),
}


def _given(value: Any, name: str) -> Any:
    if value is None or (isinstance(value, Mapping) and not value):
        raise ValueError(f"this experiment needs {name}, which is not given.")
    return value


def read_inputs(
    stores: Sequence[str] = (),
    concepts: str | None = None,
    assignments: str | None = None,
    shifted: tuple[str, str] | None = None,
    images: Dataset | None = None,
) -> ReverseInputs:
    """The inputs of a study from files.

    Args:
        stores: as for `named_stores`.
        concepts: file of the concept table.
        assignments: as for `read_assignment`.
        shifted: folder of the other data set's store, and file of its concept table.
        images: the data set of the stores.

    Raises:
        StoreError, ConceptError, ValueError: a file is damaged, or the concepts are of other images.
    """
    return ReverseInputs(
        named_stores(stores),
        None if concepts is None else read_concepts(concepts),
        None if assignments is None else read_assignment(assignments),
        None if shifted is None else (FeatureStore(shifted[0]), read_concepts(shifted[1])),
        images,
        {
            "stores": list(stores),
            "concepts": concepts,
            "assignments": assignments,
            "shifted": None if shifted is None else list(shifted),
            "images": None if images is None else images.name,
        },
    )


def named_stores(stores: Iterable[str]) -> dict[str, FeatureStore]:
    """Feature stores by their names, from texts NAME=FOLDER or FOLDER, which is named after its model.

    Raises:
        ValueError: two have one name.
    """
    named: dict[str, FeatureStore] = {}
    for text in stores:
        name, equals, folder = text.partition("=")
        store = FeatureStore(folder if equals else text).require()
        name = name if equals else store.spec.model
        if name in named:
            raise ValueError(f"stores must have different names, got {name!r} twice: write NAME=FOLDER.")
        named[name] = store
    return named


def read_assignment(path: str, title: str = "given") -> Clusterings:
    """Clusterings from a CSV of sample number and cluster (below 0, empty or nan for none), or from their own file.

    Raises:
        ValueError: the file holds something else.
    """
    if Path(path).suffix == ".safetensors":
        return Clusterings.load(path)
    rows = read_rows(path, "the assignment")
    try:
        rows = rows[1 if not rows[0][0].strip().isdigit() else 0 :]
        samples = torch.tensor([int(row[0]) for row in rows])
        given = ["nan" if row[1].strip().lower() in ("", "na", "none") else row[1] for row in rows]
        return Clusterings.given(torch.tensor([float(cell) for cell in given], dtype=torch.float64), samples, title)
    except (ValueError, IndexError, OverflowError, RuntimeError):
        raise ValueError(f"{path} must hold two columns, sample number and cluster, both integers.") from None


def read_accuracies(path: str) -> dict[str, float]:
    """Linear-probe top-1 in percent by model, from a CSV.

    Raises:
        ValueError: the file holds something else.
    """
    rows = read_rows(path, "the table of accuracies")
    try:
        return {row[0]: float(row[1]) for row in rows if row[1].replace(".", "", 1).strip().isdigit()}
    except IndexError:
        raise ValueError(f"{path} must hold two columns, model and top-1 in percent.") from None
