"""`sslk probe`: classifiers on frozen features."""

from __future__ import annotations

from typing import Annotated, Literal

from sslk.cli.console import FLAT, Output
from sslk.cli.sources import Extraction, train_and_test, with_left_out
from sslk.data.source import OnCorrupt
from sslk.features.settings import ExtractSettings
from sslk.models.source import ModelSource
from sslk.probes.settings import KFoldSettings, KnnSettings, LinearSettings, LogregSettings, MultiLabelSettings
from sslk.quality.settings import TransferTable


def linear(
    *,
    out: str,
    train: str | None = None,
    test: str | None = None,
    extraction: Extraction = Extraction(),  # noqa: B008 (frozen)
    augment: bool = False,
    settings: Annotated[LinearSettings, FLAT] = LinearSettings(),  # noqa: B008
    device: str | None = None,
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Train a grid of linear classifiers on frozen features in one pass; the one chosen on validation data is tested.

    Examples:
        $ sslk probe linear --train runs/sample-train --test runs/sample-test --out runs/linear
        $ sslk probe linear --extraction.model timm:resnet50@pretrained --extraction.data cifar10 --out runs/linear
        $ sslk probe linear --extraction.model embedded --extraction.data sample --augment --epochs 10 --out runs/augmented

    Args:
        out: folder of the run: results.json and outputs.safetensors, the answer for every test sample.
        train: folder of the training set's feature store.
        test: folder of the test set's feature store.
        augment: run the encoder on freshly cropped and flipped images in every epoch (needs extraction).
        device: where to compute.
    """
    from sslk.data import load_dataset, splits_of
    from sslk.probes import augmented_linear_study, linear_study

    with output.progress() as update:
        if augment:
            if extraction.model is None or extraction.data is None or train or test:
                raise ValueError("augment needs images: give --extraction.model and --extraction.data, not stores.")
            backbone = extraction.source().load(device=device or "cpu")
            root, skip = extraction.root, extraction.on_corrupt
            images = [load_dataset(*part, root=root, on_error=skip) for part in splits_of(extraction.data)]
            run = augmented_linear_study(
                backbone, images[0], images[1], settings, workers=extraction.workers, device=device, progress=update
            )
        else:
            stores = train_and_test(train, test, extraction, out, device, update)
            run = with_left_out(linear_study(*stores, settings, device=device, progress=update), extraction, stores)
    output.leave(run, out)


def logreg(
    *,
    out: str,
    train: str | None = None,
    test: str | None = None,
    extraction: Extraction = Extraction(),  # noqa: B008
    settings: Annotated[LogregSettings, FLAT] = LogregSettings(),  # noqa: B008
    device: str | None = None,
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Train logistic regressions with 45 values of C; the one chosen on held-out training rows is trained on all and tested.

    Examples:
        $ sslk probe logreg --train runs/sample-train --test runs/sample-test --out runs/logreg
        $ sslk probe logreg --train runs/sample-train --test runs/sample-test --shots 1 5 10 --tries 5 --out runs/few-shot

    Args:
        out: folder of the run: results.json and outputs.safetensors, the answer for every test sample.
        train: folder of the training set's feature store.
        test: folder of the test set's feature store.
        device: where to compute.
    """
    from sslk.probes import logreg_study

    with output.progress() as update:
        stores = train_and_test(train, test, extraction, out, device, update)
        run = with_left_out(logreg_study(*stores, settings, device=device, progress=update), extraction, stores)
    output.leave(run, out)


def knn(
    *,
    out: str,
    train: str | None = None,
    test: str | None = None,
    extraction: Extraction = Extraction(),  # noqa: B008
    settings: Annotated[KnnSettings, FLAT] = KnnSettings(),  # noqa: B008
    device: str | None = None,
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Classify test samples by their nearest training samples; all k and temperatures come from one search.

    Examples:
        $ sslk probe knn --train runs/sample-train --test runs/sample-test --neighbors 5 20 100 --out runs/knn

    Args:
        out: folder of the run.
        train: folder of the training set's feature store.
        test: folder of the test set's feature store.
        device: where to compute.
    """
    from sslk.probes import knn_study

    with output.progress() as update:
        stores = train_and_test(train, test, extraction, out, device, update)
        run = with_left_out(knn_study(*stores, settings, device=device, progress=update), extraction, stores)
    output.leave(run, out)


def kfold(
    store: str,
    *,
    out: str,
    settings: Annotated[KFoldSettings, FLAT] = KFoldSettings(),  # noqa: B008
    device: str | None = None,
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Predict every sample by a linear probe that has not seen it: balanced accuracy over folds, all trained at once.

    Examples:
        $ sslk probe kfold runs/sample-test --l2 1e-5 1e-4 1e-3 --out runs/kfold

    Args:
        store: folder of the feature store.
        out: folder of the run.
        device: where to compute.
    """
    from sslk.features import FeatureStore
    from sslk.probes import kfold_study

    with output.progress() as update:
        run = kfold_study(FeatureStore(store), settings, device=device, progress=update)
    output.leave(run, out)


def head(
    store: str,
    *,
    model: Annotated[ModelSource, FLAT],
    out: str,
    classes: Literal["imagenet"] | None = None,
    restrict: bool = False,
    json: bool = False,
) -> None:
    """Classify the samples of a store by the supervised encoder's own head, without its images.

    Examples:
        $ sslk probe head runs/tiny-val --model efficientnet-lite0 --classes imagenet --restrict --out runs/head

    Args:
        store: folder of the feature store.
        out: folder of the run.
        classes: imagenet, where the store's class names are ImageNet's; labels are outputs of the head by default.
        restrict: choose among the data set's own classes only (with classes).
        json: print one JSON object.
    """
    from sslk.features import FeatureStore
    from sslk.probes import head_study

    run = head_study(FeatureStore(store).require(labels=True), model.load(), classes=classes, restrict=restrict)
    Output(json).leave(run, out)


def transfer(
    data: list[str],
    *,
    model: Annotated[ModelSource, FLAT],
    out: str,
    table: Annotated[TransferTable, FLAT] = TransferTable(),  # noqa: B008
    epochs: int = 100,
    seed: int = 0,
    root: str | None = None,
    batch_size: int | None = None,
    workers: int = 4,
    on_corrupt: OnCorrupt = "raise",
    device: str | None = None,
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Linear evaluation of one encoder on a list of data sets; interrupted, the same command goes on.

    Examples:
        $ sslk probe transfer cifar10 cifar100 stl10 flowers102 --model timm:resnet50@pretrained --out runs/transfer
        $ sslk probe transfer npz:train.npz+npz:test.npz sample --model embedded --out runs/transfer

    Args:
        data: names of data sets, or TRAIN+TEST for two that belong together.
        out: folder of the run.
        epochs: passes of the probe over the training set.
        seed: seed of the probe.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        batch_size: images per forward pass.
        workers: loading processes.
        on_corrupt: an unreadable image ends the work, or is left out, counted and listed.
        device: where to compute.
    """
    from sslk.quality import transfer_study

    extraction = ExtractSettings(batch_size=batch_size, workers=workers, device=device, on_corrupt=on_corrupt)
    with output.progress() as update:
        run = transfer_study(
            model, data, out, LinearSettings(epochs=epochs, seed=seed), extraction, table, root=root, progress=update
        )
    output.leave(run, out)


def multilabel(
    *,
    train: str,
    test: str,
    data: str,
    out: str,
    splits: tuple[str, str] | None = None,
    settings: Annotated[MultiLabelSettings, FLAT] = MultiLabelSettings(),  # noqa: B008
    device: str | None = None,
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Predict several labels an image by linear classifiers on frozen features, one for each class, and report mAP.

    Examples:
        $ sslk probe multilabel --train runs/m-train --test runs/m-test --data manifest:photos.csv --out runs/multilabel

    Args:
        train: folder of the training set's feature store.
        test: folder of the test set's feature store.
        data: the manifest that both were extracted from, or TRAIN+TEST for two.
        out: folder of the run: results.json and multilabel.safetensors, the scores of every test image.
        splits: what the manifest calls the splits of the two stores; train and test by default.
        device: where to compute.
    """
    from sslk.data import load_dataset, splits_of
    from sslk.features import FeatureStore
    from sslk.probes import multilabel_study

    names = [name for name, _ in splits_of(data)]
    images = [load_dataset(name, split) for name, split in zip(names, splits or ("train", "test"), strict=True)]
    with output.progress() as update:
        stores = FeatureStore(train), FeatureStore(test)
        run = multilabel_study(*stores, images[0], images[1], settings, device=device, progress=update)
    output.leave(run, out)
