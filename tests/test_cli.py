"""The `sslk` command: every help text, every example in one, exit codes, near names, and the store commands end to end."""

import csv
import inspect
import json
import os
import shlex
import subprocess
import sys

import pytest
import yaml
from cyclopts import CycloptsError

from sslk.cli import main
from sslk.cli.app import COMMANDS, GROUPS, make_app
from sslk.data import load_dataset
from tests.documented import documented_commands
from tests.house import START_UPS


def function_of(name: str):
    """The function behind a command."""
    command = make_app(name.split())
    for word in name.split():
        command = command[word]
    return command.default_command


def parse(words: list[str]):
    """What the words are understood as: the function and its arguments."""
    command, bound, _ = make_app(words[:2]).parse_args(words, exit_on_error=False, print_error=False)
    return command, bound


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_text(name, capsys):
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: sslk {name}") and "--config" in text and "Examples:" in text
    whole = " ".join((inspect.getdoc(function_of(name)) or "").partition("\n\n")[0].split())
    assert whole in " ".join(text.split())


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["probe"], ["probe", "linear", "--help"], ["nothing"]])
def test_a_reader_that_is_gone_is_no_error(words):
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run([sys.executable, "-m", "sslk.cli", *words], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert "Error" not in run.stderr and run.returncode in ((2,) if words == ["nothing"] else (0, 1))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_understood(name):
    target = function_of(name)
    text = (inspect.getdoc(target) or "").splitlines()
    examples = [line.strip().removeprefix("$ ") for line in text if line.strip().startswith("$ ")]
    assert examples, f"sslk {name} has no example"
    for example in examples:
        words = shlex.split(example)
        start = next(i for i, word in enumerate(words) if word in ("sslk", "sslk.cli")) + 1
        command, _ = parse(words[start:])
        assert command is target or command.__name__ == target.__name__, example


def test_usage_lists_the_commands_at_once(capsys):
    assert main([]) == 0 and main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in [*GROUPS, *(name for name in COMMANDS if " " not in name)])
    for group in GROUPS:
        assert main([group]) == 0
        text = capsys.readouterr().out
        assert all(name.split()[1] in text for name in COMMANDS if name.startswith(f"{group} "))
    code = "import sys; from sslk.cli import main; main(['--help']); main(['--version']); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert result.stdout.splitlines()[-1] == "False", result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluat"], 'Did you mean "evaluate"'),
        (["store", "inf"], 'Did you mean "info"'),
        (["qscore", "discover", "s", "--out", "f", "--epss", "3"], "Unknown option: --epss. Did you mean --eps"),
        (["qscore", "discover", "s"], "--out"),
        (["qscore", "discover", "s", "--out", "f", "--lower", "low"], "--lower"),
        (["store", "info", "a", "b"], "b"),
        (["demo", "--config"], "needs the name of a file"),
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
        ("store: s\nout: f\nlower: many\n", "options.yaml"),
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
    assert main(["qscore", "discover", "--config", str(file)]) == 2
    assert message in capsys.readouterr().err


def test_verbose_adds_the_traceback(tmp_path, capsys):
    assert main(["store", "info", str(tmp_path), "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert main(["store", "info", str(tmp_path)]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_missing_extra_is_named():
    code = "import sys; sys.modules['jinja2'] = None; from sslk.cli import main; sys.exit(main(['report', 'page', '.']))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1 and "pip install 'ssl-kernels[protocols]'" in result.stderr


def test_commands_import_settings_alone():
    """Help never waits for torch, nor for any library of a protocol: a command imports its study when it is run."""
    code = (
        "import sys; from sslk.cli.app import COMMANDS; from sslk.cli import main; "
        "[main([*name.split(), '--help']) for name in COMMANDS]; "
        "heavy = {'torch', 'numpy', 'torchvision', 'torchmetrics', 'sklearn', 'scipy', 'matplotlib', 'lightly', 'timm'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


@pytest.mark.parametrize("words", START_UPS, ids=lambda words: " ".join(words[:2]))
def test_commands_on_a_finished_store_begin_with_torch_alone(words, tmp_path):
    """Libraries that take seconds to import are imported where they are used, behind the first look at the store."""
    code = (
        f"import sys; from sslk.cli import main; status = main({words!r}); "
        "heavy = {'torchvision', 'torchmetrics', 'sklearn', 'scipy', 'matplotlib', 'lightly', 'timm', 'pytorch_lightning'}; "
        "print(status, sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.splitlines()[-1] == "1 []", result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name):
    command = make_app(name.split())
    for word in name.split():
        command = command[word]
    silent = [
        a.names for a in command.assemble_argument_collection(parse_docstring=True) if a.show and a.names and not a.parameter.help
    ]
    assert not silent


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    script = make_app().generate_completion(shell=shell)
    assert "before-after" in script and "neighbors" in script


@pytest.mark.parametrize(("file", "line"), documented_commands())
def test_every_documented_command_is_understood(file, line):
    words = [word for word in shlex.split(line)[1:] if word not in ("--verbose", "--print-config")]
    if words[0].startswith("-") or "--config" in words or any(word.startswith("--config=") for word in words):
        return  # a file of the reader's
    try:
        parse(words)
    except CycloptsError as error:
        pytest.fail(f"{file}: {line}: {error}")


def test_options_from_yaml_and_back(tmp_path, capsys):
    file = tmp_path / "options.yaml"
    file.write_text(f"store: {tmp_path}\n")
    assert main(["store", "verify", "--config", str(file)]) == 1
    assert "is not a feature store" in capsys.readouterr().err
    words = ["train", "finetune", "--method", "byol", "--out", "runs/x", "--training.epochs", "3", "--options.hidden_dim", "64"]
    assert main([*words, "--print-config"]) == 0
    file.write_text(capsys.readouterr().out)
    assert main(["train", "finetune", "--config", str(file), "--print-config"]) == 0
    assert capsys.readouterr().out == file.read_text()
    assert "epochs: 3" in file.read_text() and "hidden_dim: 64" in file.read_text()
    words = ["probe", "linear", "--train", "a", "--test", "b", "--out", "c", "--learning-rates", "0.1", "0.3", "--print-config"]
    assert main(words) == 0
    assert "learning_rates:\n- 0.1\n- 0.3\n" in capsys.readouterr().out


def test_numbers_are_taken_as_they_are_written(tmp_path, capsys):
    """cyclopts by itself rounds 0.5 to 0 where a whole number may stand."""
    file = tmp_path / "options.yaml"
    words = ["train", "finetune", "--method", "simclr", "--out", "runs/x", "--print-config"]
    given = {"temperature": "0.5", "momentum": "0.996", "small": "1e-3", "hidden_dim": "64", "flag": "true", "kind": "plain"}
    assert main(words + [word for name, value in given.items() for word in (f"--options.{name}", value)]) == 0
    file.write_text(capsys.readouterr().out)
    want = {"temperature": 0.5, "momentum": 0.996, "small": 0.001, "hidden_dim": 64, "flag": True, "kind": "plain"}
    assert yaml.safe_load(file.read_text())["options"] == want
    assert main(["train", "finetune", "--config", str(file), "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["options"] == want
    file.write_text("epochs: 1.6\n")
    stores = ["--train", "a", "--test", "b", "--out", "c"]
    for more in (["--epochs", "1.6"], ["--config", str(file)]):
        assert main(["probe", "linear", *stores, *more]) == 2 and "1.6" in capsys.readouterr().err
    assert main(["probe", "knn", *stores, "--neighbors", "5", "2.5"]) == 2 and "2.5" in capsys.readouterr().err


def test_an_option_set_to_nothing_stays_so(tmp_path, capsys):
    file = tmp_path / "options.yaml"
    file.write_text("label_group: null\n")
    for _ in range(2):
        assert main(["reverse", "study", "--out", "x", "--config", str(file), "--print-config"]) == 0
        file.write_text(capsys.readouterr().out)
        assert yaml.safe_load(file.read_text())["label_group"] is None


def test_from_images_to_scores(tmp_path, capsys):
    store, found, scores = (str(tmp_path / name) for name in ("store", "set.safetensors", "scores.csv"))
    words = "store extract --model embedded --data sample --split test --shard-rows 300 --workers 0 --device cpu --quiet"
    assert main([*words.split(), "--out", store]) == 0
    assert main(["store", "verify", store]) == 0 and main(["store", "merge", store, "--out", store + "2"]) == 0
    assert main(["store", "export", store + "2", "--out", str(tmp_path / "npy")]) == 0
    assert (tmp_path / "npy" / "features.npy").exists()
    capsys.readouterr()
    assert main(["store", "info", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 1000
    assert main(["qscore", "discover", store, "--out", found, "--quiet"]) == 0
    assert main(["qscore", "score", store, "--discriminative", found, "--out", scores, "--json", "--quiet"]) == 0
    with open(scores) as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 1000 and rows[7]["index"] == "7" and float(rows[7]["qscore"]) >= 0
    command = ["qscore", "score", store, "--discriminative", found, "--out", scores, "--quiet", "--data", "sample"]
    assert main(command) == 0
    with open(scores) as stream:
        named = list(csv.DictReader(stream))
    assert [row.pop("image") for row in named] == [load_dataset("sample", "test").image_name(i) for i in range(1000)]
    assert named == rows
    assert main([*command, "--split", "train"]) == 1 and "sample/test, got sample/train" in capsys.readouterr().err
