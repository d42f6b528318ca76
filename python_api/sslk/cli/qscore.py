"""`sslk qscore`: discriminative features, scores, and the studies about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from sslk.cli.console import FLAT, Output
from sslk.cli.sources import Extraction, train_and_test
from sslk.data.source import DataSource
from sslk.quality.settings import BootstrapSettings, CompressionSettings, DiscoverSettings, FailureSettings, ThresholdSettings


def discover(
    store: str,
    *,
    out: str,
    settings: Annotated[DiscoverSettings, FLAT] = DiscoverSettings(),  # noqa: B008 (frozen)
    device: str = "cpu",
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Find the discriminative features of a model from a feature store, and save them.

    Examples:
        $ sslk qscore discover runs/sample-train --out runs/discriminative.safetensors

    Args:
        store: folder of the feature store.
        out: file for the set: mask, activation percentages and thresholds.
        device: where the kernels run.
    """
    from sslk.files.regular import require_file_name
    from sslk.quality import discover as find
    from sslk.statistics.small_data import few_rows

    require_file_name(out)
    with output.progress() as update:
        found = find(store, **vars(settings), device=device, progress=update)
    found.save(out)
    output.fields({"file": out, **found.described()}, few_rows(found.num_samples, found.num_features) + found.said())


def score(
    store: str,
    *,
    discriminative: str,
    out: str | None = None,
    data: str | None = None,
    split: str = "test",
    root: str | None = None,
    eps: float | None = None,
    normalize: bool = True,
    two_sided: bool | None = None,
    further_trained: bool = False,
    device: str = "cpu",
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Score every sample of a feature store with Q-Score.

    Examples:
        $ sslk qscore score runs/sample-test --discriminative runs/discriminative.safetensors --out runs/scores.csv --data sample

    Args:
        store: folder of the feature store.
        discriminative: file that `sslk qscore discover` wrote for this model; refused for another.
        out: CSV file for index, name and label (where the store has them) and score of every sample.
        data: the images the store was extracted from, to write their names too: folder:PATH, cifar10, ...
        split: split of these images.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        eps: threshold in standard deviations; that of the set by default.
        normalize: divide by the feature norm, as in the paper.
        two_sided: count large negative deviations too; as in the set by default.
        further_trained: the encoder was trained further since the set was found, so that its weights are others.
        device: where the kernels run.
    """
    from sslk.features import FeatureStore
    from sslk.features.names import names_of
    from sslk.files.regular import require_file_name
    from sslk.quality import load_set, qscore, write_scores
    from sslk.statistics.small_data import empty_sets

    if out is not None:
        require_file_name(out)
    opened = FeatureStore(store).require()
    found = load_set(discriminative, opened, further_trained=further_trained)
    names = names_of(opened)
    image_name = None if names is None else names.__getitem__
    if data is not None:
        from sslk.features.by_name import images_of

        image_name = images_of(opened, DataSource(data, split, root)).image_name
    with output.progress() as update:
        scores = qscore(
            opened,
            found,
            eps=eps,
            normalize=normalize,
            two_sided=two_sided,
            further_trained=further_trained,
            device=device,
            progress=update,
        )
    if out is not None:
        write_scores(opened, scores, Path(out), image_name)
    named = {"file": out} if out else {}
    output.fields({**scores.described(), **named}, empty_sets(found.empty_share, scores.empty_share) + scores.said())


def failure(
    test: str,
    *,
    out: str,
    outputs: str | None = None,
    train: str | None = None,
    discriminative: str | None = None,
    settings: Annotated[DiscoverSettings, FLAT] = DiscoverSettings(),  # noqa: B008
    bootstrap: Annotated[BootstrapSettings, FLAT] = BootstrapSettings(),  # noqa: B008
    compared: Annotated[FailureSettings, FLAT] = FailureSettings(),  # noqa: B008
    others: list[str] = [],  # noqa: B006 (never written to)
    others_train: list[str] = [],  # noqa: B006
    views: list[str] = [],  # noqa: B006
    scores: list[str] = [],  # noqa: B006
    device: str = "cpu",
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Judge Q-Score as a predictor of which samples a classifier gets right, beside baselines, with intervals.

    Examples:
        $ sslk qscore failure runs/sample-test --train runs/sample-train --outputs runs/linear --out runs/failure
        $ sslk qscore failure runs/sample-test --train runs/sample-train --answers neighbours --out runs/r-auroc
        $ sslk qscore failure runs/sample-test --discriminative runs/set.safetensors --outputs runs/linear --out runs/failure

    Args:
        test: folder of the feature store whose samples are scored.
        out: folder of the run: results.json and curves.
        outputs: a probe's run, or its outputs.safetensors, for the same samples; of any classifier, supervised too. Not needed
            where the answers are those of neighbours.
        train: feature store the discriminative features are found on, and the training samples of the baselines.
        discriminative: file that `sslk qscore discover` wrote for this model, in place of finding the set; refused for another.
        others: feature stores of the same samples under other models, for neighbourhood consistency.
        others_train: stores of the training samples under these models, in the same order, as its reference.
        views: stores of the same images under this model, augmented, for the variance over views.
        scores: CSV or .npz files with scores of others, joined by index or name; higher must mean correct.
        device: where the kernels run.
    """
    from sslk.features import FeatureStore
    from sslk.probes import ProbeOutputs
    from sslk.quality import FailureSources, failure_study, load_set
    from sslk.quality.external_scores import read_all_scores

    store = FeatureStore(test).require()
    answers = None if outputs is None else ProbeOutputs.load(outputs)
    if train is None and discriminative is None:
        raise ValueError("give either --train, a feature store, or --discriminative, a file of `sslk qscore discover`.")
    trained = None if train is None else FeatureStore(train)
    further = compared.further_trained
    found = trained if discriminative is None else load_set(discriminative, store, further_trained=further)
    assert found is not None  # one of the two was given
    models, references, augmented = ([FeatureStore(folder) for folder in part] for part in (others, others_train, views))
    sources = FailureSources(trained, models, references, augmented, read_all_scores(scores, store), compared)
    with output.progress() as update:
        run = failure_study(store, answers, found, settings, bootstrap, sources=sources, device=device, progress=update)
    output.leave(run, out)


def sides(
    test: str,
    *,
    train: str,
    outputs: str,
    out: str,
    settings: Annotated[DiscoverSettings, FLAT] = DiscoverSettings(),  # noqa: B008
    bootstrap: Annotated[BootstrapSettings, FLAT] = BootstrapSettings(),  # noqa: B008
    device: str = "cpu",
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Compare one-sided and two-sided Q-Score as failure predictors, at the same mean number of active features.

    Examples:
        $ sslk qscore sides runs/vit-test --train runs/vit-train --outputs runs/linear --out runs/sides

    Args:
        test: folder of the feature store whose samples are scored; features may be signed.
        train: feature store the discriminative features are found on.
        outputs: a probe's run, or its outputs.safetensors, for the same samples.
        out: folder of the run.
        device: where the kernels run.
    """
    from sslk.features import FeatureStore
    from sslk.probes import ProbeOutputs
    from sslk.quality import sides_study

    stores, answers = (FeatureStore(train), FeatureStore(test)), ProbeOutputs.load(outputs)
    with output.progress() as update:
        run = sides_study(*stores, answers, settings, bootstrap, device=device, progress=update)
    output.leave(run, out)


def before_after(
    *,
    before: str,
    after: str,
    before_outputs: str,
    after_outputs: str,
    discriminative: str,
    out: str,
    bootstrap: Annotated[BootstrapSettings, FLAT] = BootstrapSettings(),  # noqa: B008
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Compare an encoder before and after further training: |L_i|, Q-Score and the probe's confidence per sample.

    Examples:
        $ sslk qscore before-after --before runs/test-0 --after runs/test-1 --before-outputs runs/linear-0 --after-outputs runs/linear-1 --discriminative runs/set.safetensors --out runs/change

    Args:
        before: feature store of the test samples under the encoder before further training.
        after: the same samples under the encoder after it.
        before_outputs: run of a probe on the first store.
        after_outputs: run of a probe on the second.
        discriminative: file that `sslk qscore discover` wrote for the encoder before further training.
        out: folder of the run.
        device: where the kernels run.
        json: print one JSON object.
    """  # noqa: E501
    from sslk.features import FeatureStore
    from sslk.probes import ProbeOutputs
    from sslk.quality import before_after_study, load_set

    stores = FeatureStore(before).require(), FeatureStore(after).require()
    answers = ProbeOutputs.load(before_outputs), ProbeOutputs.load(after_outputs)
    found = load_set(discriminative, stores[0])
    Output(json).leave(before_after_study(*stores, *answers, found, bootstrap, device=device), out)


def compression(
    *,
    out: str,
    train: str | None = None,
    test: str | None = None,
    extraction: Extraction = Extraction(),  # noqa: B008
    settings: Annotated[CompressionSettings, FLAT] = CompressionSettings(),  # noqa: B008
    features: Annotated[DiscoverSettings, FLAT] = DiscoverSettings(),  # noqa: B008
    device: str | None = None,
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Accuracy of linear probes on subsets of the features: five selections, ten sizes, all trained as one batch.

    Examples:
        $ sslk qscore compression --train runs/sample-train --test runs/sample-test --out runs/compression

    Args:
        out: folder of the run.
        train: folder of the training set's feature store.
        test: folder of the test set's feature store.
        device: where to compute.
    """
    from sslk.quality import compression_study

    with output.progress() as update:
        stores = train_and_test(train, test, extraction, out, device, update)
        run = compression_study(*stores, settings, features, device=device, progress=update)
    output.leave(run, out)


def thresholds(
    *,
    train: str,
    test: str,
    outputs: str,
    out: str,
    settings: Annotated[ThresholdSettings, FLAT] = ThresholdSettings(),  # noqa: B008
    device: str = "cpu",
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Sweep eps and the percentiles between which features are discriminative: AUROC of Q-Score at each.

    Examples:
        $ sslk qscore thresholds --train runs/sample-train --test runs/sample-test --outputs runs/linear --bands 50-95 0-100 --out runs/sweep

    Args:
        train: feature store the discriminative features are found on.
        test: feature store whose samples are scored.
        outputs: a probe's run, or its outputs.safetensors, for the test samples.
        out: folder of the run.
        device: where the kernels run.
    """  # noqa: E501
    from sslk.features import FeatureStore
    from sslk.probes import ProbeOutputs
    from sslk.quality import thresholds_study

    stores, answers = (FeatureStore(train), FeatureStore(test)), ProbeOutputs.load(outputs)
    with output.progress() as update:
        run = thresholds_study(*stores, answers, settings, device=device, progress=update)
    output.leave(run, out)
