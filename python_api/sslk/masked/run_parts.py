"""Tables and figures of a study, each figure with its numbers beside it as CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from sslk.features import FeatureStore
from sslk.masked import figures
from sslk.masked.analysis import accuracies, sampled_variants, umap_of
from sslk.masked.evaluation import FoldAccuracy, folds_of
from sslk.masked.images import MaskedImages
from sslk.masked.neighbors import variant_shares
from sslk.masked.settings import StudySettings
from sslk.masked.similarity import MEASURES, Comparison
from sslk.masked.variants import VariantRenderer
from sslk.progress import Progress
from sslk.results.atomic import write_atomically
from sslk.results.figure import picture
from sslk.results.run import RunFigure, RunTable
from sslk.similarity import rbf_cka

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class StudyNumbers:
    """What the analysis starts from.

    Attributes:
        dataset: name.
        settings: of the study.
        segmenter: settings of the segmenter; None without masks.
        images: as the model with the largest input sees them, for the sheet of variants.
        normalization: mean and std of that model.
        random_models: labels of models with random weights.
        upsampled: by model, images smaller than its crop.
        stores: features by model.
        device: of the probes.
    """

    dataset: str
    settings: StudySettings
    segmenter: str | None
    images: MaskedImages
    normalization: tuple[tuple[float, ...], tuple[float, ...]]
    random_models: tuple[str, ...]
    upsampled: dict[str, int]
    stores: dict[str, FeatureStore]
    device: str


class RunParts:
    """Collects tables and figures; every figure gets a CSV and a JSON beside it."""

    def __init__(self) -> None:
        self.tables: list[RunTable] = []
        self.figures: list[RunFigure] = []
        self.files: dict[str, Callable[[Path], Any]] = {}

    def add(
        self, draw: Callable[[], Figure], name: str, title: str, alt: str, table: RunTable, kind: Literal["svg", "png"] = "svg"
    ) -> None:
        """A figure and the numbers behind it."""
        columns = {column: [row[place] for row in table.rows] for place, column in enumerate(table.columns)}
        self.figures.append(picture(name, title, alt, draw, columns, kind))
        records = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        self.files[f"{name}.json"] = partial(_write_json, {"title": title, "rows": records})

    def variants(self, numbers: StudyNumbers, count: int = 8) -> None:
        """Figure 1: all variants of a few images."""
        images = numbers.images
        read = torch.cat([shard.indices for shard in next(iter(numbers.stores.values())).shards()])
        rows = read[torch.linspace(0, len(read) - 1, min(count, len(read))).round().long()].tolist()
        mean, std = numbers.normalization
        renderer = VariantRenderer(numbers.settings.variants, mean, std, numbers.settings.radius)
        batch = torch.stack([images[row][0] for row in rows])
        draw = partial(figures.variant_sheet, renderer(batch), renderer.names, mean, std)
        table = RunTable(
            "Images shown",
            ["place", "image", "foreground share of the crop"],
            [
                [
                    int(images.indices[row]),
                    Path(images.dataset.image_name(int(images.indices[row]))).name,
                    round(float(item[3].float().mean()), 4),
                ]
                for row, item in zip(rows, batch, strict=True)
            ],
        )
        alt = f"Columns: {len(rows)} images. Rows: {', '.join(renderer.names)}."
        self.add(draw, "variants", "The variants of a few images, as the model sees them", alt, table, "png")

    def similarities(self, found: Comparison) -> None:
        """A heatmap and a table for every measure, and the matrix across models."""
        for measure, name in MEASURES.items():
            rows = []
            for model in found.models:
                matrix = found.within[model][measure]
                for u, a in enumerate(found.variants):
                    for v, b in enumerate(found.variants):
                        cells = (matrix.value[u, v], matrix.low[u, v], matrix.high[u, v])
                        rows.append([model, a, b, *(_rounded(cell) for cell in cells)])
            table = RunTable(name, ["model", "variant", "with", "value", "low", "high"], rows)
            bounds = {model: (found.within[model][measure].low, found.within[model][measure].high) for model in found.models}
            known = all(bool(low.isfinite().all()) for low, _ in bounds.values())
            draw = partial(
                figures.heatmaps,
                {model: found.within[model][measure].value for model in found.models},
                found.variants,
                name,
                (0, 1),
                bounds if known else None,
            )
            alt = f"{name} between {len(found.variants)} variants under {', '.join(found.models)}, with 95 % intervals."
            self.add(draw, measure, f"{name} between variants", alt, table)
            if measure != "cka_biased":
                self.tables.append(_upper(table))
        ranks = [
            [model, variant, found.samples, int(found.ranks[model][v]), int(found.principal[model][v])]
            for model in found.models
            for v, variant in enumerate(found.variants)
        ]
        columns = ["model", "variant", "images", "rank", "components with 99 % of variance"]
        self.tables.append(RunTable("Ranks of the representations", columns, ranks))
        if len(found.models) > 1:
            for measure in ("cka_debiased", "cca"):
                self._across(found, measure)

    def _across(self, found: Comparison, measure: str) -> None:
        places = [(model, variant) for model in found.models for variant in found.variants]
        matrix = found.across[measure]
        rows = [[*a, *b, _rounded(matrix[u, v])] for u, a in enumerate(places) for v, b in enumerate(places)]
        name = f"{MEASURES[measure]}, across models"
        draw = partial(figures.across_models, matrix, found.models, found.variants, MEASURES[measure])
        columns = ["model", "variant", "with model", "with variant", "value"]
        alt = f"{MEASURES[measure]} between all variants under all of {', '.join(found.models)}."
        self.add(draw, f"across_{measure}", name, alt, RunTable(name, columns, rows))

    def rbf(self, stores: dict[str, FeatureStore], settings: StudySettings) -> None:
        """Radial-kernel CKA of a sample."""
        fraction = settings.rbf_fraction
        assert fraction is not None
        matrices = {
            model: rbf_cka(sampled_variants(store, settings.rbf_images, settings.seed), fraction)
            for model, store in stores.items()
        }
        name = f"RBF CKA, debiased, bandwidth {fraction:g} x median distance"
        self._heatmaps("cka_rbf", name, matrices, settings.variants, settings)

    def neighbors(self, stores: dict[str, FeatureStore], settings: StudySettings, say: Progress) -> list[str]:
        """The matrix of neighbour shares, and what its diagonal says."""
        matrices = {}
        for number, (model, store) in enumerate(stores.items()):
            say(number, len(stores), "neighbours")
            sample = sampled_variants(store, settings.neighbor_images, settings.seed)
            k = min(settings.k, len(sample) * len(sample[0]) - 1)
            matrices[model] = variant_shares(sample, k, settings.neighbor_metric)
        say(len(stores), len(stores), "neighbours")
        pooled = min(settings.neighbor_images, *(len(store) for store in stores.values()))
        name = f"Share of the {settings.k} nearest neighbours by variant"
        self._heatmaps("neighbours", name, matrices, settings.variants, settings, ("variant of the neighbours", "variant"))
        return [
            f"{model}: of the {settings.k} nearest neighbours ({settings.neighbor_metric}, {pooled} images pooled) "
            + ", ".join(f"{matrix[v, v]:.0%} of {name}" for v, name in enumerate(settings.variants))
            + " are of the same variant."
            for model, matrix in matrices.items()
        ]

    def _heatmaps(
        self,
        file: str,
        name: str,
        matrices: dict[str, Tensor],
        variants: Sequence[str],
        settings: StudySettings,
        axes_labels: tuple[str, str] = ("", ""),
    ) -> None:
        rows = [
            [model, a, b, _rounded(matrix[u, v])]
            for model, matrix in matrices.items()
            for u, a in enumerate(variants)
            for v, b in enumerate(variants)
        ]
        draw = partial(figures.heatmaps, matrices, variants, name, (0, 1), axes_labels=axes_labels)
        table = RunTable(name, ["model", "variant", "with", "value"], rows)
        self.add(draw, file, name, f"{name}, for {', '.join(matrices)}.", table)
        self.tables.append(table)

    def evaluation(self, numbers: StudyNumbers, say: Progress) -> list[str]:
        """The cross-validated balanced accuracies, or why there are none."""
        settings, stores = numbers.settings, numbers.stores
        if not settings.folds:
            return []
        first = next(iter(stores.values()))
        labels = first.labels() if first.has_labels else torch.zeros(0, dtype=torch.int64)
        known = labels[labels >= 0]
        if not len(known):
            return [f"{numbers.dataset} has no image labels: no linear evaluation."]
        folds = folds_of(known, settings.folds)
        rows: list[list[Any]] = []
        sentences = []
        if len(known) < len(labels):
            sentences.append(f"Linear evaluation of {len(known)} of {len(labels)} images: the others have no label.")
        for number, (model, store) in enumerate(stores.items()):
            say(number, len(stores), "linear evaluation")
            results = accuracies(store, folds, settings.seed)
            rows += [[numbers.dataset, model, variant, _rounded(r.mean), _rounded(r.std)] for variant, r in results.items()]
            sentences.append(f"{model}, balanced accuracy over {folds} folds: {_accuracies(results)}.")
        say(len(stores), len(stores), "linear evaluation")
        if folds < settings.folds:
            sentences.append(f"{folds} folds instead of {settings.folds}: the smallest class has {folds} images.")
        columns = ["dataset", "model", "variant", "balanced_accuracy", "std"]
        self.tables.insert(0, RunTable("Linear evaluation of the variants", columns, rows, paper="masked_table1"))
        return sentences

    def umap(self, stores: dict[str, FeatureStore], settings: StudySettings, say: Progress) -> None:
        """UMAP of a share of the images."""
        maps, rows = {}, []
        for number, (model, store) in enumerate(stores.items()):
            say(number, len(stores), "UMAP")
            count = max(2, round(settings.umap_share * len(store)))
            sample = sampled_variants(store, count, settings.seed)
            maps[model] = umap_of(sample, settings.seed)
            names = [variant for variant in settings.variants for _ in range(len(sample[0]))]
            rows += [
                [model, name, round(float(x), 3), round(float(y), 3)] for name, (x, y) in zip(names, maps[model], strict=True)
            ]
        say(len(stores), len(stores), "UMAP")
        title = f"UMAP of {settings.umap_share:.0%} of the images, seed {settings.seed}"
        alt = f"Points coloured by variant, one panel for each of {', '.join(maps)}."
        table = RunTable(title, ["model", "variant", "x", "y"], rows)
        self.add(partial(figures.umap_scatter, maps, settings.variants), "umap", title, alt, table, "png")


def _write_json(content: Any, path: Path) -> None:
    write_atomically(path, json.dumps(content, indent=1).encode())


def _accuracies(results: dict[str, FoldAccuracy]) -> str:
    parts = ", ".join(f"{name} {100 * r.mean:.1f} ± {100 * r.std:.1f} %" for name, r in results.items())
    first = next(iter(results.values()))
    late = "" if all(r.converged for r in results.values()) else "; some probes were stopped before convergence"
    return f"{parts} (chance {100 / first.classes:.1f} %{late})"


def _upper(table: RunTable) -> RunTable:
    """The rows of different variants, each pair once where the measure is symmetric."""
    seen = set()
    rows = []
    for row in table.rows:
        key = (row[0], frozenset(row[1:3]), row[3])
        if row[1] != row[2] and key not in seen:
            seen.add(key)
            rows.append(row)
    return RunTable(table.title, table.columns, rows)


def _rounded(value: Any) -> float | None:
    number = float(value)
    return round(number, 5) if number == number else None
