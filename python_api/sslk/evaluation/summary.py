"""One table of all models: what each step found, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslk.evaluation.plan import EvaluatedModel
from sslk.evaluation.run import Evaluation
from sslk.features.manifest import MANIFEST, Manifest
from sslk.models.source import ModelSource
from sslk.results.provenance import provenance
from sslk.results.run import RESULTS, Run, RunTable, Value

COLUMNS = ["model", "probe top-1 [%]", "k-NN top-1 [%]", "mean Q", "Q-Score AUROC", "reverse NMI [%]", "CKA to the original"]

TITLE = (
    "All models, with 95 % intervals over test samples; CKA is debiased, lowest to highest over the variants with parts removed"
)


def summary_run(evaluation: Evaluation, models: Sequence[EvaluatedModel], data: str, origin: Mapping[str, Any]) -> Run:
    """The evaluation as a run of its own: one row a model, with 95 % intervals, and how each step ended."""
    outcomes = {step.name: evaluation.outcomes[step.name] for step in evaluation.steps}
    failed = [name for name, outcome in outcomes.items() if outcome.state == "failed"]
    left_out = [name for name, outcome in outcomes.items() if outcome.state == "left out"]
    done = len(outcomes) - len(failed) - len(left_out)
    counted = "1 model" if len(models) == 1 else f"{len(models)} models"
    findings = [f"{counted} on {data}: {done} of {len(outcomes)} steps done."]
    findings += [f"{name} failed: {outcomes[name].error}." for name in failed]
    if left_out:
        findings.append(f"Left out because of that: {', '.join(left_out)}.")
    findings += _representations(evaluation.out, models)
    rows = [_row(evaluation.out, model) for model in models]
    shown = [place for place in range(len(COLUMNS)) if not place or any(row[place] for row in rows)]
    steps = [[name, outcome.state, outcome.seconds, outcome.error or ""] for name, outcome in outcomes.items()]
    tables = [
        RunTable(TITLE, [COLUMNS[i] for i in shown], [[row[i] for i in shown] for row in rows]),
        RunTable("Steps", ["step", "state", "seconds", "error"], steps, fold=True),
    ]
    return Run(
        "evaluation",
        f"Evaluation on {data}",
        findings,
        provenance({"command": "sslk evaluate", "data": data, **origin}),
        tables=tables,
    )


def _row(out: Path, model: EvaluatedModel) -> list[str | None]:
    folder = out / model.label
    probe, knn, scores, failure = (_summary(folder / name) for name in ("probe", "knn", "qscore", "failure"))
    reverse, masked = _summary(out / "reverse"), _summary(out / "masked")
    label = ModelSource(model.model).label
    cka = [masked.get(f"{label}: {which} debiased CKA") for which in ("lowest", "highest")]
    nmi = reverse.get(f"NMI {model.label} [%]")
    return [
        model.label,
        _interval(probe, "top1", 100, ".1f"),
        _interval(knn, "top1", 100, ".1f"),
        _interval(scores, "mean_score", 1, ".4f"),
        _interval(failure, "auroc", 1, ".3f"),
        None if nmi is None else f"{_number(nmi):.2f}",
        None if None in cka else f"{_number(cka[0]):.3f} to {_number(cka[1]):.3f}",
    ]


def _representations(out: Path, models: Sequence[EvaluatedModel]) -> list[str]:
    """Which representation of each model was measured, where the stores say."""
    said = []
    for model in models:
        folder = out / model.label / "test"
        feature = Manifest.read(folder).spec.feature if (folder / MANIFEST).exists() else ""
        said += [f"{model.label}: {feature}"] if feature else []
    return [f"Representations: {'; '.join(said)}."] if said else []


def _interval(summary: Mapping[str, Value], name: str, factor: float, form: str) -> str | None:
    if summary.get(name) is None:
        return None
    value, low, high = (factor * _number(summary.get(key)) for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _number(value: Value) -> float:
    return float("nan") if value is None else float(value)


def _summary(folder: Path) -> Mapping[str, Value]:
    return Run.load(folder).summary if (folder / RESULTS).exists() else {}
