"""`sslk similarity`: how alike are representations of the same images?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from sslk.cli.console import FLAT, Output
from sslk.data.source import DataSource
from sslk.features.settings import ExtractSettings
from sslk.models.source import ModelSource
from sslk.similarity.settings import SimilaritySettings

if TYPE_CHECKING:
    from sslk.features.store import FeatureStore
    from sslk.progress import Progress


def similarity(
    *stores: str,
    out: str,
    rows: tuple[str, ...] = (),
    columns: tuple[str, ...] = (),
    curve: bool = False,
    data: str | None = None,
    split: str = "test",
    root: str | None = None,
    layer: tuple[str, ...] = (),
    settings: Annotated[SimilaritySettings, FLAT] = SimilaritySettings(),  # noqa: B008 (frozen)
    extraction: ExtractSettings = ExtractSettings(),  # noqa: B008
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Compare representations of the same images: CKA, CCA, Procrustes, mutual k-NN, RSA, with intervals and a permutation test.

    All pairs of the stores, or every one of --rows with every one of --columns. A name that is no folder of a store is a model,
    NAME@WEIGHTS, whose features of --data are extracted below OUT first.

    Examples:
        $ sslk similarity runs/sample-test cifar:compact@random --data sample --out runs/similarity
        $ sslk similarity --rows embedded --columns cifar:compact@random --layer all --data sample --out runs/layers
        $ sslk similarity runs/epoch-0 runs/epoch-10 runs/epoch-20 --curve --out runs/epochs

    Args:
        stores: folders of feature stores, or models, in the order of a curve.
        out: folder of the run, and of the features that are extracted.
        rows: in place of stores, those that are compared with each of columns.
        columns: those that each of rows is compared with.
        curve: draw each store's similarity with the last and with the one before it, in the order given.
        data: images of models that are named.
        split: split of these images.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        layer: layers of models that are named, names of modules, numbers of blocks, or all; the output by default.
        extraction: batches, precision, device.
    """
    from sslk.similarity import similarity_study

    if bool(rows) != bool(columns) or bool(stores) == bool(rows):
        raise ValueError("give either stores, for all pairs, or both --rows and --columns.")
    with output.progress() as update:
        images = None if data is None else DataSource(data, split, root)
        opened = _opened([*stores, *rows, *columns], images, layer, out, extraction, update)
        down = {name: store for given in stores or rows for name, store in opened[given].items()}
        across = {name: store for given in columns for name, store in opened[given].items()} or None
        run = similarity_study(down, settings, columns=across, curve=curve, progress=update)
    output.leave(run, out)


def _opened(
    given: list[str], images: DataSource | None, layer: tuple[str, ...], out: str, settings: ExtractSettings, progress: Progress
) -> dict[str, dict[str, FeatureStore]]:
    """The stores by what was given, with names that tell them apart: of the model where they do, else of the folder."""
    from sslk.features import FeatureStore
    from sslk.features.manifest import MANIFEST

    found: dict[str, dict[str, FeatureStore]] = {}
    for name in dict.fromkeys(given):
        if (Path(name) / MANIFEST).exists() or images is None:
            found[name] = {name: FeatureStore(name)}
        else:
            found[name] = _extracted(ModelSource(name, layer=layer), images, Path(out) / "features", settings, progress)
    labels = [store.spec.model for stores in found.values() for store in stores.values()]
    folders = [Path(name).name for name in found]
    for name, stores in found.items():
        if list(stores) == [name]:  # a folder that was given
            label = stores[name].spec.model
            if labels.count(label) > 1:
                label = Path(name).name if folders.count(Path(name).name) == 1 else name
            found[name] = {label: stores[name]}
    return found


def _extracted(
    model: ModelSource, images: DataSource, out: Path, settings: ExtractSettings, progress: Progress
) -> dict[str, FeatureStore]:
    from sslk.features.by_layer import extract_layers
    from sslk.features.by_name import extract_by_name
    from sslk.progress import renamed

    said = renamed(progress, f"extracting {model.label}")
    if not model.layer:
        return {model.label: extract_by_name(model, images, out / model.folder, settings, progress=said)}
    stores = extract_layers(model, images, out / model.folder, settings, progress=said)
    return {f"{model.label}, {layer}": store for layer, store in stores.items()}
