"""Q-Score from the command line: discover and qscore over a feature store of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sslk.commands.console import print_fields, progress_bar
from sslk.files.regular import require_file_name


def discover_features(
    store: str,
    out: str,
    eps: float | Literal["auto"] = "auto",
    lower: float = 50.0,
    upper: float = 95.0,
    two_sided: bool | None = None,
    device: str = "cpu",
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Find the discriminative features of a model from a feature store, and save them.

    Examples:
        $ sslk discover runs/sample-train --out runs/discriminative.safetensors

    Args:
        store: folder of the feature store.
        out: file for the set: mask, activation percentages and thresholds.
        eps: standard deviations above the mean at which a feature is highly activating; the paper's is 4, for D = 2048.
        lower: percentile of the activation percentages below which features are too rare.
        upper: percentile above which they are too common.
        two_sided: count large negative deviations too; where the model's features are signed by default.
        device: where the kernels run.
        json: print one JSON object.
        quiet: no progress bar.
    """
    from sslk.quality.streaming import discover_store
    from sslk.statistics.small_data import few_rows

    require_file_name(out)
    with progress_bar("discovering", quiet) as update:
        found = discover_store(
            store, eps, lower, upper, two_sided=two_sided, device=device, progress=update
        )  # fmt: skip
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    found.save(out)
    fields = {
        "file": out,
        "model": found.model,
        "weights": (found.weights_hash or "unknown")[:12],
        "eps": found.eps,
        "features": found.num_features,
        "discriminative": found.num_discriminative,
        "mean_active": found.mean_active,
        "empty_share": found.empty_share,
        "samples": found.num_samples,
    }
    notes = few_rows(found.num_samples, found.num_features)
    print_fields({key: value for key, value in fields.items() if value == value} | _noted(notes), json)


def score(
    store: str,
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
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Score every sample of a feature store with Q-Score.

    Examples:
        $ sslk qscore runs/sample-test --discriminative runs/discriminative.safetensors --out runs/scores.csv --data sample

    Args:
        store: folder of the feature store.
        discriminative: file that `sslk discover` wrote for this model; refused for another.
        out: CSV file for index, label (where the store has labels) and score of every sample.
        data: the images the store was extracted from, to write their names too: folder:PATH, cifar10, ...
        split: of these.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        eps: threshold in standard deviations; that of the set by default.
        normalize: divide by the feature norm, as in the paper.
        two_sided: as in the set by default.
        further_trained: the encoder was trained further since the set was found, so that its weights are others.
        device: where the kernels run.
        json: print one JSON object.
        quiet: no progress bar.
    """
    from sslk.features.by_name import images_of
    from sslk.features.store import FeatureStore
    from sslk.quality.belonging import load_set
    from sslk.quality.scores_file import write_scores
    from sslk.quality.streaming import score_store
    from sslk.statistics.small_data import empty_sets

    if out is not None:
        require_file_name(out)
    opened = FeatureStore(store).require()
    found = load_set(discriminative, opened, further_trained=further_trained)
    image_name = None if data is None else images_of(opened, data, split, root).image_name
    with progress_bar("scoring", quiet) as update:
        scores = score_store(
            opened, found, eps=eps, normalize=normalize, two_sided=two_sided,
            further_trained=further_trained, device=device, progress=update,
        )  # fmt: skip
    if out is not None:
        write_scores(opened, scores, Path(out), image_name)
    fields = {
        "samples": len(scores.scores),
        "mean_score": float(scores.scores.nanmean()),
        "eps": scores.eps,
        "discriminative": scores.num_discriminative,
        "mean_active": scores.mean_active,
        "empty_share": scores.empty_share,
    }
    notes = empty_sets(found.empty_share, scores.empty_share)
    print_fields(fields | ({"file": out} if out else {}) | _noted(notes), json)


def _noted(notes: list[str]) -> dict[str, str]:
    """What readers should know, as a field of its own where there is anything."""
    return {"note": " ".join(notes)} if notes else {}
