"""One evaluation of many models, from the command line."""

from __future__ import annotations

from typing import Literal


def evaluate(
    models: list[str],
    data: str,
    out: str,
    weights: list[str] | None = None,
    concepts: str | None = None,
    segmenter: str = "grabcut",
    clusters: int = 1000,
    systems: list[Literal["qscore", "reverse", "masked"]] | None = None,
    train_split: str = "train",
    test_split: str = "test",
    root: str | None = None,
    image_size: int | None = None,
    batch_size: int = 256,
    workers: int = 4,
    device: str | None = None,
    seed: int = 0,
    dry_run: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Evaluate models on a data set with all three protocols: features once per model, then everything, one report.

    Interrupted or failed, the same command goes on with what is missing. A model that fails does not stop the others.

    Examples:
        $ sslk evaluate --models embedded cifar:resnet18 --data sample --systems qscore --out runs/two --dry-run
        $ sslk evaluate --models timm:resnet50 hf:facebook/dinov2-small --data folder:photos --out runs/photos

    Args:
        models: torchvision:NAME, timm:NAME, hf:NAME, lightly:NAME, cifar:NAME or embedded.
        data: name of a published data set, folder:PATH, npz:PATH, hf:NAME or sample.
        out: folder of everything; the report is report.html in it.
        weights: a checkpoint per model, none for a model without.
        concepts: table that `sslk concepts build` wrote for the train split; without it reverse probing is left out.
        segmenter: finds the foreground in the masked study: grabcut, labels:CLASS,..., boxes, files:FOLDER, deeplab or sam.
        clusters: of reverse probing.
        systems: which protocols: qscore, reverse, masked; all by default.
        train_split: split on which sets, clusters and probes are fitted.
        test_split: split on which they are judged.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        image_size: side of the image crop, each model's own by default.
        batch_size: images per forward pass.
        workers: loading processes.
        device: where to compute; a GPU where there is one.
        seed: of everything random.
        dry_run: print the plan with estimated times, and stop.
        json: print one JSON object.
        quiet: no progress.
    """
    from sslk.evaluation.carry_out import carry_out, show_plan
    from sslk.evaluation.plan import SYSTEMS, EvaluationConfig

    config = EvaluationConfig(
        models, data, weights or [], concepts, segmenter, clusters, systems or list(SYSTEMS), train_split, test_split,
        root, image_size, batch_size, workers, device, seed,
    )  # fmt: skip
    if dry_run:
        show_plan(config, out, json)
    else:
        carry_out(config, out, json, quiet)
