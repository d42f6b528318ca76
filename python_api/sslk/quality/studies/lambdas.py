"""The two-stage search for the regulariser's weights, as a run."""

from __future__ import annotations

from typing import Any

from sslk.quality.ablation import LambdaSearch
from sslk.quality.settings import LambdaSettings
from sslk.quality.studies.figures import lambda_curves
from sslk.results.figure import picture
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable
from sslk.statistics.small_data import lost_in_noise


def lambda_run(search: LambdaSearch, settings: LambdaSettings, trained: dict[str, Any], held_out: int = 0) -> Run:
    """What `search_lambdas` found, as a run.

    Args:
        search: all trainings.
        settings: what was tried.
        trained: what the provenance says of the trainings.
        held_out: validation images that judged; 0 where a function of one's own keeps their number to itself.
    """
    rows: list[list[Any]] = [[t.stage, t.lambda1, t.lambda2, t.seed, 100 * t.accuracy] for t in search.trials]
    columns = ["stage", "lambda1", "lambda2", "seed", "validation top-1 [%]"]
    means = {stage: [sum(v) / len(v) for _, v in search.curve(stage)] for stage in (1, 2)}
    best = max(means[2])
    findings = [
        f"The best pair is lambda1 = {search.lambda1:g}, lambda2 = {search.lambda2:g}, by validation accuracy "
        f"({100 * best:.2f} %).",
        f"Means over {len(settings.seeds)} seeds range over {100 * (max(means[1]) - min(means[1])):.2f} points in stage 1 "
        f"and {100 * (best - min(means[2])):.2f} in stage 2.",
    ]
    if held_out:
        error = (max(best * (1 - best), 0.0) / held_out) ** 0.5
        span = 100 * (max(means[1] + means[2]) - min(means[1] + means[2]))
        findings += lost_in_noise(span, 100 * error, "a top-1", held_out, 2)
    summary = {"lambda1": search.lambda1, "lambda2": search.lambda2, "validation_top1": best}
    drawn = picture(
        "lambdas",
        "Search for lambda1 and lambda2 (figure A.8)",
        "Validation accuracy over lambda1 at lambda2 = 0, then over lambda2.",
        lambda: lambda_curves(search),
        {column: [row[c] for row in rows] for c, column in enumerate(columns)},
    )
    origin = {"command": "ablation lambdas", **trained, **vars(settings)}
    title = "Search for the regulariser's weights"
    table = RunTable("All trainings", columns, rows)
    return Run("ablation", title, findings, provenance(origin), summary, [table], [drawn])
