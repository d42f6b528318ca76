"""The multi-label probe as a study: two stores, and the manifest that says what their images show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from sslk.data.dataset import Dataset
from sslk.data.manifests import MultiLabelDataset
from sslk.features.store import FeatureStore
from sslk.probes.multilabel import MultiLabelProbe, multilabel_probe
from sslk.probes.settings import MultiLabelSettings
from sslk.probes.source import check_same_model, described
from sslk.progress import Progress
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable
from sslk.statistics.small_data import small_data

OUTPUTS = "multilabel.safetensors"
_NAMED = 10  # classes in a sentence; the table has all


def multilabel_study(
    train: FeatureStore,
    test: FeatureStore,
    train_data: Dataset,
    test_data: Dataset,
    settings: MultiLabelSettings = MultiLabelSettings(),  # noqa: B008 (frozen)
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """One-vs-rest logistic regression on the features of two stores, with labels from the manifest of their images.

    Labels meet the rows of a store by the images' numbers. Two manifests are joined by the names of their classes.

    Args:
        train, test: stores of one model.
        train_data, test_data: the images that they were extracted from, with `multi_labels`.
        settings: penalties and resamples.
        device: where to compute.
        progress: called with what is done, what there is to do, and the stage.

    Returns:
        mAP with its interval, average precision per class, and the scores as `multilabel.safetensors`.

    Raises:
        StoreError: a store is incomplete or of another model than the other.
        ValueError: the data is not what a store was extracted from, or has one label an image; else as `multilabel_probe`.
    """
    check_same_model(train.require(), test.require())
    sets = [(train, _with_labels(train_data)), (test, _with_labels(test_data))]
    for store, data in sets:
        store.require_images(data)
    classes = list(dict.fromkeys(name for _, data in sets for name in data.classes))
    batches = [store.load() for store, _ in sets]
    labels = [_labels_of(data, classes)[batch.indices] for batch, (_, data) in zip(batches, sets, strict=True)]
    probe = multilabel_probe(
        batches[0].features, labels[0], batches[1].features, labels[1], settings, device=device, progress=progress
    )
    origin = {
        "command": "probe multilabel",
        **asdict(settings),
        "train": described(train),
        "test": described(test),
        "labels": [train_data.name, test_data.name],
        "device": device or "cpu",
        "threads": torch.get_num_threads(),
    }
    index = batches[1].indices
    return Run(
        "probe",
        "Multi-label linear probe",
        _findings(probe, classes, train),
        provenance(origin),
        _summary(probe),
        _tables(probe, classes),
        measures=_measures(probe, test),
        files={OUTPUTS: lambda path: probe.save(path, index, classes)},
    )


def _measures(probe: MultiLabelProbe, test: FeatureStore) -> list[Measure]:
    data, model, task = test.spec.dataset, test.spec.model, "multi-label linear probe"
    value, low, high = (100 * v for v in probe.mean[:3])
    micro = Measure(data, model, task, "micro AP [%]", 100 * probe.micro, samples=probe.mean.samples)
    return [Measure(data, model, task, "mAP [%]", value, low, high, probe.mean.samples), micro]


def _with_labels(data: Dataset) -> MultiLabelDataset:
    if not isinstance(data, MultiLabelDataset):
        raise ValueError(
            f"data must have several labels an image, got {data.name!r}: a manifest whose label cells hold names separated by | "
            "or ;, or with a column label:NAME for each class; `sslk probe linear` takes one label an image."
        )
    return data


def _labels_of(data: MultiLabelDataset, classes: list[str]) -> Tensor:
    """int8 `[N, C]` in the order of `classes`; -1 for a class that the data does not know."""
    place = {name: number for number, name in enumerate(data.classes)}
    known = torch.from_numpy(data.multi_labels)
    found = torch.full((len(known), len(classes)), -1, dtype=torch.int8)
    columns = [number for number, name in enumerate(classes) if name in place]
    found[:, columns] = known[:, [place[classes[number]] for number in columns]]
    return found


def _summary(probe: MultiLabelProbe) -> dict[str, float | int]:
    judged = ~probe.average_precision.isnan()
    return {
        "map": probe.mean.value,
        "map_low": probe.mean.low,
        "map_high": probe.mean.high,
        "micro_ap": probe.micro,
        "samples": len(probe.scores),
        "classes": len(judged),
        "classes_judged": int(judged.sum()),
        "unknown_train": probe.unknown[0],
        "unknown_test": probe.unknown[1],
        "l2": probe.l2,
        "converged": probe.converged,
        **{f"left_out_{name}": value for name, value in probe.train_rows.summary("train").items()},
        **{f"left_out_{name}": value for name, value in probe.test_rows.summary("test").items()},
    }


def _tables(probe: MultiLabelProbe, classes: list[str]) -> list[RunTable]:
    known = probe.labels >= 0
    columns = zip(
        classes,
        probe.average_precision.tolist(),
        probe.intervals.tolist(),
        probe.train_positives.tolist(),
        (probe.labels == 1).sum(0).tolist(),
        known.sum(0).tolist(),
        strict=True,
    )
    rows = [
        [name, *(None if value != value else 100 * value for value in (precision, *ends)), train, test, total]
        for name, precision, ends, train, test, total in columns
    ]
    head = ["class", "AP [%]", "low [%]", "high [%]", "positives in training", "positives in test", "known in test"]
    found = [RunTable("Average precision of every class, with 95 % intervals over images", head, rows)]
    if probe.grid:
        title = "Penalties; the validation column chose"
        found.append(RunTable(title, ["l2", "validation mAP [%]"], [[l2, 100 * value] for l2, value in probe.grid], fold=True))
    return found


def _findings(probe: MultiLabelProbe, classes: list[str], train: FeatureStore) -> list[str]:
    judged = int((~probe.average_precision.isnan()).sum())
    mean = probe.mean
    found = [
        f"mAP is {100 * mean.value:.2f} % over {judged} of {len(classes)} classes on {len(probe.scores)} images (95 % interval "
        f"{100 * mean.low:.1f} to {100 * mean.high:.1f} %), average precision over all entries {100 * probe.micro:.2f} %."
    ]
    if probe.grid:
        found.append(f"The penalty {probe.l2:g}, one for all classes, was chosen by mAP on a part of the training set.")
    positive, negative = (probe.labels == 1).any(0), (probe.labels == 0).any(0)
    found += _about(
        ~positive, classes, "has no positive in test and is not judged", "have no positive in test and are not judged"
    )
    found += _about(
        ~probe.trained & positive,
        classes,
        "cannot be trained, having no positive or no negative in training: its score is constant, and it counts in mAP",
        "cannot be trained, having no positive or no negative in training: their scores are constant, and they count in mAP",
    )
    found += _about(
        positive & ~negative,
        classes,
        "has no negative in test: its average precision is 1 whatever the score",
        "have no negative in test: their average precision is 1 whatever the score",
    )
    if any(probe.unknown):
        found.append(f"Unknown entries are left out: {probe.unknown[0]} of training, {probe.unknown[1]} of test.")
    found += probe.train_rows.said("training") + probe.test_rows.said("test")
    if not probe.converged:
        found.append("Not every regression converged within the evaluations allowed.")
    rows = probe.train_rows.used
    return found + small_data(train=rows, features=train.num_features, test=len(probe.scores), classes=len(classes))


def _about(chosen: Tensor, classes: Sequence[str], one: str, several: str) -> list[str]:
    """One sentence that counts and names classes; none where there are none."""
    names = [name for name, take in zip(classes, chosen.tolist(), strict=True) if take]
    if not names:
        return []
    shown = ", ".join(names[:_NAMED]) + (", ..." if names[_NAMED:] else "")
    return [f"{len(names)} {'class' if len(names) == 1 else 'classes'} ({shown}) {one if len(names) == 1 else several}."]
