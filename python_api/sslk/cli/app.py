"""Which commands there are, and how one is found, given its options, run, and its failure told."""

from __future__ import annotations

import inspect
import io
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from cyclopts import App, CycloptsError, Parameter

from sslk.cli.config_file import ConfigFileError, split_config
from sslk.cli.console import FLAT, whole_numbers

# Command -> function and its line of help; the functions are imported when they are asked for.
COMMANDS = {
    "demo": ("evaluate:demo", "Q-Score end to end on the embedded images and encoder, with a page of pictures"),
    "evaluate": ("evaluate:evaluate", "Several models with every protocol, one report"),
    "depth": ("depth:depth", "One network layer by layer: Q-Score, probes, CKA, reverse probing"),
    "similarity": ("similarity:similarity", "How alike representations are: CKA, CCA, Procrustes, k-NN, RSA"),
    "store extract": ("store:extract", "Write the features of a data set under a model into a store"),
    "store import": ("store:import_features", "Bring features that you have into a store"),
    "store info": ("store:info", "Say what a feature store holds"),
    "store verify": ("store:verify", "Check every shard of a feature store"),
    "store merge": ("store:merge", "Merge feature stores of one model into one"),
    "store export": ("store:export", "Write a feature store as files that other tools read"),
    "qscore discover": ("qscore:discover", "Find the discriminative features of a store"),
    "qscore score": ("qscore:score", "Q-Score of every sample of a feature store"),
    "qscore failure": ("qscore:failure", "Q-Score as a predictor of failures, with intervals"),
    "qscore sides": ("qscore:sides", "One-sided against two-sided Q-Score for signed features"),
    "qscore before-after": ("qscore:before_after", "What further training changed, per sample"),
    "qscore compression": ("qscore:compression", "Probes on subsets of the features, as one batch"),
    "qscore signal": ("signal:signal", "What Q-Score tells beyond norm and confidence, over eps and D"),
    "qscore thresholds": ("qscore:thresholds", "Sweep eps and the percentiles of Q-Score"),
    "codes fit": ("codes:fit", "Fit sparse codes to the features of a store"),
    "codes encode": ("codes:encode", "Write the sparse codes of a store's rows into a store"),
    "codes compare": ("codes:compare", "One-sided sets, two-sided sets and sparse codes, on failures and compression"),
    "quality panel": ("quality:panel", "Label-free numbers of models, and which orders them as a probe does"),
    "probe linear": ("probe:linear", "Grid of linear classifiers on frozen features, in one pass"),
    "probe knn": ("probe:knn", "k nearest neighbours on frozen features"),
    "probe kfold": ("probe:kfold", "k-fold linear evaluation, all folds at once"),
    "probe head": ("probe:head", "A supervised encoder's own classifier"),
    "probe logreg": ("probe:logreg", "Logistic regression as DINOv2 and DINOv3 evaluate it, and with few shots"),
    "probe multilabel": ("probe:multilabel", "Several labels an image: mAP of linear classifiers on frozen features"),
    "probe transfer": ("probe:transfer", "Linear evaluation on a list of data sets"),
    "train finetune": ("train:finetune", "Train an encoder further, with and without the Q-Score penalty"),
    "train arms": ("train:arms", "Baseline, lasso and Q-Score with settings chosen alike, over several seeds"),
    "train gradients": ("train:gradients", "Sizes of the penalties' gradients beside the SSL loss's"),
    "train lambdas": ("train:lambdas", "Two-stage search for the regulariser's weights"),
    "masked build": ("masked:build", "Find the foreground of every image of a data set"),
    "masked preview": ("masked:preview", "Draw images with their masks"),
    "masked study": ("masked:study", "Compare representations of images with parts removed"),
    "interpret heatmaps": ("interpret:heatmaps", "Draw what discriminative features look at"),
    "interpret miou": ("interpret:miou", "Agreement of heatmaps with core and spurious masks"),
    "interpret atlas": ("interpret:atlas", "Write a browsable page about the features"),
    "interpret gallery": ("interpret:gallery", "Draw galleries of heatmaps"),
    "concepts build": ("concepts:build", "Ask experts which concepts every image shows"),
    "concepts classify": ("concepts:classify", "Concepts from stored features"),
    "concepts import": ("concepts:import_manifest", "Make a concept table of the labels in a manifest"),
    "concepts info": ("concepts:info", "Say what a concept table holds"),
    "concepts merge": ("concepts:merge", "Put concept tables side by side"),
    "reverse study": ("reverse:study", "Reverse-probe encoders, by one of ten experiments"),
    "report page": ("report:page", "Put finished runs on one page"),
    "report watch": ("report:watch", "Serve the page, and reload it as runs finish"),
    "report compare": ("report:compare", "A run's table beside a paper's"),
}

GROUPS = {
    "store": "Feature stores",
    "qscore": "Q-Score: discriminative features, scores, failures",
    "codes": "Sparse codes of features",
    "quality": "Label-free numbers of a representation",
    "probe": "Probes on frozen features",
    "train": "Further training with the Q-Score regulariser",
    "masked": "Images with parts removed",
    "interpret": "What features look at",
    "concepts": "Tables of concepts that images show",
    "reverse": "Quantized reverse probing",
    "report": "Pages from runs",
}

_EPILOGUE = """\
`sslk COMMAND --help` explains a command's options. Every command takes --config FILE, which reads them from YAML,
--print-config, which writes such a file, and --verbose, which adds log messages and tracebacks.
Exit status: 0 done, 1 failed, 2 wrong usage."""


def make_app(words: Iterable[str] = ()) -> App:
    """The command line; the command named by the first two words shows its whole help, the others their line."""
    common: dict[str, Any] = {
        "version_flags": ["--version", "-V"],
        "version": lambda: metadata.version("ssl-kernels"),
        "help_format": "plaintext",
        "default_parameter": Parameter(consume_multiple=True, negative_iterable=()),
    }
    app = App(name="sslk", help="Measure and improve self-supervised representations.", help_epilogue=_EPILOGUE, **common)
    groups = {name: App(name=name, help=text, **common) for name, text in GROUPS.items()}
    for branch in groups.values():
        app.command(branch)
    named = " ".join(words)
    for name, (target, text) in COMMANDS.items():
        group, _, verb = name.rpartition(" ")
        parent = groups[group] if group else app
        asked = named == name or (not group and named.partition(" ")[0] == name)
        parent.command(f"sslk.cli.{target}", name=verb, **({} if asked else {"help": text}))
    app.register_install_completion_command()
    return app


def run(argv: list[str] | None = None) -> int:
    """Run one command; returns 0, 1 when it failed, 2 for wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the name of a file may be no UTF-8
    try:
        status = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()  # here, where a reader that is gone is no error yet
    except BrokenPipeError:  # the reader of the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _run(words: list[str]) -> int:
    verbose, printing = "--verbose" in words, "--print-config" in words
    words = with_group([word for word in words if word not in ("--verbose", "--print-config")])
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0] if words[:1] and words[0] in COMMANDS else ""
    said = f"sslk {name}".strip()
    app = make_app(words[:2])
    try:
        words, config = split_config(words)
        app.config = (whole_numbers,) if config is None else (config, whole_numbers)
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
        if printing:
            print(_settings(command, bound), end="")
            return 0
        _require_devices(bound)
        with _plain_warnings(said, verbose), _loading_lines(said, silent=verbose or "--quiet" in words):
            command(*bound.args, **bound.kwargs)
        if name and {"--help", "-h"} & set(words):
            print("\nExamples:", *(f"  $ {line}" for line in examples(find(app, name))), sep="\n")
    except (CycloptsError, ConfigFileError) as error:
        text = re.sub(r"\s+", " ", str(error)).strip()
        print(f"{said}: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{said}: interrupted; the same command goes on from here where the command can.", file=sys.stderr)
        return 1
    except BrokenPipeError:  # an OSError, but not a failure: run's
        raise
    except ImportError as error:
        extra = "; `pip install 'ssl-kernels[protocols]'` brings what the protocols need" if _foreign(error) else ""
        print(f"{said}: {error}{extra}", file=sys.stderr)
        return _failed(verbose)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
        print(f"{said}: {error}", file=sys.stderr)
        return _failed(verbose)
    return 0


def _require_devices(bound: inspect.BoundArguments) -> None:
    """Refuse a device that is not there before any work."""
    named = {value if name == "device" else getattr(value, "device", None) for name, value in bound.arguments.items()}
    if others := {device for device in named if isinstance(device, str) and device != "cpu"}:
        from sslk.distributed import require_device

        for device in others:
            require_device(device)


@contextmanager
def _plain_warnings(said: str, verbose: bool) -> Iterator[None]:
    """Warnings as one sentence, without the line of source that gave them."""
    usual = warnings.formatwarning
    if not verbose:
        warnings.formatwarning = lambda message, *_: f"{said}: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = usual


@contextmanager
def _loading_lines(said: str, silent: bool) -> Iterator[None]:
    """What was loaded, one line a model, on standard error, from one process; a model that is loaded again says nothing."""
    logger, handler, lines = logging.getLogger("sslk.models"), logging.StreamHandler(), set[str]()

    def is_new(record: logging.LogRecord) -> bool:
        before = len(lines)
        lines.add(record.getMessage())
        return len(lines) > before

    handler.addFilter(is_new)
    handler.setFormatter(logging.Formatter(f"{said}: %(message)s"))
    level = logger.level
    if not silent and os.environ.get("RANK", "0") == "0":
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def with_group(words: list[str]) -> list[str]:
    """The words with a group in front of a verb that only one group has; `qscore STORE` scores.

    >>> with_group(["extract", "--out", "x"]), with_group(["qscore", "runs/x"]), with_group(["info", "runs/x"])
    (['store', 'extract', '--out', 'x'], ['qscore', 'score', 'runs/x'], ['info', 'runs/x'])
    """
    if not words or words[0] in COMMANDS:
        return words
    if words[0] == "qscore" and words[1:] and not words[1].startswith("-") and f"qscore {words[1]}" not in COMMANDS:
        return ["qscore", "score", *words[1:]]
    groups = [name.split()[0] for name in COMMANDS if name.split()[1:] == words[:1] and words[0] not in GROUPS]
    return [groups[0], *words] if len(groups) == 1 else words


def find(app: App, name: str) -> App:
    """The command of that name."""
    for word in name.split():
        app = app[word]
    return app


def examples(command: App) -> list[str]:
    """The examples of a command's docstring."""
    lines = (inspect.getdoc(command.default_command) or "").splitlines()
    return [line.strip().removeprefix("$ ") for line in lines if line.strip().startswith("$ ")]


def _settings(command: Any, bound: inspect.BoundArguments) -> str:
    """Every option and its value as YAML that --config reads."""
    from dataclasses import asdict, fields, is_dataclass
    from typing import get_type_hints

    import yaml

    bound.apply_defaults()
    hints = get_type_hints(command, include_extras=True)
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        plain = value
        if is_dataclass(value) and not isinstance(value, type):
            usual = {field.name: field.default for field in fields(value)}
            plain = {key: part for key, part in asdict(value).items() if part is not None or usual[key] is not None}
        flat = FLAT in getattr(hints.get(name), "__metadata__", ())
        found |= plain if flat else {} if plain is None else {name: plain}
    return yaml.safe_dump(_listed(found), sort_keys=False, allow_unicode=True)


def _listed(value: Any) -> Any:
    """Tuples as lists."""
    if isinstance(value, dict):
        return {key: _listed(part) for key, part in value.items()}
    return [_listed(part) for part in value] if isinstance(value, list | tuple) else value


def _foreign(error: ImportError) -> bool:
    return isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith(("sslk", "ssl_kernels"))


def _failed(verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    return 1
