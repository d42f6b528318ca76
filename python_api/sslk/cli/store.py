"""`sslk store`: feature stores."""

from __future__ import annotations

from typing import Annotated

from sslk.cli.console import FLAT, Output
from sslk.data.source import DataSource
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

    Examples:
        $ sslk store extract --model embedded --data sample --split test --out runs/sample-test
        $ torchrun --nproc-per-node 8 -m sslk.cli store extract --model timm:resnet50@pretrained --data imagenet --split train --out runs/imagenet

    Args:
        out: folder of the store.
        quiet: show no progress.
    """  # noqa: E501 (one example is one line)
    from sslk.features.by_name import extract_by_name

    with Output(quiet=quiet).progress() as update:
        store = extract_by_name(model, data, out, settings, progress=update)
    print(store.summary())


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


def export(store: str, *, out: str) -> None:
    """Write a feature store as NumPy files: features.npy, labels.npy and indices.npy.

    Examples:
        $ sslk store export runs/sample-test --out runs/sample-test-npy

    Args:
        store: folder of the store.
        out: folder of the files.
    """
    from sslk.features import store_export

    for file in store_export(store, out):
        print(file)
