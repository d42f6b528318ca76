"""The `sslk` command: every help text, every example in one, exit codes, near names, and the store commands end to end."""

import csv
import importlib
import inspect
import json
import os
import shlex
import subprocess
import sys

import pytest

from sslk.cli import COMMANDS, _parse, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_text(name, capsys):
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: sslk {name}") and "--config" in text


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_every_example_is_understood(name):
    module, _, function = COMMANDS[name].target.partition(":")
    target = getattr(importlib.import_module(module), function)
    examples = [line.strip() for line in inspect.getdoc(target).splitlines() if line.strip().startswith("$ ")]
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
