"""The whole study of several encoders on CIFAR-10 with all three systems, and the page about the papers' claims.

    python examples/reproduce/study.py --data DIR --out RUN [--encoders DIR] [--page docs/results]

`--data` holds cifar10_train.npz and cifar10_test.npz (`images` uint8 [N, 32, 32, 3], `labels` [N]). `--encoders` is the
folder that `examples/pretrain.py` filled; without it the study is of the embedded SimCLR encoder and the two controls.
Killed or failed at any step, the same command goes on with what is missing. The page is rewritten at every end.
"""

import argparse
import contextlib
import json
import sys
import time
from dataclasses import fields
from pathlib import Path

if __name__ == "__main__":  # the parts of the study import each other by their full names
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.reproduce.encoders import StudyEncoder, controls, find_encoders
from examples.reproduce.page import write_page
from examples.reproduce.results import STUDY, describe
from examples.reproduce.steps import StudyConfig, make_steps
from sslk.evaluation.plan import Step
from sslk.evaluation.run import Evaluation


def main(argv: list[str] | None = None) -> int:
    """Carry out the study; 0 when every step is done."""
    args = _parser().parse_args(argv)
    data = [args.data / f"cifar10_{split}.npz" for split in ("train", "test")]
    for path in data:
        if not path.is_file():
            print(f"study: --data needs {path.name}, and {args.data} has none.", file=sys.stderr)
            return 2
    config = StudyConfig(**{item.name: getattr(args, item.name) for item in fields(StudyConfig)})
    try:
        encoders = find_encoders(args.encoders) + controls(args.out / "controls")
        evaluation = Evaluation(args.out, make_steps(encoders, data, args.out, config), {"seed": config.seed})
    except ValueError as error:
        print(f"study: {error}", file=sys.stderr)
        return 2
    if args.steps:
        _show(evaluation)
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / STUDY).write_text(json.dumps(describe(encoders, config), indent=1))
    return _carry_out(evaluation, encoders, args)


def _carry_out(evaluation: Evaluation, encoders: list[StudyEncoder], args: argparse.Namespace) -> int:
    started = time.monotonic()

    def announce(number: int, step: Step) -> None:
        seconds = time.monotonic() - started
        print(f"[{number + 1}/{len(evaluation.steps)}, {seconds:.0f} s] {step.name}", file=terminal, flush=True)

    terminal = sys.stdout
    with open(args.out / "log.txt", "a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        states = evaluation.run(announce)
    left = {name: state for name, state in states.items() if state != "done"}
    for name in left:
        print(f"{name}: {left[name]}: {evaluation.outcomes[name].error}", file=sys.stderr)
    pages = write_page(args.out, args.page or args.out / "page", args.compare)
    print(f"{pages} · {len(states) - len(left)} of {len(states)} steps done", flush=True)
    return 1 if left else 0


def _show(evaluation: Evaluation) -> None:
    for step in evaluation.steps:
        outcome = evaluation.outcomes.get(step.name)
        took = f"{outcome.seconds:8.1f} s" if outcome and outcome.seconds is not None else " " * 10
        print(f"{'done' if evaluation.is_done(step) else 'open'} {took}  {step.name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of cifar10_train.npz and cifar10_test.npz")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--encoders", type=Path, help="folder of METHOD/model.safetensors")
    parser.add_argument("--page", type=Path, help="folder for reproduction.md and its figures; OUT/page by default")
    parser.add_argument("--compare", type=Path, help="another study, of another seed: the page says where they agree")
    parser.add_argument("--steps", action="store_true", help="show the steps, what is done and what it took, and stop")
    defaults = StudyConfig()
    for item in fields(StudyConfig):
        value = getattr(defaults, item.name)
        name = f"--{item.name.replace('_', '-')}"
        if isinstance(value, bool):
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=value)
        elif isinstance(value, list):
            parser.add_argument(name, nargs="*", type=type(value[0]), default=value)
        else:
            parser.add_argument(name, type=type(value), default=value)
    return parser


if __name__ == "__main__":
    sys.exit(main())
