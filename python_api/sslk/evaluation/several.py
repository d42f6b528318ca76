"""An evaluation of several models: its plan with estimates, its carrying out, one table of all models, one report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from sslk.evaluation import steps
from sslk.evaluation.checks import Checked, check_place, check_steps, load_splits
from sslk.evaluation.estimate import Trial, estimate, try_model
from sslk.evaluation.plan import EvaluatedModel, Step, labelled_models, make_plan
from sslk.evaluation.run import Evaluation, State, recorded
from sslk.evaluation.settings import EvaluationSettings
from sslk.evaluation.summary import summary_run
from sslk.features import FeatureStore
from sslk.features.manifest import MANIFEST
from sslk.features.unreadable import left_out_of, with_left_out
from sslk.progress import Progress
from sslk.report.collect import find_runs
from sslk.report.leaderboard import write_measures
from sslk.report.page import render_page, write_page
from sslk.results.run import RESULTS, Run

REPORT = "report.html"
MEASURES = "report.jsonl"


@dataclass(frozen=True, eq=False)
class Plan:
    """What an evaluation will do.

    Attributes:
        models: what is evaluated.
        evaluation: the steps, and which are done.
        seconds: estimated, by name of a step that is still to do.
        failing: why a model cannot be evaluated, by its label.
        checked: the data, and what a reader should know.
    """

    models: list[EvaluatedModel]
    evaluation: Evaluation
    seconds: dict[str, float]
    failing: dict[str, str]
    checked: Checked

    def failure(self) -> str:
        """One sentence about the models that cannot be evaluated."""
        said = "; ".join(f"{label} ({error})" for label, error in self.failing.items())
        return f"{len(self.failing)} of {len(self.models)} models cannot be evaluated: {said}."

    def described(self) -> list[dict[str, Any]]:
        """Every step as plain data: what it calls with what, whether it is done, and its time."""
        return [
            {
                "name": step.name,
                "call": step.call.__name__,
                "arguments": recorded(step),
                "done": self.evaluation.is_done(step),
                "estimated_seconds": None if step.name not in self.seconds else round(self.seconds[step.name], 1),
            }
            for step in self.evaluation.steps
        ]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """How an evaluation ended.

    Attributes:
        run: over all models.
        report: the page.
        states, errors: of every step, and of those that failed.
        plan: with the models that could not be evaluated.
        left_out: names of the images that could not be read.
    """

    run: Run
    report: Path
    states: dict[str, State]
    errors: dict[str, str]
    plan: Plan
    left_out: list[str]

    def failure(self) -> str:
        """What failed; empty where nothing did."""
        parts = [self.plan.failure()] if self.plan.failing else []
        if self.errors:
            said = "; ".join(f"{name} ({error})" for name, error in self.errors.items())
            parts.append(
                f"{len(self.errors)} of {len(self.states)} steps failed and the same command tries them again: {said}. "
                f"Tracebacks are in {self.report.parent / 'logs'}."
            )
        return " ".join(parts)


def plan_evaluation(models: Sequence[str], settings: EvaluationSettings, out: str | PathLike[str]) -> Plan:
    """The steps of an evaluation, with an estimate of the time of each from a trial of every model.

    Args:
        models: `MODEL`, `MODEL@CHECKPOINT`, or `LABEL=MODEL` with a label of one's own.
        settings: on what, and how.
        out: folder of the evaluation; what is done there stays done.

    Raises:
        ValueError: the folder holds an evaluation of something else or cannot be written to, the data cannot be had, a step
            is bound to fail (see `sslk.evaluation.checks`), or no model can be loaded: each in one sentence.
        FileNotFoundError, OSError, ImportError: something that a step needs is not there.
    """
    known = labelled_models(models)
    folder = Path(out)
    check_place(settings, folder)
    checked = load_splits(settings)
    about = {
        "data": settings.data,
        "train_split": settings.train_split,
        "test_split": settings.test_split,
        "image_size": settings.image_size,
        "seed": settings.seed,
    }
    evaluation = Evaluation(folder, make_plan(known, settings, folder), about)
    waiting = [step for step in evaluation.steps if not evaluation.is_done(step)]
    checked = check_steps(settings, checked, {step.call.__name__ for step in waiting})
    # Later steps read stores: a model is needed for its features and for the masked images.
    needed = {label for step in waiting if step.call in (steps.extract, steps.masked) for label in step.models}
    trials: dict[str, Trial] = {m.label: try_model(m, settings, checked.test) for m in known if m.label in needed}
    failing = {label: trial.error for label, trial in trials.items() if trial.error}
    stuck = {label for step in waiting if step.call is steps.extract for label in step.models} & set(failing)
    evaluation.steps = [
        step
        for step in make_plan(known, settings, folder, failing, folds=checked.folds)
        if step.models not in [(label,) for label in stuck] or evaluation.is_done(step)
    ]
    sizes = {"train": len(checked.train), "test": len(checked.test)}
    waiting = [step for step in evaluation.steps if not evaluation.is_done(step)]
    seconds = estimate(waiting, trials, sizes, seconds_per_mask=checked.seconds_per_mask)
    plan = Plan(known, evaluation, seconds, failing, checked)
    if len(failing) == len(known):
        raise ValueError(plan.failure())
    return plan


def evaluate(
    models: Sequence[str],
    settings: EvaluationSettings,
    out: str | PathLike[str],
    *,
    announce: Callable[[Plan, int, Step], None] | None = None,
    progress: Progress | None = None,
) -> Evaluated:
    """Evaluate models on a data set with all three protocols: features once per model, then everything, one report.

    Interrupted or failed, the same call goes on with what is missing. A model that fails does not stop the others.

    Args:
        models, settings, out: as for `plan_evaluation`.
        announce: called with the plan, the number of a step, from 0, and the step, before it starts.
        progress: called with what is done, what there is to do, and the step.

    Returns:
        The run over all models (saved in `out/summary`), the page, and how every step ended.

    Raises:
        ValueError, FileNotFoundError, OSError, ImportError: as for `plan_evaluation`, before any work.
    """
    plan = plan_evaluation(models, settings, out)
    evaluation, folder = plan.evaluation, Path(out)
    tell = None if announce is None else lambda number, step: announce(plan, number, step)
    states = evaluation.run(tell, progress)
    run = summary_run(evaluation, plan.models, settings.data, {"seed": settings.seed, "config": asdict(settings)})
    notes = [f"{label} cannot be evaluated: {error}." for label, error in plan.failing.items()] + plan.checked.notes
    left_out = _left_out(plan, folder)
    images = len(plan.checked.train) + len(plan.checked.test)
    run = with_left_out(replace(run, findings=[*run.findings, *notes]), left_out, images)
    run.save(folder / "summary")
    in_order = [folder / "summary", *(step.output.parent for step in evaluation.steps if step.output.name == RESULTS)]
    runs = find_runs(path for path in in_order if (path / RESULTS).exists())
    write_page(folder / REPORT, render_page(runs, run.title))
    write_measures(folder / MEASURES, runs)
    errors = {name: str(evaluation.outcomes[name].error) for name, state in states.items() if state == "failed"}
    return Evaluated(run, folder / REPORT, states, errors, plan, left_out)


def _left_out(plan: Plan, folder: Path) -> list[str]:
    """Names of the images without features, as the stores tell."""
    names: list[str] = []
    for model in plan.models:
        for role, dataset in (("train", plan.checked.train), ("test", plan.checked.test)):
            if (folder / model.label / role / MANIFEST).exists():
                names += left_out_of(FeatureStore(folder / model.label / role), dataset)
    return list(dict.fromkeys(names))
