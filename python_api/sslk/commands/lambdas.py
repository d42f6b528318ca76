"""The two-stage search for the regulariser's weights from the command line."""

from __future__ import annotations

import importlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sslk.commands.console import print_fields, progress_bar
from sslk.data import load_dataset
from sslk.quality import study_figures
from sslk.quality.ablation import LAMBDAS, Train, search_lambdas
from sslk.quality.belonging import load_set
from sslk.results.figure import save_figure
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable
from sslk.statistics.small_data import lost_in_noise
from sslk.training.config import MethodName, TrainingConfig
from sslk.training.run import claim
from sslk.training.search import lambda_trainer
from sslk.training.start import load_start


def lambdas(
    out: str,
    train: str | None = None,
    method: MethodName | None = None,
    model: str = "embedded",
    weights: str | None = None,
    checkpoint_format: str | None = None,
    data: str = "sample",
    split: str = "train",
    validation_share: float = 0.2,
    root: str | None = None,
    discriminative: str | None = None,
    options: dict[str, Any] | None = None,
    training: TrainingConfig = TrainingConfig(),  # noqa: B008 (frozen)
    lambda1: list[float] = list(LAMBDAS),  # noqa: B006
    lambda2: list[float] = list(LAMBDAS),  # noqa: B006
    seeds: list[int] = [0],  # noqa: B006
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Search the regulariser's weights as the paper does: lambda1 at lambda2 = 0, then lambda2 at the best lambda1.

    Examples:
        $ sslk ablation lambdas --method simclr --training.epochs 2 --training.learning_rate 0.05 --out runs/lambdas
        $ sslk ablation lambdas --train my_training:train --lambda1 0 1e-4 1e-3 --seeds 0 1 2 --out runs/lambdas

    Args:
        out: folder of the run; finished trainings are kept in journal.json, an interrupted search goes on.
        train: MODULE:FUNCTION in place of a method, called as function(lambda1, lambda2, seed); it trains further and
            returns the accuracy of a probe on validation data.
        method: simclr, swav, moco, byol, dino, simsiam, vicreg or barlow-twins: the arm qscore of `sslk finetune`.
        model: the encoder it starts from, as for `sslk finetune`.
        weights: its checkpoint, with heads.
        checkpoint_format: layout of the checkpoint, detected by default.
        data: labelled images; a share of them is held out to judge by, none are test images.
        split: of these.
        validation_share: share of the images held out.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        discriminative: file of `sslk discover` for this encoder; found on the images that train by default.
        options: settings of the method, such as --options.hidden_dim 512.
        training: settings of the training; lambda1, lambda2 and seed are those of each training instead.
        lambda1: values of the first stage.
        lambda2: values of the second stage.
        seeds: every pair is trained with each.
        json: print one JSON object.
        quiet: no progress bar.
    """
    if (train is None) == (method is None):
        raise ValueError("give either --method, to train with `sslk finetune`'s settings, or --train MODULE:FUNCTION.")
    folder = Path(out)
    function = _imported(train) if train is not None else None
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"train": train}
    held_out = 0  # validation images; a function of one's own keeps its number to itself
    with progress_bar("training", quiet) as update:
        if method is not None:
            backbone, parts = load_start(method, model, weights, checkpoint_format)
            images = load_dataset(data, split, root=root)
            held_out = round(len(images) * validation_share)
            found = None if discriminative is None else load_set(discriminative, backbone)
            settings = {"method": method, "model": model, "weights": backbone.weights_hash, "data": images.name,
                        "images": images.fingerprint, "validation_share": validation_share, "options": options or {},
                        "training": {k: v for k, v in asdict(training).items() if k not in ("lambda1", "lambda2", "seed")},
                        "discriminative": None if found is None else found.summary()}  # fmt: skip
            function = lambda_trainer(
                method, backbone, parts, images, folder / "trainings", training, validation_share=validation_share,
                discriminative=found, options=options, report=lambda stage, done, total: update(done, total, stage),
            )  # fmt: skip
        assert function is not None
        claim(folder, settings, True)  # the journal counts for these settings alone
        search = search_lambdas(
            function, lambda1=lambda1, lambda2=lambda2, seeds=seeds, journal=folder / "journal.json",
            progress=update if method is None else None,
        )  # fmt: skip
    rows = [[t.stage, t.lambda1, t.lambda2, t.seed, 100 * t.accuracy] for t in search.trials]
    columns = ["stage", "lambda1", "lambda2", "seed", "validation top-1 [%]"]
    means = {stage: [sum(v) / len(v) for _, v in search.curve(stage)] for stage in (1, 2)}
    findings = [
        f"The best pair is lambda1 = {search.lambda1:g}, lambda2 = {search.lambda2:g}, by validation accuracy "
        f"({100 * max(means[2]):.2f} %).",
        f"Means over {len(seeds)} seeds range over {100 * (max(means[1]) - min(means[1])):.2f} points in stage 1 and "
        f"{100 * (max(means[2]) - min(means[2])):.2f} in stage 2.",
    ]
    if held_out:
        best = max(means[2])
        error = (max(best * (1 - best), 0.0) / held_out) ** 0.5
        span = 100 * (max(means[1] + means[2]) - min(means[1] + means[2]))
        findings += lost_in_noise(span, 100 * error, "a top-1", held_out, 2)
    summary = {"lambda1": search.lambda1, "lambda2": search.lambda2, "validation_top1": max(means[2])}
    picture = save_figure(
        study_figures.lambda_curves(search), folder, "lambdas", "Search for lambda1 and lambda2 (figure A.8)",
        "Validation accuracy over lambda1 at lambda2 = 0, then over lambda2.",
        {column: [row[c] for row in rows] for c, column in enumerate(columns)},
    )  # fmt: skip
    run = {"command": "ablation lambdas", **settings, "lambda1": lambda1, "lambda2": lambda2, "seeds": seeds}
    Run("ablation", "Search for the regulariser's weights", findings, provenance(run), dict(summary),
        [RunTable("All trainings", columns, rows)], [picture]).save(folder)  # fmt: skip
    print_fields({**summary, "folder": out}, json)


def _imported(target: str) -> Train:
    module, _, name = target.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module in the working directory, as `python -m` finds it
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"train must be MODULE:FUNCTION, {target!r} cannot be imported: {error}.") from error
    if not callable(function):
        raise ValueError(f"train must name a function, {target!r} is a {type(function).__name__}.")
    return function
