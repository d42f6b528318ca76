"""The steps of the study that ask when Q-Score tells anything, carried out, and the page about them."""

import csv
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from examples.reproduce.controls import untrained
from examples.reproduce.encoders import StudyEncoder
from examples.reproduce.signal_findings import closing, in_short
from examples.reproduce.signal_page import write_signal_page
from examples.reproduce.signal_results import Asked, read_signals
from examples.reproduce.signal_steps import IMAGENET, SignalConfig, encoder_signal, signal_steps
from sslk.data.source import DataSource
from sslk.evaluation.plan import Step
from sslk.evaluation.run import Evaluation
from sslk.features import FeatureStore
from sslk.features.by_name import extract_by_name
from sslk.features.settings import ExtractSettings
from sslk.models.source import ModelSource
from sslk.quality import SignalSettings, neighbourhood_consistency
from sslk.quality.studies.signal_tables import AREAS, NESTED, OVER_EPS, OVER_FEATURES, PARTIAL
from sslk.results.run import Run, RunTable
from tests.probes.stores import features, write_store
from tests.quality.test_signal import outputs_of

ENCODERS = [
    StudyEncoder("simclr-embedded", "embedded", None, "self-supervised", "simclr", "25 epochs"),
    StudyEncoder("byol", "cifar:compact", "byol.safetensors", "self-supervised", "byol", "3 epochs"),
    StudyEncoder("untrained", "cifar:compact", "untrained.safetensors", "untrained"),
]
CONFIG = SignalConfig(grid=[1.0, 2.0], draws=2, views=0)


def left(progress=None):
    """What the study's own steps did."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study's folder whose steps are carried out on small stores, with two kept epochs of an encoder."""
    out = tmp_path_factory.mktemp("study")
    owns = []
    for number, encoder in enumerate(ENCODERS):
        for name, seed in (("train", 0), ("test", 1)):
            x, y = features(300, seed=seed)
            turned = torch.relu(x @ torch.randn(48, 48, generator=torch.Generator().manual_seed(number)))
            write_store(out / encoder.name / name, turned, y, model=encoder.name, weights=str(number) * 64, dataset=name)
        outputs_of(y, seed=number).save(out / encoder.name / "linear" / "outputs.safetensors")
        owns += [Step(f"{encoder.name}/{part}", left, {}, out / encoder.name / part) for part in ("train", "test", "linear")]
    rng = np.random.default_rng(0)
    (out / "data").mkdir()
    for part, count in (("train", 160), ("test", 120)):
        labels = np.arange(count) % 4
        images = (labels[:, None, None, None] * 8 + rng.integers(0, 200, (count, 32, 32, 3))).astype(np.uint8)
        np.savez(out / "data" / f"{part}.npz", images=images, labels=labels)
        owns.append(Step(f"data/{part}", left, {}, out / "data" / f"{part}.npz"))
    for epoch in (0, 1, 2, 7):
        untrained(str(out / "kept" / f"epoch-{epoch:02d}.safetensors"), seed=epoch)
    steps = signal_steps(ENCODERS, out, replace(CONFIG, epochs=[f"byol={out / 'kept'}"], epoch_count=2), seed=3)
    evaluation = Evaluation(out, owns + steps, {})
    states = evaluation.run()
    assert set(states.values()) == {"done"}, [outcome.error for outcome in evaluation.outcomes.values() if outcome.error]
    return out, steps


def test_steps_wait_for_what_they_read(study):
    _, steps = study
    needs = {step.name: set(step.needs) for step in steps}
    assert {"byol/train", "byol/test", "byol/linear", "signal/consistency"} == needs["byol/signal"]
    assert needs["signal/consistency"] == {f"{n}/{p}" for n in ("simclr-embedded", "byol") for p in ("train", "test")}
    assert [name for name in needs if name.startswith("epochs/")] == ["epochs/byol-0", "epochs/byol-7"]
    only = {step.name for step in signal_steps(ENCODERS[1:], *study[:1], replace(CONFIG, imagenet="tiny.zip"), 0)}
    assert only == {"byol/signal", "untrained/signal", f"{IMAGENET}/test", f"{IMAGENET}/signal"}
    for wrong in ("kept", f"byol={study[0] / 'data'}"):
        with pytest.raises(ValueError, match=r"epochs must be NAME=FOLDER with FOLDER/epoch-NN.safetensors, got"):
            signal_steps(ENCODERS, study[0], replace(CONFIG, epochs=[wrong]), 0)


def test_consistency_of_the_self_supervised_encoders_is_a_score_of_all(study):
    out, _ = study
    stores = [[FeatureStore(out / name / part) for name in ("simclr-embedded", "byol")] for part in ("test", "train")]
    found = np.load(out / "signal" / "consistency.npz")["neighbourhood consistency"]
    assert np.array_equal(found, neighbourhood_consistency(*stores).numpy())
    assert all("neighbourhood consistency" in asked.areas for asked in read_signals(out))


def test_the_page_shows_the_numbers_of_the_runs(study, tmp_path):
    out, _ = study
    text = write_signal_page(out, tmp_path).read_text()
    names = [asked.name for asked in read_signals(out)]
    assert names == ["simclr-embedded", "byol", "untrained"]
    for asked in read_signals(out):
        found = asked.run.summary
        assert f"| {asked.name} | Q-Score | {found['auroc']:.3f} [{found['auroc_low']:.3f}, {found['auroc_high']:.3f}]" in text
        assert f"{found['gain']:+.4f} [{found['gain_low']:+.4f}, {found['gain_high']:+.4f}]" in text
        assert f"{found['partial']:+.3f} [{found['partial_low']:+.3f}, {found['partial_high']:+.3f}]" in text
    for file in re.findall(r"\]\((when/[\w-]+\.svg)\)", text):
        assert (tmp_path / file).stat().st_size > 1000
    tables = {path.stem for path in (tmp_path / "when").glob("*.csv")}
    assert tables == {"auroc", "remains", "eps", "features", "epochs-byol"}
    epochs = {epoch: Run.load(out / "epochs" / "byol" / f"{epoch:03d}") for epoch in (0, 7)}
    rows = list(csv.DictReader((tmp_path / "when" / "epochs-byol.csv").open()))
    assert [float(row["Q-Score"]) for row in rows] == [run.summary["auroc"] for run in epochs.values()]
    assert not (out / "epochs" / "byol" / "000" / "features").exists()
    assert write_signal_page(tmp_path, tmp_path) is None, "nobody was asked"


def test_the_table_over_epochs_outlives_the_encoders_of_the_epochs(study, tmp_path):
    out, _ = study
    first = write_signal_page(out, tmp_path).read_text()
    (out / "epochs").rename(out / "gone")
    again = write_signal_page(out, tmp_path).read_text()
    (out / "gone").rename(out / "epochs")
    assert again == first and "Over the epochs of byol" in first


def test_views_are_those_of_the_encoder_in_question(tmp_path_factory):
    """An encoder read from a file and an images' file: its variance over views stands among the scores."""
    tmp_path = tmp_path_factory.mktemp("views") / "u"
    tmp_path.mkdir()
    rng = np.random.default_rng(1)
    untrained(str(tmp_path / "u.safetensors"))
    model = f"cifar:compact@{tmp_path}/u.safetensors"
    for part in ("train", "test"):
        images = rng.integers(0, 255, (90, 32, 32, 3)).astype(np.uint8)
        np.savez(tmp_path / f"{part}.npz", images=images, labels=np.array([3, 7, 40])[np.arange(90) % 3])
        source = DataSource(f"npz:{tmp_path}/{part}.npz", part)
        store = extract_by_name(ModelSource(model), source, tmp_path / part, ExtractSettings(workers=0))
    outputs_of(store.labels()).save(tmp_path / "linear" / "outputs.safetensors")
    about = {"encoder": "u", "kind": "untrained", "training": ""}
    encoder_signal(model, str(tmp_path), about, SignalSettings(grid=(), shares=()), 3, None, 0)
    run = Run.load(tmp_path / "signal")
    (asked,) = read_signals(tmp_path.parent)
    assert asked.areas["variance over views"]["uses labels"] == "no"
    assert "variance over views (" not in " ".join(run.findings)


def made(name, own, left, gain, beside, kind="self-supervised"):
    """An encoder with given intervals: of AUROC, of the partial correlations, of the gain, of the difference to the norm."""

    def ends(column):
        return [column, f"{column} low", f"{column} high"]

    sets = ("feature norm", "confidence", "feature norm and confidence")
    nothing = (None, None, None)
    areas = [["Q-Score", *own, *nothing], ["feature norm", 0.6, 0.55, 0.65, *beside]]
    tables = [
        RunTable(AREAS, ["score", *ends("AUROC"), *ends("Q-Score less it")], areas),
        RunTable(PARTIAL, ["score", "given", *ends("correlation")], [["Q-Score", given, *left] for given in sets]),
        RunTable(NESTED, ["known", *ends("what Q-Score adds")], [[given, *gain] for given in sets]),
        RunTable(OVER_EPS, ["AUROC"], []),
        RunTable(OVER_FEATURES, ["AUROC"], []),
    ]
    return Asked(name, kind, "", Run("qscore", name, [], {}, tables=tables))


def test_sentences_follow_the_intervals():
    strong = made("strong", (0.7, 0.65, 0.75), (0.2, 0.1, 0.3), (0.05, 0.02, 0.08), (0.1, 0.05, 0.15))
    weak = made("weak", (0.5, 0.45, 0.55), (0.0, -0.1, 0.1), (0.0, -0.01, 0.01), (-0.1, -0.15, -0.05))
    assert in_short([strong, weak]).startswith("Q-Score tells right from wrong answers better than chance for 1 of 2 trained")
    said = closing([strong, weak], {})
    alone = "Q-Score's AUROC is above chance for 1 of 2 (strong); not distinguishable from chance for 1 of 2 (weak)."
    norm = "that of feature norm (label-free)"
    beside = f"Its AUROC is above {norm} for 1 of 2 (strong); below {norm} for 1 of 2 (weak)."
    assert said[:2] == [alone, beside]
    assert "No interval reaches above +0.300" in said[2]
    assert said[2].endswith("gains AUROC by it for 1 of 2; no interval of the gain reaches above +0.0800.")
    strong_rule, weak_rule = (closing([item], {})[-1] for item in (strong, weak))
    assert "is shown for 1 of 1 trained" in strong_rule and "no other score tells more than it for any" in strong_rule
    assert "is shown for 0 of 1 trained" in weak_rule and weak_rule.endswith("feature norm tells more than it for 1 of 1.")


def test_the_untrained_control_is_in_no_conclusion():
    weak = made("weak", (0.5, 0.45, 0.55), (0.0, -0.1, 0.1), (0.0, -0.01, 0.01), (-0.1, -0.15, -0.05))
    control = made("none", (0.7, 0.65, 0.75), (0.2, 0.1, 0.3), (0.05, 0.02, 0.08), (0.1, 0.05, 0.15), "untrained")
    assert "chance for 0 of 1 trained" in in_short([weak, control]) and "chance for 1 of 1 trained" in in_short([control])
    assert closing([weak, control], {})[-1] == closing([weak], {})[-1] != closing([control], {})[-1]
