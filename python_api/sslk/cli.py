"""The `sslk` command. Every sub-command is a typed Python function; its options and help come from its signature.

The functions are imported only when they run; help and completion read their source (`sslk.command_source`).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import io
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, NamedTuple, NoReturn

from sslk.command_source import help_text, read_command


class Command(NamedTuple):
    """Where a command's function is, its line of help, and which parameters may be given without their name."""

    target: str  # module:function
    help: str
    positional: tuple[str, ...] = ()  # the last one takes all the words that are left if its type is a list


COMMANDS = {
    "demo": Command(
        "sslk.commands.demo:demo", "Q-Score end to end on the embedded images and encoder, with a page of pictures"
    ),
    "extract": Command("sslk.commands.store:extract", "Write the features of a data set under a model into a store"),
    "store info": Command("sslk.commands.store:info", "Say what a feature store holds", ("store",)),
    "store verify": Command("sslk.commands.store:verify", "Check every shard of a feature store", ("store",)),
    "store merge": Command("sslk.commands.store:merge", "Merge feature stores of one model into one", ("stores",)),
    "store export": Command("sslk.commands.store:export", "Write a feature store as NumPy files", ("store",)),
    "discover": Command(
        "sslk.commands.qscore:discover_features", "Find the discriminative features of a store", ("store",)
    ),
    "finetune": Command("sslk.commands.finetune:run", "Train an encoder further, with and without the Q-Score penalty"),
    "qscore": Command("sslk.commands.qscore:score", "Q-Score of every sample of a feature store", ("store",)),
    "evaluate": Command("sslk.commands.evaluate:evaluate", "Evaluate several models with every protocol, one report"),
    "report": Command("sslk.commands.report:report", "Put finished runs on one page, or serve it meanwhile", ("runs",)),
    "completion": Command("sslk.commands.completion:completion", "Print a shell's completion script", ("shell",)),
    "probe linear": Command("sslk.commands.probe:linear", "Grid of linear classifiers on frozen features, in one pass"),
    "probe knn": Command("sslk.commands.probe:knn", "k nearest neighbours on frozen features"),
    "probe kfold": Command("sslk.commands.probe:kfold", "k-fold linear evaluation, all folds at once", ("store",)),
    "probe head": Command("sslk.commands.probe:head", "A supervised encoder's own classifier", ("store",)),
    "failure": Command(
        "sslk.commands.failure:failure", "Q-Score as a predictor of failures, with intervals", ("test",)
    ),
    "sides": Command(
        "sslk.commands.failure:sides", "One-sided against two-sided Q-Score for signed features", ("test",)
    ),
    "before-after": Command(
        "sslk.commands.before_after:before_after_study", "What further training changed, per sample"
    ),
    "compression": Command("sslk.commands.studies:compression", "Probes on subsets of the features, as one batch"),
    "transfer": Command("sslk.commands.transfer:transfer", "Linear evaluation on a list of data sets", ("data",)),
    "ablation thresholds": Command("sslk.commands.studies:thresholds", "Sweep eps and the percentiles of Q-Score"),
    "ablation lambdas": Command("sslk.commands.lambdas:lambdas", "Two-stage search for the regulariser's weights"),
    "compare": Command("sslk.commands.transfer:compare_run", "A run's table beside a paper's", ("run",)),
    "masks build": Command("sslk.commands.masked:build", "Find the foreground of every image of a data set"),
    "masks preview": Command("sslk.commands.masked:preview", "Draw images with their masks", ("masks",)),
    "masked": Command("sslk.commands.masked:masked", "Compare representations of images with parts removed"),
    "interpret heatmaps": Command("sslk.commands.interpret:heatmaps", "Draw what discriminative features look at"),
    "interpret miou": Command("sslk.commands.interpret:miou", "Agreement of heatmaps with core and spurious masks"),
    "interpret atlas": Command(
        "sslk.commands.galleries:atlas", "Write a browsable page about the features", ("store",)
    ),
    "interpret gallery": Command("sslk.commands.galleries:gallery", "Draw galleries of heatmaps"),
    "concepts build": Command("sslk.commands.concepts:build", "Ask experts which concepts every image shows"),
    "concepts classify": Command("sslk.commands.concepts:classify", "Concepts from stored features", ("store",)),
    "concepts info": Command("sslk.commands.concepts:info", "Say what a concept table holds", ("table",)),
    "concepts merge": Command("sslk.commands.concepts:merge", "Put concept tables side by side", ("tables",)),
    "reverse-probe run": Command("sslk.commands.reverse:run", "Rank encoders by reverse probing", ("stores",)),
    "reverse-probe breakdown": Command("sslk.commands.reverse:breakdown", "Add concepts group by group", ("stores",)),
    "reverse-probe gain": Command("sslk.commands.reverse:gain", "Gain of each group over the labels", ("stores",)),
    "reverse-probe vary-k": Command("sslk.commands.reverse:vary_k", "Several numbers of clusters", ("stores",)),
    "reverse-probe transfer": Command("sslk.commands.reverse:transfer", "Fit on another data set", ("stores",)),
    "reverse-probe shifted": Command("sslk.commands.reverse_single:shifted", "Test a probe on shifted images"),
    "reverse-probe self-labels": Command("sslk.commands.reverse_single:self_labels", "Probe a given assignment"),
    "reverse-probe labels": Command("sslk.commands.reverse_single:labels", "Tell classes from concepts"),
    "reverse-probe pairs": Command("sslk.commands.reverse_single:pairs", "Cluster pairs that a group tells apart"),
    "reverse-probe toy": Command("sslk.commands.reverse_single:toy", "Forward against reverse probing in the plane"),
}


def _usage(group: str = "") -> str:
    named = {name: command for name, command in COMMANDS.items() if not group or name.split()[0] == group}
    width = max(map(len, named))
    return "\n".join(
        [
            f"usage: sslk {group + ' ' if group else ''}[--version] [--help] COMMAND [options]",
            "",
            "commands:",
            *(f"  {name:<{width}}  {command.help}" for name, command in named.items()),
            "",
            "`sslk COMMAND --help` explains a command's options; --config FILE reads them from YAML,",
            "--print_config writes such a file; --verbose adds log messages and tracebacks.",
            "Exit status: 0 done, 1 failed, 2 wrong usage.",
        ]
    )


def main(argv: list[str] | None = None) -> int:
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


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"sslk {metadata.version('ssl-kernels')}")
        return 0
    name, rest = _command_name(arguments)
    if name not in COMMANDS:
        groups = {command.split()[0] for command in COMMANDS if " " in command}
        if name in groups and (not rest or rest[0] in ("-h", "--help")):
            print(_usage(name))
            return 0
        wanted = " ".join([name, *rest[:1]]) if name in groups else name
        near = difflib.get_close_matches(wanted, COMMANDS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else f"; known are {', '.join(COMMANDS)}."
        print(f"sslk: unknown command {wanted!r}{hint}", file=sys.stderr)
        return 2
    verbose = "--verbose" in rest
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    module, _, function = COMMANDS[name].target.partition(":")
    try:
        if "--help" in rest or "-h" in rest:
            print(help_text(name, read_command(COMMANDS[name].target), COMMANDS[name].positional), flush=True)
            return 0
        target = getattr(importlib.import_module(module), function)
        target(**_parse(name, target, [word for word in rest if word != "--verbose"]))
    except SystemExit as stop:  # the parser's own: 0 after --help, 2 after a usage error it has printed
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print(f"sslk {name}: interrupted; the same command goes on from here where the command can.", file=sys.stderr)
        return 1
    except BrokenPipeError:  # an OSError, but not a failure: main's
        raise
    except ImportError as error:
        extra = "; `pip install 'ssl-kernels[protocols]'` brings what the protocols need" if _foreign(error) else ""
        print(f"sslk {name}: {error}{extra}", file=sys.stderr)
        return _failed(verbose)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
        print(f"sslk {name}: {error}", file=sys.stderr)
        return _failed(verbose)
    return 0


def _foreign(error: ImportError) -> bool:
    return isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith(("sslk", "ssl_kernels"))


def _failed(verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    return 1


def _command_name(arguments: list[str]) -> tuple[str, list[str]]:
    """The command, of two words or of one, and the arguments behind it."""
    if " ".join(arguments[:2]) in COMMANDS:
        return " ".join(arguments[:2]), arguments[2:]
    return arguments[0], arguments[1:]


def _parse(name: str, target: Callable[..., Any], arguments: list[str]) -> dict[str, Any]:
    from jsonargparse import ActionConfigFile, ArgumentParser

    from sslk.config_file import ConfigFileError, option_lines

    lines: dict[str, tuple[str, int]] = {}  # where in which --config file an option stands

    class _Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            key = re.search(r'key "([\w.]+)"', message)
            if key and key[1] in lines:
                file, line = lines[key[1]]
                message = f"{file}, line {line}: {message}"
            super().error(message, ex)

    parser = _Parser(prog=f"sslk {name}")
    parser.add_argument("--config", action=ActionConfigFile, help="Read options from a YAML file.")
    parser.add_function_arguments(target, as_group=False, as_positional=False)
    parameters = inspect.signature(target).parameters
    named = _with_names(name, parameters, arguments)
    known = {"config", "print_config", "help", *parameters}
    for argument in named:
        option = argument.removeprefix("--").partition("=")[0].partition(".")[0].rstrip("+").replace("-", "_")
        if argument.startswith("--") and option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            parser.error(f"unknown option --{option}" + (f", did you mean --{near[0]}?" if near else "."))
        if option == "config" and "=" in argument:
            file = argument.partition("=")[2]
            try:
                lines |= {key: (file, line) for key, line in option_lines(file, known - {"config", "help"}).items()}
            except ConfigFileError as error:
                parser.error(str(error))
    settings = parser.parse_args(named)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # the name before 4.49
    return {key: value for key, value in vars(instantiate(settings)).items() if key in parameters}


def _with_names(name: str, parameters: Mapping[str, inspect.Parameter], arguments: list[str]) -> list[str]:
    """Every argument as `--option=value`: names of positional ones written out, several words behind a list option (or
    a positional one) as one list, a bare flag as true, `-` in option names as `_`."""
    lists = {key for key, parameter in parameters.items() if str(parameter.annotation).lower().startswith("list[")}
    flags = {key for key, parameter in parameters.items() if str(parameter.annotation) in ("bool", "bool | None")}
    waiting = list(COMMANDS[name].positional)
    named: list[str] = []
    index = 0
    while index < len(arguments):
        word, index = arguments[index], index + 1
        if word.startswith("--"):
            option, equals, value = word.removeprefix("--").partition("=")
            key = option.replace("-", "_")
            values = [value] if equals else []
        elif waiting and not (word.startswith("-") and len(word) == 2 and word[1].isalpha()):
            key, values = waiting.pop(0), [word]
        else:
            named.append(word)
            continue
        while index < len(arguments) and not arguments[index].startswith("--"):
            if values and key not in lists:
                break
            values.append(arguments[index])
            index += 1
        if key in lists and values and not values[0].startswith("["):
            named.append(f"--{key}={json.dumps(values)}")
        elif values:
            named.append(f"--{key}={values[0]}")
        else:
            named.append(f"--{key}=true" if key in flags else f"--{key}")
    return named


if __name__ == "__main__":
    sys.exit(main())
