"""An evaluation of several models: its plan with estimates, its carrying out, one table of all models, one report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from sslk.evaluation.estimate import Trial, estimate, split_sizes, try_model
from sslk.evaluation.plan import EvaluatedModel, Step, labelled_models, make_plan
from sslk.evaluation.run import Evaluation, State, recorded
from sslk.evaluation.settings import EvaluationSettings
from sslk.evaluation.summary import summary_run
from sslk.progress import Progress
from sslk.report.collect import find_runs
from sslk.report.page import render_page, write_page
from sslk.results.run import RESULTS, Run

REPORT = "report.html"


@dataclass(frozen=True, eq=False)
class Plan:
    """What an evaluation will do.

    Attributes:
        models: what is evaluated.
        evaluation: the steps, and which are done.
        seconds: estimated, by name of a step that is still to do.
        failing: why a model cannot be evaluated, by its label.
    """

    models: list[EvaluatedModel]
    evaluation: Evaluation
    seconds: dict[str, float]
    failing: dict[str, str]

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
    """How an evaluation ended: one run over all models, its page, and the state and error of every step."""

    run: Run
    report: Path
    states: dict[str, State]
    errors: dict[str, str]

    def failure(self) -> str:
        """One sentence about what failed."""
        said = "; ".join(f"{name} ({error})" for name, error in self.errors.items())
        return (
            f"{len(self.errors)} of {len(self.states)} steps failed and the same command tries them again: {said}. "
            f"Tracebacks are in {self.report.parent / 'logs'}."
        )


def plan_evaluation(models: Sequence[str], settings: EvaluationSettings, out: str | PathLike[str]) -> Plan:
    """The steps of an evaluation, with an estimate of the time of each from a trial of every model.

    Args:
        models: `MODEL`, `MODEL@CHECKPOINT`, or `LABEL=MODEL` with a label of one's own.
        settings: on what, and how.
        out: folder of the evaluation; what is done there stays done.

    Raises:
        ValueError: the folder holds an evaluation of something else.
    """
    known = labelled_models(models)
    folder = Path(out)
    about = {
        "data": settings.data,
        "train_split": settings.train_split,
        "test_split": settings.test_split,
        "image_size": settings.image_size,
        "seed": settings.seed,
    }
    evaluation = Evaluation(folder, make_plan(known, settings, folder), about)
    waiting = [step for step in evaluation.steps if not evaluation.is_done(step)]
    labels = {label for step in waiting for label in step.models}
    trials: dict[str, Trial] = {m.label: try_model(m, settings) for m in known if m.label in labels}
    failing = {label: trial.error for label, trial in trials.items() if trial.error}
    evaluation.steps = make_plan(known, settings, folder, failing)
    waiting = [step for step in evaluation.steps if not evaluation.is_done(step)]
    return Plan(known, evaluation, estimate(waiting, trials, split_sizes(settings)), failing)


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
    """
    plan = plan_evaluation(models, settings, out)
    evaluation, folder = plan.evaluation, Path(out)
    tell = None if announce is None else lambda number, step: announce(plan, number, step)
    states = evaluation.run(tell, progress)
    run = summary_run(evaluation, plan.models, settings.data, {"seed": settings.seed, "config": asdict(settings)})
    run.save(folder / "summary")
    in_order = [folder / "summary", *(step.output.parent for step in evaluation.steps if step.output.name == RESULTS)]
    runs = find_runs(path for path in in_order if (path / RESULTS).exists())
    write_page(folder / REPORT, render_page(runs, run.title))
    errors = {name: str(evaluation.outcomes[name].error) for name, state in states.items() if state == "failed"}
    return Evaluated(run, folder / REPORT, states, errors)
