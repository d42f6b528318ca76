"""sslk evaluate: the plan, what a failure stops and what not, going on after an interruption, the report at the end."""

import json
from dataclasses import dataclass

import pytest

from sslk.cli import COMMANDS, Command, main
from sslk.evaluation.plan import EvaluationConfig, Step, labelled_models, make_plan
from sslk.evaluation.run import STATE, Evaluation, call
from sslk.results.run import Run

CALLS: list[str] = []


def record(out: str, fail: bool = False, interrupt: bool = False, seed: int = 0) -> None:
    """A command that writes its output, fails, or is interrupted."""
    CALLS.append(out)
    if fail:
        raise ValueError("broken on purpose")
    if interrupt:
        raise KeyboardInterrupt
    with open(out, "w") as stream:
        stream.write("done")


@dataclass(frozen=True)
class Study:
    seed: int = 0
    k: int = 10


def nested(study: Study = Study()) -> Study:
    """A command with a dataclass parameter."""
    return study


@pytest.fixture
def step(tmp_path, monkeypatch):
    monkeypatch.setitem(COMMANDS, "record", Command("tests.evaluation.test_evaluate:record", ""))
    CALLS.clear()
    tmp_path.joinpath("out").mkdir()

    def make(name: str, *needs: str, **arguments) -> Step:
        output = tmp_path / "out" / name.replace("/", "-")
        return Step(name, "record", {"out": str(output), **arguments}, output, needs)

    return make


def test_a_failure_stops_only_what_needs_it(tmp_path, step):
    steps = [step("a/1", fail=True), step("a/2", "a/1"), step("a/3", "a/2"), step("b/1"), step("b/2", "b/1")]
    evaluation = Evaluation(tmp_path / "out", steps, {})
    assert evaluation.run() == {"a/1": "failed", "a/2": "left out", "a/3": "left out", "b/1": "done", "b/2": "done"}
    assert "broken on purpose" in evaluation.outcomes["a/1"].error
    assert "Traceback" in evaluation.log_of(steps[0]).read_text()
    assert len(CALLS) == 3


def test_a_second_run_does_what_is_missing_and_no_more(tmp_path, step):
    first, second = step("a/1"), step("a/2", "a/1")
    with pytest.raises(KeyboardInterrupt):
        Evaluation(tmp_path / "out", [first, step("a/2", "a/1", interrupt=True)], {}).run()
    assert Evaluation(tmp_path / "out", [first, second], {}).run() == {"a/1": "done", "a/2": "done"}
    assert [call.rpartition("-")[2] for call in CALLS] == ["1", "2", "2"]
    Evaluation(tmp_path / "out", [first, second], {}).run()
    assert len(CALLS) == 3
    second.output.unlink()  # an output that is gone is made again
    Evaluation(tmp_path / "out", [first, second], {}).run()
    assert len(CALLS) == 4
    changed = step("a/1", seed=1)  # another setting: this step and what needs it are done again
    Evaluation(tmp_path / "out", [changed, second], {}).run()
    assert len(CALLS) == 6


def test_another_evaluation_in_the_folder_is_refused(tmp_path, step):
    Evaluation(tmp_path / "out", [step("a")], {"data": "cifar10"}).run()
    with pytest.raises(ValueError, match="data 'cifar10', not 'stl10': give another --out"):
        Evaluation(tmp_path / "out", [step("a")], {"data": "stl10"})
    (tmp_path / "out" / STATE).write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        Evaluation(tmp_path / "out", [step("a")], {"data": "cifar10"})


def test_wrong_calls_are_named(step):
    with pytest.raises(ValueError, match="no command 'recrod'"):
        call("recrod", {})
    with pytest.raises(ValueError, match="sslk record takes no argument colour"):
        call("record", {"out": "x", "colour": "red"})


def test_a_field_of_a_dataclass_is_replaced(monkeypatch):
    monkeypatch.setitem(COMMANDS, "nested", Command("tests.evaluation.test_evaluate:nested", ""))
    assert call("nested", {"study.seed": 3, "study.k": 7, "device": None}) == Study(3, 7)


def test_labels_are_unique_folder_names():
    config = EvaluationConfig(["hf:facebook/dinov2-small", "embedded", "embedded", "../.."], "sample")
    labels = [model.label for model in labelled_models(config)]
    assert labels == ["hf-facebook-dinov2-small", "embedded", "embedded-2", "model"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": []}, "models is empty"),
        ({"weights": ["a", "b"]}, "one checkpoint per model .* got 2 for 1 models"),
        ({"train_split": "test"}, "are both 'test'"),
        ({"systems": ["reverse"]}, "which needs concepts"),
        ({"systems": ["qscor"]}, "systems must be among qscore, reverse, masked, got qscor"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**{"models": ["embedded"], "data": "sample", **settings})


def test_every_step_of_the_plan_fits_its_command(tmp_path):
    """Commands exist and take the arguments of the plan; every step comes after those it needs."""
    import importlib
    import inspect

    concepts = str(tmp_path / "concepts") if "reverse-probe run" in COMMANDS else None
    config = EvaluationConfig(["embedded", "cifar:compact"], "sample", concepts=concepts)
    seen: set[str] = set()
    for step in make_plan(config, tmp_path):
        module, _, function = COMMANDS[step.command].target.partition(":")
        signature = inspect.signature(getattr(importlib.import_module(module), function))
        arguments = {name.partition(".")[0] for name, value in step.arguments.items() if value is not None}
        optional = {"device", "seed", "workers", "batch_size", "root", "image_size"}
        assert arguments - set(signature.parameters) <= optional, step
        required = {name for name, p in signature.parameters.items() if p.default is inspect.Parameter.empty}
        assert required <= arguments, step
        assert set(step.needs) <= seen
        seen.add(step.name)


def test_steps_over_all_models_leave_out_those_that_cannot_be_loaded(tmp_path):
    config = EvaluationConfig(["embedded", "nonsense"], "sample", concepts="c", image_size=32)
    masked, reverse = (
        next(step for step in make_plan(config, tmp_path, {"nonsense"}) if step.name == name)
        for name in ("masked", "reverse-probe")
    )
    assert masked.arguments["models"] == ["embedded"] and masked.arguments["image_sizes"] == [32]
    assert reverse.arguments["stores"] == [f"embedded={tmp_path / 'embedded' / 'train'}"]
    assert reverse.needs == ("embedded/extract train",)


def test_two_models_of_which_one_cannot_be_loaded(tmp_path, capsys):
    words = ["evaluate", "--models", "embedded", "nonsense", "--data", "sample", "--systems", "qscore",
             "--out", str(tmp_path), "--workers", "0", "--device", "cpu"]  # fmt: skip
    assert main([*words, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert "nonsense" in plan["failing_models"] and not any(step["done"] for step in plan["steps"])
    assert plan["steps"][0]["command"].startswith("sslk extract --model embedded")
    assert main([*words, "--quiet"]) == 1
    assert "unknown model 'nonsense'" in capsys.readouterr().err
    page = (tmp_path / "report.html").read_text()
    assert "Evaluation on sample" in page and "embedded: mean Q-Score" in page and "nonsense" in page
    assert Run.load(tmp_path / "summary").kind == "evaluation"
    assert Run.load(tmp_path / "embedded" / "failure").summary["auroc"] > 0.5
    words.remove("nonsense")
    assert main([*words, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["steps"].values()) == {"done"}
