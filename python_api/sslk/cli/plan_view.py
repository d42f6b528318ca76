"""The plan of an evaluation, and how far it is, on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from sslk.evaluation.plan import Step
    from sslk.evaluation.several import Plan


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Every step, whether it is done, and an estimate of its time."""
    console = console or Console()
    evaluation = plan.evaluation
    table = Table(title=f"Plan: {evaluation.out}")
    table.add_column("step")
    table.add_column("estimated time", justify="right")
    for step in evaluation.steps:
        when = "done" if evaluation.is_done(step) else duration(plan.seconds[step.name])
        table.add_row(step.name, when)
    table.add_row("all", duration(sum(plan.seconds.values())))
    console.print(table)
    for label, error in plan.failing.items():
        console.print(f"{label} cannot be evaluated: {error}", style="yellow", highlight=False)
    for note in plan.checked.notes:
        console.print(note, style="yellow", highlight=False)


def say_step(plan: Plan, number: int, step: Step) -> None:
    """Which step begins, and about how long the rest takes; the whole plan before the first."""
    console, steps = Console(stderr=True), plan.evaluation.steps
    if step.name == next(iter(plan.seconds), None):
        print_plan(plan, console)
    left = sum(plan.seconds.get(later.name, 0.0) for later in steps[number:])
    console.print(f"[bold]{number + 1}/{len(steps)} {step.name}[/bold], about {duration(left)} left", highlight=False)


def duration(seconds: float) -> str:
    """As one would say it.

    >>> duration(12), duration(600), duration(9000)
    ('12 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
