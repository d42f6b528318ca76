"""Figure 2 on every test image: probes on subsets of the features, and their differences in pairs on the same images.

`sslk qscore compression` chooses a penalty for each of 800 probes on four validation splits. Here the penalty is chosen once,
with all features, and every probe is trained on all training images: 1 + 8 probes a size, 73 in all. Only random features
are drawn several times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sslk.features import FeatureStore
from sslk.probes.batched import fit_linear_probes
from sslk.probes.settings import FitSettings
from sslk.progress import Progress, renamed
from sslk.quality import discover
from sslk.quality.settings import SELECTIONS
from sslk.quality.subsets import standardized, subset_masks, training_rows
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
# Nats a probe's loss may lie above the least possible. From 1e-2 to 1e-3 top-1 moved by 0.06 points at most (embedded encoder).
FIT = FitSettings(standardize=False, tolerance=1e-3, max_iterations=300)
ALL = "all features"


def compression(
    train: str, test: str, reductions: Sequence[float], out: str, draws: int = 4, seed: int = 0, progress: Progress | None = None
) -> None:
    """Top-1 of linear probes on five selections of the features, and paired differences.

    Args:
        train, test: labelled feature stores.
        reductions: percent of the features left out, above 0; all features are always measured.
        out: folder of the run.
        draws: of random features.
        seed: of the draws and of the rows that the penalty is chosen on.
        progress: called with the probes trained and to train.
    """
    stores = FeatureStore(train), FeatureStore(test)
    (x_train, y_train), (x_test, y_test) = ((found.features, found.labels) for found in (store.load() for store in stores))
    assert y_train is not None and y_test is not None
    x, x_test = standardized(x_train, x_test, None)
    percent = discover(stores[0], "auto").activation_percent
    penalty = chosen_penalty(x, y_train, seed)
    _, _, rotation = torch.linalg.svd((x.T @ x).double())
    rotation = rotation.T.to(x)
    size = x.shape[1]
    kept = {at: max(1, round(size * (1 - at / 100))) for at in reductions if at}
    correct: dict[tuple[str, float], Tensor] = {}  # [draws, N], whether a probe is right
    everything, ended = _correct(x, y_train, x_test, y_test, torch.ones(1, size, dtype=torch.bool), penalty, None)
    converged = [ended]
    for name in SELECTIONS:
        correct[name, 0.0] = everything
    for number, name in enumerate(SELECTIONS):
        seeds = range(seed, seed + draws) if name == "random" else [seed]
        masks = torch.stack([subset_masks(percent, name, count, seed=s) for count in kept.values() for s in seeds])
        told = renamed(progress, f"{name}, selection {number + 1} of {len(SELECTIONS)}")
        rotated = (x @ rotation, x_test @ rotation) if name == "pca" else (x, x_test)
        found, ended = _correct(rotated[0], y_train, rotated[1], y_test, masks, penalty, told)
        converged.append(ended)
        for at, part in zip(kept, found.split(len(seeds)), strict=True):
            correct[name, at] = part
    about = {"penalty": penalty, "converged": float(torch.cat(converged).double().mean()), "probes": sum(map(len, converged))}
    _run(correct, [0.0, *kept], [size, *kept.values()], about, stores, seed).save(out)


def chosen_penalty(x: Tensor, labels: Tensor, seed: int) -> float:
    """The penalty of the least cross-entropy on a tenth of the training rows, of probes on all features."""
    fit = training_rows(len(x), 0.1, seed)
    probes = fit_linear_probes(
        x, labels, l2=torch.tensor(PENALTIES, dtype=torch.float64), sample_masks=fit.repeat(len(PENALTIES), 1), settings=FIT
    )
    return PENALTIES[int(probes.cross_entropy(x, labels, ~fit.repeat(len(PENALTIES), 1)).argmin())]


def paired_points(first: Tensor, second: Tensor) -> tuple[float, float, float]:
    """Mean of `first - second` over the test images in points, with its 95 % interval; draws are averaged image by image.

    >>> right, wrong = torch.tensor([[True, True, False, True]]), torch.tensor([[False, True, False, True]])
    >>> [round(value) for value in paired_points(right, wrong)]
    [25, -24, 74]
    """
    difference = first.double().mean(0) - second.double().mean(0)
    half = 1.96 * float(difference.std()) / len(difference) ** 0.5
    mean = float(difference.mean())
    return 100 * mean, 100 * (mean - half), 100 * (mean + half)


def _correct(
    x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, masks: Tensor, penalty: float, progress: Progress | None
) -> tuple[Tensor, Tensor]:
    """Whether the probe on each subset is right, bool `[subsets, N]`, and whether it converged, bool `[subsets]`."""
    l2 = torch.full((len(masks),), penalty, dtype=torch.float64)
    probes = fit_linear_probes(x, y, l2=l2, feature_masks=masks, settings=FIT, progress=progress)
    return probes.predict(x_test) == y_test, probes.converged


def _run(
    correct: Mapping[tuple[str, float], Tensor],
    reductions: Sequence[float],
    kept: Sequence[int],
    about: Mapping[str, float],
    stores: Sequence[FeatureStore],
    seed: int,
) -> Run:
    rows: list[list[Any]] = []
    differences: list[list[Any]] = []
    for at, count in zip(reductions, kept, strict=True):
        top1 = {name: 100 * correct[name, at].double().mean(1) for name in SELECTIONS}
        rows.append([at, count, *(float(v) for value in top1.values() for v in (value.mean(), value.std(correction=0)))])
        if at:
            own = correct["discriminative", at]
            pairs = {ALL: correct["discriminative", 0.0]} | {name: correct[name, at] for name in SELECTIONS[1:]}
            differences += [[at, name, *paired_points(own, other)] for name, other in pairs.items()]
    columns = ["left out [%]", "features", *(text for name in SELECTIONS for text in (f"{name} top-1 [%]", f"{name} std"))]
    draws, samples = correct["random", reductions[-1]].shape
    findings = [
        f"All {kept[0]} features: {rows[0][2]:.1f} % on {samples} test images; the penalty {about['penalty']:g} was chosen with "
        "them on a tenth of the training rows and serves every subset.",
        "Differences are in pairs on the same images; their intervals are of these images, not of another training set. Random "
        f"features are means over {draws} draws.",
    ]
    if about["converged"] < 1:
        findings.append(
            f"{1 - about['converged']:.0%} of {about['probes']} probes were stopped before their loss was within "
            f"{FIT.tolerance:g} nats of the least possible."
        )
    origin = {
        "command": "examples/reproduce/compression.py",
        **about,
        "tolerance": FIT.tolerance,
        "draws": draws,
        "seed": seed,
        "data": [store.spec.dataset.rpartition("/")[2] for store in stores],
        "weights": stores[1].spec.weights_hash,
    }
    data, model = stores[1].spec.dataset, stores[1].spec.model
    measures = [
        Measure(data, model, f"linear probe on {row[1]} features, {name}", "top-1 [%]", row[2 + 2 * n], samples=samples)
        for row in rows
        for n, name in enumerate(SELECTIONS)
    ]
    tables = [
        RunTable(f"Top-1 on feature subsets, random over {draws} draws", columns, rows),
        RunTable(
            "Discriminative features minus others, in pairs [points]",
            ["left out [%]", "minus", "value", "low", "high"],
            differences,
        ),
    ]
    summary = {"top1_all_features": rows[0][2] / 100, **about, "samples": samples, "train": len(stores[0])}
    return Run("compression", "Representation compression", findings, provenance(origin), summary, tables, measures=measures)
