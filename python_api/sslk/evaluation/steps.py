"""What the steps of an evaluation do: each calls one study with plain arguments and leaves its results in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sslk.concepts import read_concepts
from sslk.data.source import DataSource
from sslk.features import FeatureStore
from sslk.features.by_name import extract_by_name, images_of
from sslk.features.settings import ExtractSettings
from sslk.masked import StudySettings, masked_study
from sslk.models.source import ModelSource
from sslk.probes import ProbeOutputs, knn_study, linear_study
from sslk.probes.settings import KnnSettings, LinearSettings
from sslk.probes.source import described
from sslk.progress import Progress
from sslk.quality import FailureSources, failure_study, load_set, qscore, write_scores
from sslk.quality import discover as find_features
from sslk.quality.settings import BootstrapSettings
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run
from sslk.reverse import KMeansSettings, ProbeSettings, ReverseInputs, reverse_study
from sslk.statistics.bootstrap import mean_interval


def extract(
    model: str, image_size: int | None, data: DataSource, out: str, settings: ExtractSettings, *, progress: Progress | None
) -> None:
    """The features of one split."""
    extract_by_name(ModelSource(model, image_size=image_size), data, out, settings, progress=progress)


def discover(store: str, out: str, *, progress: Progress | None) -> None:
    """The discriminative features."""
    find_features(store, "auto", progress=progress).save(out)


def score(label: str, store: str, discriminative: str, data: DataSource, out: str, *, progress: Progress | None) -> None:
    """Q-Score of every test image: `scores.csv`, and the mean with its interval as a run."""
    opened = FeatureStore(store).require()
    found = load_set(discriminative, opened)
    scores = qscore(opened, found, progress=progress)
    write_scores(opened, scores, Path(out) / "scores.csv", images_of(opened, data).image_name)
    finite = scores.scores[scores.scores.isfinite()]
    mean = mean_interval(finite)
    summary = {
        "mean_score": mean.value,
        "mean_score_low": mean.low,
        "mean_score_high": mean.high,
        "eps": scores.eps,
        "discriminative": scores.num_discriminative,
        "features": found.num_features,
        "samples": len(finite),
        "empty_share": scores.empty_share,
    }
    finding = f"The mean Q-Score of {len(finite)} images is {mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}]."
    origin = provenance({"command": "qscore score", "test": described(opened)})
    measure = Measure(opened.spec.dataset, opened.spec.model, "Q-Score", "mean Q-Score", *mean[:3], samples=len(finite))
    findings = [finding, f"Setting: {found.summary()}."]
    _leave(Run("qscore", "Q-Scores", findings, origin, summary, measures=[measure]), label, out)


def linear(label: str, train: str, test: str, out: str, seed: int, device: str | None, *, progress: Progress | None) -> None:
    """The linear probe."""
    stores, settings = (FeatureStore(train), FeatureStore(test)), LinearSettings(seed=seed)
    _leave(linear_study(*stores, settings, device=device, progress=progress), label, out)


def knn(label: str, train: str, test: str, out: str, seed: int, device: str | None, *, progress: Progress | None) -> None:
    """The nearest-neighbour probe; no k is larger than the training set allows."""
    stores = FeatureStore(train), FeatureStore(test)
    default = KnnSettings(seed=seed)
    most = len(stores[0]) - max(1, round(default.validation_share * len(stores[0])))
    settings = replace(default, neighbors=tuple(k for k in default.neighbors if k <= most) or (1,))
    _leave(knn_study(*stores, settings, device=device, progress=progress), label, out)


def failure(
    label: str, train: str, test: str, outputs: str, discriminative: str, out: str, seed: int, *, progress: Progress | None
) -> None:
    """Q-Score as a predictor of the linear probe's failures, beside what the training store tells."""
    store, sources = FeatureStore(test).require(), FailureSources(train=FeatureStore(train).require())
    found, answers = load_set(discriminative, store), ProbeOutputs.load(outputs)
    run = failure_study(store, answers, found, bootstrap=BootstrapSettings(seed=seed), sources=sources, progress=progress)
    _leave(run, label, out)


def reverse(stores: dict[str, str], concepts: str, clusters: int, out: str, seed: int, *, progress: Progress | None) -> None:
    """The ranking by reverse probing."""
    opened = {label: FeatureStore(folder) for label, folder in stores.items()}
    inputs = ReverseInputs(opened, read_concepts(concepts), recorded={"stores": list(stores), "concepts": concepts})
    kmeans, probe = KMeansSettings(clusters=clusters, seed=seed), ProbeSettings(seed=seed)
    reverse_study("ranking", inputs, kmeans=kmeans, probe=probe, out=out, progress=progress).save(out)


def masked(
    models: Sequence[str],
    image_size: int | None,
    data: DataSource,
    out: str,
    segmenter: str,
    seed: int,
    settings: ExtractSettings,
    folds: int = StudySettings.folds,
    *,
    progress: Progress | None,
) -> None:
    """The masked-input study of all models."""
    sources = [ModelSource(model, image_size=image_size) for model in models]
    study = StudySettings(segmenter=segmenter, seed=seed, folds=folds)
    masked_study(sources, data, out, study, settings, progress=progress).save(out)


def _leave(run: Run, label: str, out: str) -> None:
    replace(run, title=f"{label}: {run.title}").save(out)
