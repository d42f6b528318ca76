"""`sslk evaluate` and `sslk demo`: whole evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from sslk.cli.console import FLAT, Output, print_table
from sslk.cli.plan_view import print_plan, say_step
from sslk.evaluation.settings import DemoSettings, EvaluationSettings


def evaluate(
    models: list[str],
    *,
    settings: Annotated[EvaluationSettings, FLAT],
    out: str,
    dry_run: bool = False,
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008 (frozen)
) -> None:
    """Evaluate models on a data set with all three protocols: features once per model, then everything, one report.

    Interrupted or failed, the same command goes on with what is missing. A model that fails does not stop the others. What can
    be told before any work is told at planning: nothing is begun that is bound to fail.

    Examples:
        $ sslk evaluate embedded control=cifar:compact@random --data sample --systems qscore --out runs/two --dry-run
        $ sslk evaluate ours=timm:resnet50@mine.pth hf:facebook/dinov2-small@pretrained --data folder:photos --out runs/photos

    Args:
        models: NAME or NAME@CHECKPOINT, as LABEL=NAME under a label of your own.
        out: folder of everything; the report is report.html in it.
        dry_run: print the plan with estimated times, and stop.
    """
    from sslk.evaluation import evaluate as carry_out
    from sslk.evaluation import plan_evaluation

    if dry_run:
        plan = plan_evaluation(models, settings, out)
        if output.json:
            output.fields({"steps": plan.described(), "failing_models": plan.failing, "notes": plan.checked.notes})
        else:
            print_plan(plan)
        if plan.failing:
            raise RuntimeError(plan.failure())
        return

    with output.progress() as update:
        done = carry_out(models, settings, out, announce=None if output.quiet else say_step, progress=update)
    if output.json:
        output.fields(
            {
                "report": str(done.report),
                "steps": done.states,
                "errors": done.errors,
                "failing_models": done.plan.failing,
                "left_out": done.left_out,
            }
        )
    else:
        if done.left_out:
            print(done.run.findings[-1])
        print(done.report)
    if failure := done.failure():
        raise RuntimeError(failure)


def demo(
    *,
    out: str = "runs/demo",
    settings: Annotated[DemoSettings, FLAT] = DemoSettings(),  # noqa: B008
    quiet: bool = False,
) -> None:
    """Run Q-Score end to end on real images: extract, discover, score, probe, predict failures, train three arms, report.

    Uses the embedded encoder (SimCLR on CIFAR-10) and the embedded sample (2,000 training and 1,000 test images), no
    download. The further training is far shorter and its learning rate far larger than the paper's 50 epochs at 1e-5.

    Examples:
        $ sslk demo
        $ sslk demo --epochs 1 --out runs/short-demo

    Args:
        out: folder for results.json, index.html, the figures and the discriminative features.
        quiet: show no progress and no tables.
    """
    from sslk.evaluation import demo_study
    from sslk.report import render_page, write_measures, write_page

    with Output(quiet=quiet).progress() as update:
        run = demo_study(settings, progress=update)
    run.save(out)
    write_page(Path(out) / "index.html", render_page([Path(out)]))
    write_measures(Path(out) / "index.jsonl", [Path(out)])
    if not quiet:
        for table in run.tables[:2]:
            print_table(table)
        print(f"page: {Path(out) / 'index.html'}")
