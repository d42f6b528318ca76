"""Carrying out a plan: finished steps are remembered, a failed step stops only what needs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from sslk.evaluation.plan import Step
from sslk.evaluation.processes import Ended, begin, ended, runner
from sslk.features.manifest import short
from sslk.files.text import from_fields, read_json
from sslk.progress import Progress
from sslk.results.atomic import write_atomically

STATE = "evaluation.json"
_FORMAT = "sslk-evaluation-1"
State = Literal["waiting", "done", "failed", "left out"]
# Other values of these give the same results: a step done with them stays done.
_SPEED = {"workers", "batch_size", "device"}


@dataclass
class Outcome:
    """How a step ended: its arguments then, seconds it took, the error if it failed, and its place among all that ended well."""

    state: State
    arguments: dict[str, Any]
    seconds: float | None = None
    error: str | None = None
    place: int = 0


@dataclass(frozen=True)
class _Begun:
    """What `evaluation.json` holds."""

    about: dict[str, Any]
    steps: dict[str, Outcome]


class Evaluation:
    """The steps of an evaluation and what became of them, kept in `evaluation.json` in its folder.

    Args:
        out: folder of the evaluation.
        steps: the plan.
        about: what the evaluation is of (data, splits); a folder that was begun with another is refused.

    Raises:
        ValueError: the folder holds an evaluation of something else, or its state is damaged.
    """

    def __init__(self, out: Path, steps: Sequence[Step], about: dict[str, Any]) -> None:
        self.out, self.steps, self.about = out, list(steps), about
        self.outcomes: dict[str, Outcome] = {}
        path = out / STATE
        if path.exists():
            begun = _read_state(path)
            if different := [key for key in about if begun.about.get(key) != about[key]]:
                parts = ", ".join(f"{key} {short(begun.about.get(key))}, not {about[key]!r}" for key in different)
                raise ValueError(f"{out} holds an evaluation with {parts}: give another --out.")
            self.outcomes = begun.steps

    def is_done(self, step: Step) -> bool:
        """Whether the step ended well with these arguments, after all that it needs, and its output is still there."""
        outcome = self.outcomes.get(step.name)
        if outcome is None or outcome.state != "done" or not step.output.exists():
            return False
        if any(self.outcomes[name].place > outcome.place for name in step.needs if name in self.outcomes):
            return False  # what it needs was made anew since, in this call or in one that was interrupted
        return _chosen(step, outcome.arguments) == _chosen(step, recorded(step))

    def run(
        self, on_step: Callable[[int, Step], None] | None = None, progress: Progress | None = None, workers: int = 1
    ) -> dict[str, State]:
        """Carry out what is not done yet, in order. An interruption leaves a state from which the next call goes on.

        Args:
            on_step: called with the number of a step, from 0, and the step, before it starts.
            progress: passed to the steps, their names in front of the stages; in one process only.
            workers: processes, of which each carries out one step at a time, with its share of the processors. A step
                begins when those that it needs have ended.

        Returns:
            The state of every step of the plan.

        Raises:
            ValueError: workers is below 1, or steps wait for each other.
        """
        left = dict(enumerate(self.steps))
        running: dict[Future[Ended], Step] = {}
        with runner(workers) as pool:
            while left or running:
                before = len(left)
                for number, step in list(left.items()):
                    open_ = {other.name for other in (*left.values(), *running.values())}
                    if len(running) == workers or not open_.isdisjoint(step.needs):
                        continue
                    del left[number]
                    if self._begins(step):
                        if on_step:
                            on_step(number, step)
                        running[begin(pool, step, _named(progress, step.name) if workers == 1 else None)] = step
                        if workers == 1:
                            break  # it has ended: remembered before the next begins
                if len(left) == before and not running:
                    raise ValueError(
                        f"steps must not wait for each other, as {', '.join(step.name for step in left.values())} do."
                    )
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    step, found = running.pop(future), ended(future)
                    if found.error is not None:
                        self._write_log(step, found.traceback)
                        self._remember(step, Outcome("failed", recorded(step), error=found.error))
                    else:
                        place = 1 + max((outcome.place for outcome in self.outcomes.values()), default=0)
                        self._remember(step, Outcome("done", recorded(step), found.seconds, place=place))
        return {step.name: self.outcomes[step.name].state for step in self.steps}

    def _begins(self, step: Step) -> bool:
        """Whether a step is to be carried out: not if it is done, nor if one that it needs is not."""
        broken = [name for name in step.needs if self.outcomes[name].state != "done"]
        if broken:
            self._remember(step, Outcome("left out", recorded(step), error=f"needs {', '.join(broken)}"))
        return not broken and not self.is_done(step)

    def log_of(self, step: Step) -> Path:
        """Where the traceback of a failed step is."""
        return self.out / "logs" / f"{step.name.replace('/', '-').replace(' ', '-')}.txt"

    def _write_log(self, step: Step, text: str) -> None:
        log = self.log_of(step)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(text, encoding="utf-8")

    def _remember(self, step: Step, outcome: Outcome) -> None:
        self.outcomes[step.name] = outcome
        content = {
            "format": _FORMAT,
            "about": self.about,
            "steps": {name: asdict(outcome) for name, outcome in self.outcomes.items()},
        }
        self.out.mkdir(parents=True, exist_ok=True)
        write_atomically(self.out / STATE, json.dumps(content, indent=1).encode())


def _read_state(path: Path) -> _Begun:
    try:
        content = read_json(path, "the state")
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
            raise ValueError(f"it is not of the format {_FORMAT}.")
        return from_fields(_Begun, content, "the state")
    except ValueError as error:
        raise ValueError(f"{path} is damaged, {str(error).rstrip('.')}; move it away to begin anew.") from None


def recorded(step: Step) -> dict[str, Any]:
    """The arguments that decide what a step computes, as plain data."""
    plain = {name: asdict(value) if is_dataclass(value) else value for name, value in step.arguments.items()}  # type: ignore[arg-type]
    kept = {
        name: {key: part for key, part in value.items() if key not in _SPEED} if isinstance(value, dict) else value
        for name, value in plain.items()
        if name not in _SPEED
    }
    return dict(json.loads(json.dumps(kept)))


def _chosen(step: Step, arguments: dict[str, Any]) -> dict[str, Any]:
    """Recorded arguments without settings at their default: one that came later leaves what was done before done."""
    usual = {
        name: {field.name: field.default for field in fields(value)}
        for name, value in step.arguments.items()
        if is_dataclass(value)
    }
    return {
        name: {key: part for key, part in value.items() if key not in usual[name] or part != usual[name][key]}
        if name in usual and isinstance(value, dict)
        else value
        for name, value in arguments.items()
    }


def _named(progress: Progress | None, name: str) -> Progress | None:
    return None if progress is None else lambda done, total, stage: progress(done, total, f"{name}: {stage}")
