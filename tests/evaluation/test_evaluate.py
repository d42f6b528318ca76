"""sslk evaluate: the plan, what a failure stops and what not, going on after an interruption, the report at the end."""

import json

import pytest

from sslk.cli import main
from sslk.evaluation import EvaluationSettings, Step, make_plan
from sslk.evaluation.plan import labelled_models
from sslk.evaluation.run import STATE, Evaluation
from sslk.features.settings import ExtractSettings
from sslk.results.run import Run

CALLS: list[str] = []


def record(out: str, fail: bool = False, interrupt: bool = False, seed: int = 0, settings=None, progress=None) -> None:
    """A study that writes its output, fails, or is interrupted."""
    CALLS.append(out)
    if fail:
        raise ValueError("broken on purpose")
    if interrupt:
        raise KeyboardInterrupt
    if progress is not None:
        progress(1, 1, "writing")
    with open(out, "w") as stream:
        stream.write("done")


@pytest.fixture
def step(tmp_path):
    CALLS.clear()
    tmp_path.joinpath("out").mkdir()

    def make(name: str, *needs: str, **arguments) -> Step:
        output = tmp_path / "out" / name.replace("/", "-")
        return Step(name, record, {"out": str(output), **arguments}, output, needs)

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


def test_what_needs_a_step_made_anew_is_done_again_also_after_an_interruption(tmp_path, step):
    before = [step("a"), step("b", "a"), step("c", "b"), step("d", "a"), step("e")]
    Evaluation(tmp_path / "out", before, {}).run()
    state = json.loads((tmp_path / "out" / STATE).read_text())
    CALLS.clear()
    with pytest.raises(KeyboardInterrupt):
        Evaluation(tmp_path / "out", [step("a", seed=1), step("b", "a", interrupt=True)], {}).run()
    Evaluation(tmp_path / "out", [step("a", seed=1), *before[1:]], {}).run()
    assert [call[-1] for call in CALLS] == ["a", "b", "b", "c", "d"]
    for outcome in state["steps"].values():  # one that an older version has left: all are done
        del outcome["place"]
    (tmp_path / "out" / STATE).write_text(json.dumps(state))
    CALLS.clear()
    Evaluation(tmp_path / "out", before, {}).run()
    assert CALLS == []
    before[0].output.unlink()
    Evaluation(tmp_path / "out", before, {}).run()
    assert [call[-1] for call in CALLS] == ["a", "b", "c", "d"]


def test_another_evaluation_in_the_folder_is_refused(tmp_path, step):
    Evaluation(tmp_path / "out", [step("a")], {"data": "cifar10"}).run()
    with pytest.raises(ValueError, match="data 'cifar10', not 'stl10': give another --out"):
        Evaluation(tmp_path / "out", [step("a")], {"data": "stl10"})
    (tmp_path / "out" / STATE).write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        Evaluation(tmp_path / "out", [step("a")], {"data": "cifar10"})


def test_speed_does_not_decide_and_progress_is_named(tmp_path, step):
    seen: list[str] = []
    for workers, device, calls in ((0, None, 1), (4, "cpu", 1), (4, "cpu", 1)):
        one = step_of(step, workers, device)
        Evaluation(tmp_path / "out", [one], {}).run(progress=lambda done, total, stage: seen.append(stage))
        assert len(CALLS) == calls
    Evaluation(tmp_path / "out", [step("a", settings=ExtractSettings(amp="bfloat16"))], {}).run()
    assert len(CALLS) == 2 and seen == ["a: writing"]


def step_of(step, workers, device):
    return step("a", settings=ExtractSettings(workers=workers, device=device))


def test_labels_are_unique_folder_names():
    models = labelled_models(["hf:facebook/dinov2-small", "embedded", "embedded", "../..", "ours=timm:vit@a/mae.pth"])
    assert [model.label for model in models] == ["hf-facebook-dinov2-small", "embedded", "embedded-2", "model", "ours"]
    assert models[-1].model == "timm:vit@a/mae.pth"
    with pytest.raises(ValueError, match="different labels, got 'ours' twice"):
        labelled_models(["ours=embedded", "ours=cifar:compact@random"])
    with pytest.raises(ValueError, match="models is empty"):
        labelled_models([])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_split": "test"}, "are both 'test'"),
        ({"systems": ("reverse",)}, "which needs concepts"),
        ({"systems": ("qscor",)}, "systems must be among qscore, reverse, masked, got qscor"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        EvaluationSettings(**{"data": "sample", **settings})


def test_every_step_of_the_plan_fits_its_call(tmp_path):
    """The calls take the arguments of the plan; every step comes after those it needs."""
    import inspect

    settings = EvaluationSettings("sample", concepts=str(tmp_path / "concepts"))
    seen: set[str] = set()
    for step in make_plan(labelled_models(["embedded", "cifar:compact@random"]), settings, tmp_path):
        inspect.signature(step.call).bind(**step.arguments, progress=None)
        assert set(step.needs) <= seen
        seen.add(step.name)
    assert {"embedded/knn", "cifar-compact-random/failure", "reverse", "masked"} <= seen


def test_steps_over_all_models_leave_out_those_that_cannot_be_loaded(tmp_path):
    settings = EvaluationSettings("sample", concepts="c", image_size=32)
    plan = make_plan(labelled_models(["embedded", "nonsense"]), settings, tmp_path, {"nonsense"})
    masked, reverse = (next(step for step in plan if step.name == name) for name in ("masked", "reverse"))
    assert masked.arguments["models"] == ["embedded"] and masked.arguments["image_size"] == 32
    assert reverse.arguments["stores"] == {"embedded": str(tmp_path / "embedded" / "train")}
    assert reverse.needs == ("embedded/extract train",)


def test_three_models_of_which_one_cannot_be_loaded(tmp_path, capsys):
    """The README's example with a model that is none beside it: a random control is always the same one."""
    models = ["embedded", "control=cifar:compact@random", "nonsense"]
    words = f"--data sample --systems qscore --out {tmp_path} --workers 0 --device cpu".split()
    assert main(["evaluate", *models, *words, "--dry-run", "--json"]) == 1
    told = capsys.readouterr()
    plan = json.loads(told.out)
    assert "1 of 3 models cannot be evaluated: nonsense" in told.err
    assert "nonsense" in plan["failing_models"] and not any("nonsense" in step["name"] for step in plan["steps"])
    assert not any(step["done"] for step in plan["steps"])
    assert plan["steps"][0]["call"] == "extract" and plan["steps"][0]["arguments"]["model"] == "embedded"
    assert main(["evaluate", *models, *words, "--quiet"]) == 1
    assert "unknown model 'nonsense'" in capsys.readouterr().err
    page = (tmp_path / "report.html").read_text()
    assert "Evaluation on sample" in page and "control: Failure prediction" in page and "nonsense" in page
    run = Run.load(tmp_path / "summary")
    assert run.kind == "evaluation" and run.tables[0].columns[:3] == ["model", "probe top-1 [%]", "k-NN top-1 [%]"]
    assert [row[0] for row in run.tables[0].rows] == ["embedded", "control", "nonsense"]
    assert run.tables[0].rows[2][1:] == [None] * 4 and "[" in run.tables[0].rows[1][4]
    assert Run.load(tmp_path / "embedded" / "failure").summary["auroc"] > 0.5
    assert main(["evaluate", *models[:2], *words, "--json", "--quiet"]) == 0
    assert set(json.loads(capsys.readouterr().out)["steps"].values()) == {"done"}
