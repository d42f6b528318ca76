"""The `sslk` command: every help text, every example in one, exit codes, near names, and the store commands end to end."""

import csv
import functools
import importlib
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sslk.cli import COMMANDS, _parse, main
from sslk.command_source import read_command
from sslk.data import load_dataset


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_text(name, capsys):
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: sslk {name}") and "--config" in text


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["probe"], ["probe", "linear", "--help"], ["nothing"]])
def test_a_reader_that_is_gone_is_no_error(words):
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run([sys.executable, "-m", "sslk.cli", *words], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert "Error" not in run.stderr and run.returncode in ((2,) if words == ["nothing"] else (0, 1))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_every_example_is_understood(name):
    module, _, function = COMMANDS[name].target.partition(":")
    target = getattr(importlib.import_module(module), function)
    examples = read_command(COMMANDS[name].target).examples
    assert examples, f"sslk {name} has no example"
    for example in examples:
        words = shlex.split(example)
        start = next(i for i, word in enumerate(words) if word in ("sslk", "sslk.cli")) + 1
        assert words[start : start + len(name.split())] == name.split(), example
        _parse(name, target, words[start + len(name.split()) :])


def test_usage_lists_the_commands_at_once(capsys):
    assert main([]) == 0 and main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    code = "import sys; from sslk.cli import main; main(['--help']); main(['--version']); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert result.stdout.splitlines()[-1] == "False", result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["discovr"], "did you mean 'discover'"),
        (["store", "inf"], "did you mean 'store info'"),
        (["discover", "s", "--out", "f", "--epss", "3"], "unknown option --epss, did you mean --eps"),
        (["discover", "s"], "required"),
        (["discover", "s", "--out", "f", "--lower", "low"], "lower"),
        (["store", "info", "a", "b"], "b"),
    ],
)
def test_wrong_usage_ends_with_2(words, message, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_a_failing_command_ends_with_1(tmp_path, capsys):
    assert main(["store", "info", str(tmp_path)]) == 1
    assert "is not a feature store" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("stor: x\n", "options.yaml, line 1: unknown option 'stor', did you mean 'store'?"),
        ("store: s\nout: f\nlower: many\n", "options.yaml, line 3: "),
        ("store: s\nout: [f\n", "options.yaml, line 3: "),
        ("store: s\nout: f\nstore: t\n", "options.yaml, line 3: option 'store' stands on line 1 already"),
        ("- store\n", "options.yaml, line 1: needs options as `name: value` lines"),
        (None, "options.yaml cannot be read: No such file"),
    ],
)
def test_mistakes_in_yaml_name_file_line_and_key(content, message, tmp_path, capsys):
    file = tmp_path / "options.yaml"
    if content is not None:
        file.write_text(content)
    assert main(["discover", "--config", str(file)]) == 2
    assert message in capsys.readouterr().err


def test_verbose_adds_the_traceback(tmp_path, capsys):
    assert main(["store", "info", str(tmp_path), "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert main(["store", "info", str(tmp_path)]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "sslk.report.page", raising=False)
    assert main(["report", "."]) == 1
    assert "pip install 'ssl-kernels[protocols]'" in capsys.readouterr().err


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from sslk.cli import COMMANDS, main; "
        "[main([*name.split(), '--help']) for name in COMMANDS]; print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert result.stdout.splitlines()[-1] == "False", result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option_that_is_parsed(name):
    """Help is read from the source, options from the imported function: they must say the same."""
    module, _, function = COMMANDS[name].target.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    options = read_command(COMMANDS[name].target).options
    assert list(dict.fromkeys(option.name.partition(".")[0] for option in options)) == list(parameters)
    assert not [option.name for option in options if not option.help]
    for option in options:
        empty = "." not in option.name and parameters[option.name].default is inspect.Parameter.empty
        assert empty == (option.default is None)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell, capsys, tmp_path):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    if shell == "zsh" or shutil.which("bash") is None:
        assert "bashcompinit" in script
        return
    (tmp_path / "completion").write_text(script)

    def complete(*words: str) -> list[str]:
        typed = " ".join(f"'{word}'" for word in words)
        code = f"source completion; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _sslk; echo ${{COMPREPLY[@]}}"
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=tmp_path).stdout.split()

    assert complete("sslk", "disc") == ["discover"] and "info" in complete("sslk", "store", "")
    assert complete("sslk", "discover", "--ep") == ["--eps"]
    assert complete("sslk", "store", "merge", "--o") == ["--out"]


def documented_commands() -> list[tuple[str, str]]:
    """Every `sslk ...` line of the README's and the docs' code blocks, continued lines joined."""
    root = Path(__file__).parents[1]
    found = []
    for file in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        for block in re.findall(r"^```(?:bash|sh|console)?\n(.*?)^```", file.read_text(), re.DOTALL | re.MULTILINE):
            for line in block.replace("\\\n", " ").splitlines():
                words = re.split(r" [#>|] ?", line.strip().removeprefix("$ "))[0]
                if words.startswith("sslk "):
                    found.append((file.relative_to(root).as_posix(), words.strip()))
    return found


@pytest.mark.parametrize(("file", "line"), documented_commands())
def test_every_documented_command_is_understood(file, line, monkeypatch):
    words = shlex.split(line)[1:]
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    if name.startswith("-"):
        return
    assert name in COMMANDS, f"{file}: {line}"
    module, _, function = COMMANDS[name].target.partition(":")
    target = getattr(importlib.import_module(module), function)
    if "--config" in words:  # a file of the reader's
        return
    stand_in = functools.wraps(target)(lambda **_: None)  # understood, not carried out
    monkeypatch.setattr(importlib.import_module(module), function, stand_in)
    assert main(words) == 0


def test_options_from_yaml(tmp_path, capsys):
    file = tmp_path / "options.yaml"
    file.write_text(f"store: {tmp_path}\n")
    assert main(["store", "verify", "--config", str(file)]) == 1
    file.write_text("stor: x\n")
    assert main(["store", "verify", "--config", str(file)]) == 2
    assert "stor" in capsys.readouterr().err


def test_from_images_to_scores(tmp_path, capsys):
    store, found, scores = (str(tmp_path / name) for name in ("store", "set.safetensors", "scores.csv"))
    assert main(["extract", "--model", "embedded", "--data", "sample", "--split", "test", "--out", store,
                 "--shard-rows", "300", "--workers", "0", "--device", "cpu", "--quiet"]) == 0  # fmt: skip
    assert main(["store", "verify", store]) == 0 and main(["store", "merge", store, "--out", store + "2"]) == 0
    assert main(["store", "export", store + "2", "--out", str(tmp_path / "npy")]) == 0
    assert (tmp_path / "npy" / "features.npy").exists()
    capsys.readouterr()
    assert main(["store", "info", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 1000
    assert main(["discover", store, "--out", found, "--quiet"]) == 0
    assert main(["qscore", store, "--discriminative", found, "--out", scores, "--json", "--quiet"]) == 0
    with open(scores) as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 1000 and rows[7]["index"] == "7" and float(rows[7]["qscore"]) >= 0
    command = ["qscore", store, "--discriminative", found, "--out", scores, "--quiet", "--data", "sample"]
    assert main(command) == 0
    with open(scores) as stream:
        named = list(csv.DictReader(stream))
    assert [row.pop("image") for row in named] == [load_dataset("sample", "test").image_name(i) for i in range(1000)]
    assert named == rows
    assert main([*command, "--split", "train"]) == 1 and "sample/test, got sample/train" in capsys.readouterr().err
