"""`sslk concepts`: tables of what images show."""

from __future__ import annotations

from typing import Annotated, Literal

from sslk.cli.console import FLAT, Output
from sslk.data.source import DataSource, OnCorrupt
from sslk.models.source import ModelSource


def build(
    *,
    data: Annotated[DataSource, FLAT],
    experts: list[str],
    out: str,
    threshold: float | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    on_error: Literal["raise", "skip"] = "raise",
    on_corrupt: OnCorrupt = "raise",
    quiet: bool = False,
) -> None:
    """Ask experts about every image of a data set and write the concept table; interrupted, the same command goes on.

    Examples:
        $ sslk concepts build --data sample --split test --experts labels colour --out runs/concepts.safetensors
        $ sslk concepts build --data imagenet --split val --experts scene=classifier:torchvision:resnet50@p.pth@p.txt --out c

    Args:
        experts: labels, attributes:CSV, colour, label-maps, classifier:MODEL[@WEIGHTS[@NAMES]], detector:NAME,
            segmenter:NAME, clip:PROMPTS.json or text; GROUP= in front sets the group of the columns.
        out: file of the table.
        threshold: threshold of probability, confidence or share; by default the arg-max of classifiers, 0.5, and 0.1 for colour.
        batch_size: images an expert sees at once.
        device: device of classifiers.
        on_error: an expert that raises on an image ends the build, or the image is left out, counted and listed.
        on_corrupt: an unreadable image ends the build, or is left out, counted and listed.
        quiet: show no progress.
    """
    from sslk.concepts import build_concepts, expert_by_name
    from sslk.distributed import require_device
    from sslk.files.regular import require_file_name

    require_file_name(out)
    require_device(device)
    dataset = data.load()
    asked = [expert_by_name(name, dataset, threshold=threshold, device=device) for name in experts]
    with Output(quiet=quiet).progress() as update:
        table = build_concepts(
            dataset, asked, out, batch_size=batch_size, on_error=on_error, on_corrupt=on_corrupt, progress=update
        )
    left_out = [dataset.image_name(int(number)) for number, _ in table.about.get("left_out", [])]
    named = ", ".join(left_out[:10]) + (f" and {len(left_out) - 10} more" if len(left_out) > 10 else "")
    print(f"{out}: {table}" + (f"; {len(left_out)} images left out: {named}" if left_out else ""))


def classify(
    store: str, *, out: str, model: str = "efficientnet-lite0", group: str = "objects", threshold: float | None = None
) -> None:
    """Concepts from features that are already stored: what the model's own classifier says about them.

    Examples:
        $ sslk concepts classify runs/lite0-train --out runs/objects.safetensors

    Args:
        store: folder of a feature store of this model.
        out: file of the table.
        model: NAME or NAME@CHECKPOINT of the store's model; its weights must hold a classifier.
        group: group of the columns.
        threshold: every class above this probability in place of the arg-max.
    """
    from sslk.concepts import classify_store
    from sslk.features import FeatureStore
    from sslk.files.regular import require_file_name

    require_file_name(out)
    source = ModelSource(model)
    table = classify_store(FeatureStore(store), source.name, weights=source.weights, group=group, threshold=threshold)
    table.save(out)
    print(f"{out}: {table}")


def info(table: str, *, json: bool = False) -> None:
    """Say what a concept table holds: groups, density, columns that say nothing, images left out.

    Examples:
        $ sslk concepts info runs/concepts.safetensors

    Args:
        table: file of the table.
        json: print one JSON object.
    """
    from sslk.concepts import read_concepts

    fields = read_concepts(table).described()
    groups = ", ".join(f"{group} {size}" for group, size in fields["groups"].items())
    Output(json).fields(fields if json else {**fields, "groups": groups})


def merge(tables: list[str], *, out: str) -> None:
    """Put the columns of several tables of the same images side by side; rows are matched by image.

    Examples:
        $ sslk concepts merge runs/labels.safetensors runs/objects.safetensors --out runs/concepts.safetensors

    Args:
        tables: files of the tables.
        out: file of the result.
    """
    from sslk.concepts import merge as put_together
    from sslk.concepts import read_concepts
    from sslk.files.regular import require_file_name

    require_file_name(out)
    merged = put_together([read_concepts(table) for table in tables])
    merged.save(out)
    print(f"{out}: {merged}")


def import_manifest(
    manifest: str,
    *,
    out: str,
    data: str | None = None,
    split: str = "test",
    root: str | None = None,
    group: str | None = None,
    unknown: Literal["raise", "absent"] = "raise",
) -> None:
    """Make a concept table of the labels in a manifest: a concept for each class, a row for each image of a data set.

    Examples:
        $ sslk concepts import photos.csv --split train --out runs/concepts.safetensors
        $ sslk concepts import photos.csv --data folder:photos --split train --out runs/concepts.safetensors

    Args:
        manifest: CSV, TSV or Parquet with the columns file and label, of one or several names, or label:NAME of 0 and 1.
        out: file of the table.
        data: data set whose images get rows, as the feature store was extracted from it; the manifest itself by default.
        split: split of the data set.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        group: group of the columns; concepts by default, labels where a row has one label.
        unknown: an unknown label is an error, or taken for absent.
    """
    from sslk.concepts import concepts_of_manifest
    from sslk.files.regular import require_file_name

    require_file_name(out)
    images = DataSource(data or f"manifest:{manifest}", split, root).load()
    table = concepts_of_manifest(manifest, images, group=group, unknown=unknown)
    table.save(out)
    absent = table.about["unknown_taken_for_absent"]
    print(f"{out}: {table}" + (f"; {absent} unknown labels taken for absent" if absent else ""))
