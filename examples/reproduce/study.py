"""The whole study of several encoders with all three systems, and the pages about the papers' claims.

    python examples/reproduce/study.py --data DIR --out RUN [--extra-data DIR] [--encoders DIR] [--page docs/results]
    python examples/reproduce/study.py --results docs/results/reproduction/results.zip --page docs/results

`--data` holds cifar10_train.npz and cifar10_test.npz (`images` uint8 [N, 32, 32, 3], `labels` [N]), `--extra-data` may hold
tiny_imagenet_val.zip and camvid_val.zip. The study is of the encoders that come with the package, of the embedded one and of
controls; `--encoders` names a folder that `examples/pretrain.py` filled instead. Killed or failed at any step, the same command
goes on with what is missing. The pages are written at every end, or alone, from results that are there (`--results`).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __name__ == "__main__":  # the parts of the study import each other by their full names
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from cyclopts import App, CycloptsError, Parameter

from examples.reproduce.archive import study_folder
from examples.reproduce.config import StudyConfig
from examples.reproduce.elsewhere import present
from examples.reproduce.encoders import StudyEncoder, controls, find_encoders
from examples.reproduce.page import write_page
from examples.reproduce.results import STUDY, describe
from examples.reproduce.signal_page import write_signal_page
from examples.reproduce.steps import make_steps
from sslk.evaluation.plan import Step
from sslk.evaluation.run import Evaluation

FLAT = Parameter(name="*")
DEFAULTS = StudyConfig()


@dataclass(frozen=True)
class Places:
    """Where things are.

    Attributes:
        data: folder of cifar10_train.npz and cifar10_test.npz.
        out: folder of the study.
        extra_data: folder of the zips of other data sets.
        encoders: folder of METHOD/model.safetensors, in place of the packaged encoders.
        page: folder for the pages and their figures; OUT/page by default.
        compare: another study, of another seed, or its results.zip: the page says where they agree.
        results: a study's folder, or the results.zip of a page: the pages alone are written from it.
    """

    data: Path | None = None
    out: Path | None = None
    extra_data: Path | None = None
    encoders: Path | None = None
    page: Path | None = None
    compare: Path | None = None
    results: Path | None = None

    @property
    def splits(self) -> list[Path]:
        """The two .npz.

        Raises:
            ValueError: data or out was not given, or a file is missing.
        """
        if self.data is None or self.out is None:
            raise ValueError("--data and --out are needed, or --results and --page.")
        found = [self.data / f"cifar10_{split}.npz" for split in ("train", "test")]
        for path in found:
            if not path.is_file():
                raise ValueError(f"--data needs {path.name}, and {self.data} has none.")
        if self.extra_data is not None and not present(self.extra_data):
            raise ValueError(f"--extra-data needs a zip that docs/reproduce.md names, and {self.extra_data} has none.")
        return found


def study(
    places: Annotated[Places, FLAT] = Places(),
    config: Annotated[StudyConfig, FLAT] = DEFAULTS,
    only: tuple[str, ...] = (),
    workers: int = 2,
    steps: bool = False,
) -> int:
    """Carry out the study and write its pages; 0 when every step is done.

    Args:
        only: names of the encoders that are measured; all by default.
        workers: steps carried out at once, each in a process with its share of the processors and 1.5 GB of memory.
        steps: show the steps, what is done and what it took, and stop.
    """
    if places.results is not None:
        if places.page is None:
            raise ValueError("--page is needed where the pages are written from --results.")
        _write_pages(places.results, places.page, places.compare)
        return 0
    data = places.splits
    assert places.out is not None
    out = places.out
    encoders = find_encoders(places.encoders)
    encoders = _chosen(encoders + controls(out / "controls", encoders), only)
    plan = make_steps(encoders, data, present(places.extra_data), out, config)
    evaluation = Evaluation(out, plan, {"seed": config.seed})
    if steps:
        _show(evaluation)
        return 0
    out.mkdir(parents=True, exist_ok=True)
    (out / STUDY).write_text(json.dumps(describe(encoders, config), indent=1))
    states = _carried_out(evaluation, workers)
    left = {name: state for name, state in states.items() if state != "done"}
    for name in left:
        print(f"{name}: {left[name]}: {evaluation.outcomes[name].error}", file=sys.stderr)
    _write_pages(out, places.page or out / "page", places.compare)
    print(f"{len(states) - len(left)} of {len(states)} steps done", flush=True)
    return 1 if left else 0


def _chosen(encoders: list[StudyEncoder], only: tuple[str, ...]) -> list[StudyEncoder]:
    names = [encoder.name for encoder in encoders]
    if unknown := [name for name in only if name not in names]:
        raise ValueError(f"only must name encoders of the study ({', '.join(names)}), got {unknown[0]!r}.")
    return [encoder for encoder in encoders if not only or encoder.name in only]


def _carried_out(evaluation: Evaluation, workers: int) -> dict[str, str]:
    started, terminal = time.monotonic(), sys.stdout

    def announce(number: int, step: Step) -> None:
        seconds = time.monotonic() - started
        print(f"[{number + 1}/{len(evaluation.steps)}, {seconds:.0f} s] {step.name}", file=terminal, flush=True)

    with open(evaluation.out / "log.txt", "a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        return dict(evaluation.run(announce, workers=workers))


def _write_pages(source: Path, page: Path, compare: Path | None) -> None:
    with study_folder(source) as folder, study_folder(compare or folder) as other:
        written = [write_page(folder, page, None if compare is None else other), write_signal_page(folder, page)]
    print(*(path for path in written if path is not None), sep=os.linesep, flush=True)


def _show(evaluation: Evaluation) -> None:
    for step in evaluation.steps:
        outcome = evaluation.outcomes.get(step.name)
        took = f"{outcome.seconds:8.1f} s" if outcome and outcome.seconds is not None else " " * 10
        print(f"{'done' if evaluation.is_done(step) else 'open'} {took}  {step.name}")


def main(argv: list[str] | None = None) -> int:
    """The command: 0 done, 1 a step is not, 2 wrong usage."""
    parameter = Parameter(consume_multiple=True, negative_iterable=())
    app = App(name="study.py", help=__doc__, help_format="plaintext", version_flags=(), default_parameter=parameter)
    app.default(study)
    try:
        command, bound, _ = app.parse_args(sys.argv[1:] if argv is None else argv, exit_on_error=False, print_error=False)
        return int(command(*bound.args, **bound.kwargs) or 0)
    except (CycloptsError, ValueError) as error:
        print(f"study: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
