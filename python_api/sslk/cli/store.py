"""`sslk store`: feature stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from sslk.cli.console import FLAT, Output
from sslk.data.source import DataSource
from sslk.features.importing.settings import ExportFormat, ImportSettings
from sslk.features.settings import ExtractSettings
from sslk.models.source import ModelSource


def extract(
    *,
    model: Annotated[ModelSource, FLAT],
    data: Annotated[DataSource, FLAT],
    out: str,
    settings: Annotated[ExtractSettings, FLAT] = ExtractSettings(),  # noqa: B008 (frozen)
    quiet: bool = False,
) -> None:
    """Write the features of a data set under a model into a feature store; interrupted, the same command goes on.

    Several layers or tokens are extracted in one forward pass, each into a store of its own below OUT.

    Examples:
        $ sslk store extract --model embedded --data sample --split test --out runs/sample-test
        $ sslk store extract --model python:mine.py:network --data folder:photos --split test --out runs/mine
        $ sslk store extract --model timm:vit_small_patch16_224@dino.pth --layer 5 11 --token cls mean --data folder:photos --out runs/vit
        $ torchrun --nproc-per-node 8 -m sslk.cli store extract --model timm:resnet50@pretrained --data imagenet --split train --out runs/imagenet

    Args:
        out: folder of the store.
        quiet: show no progress.
    """  # noqa: E501 (one example is one line)
    from sslk.features.by_layer import extract_layers
    from sslk.features.by_name import extract_by_name

    with Output(quiet=quiet).progress() as update:
        if len(model.layer) > 1 or len(model.token) > 1 or model.layer == ("all",):
            stores = list(extract_layers(model, data, out, settings, progress=update).values())
        else:
            stores = [extract_by_name(model, data, out, settings, progress=update)]
    for store in stores:
        print(store.summary())
    if any(store.manifest.skipped for store in stores):
        from sslk.features.unreadable import left_out_of, left_out_text

        print(left_out_text(left_out_of(stores[0], data.load()), stores[0].spec.samples))


def import_features(
    features: list[str],
    *,
    out: str,
    labels: list[str] | None = None,
    names: list[str] | None = None,
    classes: str | None = None,
    settings: Annotated[ImportSettings, FLAT] = ImportSettings(),  # noqa: B008
    quiet: bool = False,
) -> None:
    """Bring features that you have into a feature store; interrupted, the same command goes on.

    Examples:
        $ sslk store import train.npy --labels train-labels.npy --model mine --out runs/mine-train
        $ sslk store import "shards/features-*.npy" --labels labels.csv:class --names labels.csv:file --out runs/mine
        $ sslk store import test.npz --features-key embeddings --labels y --classes classes.txt --model mine --out runs/mine-test

    Args:
        features: files .npy, .npz, .pt, .safetensors, .parquet or .csv, a pattern in quotes, or numbers without a header (--raw).
        out: folder of the store.
        labels: a key of the features' file, files, or FILE:KEY; what is called labels beside the features by default.
        names: of the samples, given as labels are.
        classes: file with the names of the classes in the order of their numbers, one a line or a JSON list.
        quiet: show no progress.
    """
    from sslk.features import store_import

    with Output(quiet=quiet).progress() as update:
        store = store_import(
            _files(features), out, settings, labels=_files(labels), names=_files(names), classes=classes, progress=update
        )
    print(store.summary())


def _files(words: list[str] | None) -> str | list[Path] | None:
    """One word may be a key or a pattern, several are files."""
    return words[0] if words and len(words) == 1 else [Path(word) for word in words] if words else None


def info(store: str, *, json: bool = False) -> None:
    """Say what a feature store holds, from its manifest.

    Examples:
        $ sslk store info runs/sample-test

    Args:
        store: folder of the store.
        json: print one JSON object.
    """
    from sslk.features import store_info

    found = store_info(store)
    samples = found.rows if json else f"{found.rows} of {found.spec.samples}"
    Output(json).fields({**found.described(), "samples": samples})


def verify(store: str) -> None:
    """Read every shard of a feature store and compare it with the manifest.

    Examples:
        $ sslk store verify runs/sample-test

    Args:
        store: folder of the store.
    """
    from sslk.features import store_verify

    print(f"{store}: {store_verify(store)} shards, all intact")


def merge(stores: list[str], *, out: str) -> None:
    """Merge feature stores of one model into one: parts of an extraction, or several data sets in a row.

    Examples:
        $ sslk store merge runs/part-0 runs/part-1 --out runs/whole

    Args:
        stores: folders of the stores.
        out: folder of the merged store.
    """
    from sslk.features import store_merge

    print(store_merge(stores, out).summary())


def export(store: str, *, out: str, format: ExportFormat = "npy") -> None:
    """Write a feature store as files that other tools read, with a list of its samples, manifest.csv.

    Examples:
        $ sslk store export runs/sample-test --out runs/sample-test-npy
        $ sslk store export runs/sample-test --format safetensors --out runs/sample-test-tensors

    Args:
        store: folder of the store.
        out: folder of the files.
        format: npy (features, labels, indices), or all in one file: npz, pt, safetensors, parquet (needs pyarrow), csv.
    """
    from sslk.features import store_export

    for file in store_export(store, out, format):
        print(file)
