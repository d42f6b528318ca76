"""Transfer, and the comparison of a run with a paper's table, from the command line."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from sslk.commands.console import print_fields, progress_bar
from sslk.features.extract import Progress
from sslk.quality.transfer import transfer_study
from sslk.report.compare import compare
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable
from sslk.statistics.small_data import small_data


def transfer(
    data: list[str],
    model: str,
    out: str,
    weights: str | None = None,
    checkpoint_format: str | None = None,
    name: str | None = None,
    arm: str = "baseline",
    image_size: int | None = None,
    root: str | None = None,
    epochs: int = 100,
    seed: int = 0,
    batch_size: int = 256,
    workers: int = 4,
    device: str | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Linear evaluation of one encoder on a list of data sets; interrupted, the same command goes on.

    Examples:
        $ sslk transfer cifar10 cifar100 stl10 flowers102 --model timm:resnet50 --weights pretrained --out runs/transfer
        $ sslk transfer npz:train.npz+npz:test.npz sample --model embedded --out runs/transfer

    Args:
        data: names of data sets, or TRAIN+TEST for two that belong together.
        model: torchvision:NAME, timm:NAME, hf:NAME, lightly:NAME, cifar:NAME or embedded.
        out: folder of the run.
        weights: checkpoint of the model.
        checkpoint_format: layout of the checkpoint, detected by default.
        name: of the method in the table, to compare with a paper's; the model's name by default.
        arm: column of the table, baseline or qscore.
        image_size: side of the image crop, the model's own by default.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        epochs: of the probe.
        seed: of the probe.
        batch_size: images per forward pass.
        workers: loading processes.
        device: where to compute.
        json: print one JSON object.
        quiet: no progress bar.
    """
    folder = Path(out)
    with progress_bar("evaluating", quiet) as update:

        def extracting(_: str, progress: Progress) -> None:
            update(progress.done, progress.total)

        def training(_: str, done: int, total: int) -> None:
            update(done, total)

        results = transfer_study(
            model, data, folder, weights=weights, checkpoint_format=checkpoint_format, image_size=image_size,
            root=root, epochs=epochs, seed=seed, batch_size=batch_size, workers=workers, device=device,
            extracting=extracting, training=training,
        )  # fmt: skip
    label = name or model
    rows = [
        [label, r.dataset, 100 * r.top1, 100 * r.low, 100 * r.high, 100 * r.balanced_accuracy, r.train_samples,
         r.test_samples]
        for r in results
    ]  # fmt: skip
    columns = ["model", "dataset", arm, "low", "high", "balanced accuracy [%]", "train", "test"]
    findings = [
        f"{r.dataset}: top-1 {100 * r.top1:.2f} % (95 % interval {100 * r.low:.1f} to {100 * r.high:.1f} %), "
        f"{r.classes} classes."
        for r in results
    ]
    for r in results:
        said = small_data(train=r.train_samples, features=r.features, test=r.test_samples, classes=r.classes)
        findings += [f"{r.dataset}: {sentence[0].lower()}{sentence[1:]}" for sentence in (*said, *r.notes)]
    summary = {f"top1 {r.dataset}": r.top1 for r in results}
    run = {
        "command": "transfer",
        "model": model,
        "data": data,
        "epochs": epochs,
        "seed": seed,
        "image_size": image_size,
    }
    Run("transfer", "Transfer", findings, provenance(run), dict(summary),
        [RunTable("Linear evaluation, top-1 [%] with 95 % intervals", columns, rows, "tableA2")]).save(folder)  # fmt: skip
    print_fields({**summary, "folder": out}, json)


def compare_run(run: str, paper: str, json: bool = False) -> None:
    """Print a run's table beside a paper's, with the differences.

    Examples:
        $ sslk compare runs/transfer --paper tableA2

    Args:
        run: folder of a run.
        paper: table1, tableA1, tableA2 (Q-Score), table2, table3, table4, table7 (reverse probing), or a full name such as
            masked_table1.
        json: print one JSON object.
    """
    found = compare(Run.load(run), paper)
    if json:
        print_fields({"paper": found.paper, "columns": found.table.columns, "rows": found.table.rows,
                      "unmatched": found.unmatched}, True)  # fmt: skip
        return
    table = Table(*found.table.columns, title=found.table.title)
    for row in found.table.rows:
        table.add_row(*("" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in row))
    Console().print(table)
    if found.unmatched:
        print("not in the paper's table: " + "; ".join(found.unmatched))
