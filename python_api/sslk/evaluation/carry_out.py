"""Shows the plan of an evaluation, carries it out, and ends with one report."""

from __future__ import annotations

import json
import math
import shlex
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sslk.evaluation.estimate import Trial, estimate, split_sizes, try_model
from sslk.evaluation.plan import EvaluatedModel, EvaluationConfig, Step, labelled_models, make_plan
from sslk.evaluation.run import Evaluation
from sslk.files.tables import read_records
from sslk.quality.discover import DiscriminativeFeatures
from sslk.report.collect import find_runs
from sslk.report.page import render_page, write_page
from sslk.results.provenance import provenance
from sslk.results.run import RESULTS, Run, RunTable

REPORT = "report.html"


def show_plan(config: EvaluationConfig, out: str, as_json: bool = False) -> None:
    """Print every step with its command line, whether it is done, and an estimate of its time."""
    evaluation = _open(config, Path(out))
    trials, seconds = _estimates(config, evaluation)
    evaluation.steps = make_plan(config, evaluation.out, _failing(trials))
    if as_json:
        print(json.dumps({"steps": [
            {"name": step.name, "command": command_line(step), "done": evaluation.is_done(step),
             "estimated_seconds": None if step.name not in seconds else round(seconds[step.name], 1)}
            for step in evaluation.steps
        ], "failing_models": _failing(trials)}, indent=2))  # fmt: skip
    else:
        _print_plan(Console(soft_wrap=False), evaluation, trials, seconds)


def carry_out(config: EvaluationConfig, out: str, as_json: bool = False, quiet: bool = False) -> None:
    """Carry out the plan and write the report.

    Raises:
        RuntimeError: steps failed; everything else is done and reported.
    """
    folder = Path(out)
    evaluation = _open(config, folder)
    console = Console(stderr=True, quiet=quiet)
    trials, seconds = _estimates(config, evaluation)
    evaluation.steps = make_plan(config, folder, _failing(trials))
    if not quiet:
        _print_plan(console, evaluation, trials, seconds)
    open_steps = [step for step in evaluation.steps if not evaluation.is_done(step)]

    def announce(number: int, step: Step) -> None:
        left = sum(seconds.get(later.name, 0.0) for later in open_steps if later in evaluation.steps[number:])
        total = len(evaluation.steps)
        console.print(f"[bold]{number + 1}/{total} {step.name}[/bold], about {_duration(left)} left", highlight=False)

    states = evaluation.run(announce, quiet or as_json)
    _summarise(config, evaluation, labelled_models(config)).save(folder / "summary")
    in_order = [folder / "summary", *(step.output.parent for step in evaluation.steps if step.output.name == RESULTS)]
    runs = find_runs(path for path in in_order if (path / RESULTS).exists())
    write_page(folder / REPORT, render_page(runs, f"Evaluation on {config.data}"))
    failed = {name: evaluation.outcomes[name].error for name, state in states.items() if state == "failed"}
    if as_json:
        print(json.dumps({"report": str(folder / REPORT), "steps": states, "errors": failed}, indent=2))
    elif not quiet:
        print(folder / REPORT)
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(states)} steps failed and the same command tries them again: "
            + "; ".join(f"{name} ({error})" for name, error in failed.items())
            + f". Tracebacks are in {folder / 'logs'}."
        )


def command_line(step: Step) -> str:
    """The step as one would type it."""
    words = ["sslk", *step.command.split()]
    for name, value in step.arguments.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return shlex.join(words)


def _open(config: EvaluationConfig, out: Path) -> Evaluation:
    about = {"data": config.data, "train_split": config.train_split, "test_split": config.test_split,
             "image_size": config.image_size, "seed": config.seed}  # fmt: skip
    return Evaluation(out, make_plan(config, out), about)


def _estimates(config: EvaluationConfig, evaluation: Evaluation) -> tuple[dict[str, Trial], dict[str, float]]:
    """Trials of the models that still have something to do, and seconds per open step."""
    sizes = split_sizes(config)
    open_steps = [step for step in evaluation.steps if not evaluation.is_done(step)]
    waiting = {label for step in open_steps for label in step.models}
    trials = {model.label: try_model(model, config) for model in labelled_models(config) if model.label in waiting}
    return trials, estimate(open_steps, trials, sizes)


def _failing(trials: dict[str, Trial]) -> dict[str, str]:
    return {label: trial.error for label, trial in trials.items() if trial.error}


def _print_plan(console: Console, evaluation: Evaluation, trials: dict[str, Trial], seconds: dict[str, float]) -> None:
    table = Table(title=f"Plan: {evaluation.out} (command lines: --dry-run --json)")
    table.add_column("step")
    table.add_column("estimated time", justify="right")
    failing = _failing(trials)
    for step in evaluation.steps:
        cannot = any(label in failing for label in step.models)
        when = "done" if evaluation.is_done(step) else "will fail" if cannot else _duration(seconds[step.name])
        table.add_row(step.name, when)
    table.add_row("all", _duration(sum(seconds.values())))
    console.print(table)
    for label, error in failing.items():
        console.print(f"{label} cannot be evaluated: {error}", style="yellow", highlight=False)


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def _summarise(config: EvaluationConfig, evaluation: Evaluation, models: list[EvaluatedModel]) -> Run:
    """The evaluation as a run of its own: Q-Score of every model, and how each step ended."""
    outcomes = {step.name: evaluation.outcomes[step.name] for step in evaluation.steps}
    rows = [row for model in models if (row := _quality(evaluation.out / model.label, model.label)) is not None]
    failed = [name for name, outcome in outcomes.items() if outcome.state == "failed"]
    left_out = [name for name, outcome in outcomes.items() if outcome.state == "left out"]
    done = len(outcomes) - len(failed) - len(left_out)
    counted = "1 model" if len(models) == 1 else f"{len(models)} models"
    findings = [f"{counted} on {config.data}: {done} of {len(outcomes)} steps done."]
    findings += [f"{name} failed: {outcomes[name].error}." for name in failed]
    if left_out:
        findings.append(f"Left out because of that: {', '.join(left_out)}.")
    findings += [
        f"{row[0]}: mean Q-Score {row[1]:.4f} (95 % interval ± {row[2]:.4f} over test images)." for row in rows
    ]
    steps = [[name, outcome.state, outcome.seconds, outcome.error or ""] for name, outcome in outcomes.items()]
    return Run(
        kind="evaluation",
        title=f"Evaluation on {config.data}",
        findings=findings,
        provenance=provenance({"command": "sslk evaluate", "data": config.data, "seed": config.seed, "config": vars(config)}),
        tables=[
            *([RunTable("Q-Score of every model, each with its own eps and S", _QUALITY_COLUMNS, rows)] if rows else []),
            RunTable("Steps", ["step", "state", "seconds", "error"], steps),
        ],
    )  # fmt: skip


_QUALITY_COLUMNS = ["model", "mean Q", "± 95 %", "eps", "|S|", "D", "samples"]


def _quality(folder: Path, label: str) -> list[Any] | None:
    scores, found = folder / "scores.csv", folder / "discriminative.safetensors"
    if not scores.exists() or not found.exists():
        return None
    rows = read_records(scores, "the scores", ("qscore",))
    try:
        values = [float(row["qscore"]) for row in rows]
    except ValueError as problem:
        raise ValueError(f"{scores} is damaged: {problem}"[:300]) from None
    kept = [value for value in values if math.isfinite(value)]
    if len(kept) < 2:
        return None
    features = DiscriminativeFeatures.load(found)
    error = 1.96 * statistics.stdev(kept) / len(kept) ** 0.5
    return [
        label,
        statistics.fmean(kept),
        error,
        features.eps,
        features.num_discriminative,
        features.num_features,
        len(kept),
    ]
