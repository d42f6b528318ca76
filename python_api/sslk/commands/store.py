"""Feature stores from the command line: extract, store info, verify, merge and export."""

from __future__ import annotations

from typing import Literal

from sslk.commands.console import print_fields, progress_bar


def extract(
    model: str,
    data: str,
    out: str,
    split: str = "train",
    weights: str | None = None,
    checkpoint_format: str | None = None,
    image_size: int | None = None,
    root: str | None = None,
    batch_size: int = 256,
    shard_rows: int | None = None,
    workers: int = 4,
    amp: Literal["off", "float16", "bfloat16"] = "off",
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    device: str | None = None,
    on_corrupt: Literal["raise", "skip"] = "raise",
    quiet: bool = False,
) -> None:
    """Write the features of a data set under a model into a feature store; interrupted, the same command goes on.

    Examples:
        $ sslk extract --model embedded --data sample --split test --out runs/sample-test
        $ torchrun --nproc-per-node 8 -m sslk.cli extract --model timm:resnet50 --data imagenet --out runs/imagenet

    Args:
        model: torchvision:NAME, timm:NAME, hf:NAME, lightly:NAME, cifar:NAME or embedded.
        data: name of a published data set, folder:PATH, npz:PATH, hf:NAME or sample.
        out: folder of the store.
        split: of the data set.
        weights: checkpoint of the model.
        checkpoint_format: layout of the checkpoint, detected by default.
        image_size: side of the image crop, the model's own by default.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        batch_size: images per forward pass.
        shard_rows: samples per shard, what an interruption can cost; 8192 by default.
        workers: loading processes.
        amp: dtype of mixed precision, or off.
        dtype: dtype of the stored features; that of amp by default, float32 without.
        device: where to compute; a GPU where there is one.
        on_corrupt: an unreadable image ends the run, or is left out, counted and listed.
        quiet: no progress bar.
    """
    from sslk.features.by_name import extract_by_name
    from sslk.features.extract import Progress

    with progress_bar("extracting", quiet) as update:

        def show(progress: Progress) -> None:
            update(progress.done, progress.total)

        store = extract_by_name(
            model, data, out, split=split, weights=weights, checkpoint_format=checkpoint_format, image_size=image_size,
            root=root, batch_size=batch_size, shard_rows=shard_rows, workers=workers, amp=amp, dtype=dtype,
            device=device, on_corrupt=on_corrupt, progress=show,
        )  # fmt: skip
    print(
        f"{store.path}: {len(store)} samples of {store.num_features} features" + ("" if store.complete else " so far")
    )


def info(store: str, json: bool = False) -> None:
    """Say what a feature store holds, from its manifest.

    Examples:
        $ sslk store info runs/sample-test

    Args:
        store: folder of the store.
        json: print one JSON object.
    """
    from sslk.features import store_info

    found = store_info(store)
    spec = found.spec
    print_fields(
        {
            "path": found.path,
            "model": spec.model,
            "data": spec.dataset,
            "samples": f"{found.rows} of {spec.samples}" if not json else found.rows,
            "features": spec.num_features,
            "dtype": spec.dtype,
            "signed": spec.signed,
            "shards": found.shards,
            "bytes": found.bytes,
            "complete": found.complete,
            "unreadable": len(found.skipped),
            "nonfinite_rows": found.nonfinite_rows,
        },
        json,
    )


def verify(store: str) -> None:
    """Read every shard of a feature store and compare it with the manifest.

    Examples:
        $ sslk store verify runs/sample-test

    Args:
        store: folder of the store.
    """
    from sslk.features import store_verify

    print(f"{store}: {store_verify(store)} shards, all intact")


def merge(stores: list[str], out: str) -> None:
    """Merge feature stores of one model into one: parts of an extraction, or several data sets in a row.

    Examples:
        $ sslk store merge runs/part-0 runs/part-1 --out runs/whole

    Args:
        stores: folders of the stores.
        out: folder of the merged store.
    """
    from sslk.features import store_merge

    merged = store_merge(stores, out)
    print(f"{merged.path}: {len(merged)} samples of {merged.num_features} features")


def export(store: str, out: str) -> None:
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
