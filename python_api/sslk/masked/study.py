"""The masked-input study: from images to matrices in one call, resumable, everything in one folder."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sslk.data import Dataset, load_dataset
from sslk.features import FeatureStore, Progress
from sslk.masked.evaluation import folds_of
from sslk.masked.extract import extract_variants
from sslk.masked.images import MaskedImages, choose_images
from sslk.masked.masks import Masks, build_masks
from sslk.masked.report import write_study
from sslk.masked.run_writer import StudyNumbers
from sslk.masked.segmenters import segmenter as segmenter_by_name
from sslk.masked.settings import StudySettings
from sslk.masked.variants import VariantRenderer
from sslk.models import Backbone, evaluation_transform, load_backbone
from sslk.results.provenance import provenance
from sslk.results.run import Run

PACKAGED = ("embedded", "efficientnet-lite0")


@dataclass(frozen=True)
class StudyModel:
    """A model of the study: `NAME` or `NAME@CHECKPOINT`, as `load_backbone` has them, and the side of its images.

    >>> model = StudyModel("cifar:resnet18@runs/last.ckpt")
    >>> model.name, model.weights, model.label, model.folder
    ('cifar:resnet18', 'runs/last.ckpt', 'cifar:resnet18@last.ckpt', 'cifar-resnet18-last.ckpt')
    >>> StudyModel("cifar:compact").label
    'cifar:compact (random weights)'
    """

    text: str
    image_size: int | None = None

    @property
    def name(self) -> str:
        return self.text.partition("@")[0]

    @property
    def weights(self) -> str | None:
        return self.text.partition("@")[2] or None

    @property
    def random(self) -> bool:
        """Whether no trained weights are loaded: a control."""
        return self.weights is None and self.name not in PACKAGED

    @property
    def label(self) -> str:
        if self.random:
            return f"{self.name} (random weights)"
        return f"{self.name}@{Path(self.weights).name}" if self.weights else self.name

    @property
    def folder(self) -> str:
        """Of its features; file names stay readable."""
        text = f"{self.name}-{Path(self.weights).name}" if self.weights else self.name
        return re.sub(r"[^A-Za-z0-9.]+", "-", text)

    def load(self, seed: int) -> Backbone:
        """The backbone; random weights are those of the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return load_backbone(self.name, self.weights, image_size=self.image_size)


def masked_study(
    models: Sequence[str],
    data: str,
    out: str | Path,
    *,
    split: str = "test",
    segmenter: str = "grabcut",
    image_sizes: Sequence[int] = (),
    root: str | None = None,
    settings: StudySettings | None = None,
    batch_size: int = 128,
    workers: int = 0,
    device: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Run:
    """Find masks, extract every variant under every model, compare them, and write `results.json` with all figures.

    Interrupted, the same call goes on: masks and features are kept in `out/masks` and `out/features`.

    Args:
        models: `NAME` or `NAME@CHECKPOINT`, as for `load_backbone`; a name without weights is a random control.
        data: as for `load_dataset`.
        out: folder of the run.
        split: of the data set.
        segmenter: as for `sslk.masked.segmenter`; used where a variant needs the foreground.
        image_sizes: side of every model's images, 0 for its own; its own by default.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        settings: what to compute.
        batch_size: images per forward pass.
        workers: loading processes.
        device: where to compute features and probes; a GPU where there is one.
        progress: called with the name of the step, what is done and what is to do.

    Returns:
        The run, as it was saved.

    Raises:
        ValueError: two models would share a folder, image_sizes are not one a model, a class has one sample, or what
            `load_dataset`, `load_backbone` and `build_masks` raise.

    >>> import tempfile
    >>> tiny = StudySettings(variants=("original", "center"), images=60, umap_share=0, resamples=20, folds=2)
    >>> run = masked_study(["embedded"], "sample", tempfile.mkdtemp(), settings=tiny, device="cpu")
    >>> run.kind, run.summary["images"]
    ('masked', 60)
    """
    settings = settings or StudySettings()
    say = progress or (lambda step, done, total: None)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    entries = _models(models, image_sizes)
    folder = Path(out)
    dataset = load_dataset(data, split, root=root)
    needs_masks = VariantRenderer(settings.variants, radius=settings.radius).needs_foreground
    chosen = choose_images(dataset, settings.images, settings.seed)
    masks: Masks | None = None
    if needs_masks:
        masks = build_masks(
            dataset, segmenter_by_name(segmenter, device), folder / "masks", indices=chosen,
            progress=lambda done, total: say("masks", done, total),
        )  # fmt: skip
    _check_labels(dataset, masks, chosen, settings)
    stores: dict[str, FeatureStore] = {}
    shown: MaskedImages | None = None
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    upsampled: dict[str, int] = {}
    for entry in entries:
        backbone = entry.load(settings.seed)
        transform = evaluation_transform(backbone, image_size=entry.image_size)
        images = MaskedImages(dataset, transform, masks, indices=chosen, on_bad_mask=settings.on_bad_mask)
        upsampled[entry.label] = images.upsampled
        if shown is None or transform.size > shown.geometry.size:  # the sheet of variants shows the largest images
            shown, normalization = images, (backbone.mean, backbone.std)

        def show(step: Progress, label: str = entry.label) -> None:
            say(f"features of {label}", step.done, step.total)

        stores[entry.label] = extract_variants(
            backbone, images, folder / "features" / entry.folder,
            VariantRenderer(settings.variants, backbone.mean, backbone.std, settings.radius),
            batch_size=batch_size, workers=workers, device=device, progress=show,
        )  # fmt: skip
    assert shown is not None
    numbers = StudyNumbers(
        dataset=dataset.name,
        settings=settings,
        segmenter=None if masks is None else masks.settings,
        images=shown,
        normalization=normalization,
        random_models=tuple(entry.label for entry in entries if entry.random),
        upsampled=upsampled,
        stores=stores,
        device=device,
    )
    command = ["sslk", "masked", "--models", *models, "--data", data, "--split", split, "--out", str(Path(out).name)]
    if image_sizes:
        command += ["--image-sizes", *map(str, image_sizes)]
    if masks is not None:
        command += ["--segmenter", segmenter]
    origin: dict[str, Any] = {
        "command": shlex.join(command),
        "seed": settings.seed,
        "config": asdict(settings),
        "data": f"{dataset.name}, {len(shown)} of {len(dataset)} images",
        "weights": {label: store.spec.weights_hash for label, store in stores.items()},
    }
    return write_study(folder, numbers, provenance(origin), say)


def _models(models: Sequence[str], image_sizes: Sequence[int]) -> list[StudyModel]:
    if not models:
        raise ValueError("models must name at least one model, got none.")
    if image_sizes and len(image_sizes) != len(models):
        raise ValueError(f"image_sizes must hold one size a model, got {len(image_sizes)} for {len(models)} models.")
    if any(size < 0 for size in image_sizes):
        raise ValueError(f"image_sizes must be positive, or 0 for the model's own size, got {list(image_sizes)}.")
    sizes = [size or None for size in image_sizes] or [None] * len(models)
    entries = [StudyModel(text, size) for text, size in zip(models, sizes, strict=True)]
    folders = [entry.folder for entry in entries]
    for folder in folders:
        if folders.count(folder) > 1:
            raise ValueError(f"models must differ in name or checkpoint file, but two are called {folder!r}.")
    return entries


def _check_labels(dataset: Dataset, masks: Masks | None, chosen: Any, settings: StudySettings) -> None:
    """Refuse before long work what cross-validation would refuse after it."""
    if dataset.labels is None or not settings.folds:
        return
    kept = chosen
    if masks is not None and settings.on_bad_mask == "drop":
        kept = masks.indices[~(masks.empty | masks.full | masks.resized)]
    labels = torch.from_numpy(dataset.labels[kept])
    if bool((labels >= 0).any()):
        folds_of(labels[labels >= 0], settings.folds)
