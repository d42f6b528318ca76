"""Further training in the study: its steps, the pieces that are committed, its claims, and its section of the page."""

import json
from pathlib import Path

import pytest

from examples.reproduce.arms import ArmsConfig, arms_steps, options_of, pack_pieces, unpack_pieces
from examples.reproduce.arms_page import arms_section
from examples.reproduce.claims_arms import CLAIMS
from examples.reproduce.config import StudyConfig
from examples.reproduce.encoders import METHODS, StudyEncoder
from examples.reproduce.results import EncoderResults, Study
from examples.reproduce.verdict import decide
from sslk.results.run import Run, RunTable
from sslk.training.arms_study import DIFFERENCE_COLUMNS, MEAN_COLUMNS, TRIAL_COLUMNS
from sslk.training.heads import build_method
from sslk.training.settings import DECADES
from tests.training.small import small_encoder

TOP1, AUROC, MEAN_Q = "probe top-1 [points]", "Q-Score AUROC", "mean Q"


def made(differences, read=0):
    """A run of arms with these differences: (arm, reference, quantity) -> (value, low, high)."""
    means = [[arm, 5, top1, 0.55, 0.1, 5.0, 3.0, 0.25] for arm, top1 in (("before", 60.0), ("baseline", 61.0), ("lasso", 60.5))]
    means.append(["qscore", 5, 62.5, 0.5, 0.11, 5.0, 3.0, 0.3])
    chosen = [["baseline", 0.1, None, None, None], ["qscore", 0.01, 2.5, 1e-3, None]]
    trials = [["baseline", 0, 1e-5, None, None, None, 58.0], ["baseline", 1, 0.1, None, None, None, 59.25]]
    trials.append(["qscore", 0, 0.01, 2.5, 1e-3, None, None])
    tables = [
        RunTable("Arms, mean over seeds", MEAN_COLUMNS, means),
        RunTable("Differences of arms", DIFFERENCE_COLUMNS, [[*key, *value, 5] for key, value in differences.items()]),
        RunTable("Chosen settings", ["arm", "learning rate", "lambda1", "lambda2", "lasso"], chosen),
        RunTable("All trials", TRIAL_COLUMNS, trials),
    ]
    return Run("finetune", "Arms", ["first"], {}, {"trainings read from the committed results": read}, tables)


def weighed():
    rows = [
        [weight, term, *(100 * weight * r for r in (unit, 0.9 * unit, 1.1 * unit)), 0, 0, 0]
        for term, unit in (("lambda1 term", 0.03), ("lambda2 term", 600.0), ("lasso term", 0.0))
        for weight in DECADES
    ]
    bounds = [f"{name} [%]" for name in ("encoder", "encoder low", "encoder high", "h", "h low", "h high")]
    return Run(
        "finetune",
        "Gradients",
        ["g"],
        {},
        {},
        [RunTable("Gradient over that of the SSL loss", ["lambda", "term", *bounds], rows)],
    )


def study(*runs):
    encoders = [StudyEncoder(name, "cifar:compact", None, "self-supervised", name) for name in ("simclr", "byol")]
    return Study([EncoderResults(e, run) for e, run in zip(encoders, runs, strict=False)], StudyConfig())


def state(key, value):
    """The verdict of a claim where its difference is this: (value, low, high)."""
    other = "lasso" if key == "q-lasso" else "baseline"
    quantity = {"q-raises": MEAN_Q, "q-repairs": AUROC}.get(key, TOP1)
    claim = next(claim for claim in CLAIMS if claim.key == key)
    return decide(claim, study({"arms": made({("qscore", other, quantity): value})})).state


@pytest.mark.parametrize("key", ["q-top1", "q-lasso", "q-raises", "q-repairs"])
def test_claims_are_judged_by_the_interval_over_seeds_and_images(key):
    sign = -1 if key == "q-repairs" else 1  # repair is a falling AUROC
    above, below = sorted([(0.4, 0.1, 0.7), (-0.4, -0.7, -0.1)], reverse=sign > 0)
    assert state(key, above) == "holds" and state(key, below) == "does not hold"
    assert state(key, (0.4, -0.1, 0.9)) == "undecided"
    assert decide(next(claim for claim in CLAIMS if claim.key == key), study({})).state == "not tested"


def test_evidence_says_where_the_papers_difference_lies():
    found = study({"arms": made({("qscore", "baseline", TOP1): (0.5, 0.1, 0.9), ("qscore", "lasso", TOP1): (5.0, 4.0, 6.0)})})
    said = [claim.judge(found)[0].evidence for claim in CLAIMS if claim.key in ("q-top1", "q-lasso")]
    assert said[0].endswith("5 seeds; the paper's +1.48 lies above") and said[1].endswith("the paper's +2.98 lies below")


def test_section_shows_every_number_beside_the_papers():
    differences = {
        ("qscore", "baseline", TOP1): (1.5, 1.0, 2.0),
        ("qscore", "lasso", TOP1): (2.0, -1.0, 5.0),
        ("qscore", "baseline", MEAN_Q): (0.01, 0.005, 0.015),
        ("qscore-raw", "baseline", TOP1): (0.25, -0.5, 1.0),
    }
    other = {**differences, ("qscore", "baseline", TOP1): (0.5, -0.5, 1.5)}
    runs = [{"arms": made(differences, 41), "gradients": weighed()}, {"arms": made(other)}]
    text = "\n\n".join(arms_section(study(*runs)))
    assert "| simclr | 60.00 ± 0.25 | 61.00 ± 0.25 | 60.50 ± 0.25 | 62.50 ± 0.30 | 90.83 | 89.33 | 92.31 |" in text
    assert "| qscore less baseline | simclr | +1.50 [+1.00, +2.00] | +0.0100 [+0.0050, +0.0150] |  |" in text
    assert "| qscore less baseline | **mean** | +1.00 [-5.35, +7.35] |" in text  # Student over two encoders
    assert "| simclr | baseline | 0.1 |  |  |  | 59.25 |" in text
    assert "| simclr | 0.0003 [0.00027, 0.00033] | 6 [5.4, 6.6] | 0 [0, 0] | 30 | 0.002 |  |" in text
    assert "has at most 0.0003 % of the SSL loss's gradient: it vanishes there. The second has 6 to 6 %." in text
    assert "difference qscore less baseline lies inside the interval of 2 of 2 encoders; qscore less lasso lies inside" in text
    assert "41 trainings and evaluations were read from the committed ones" in text
    assert arms_section(study({}, {})) == []


def test_steps_are_of_one_encoder_of_each_method_and_need_their_images(tmp_path):
    encoders = [StudyEncoder(name, "cifar:compact", f"{name}.safetensors", "self-supervised", name) for name in METHODS]
    encoders.append(StudyEncoder("supervised", "cifar:compact", "s.safetensors", "supervised"))
    more = ("simclr-embedded", "simclr512")  # others of a method that is there
    encoders += [StudyEncoder(name, "cifar:compact", None, "self-supervised", "simclr") for name in more]
    data = [Path("train.npz"), Path("test.npz")]
    steps = arms_steps(encoders, data, tmp_path, ArmsConfig(), 3)
    names = ["data/arms", "data/arms-validation", "simclr/gradients", "simclr/arms"]
    assert [step.name for step in steps][:4] == names and len(steps) == 18
    assert steps[2].needs == ("data/arms",) and steps[3].needs == ("data/arms", "data/arms-validation", "data/test")
    assert steps[3].arguments["test"] == str(tmp_path / "data" / "test.npz") and steps[0].arguments["count"] == 5000
    assert steps[1].arguments["skip"] == 5000 and steps[3].arguments["validation"] == steps[1].arguments["out"]
    few = arms_steps(encoders, data, tmp_path, ArmsConfig(seeds=0, encoders=["byol"]), 3)
    assert [step.name for step in few] == ["data/arms", "byol/gradients"]
    other = arms_steps(encoders, data, tmp_path, ArmsConfig(batches=0, encoders=["simclr512"]), 3)
    assert [step.name for step in other] == ["data/arms", "data/arms-validation", "simclr512/arms"]
    chosen = ArmsConfig(batches=0, variants=["open"])  # of SimCLR alone, by default
    further = {step.name: step.arguments["config"].variants for step in arms_steps(encoders, data, tmp_path, chosen, 3)[2:]}
    assert further.pop("simclr/arms") == ["open"] and len(further) == 7 and not any(further.values())
    assert arms_steps(encoders, data, tmp_path, ArmsConfig(seeds=0, batches=0), 3) == []


@pytest.mark.parametrize("method", METHODS)
def test_options_are_those_of_the_method(method):
    options = options_of(StudyEncoder(method, "cifar:compact", None, "self-supervised", method))
    assert build_method(method, small_encoder(), 32, options=options)[1]


def test_committed_pieces_come_back_for_the_same_study_alone(tmp_path):
    folder, file = tmp_path / "arms", tmp_path / "simclr.zip"
    about = {"method": "simclr", "search": {"lambda1": [1e-4, 100.0]}}
    for name, content in (
        ("config.json", json.dumps(about)),
        ("trials/qscore/0.json", "{}"),
        ("final/qscore/0.safetensors", "x"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    assert pack_pieces(folder, file) == 2
    first = file.read_bytes()
    assert pack_pieces(folder, file) == 2 and file.read_bytes() == first
    (tmp_path / "again" / "trials" / "qscore").mkdir(parents=True)
    (tmp_path / "again" / "trials" / "qscore" / "0.json").write_text("mine")
    assert unpack_pieces(file, tmp_path / "again", about) == 2
    assert (tmp_path / "again" / "trials" / "qscore" / "0.json").read_text() == "mine"
    assert (tmp_path / "again" / "final" / "qscore" / "0.safetensors").read_text() == "x"
    assert unpack_pieces(file, tmp_path / "other", {**about, "method": "byol"}) == 0 and not (tmp_path / "other").exists()
    assert unpack_pieces(tmp_path / "none.zip", tmp_path / "other", about) == 0
