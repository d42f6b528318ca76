"""Transfer: linear evaluation of one encoder on a list of data sets."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from sslk.features.settings import ExtractSettings
from sslk.models.source import ModelSource
from sslk.probes.settings import LinearSettings
from sslk.progress import Progress
from sslk.quality.linear_evaluation import transfer
from sslk.quality.settings import TransferTable
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable
from sslk.statistics.small_data import small_data


def transfer_study(
    model: ModelSource,
    data: Sequence[str],
    out: str | PathLike[str],
    probe: LinearSettings = LinearSettings(),  # noqa: B008 (frozen)
    extraction: ExtractSettings = ExtractSettings(),  # noqa: B008
    table: TransferTable = TransferTable(),  # noqa: B008
    *,
    root: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Linear evaluation of one encoder on data sets, as a table that answers to the paper's table A.2.

    Args:
        model, data, out, probe, extraction, root: as for `transfer`; what is finished in `out` is not done again.
        table: how the table is labelled.
        progress: called with what is done and to do of every extraction and training.
    """
    results = transfer(model, data, out, probe, extraction, root=root, progress=progress)
    name = table.name or model.name
    rows = [
        [name, r.dataset, 100 * r.top1, 100 * r.low, 100 * r.high, 100 * r.balanced_accuracy, r.train_samples, r.test_samples]
        for r in results
    ]
    columns = ["model", "dataset", table.arm, "low", "high", "balanced accuracy [%]", "train", "test"]
    findings = [
        f"{r.dataset}: top-1 {100 * r.top1:.2f} % (95 % interval {100 * r.low:.1f} to {100 * r.high:.1f} %), {r.classes} classes."
        for r in results
    ]
    for r in results:
        said = small_data(train=r.train_samples, features=r.features, test=r.test_samples, classes=r.classes)
        findings += [f"{r.dataset}: {sentence[0].lower()}{sentence[1:]}" for sentence in (*said, *r.notes)]
    origin = {
        "command": "transfer",
        "model": model.name,
        "data": list(data),
        "epochs": probe.epochs,
        "seed": probe.seed,
        "image_size": model.image_size,
    }
    shown = RunTable("Linear evaluation, top-1 [%] with 95 % intervals", columns, rows, "tableA2")
    summary = {f"top1 {r.dataset}": r.top1 for r in results}
    measures = [
        Measure(r.dataset, name, "linear probe", "top-1 [%]", 100 * r.top1, 100 * r.low, 100 * r.high, r.test_samples)
        for r in results
    ]
    return Run("transfer", "Transfer", findings, provenance(origin), summary, [shown], measures=measures)
