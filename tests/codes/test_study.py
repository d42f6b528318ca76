"""The comparison of one-sided sets, two-sided sets and codes, and the commands from images to its report."""

import json

import pytest
from sklearn.metrics import roc_auc_score

from sslk import discover, qscore
from sslk.cli import main
from sslk.codes import CodesComparison, CodesSettings, codes_study, fit_codes
from sslk.features import FeatureStore
from sslk.probes import linear_probe
from sslk.quality import CompressionSettings, DiscoverSettings, compression
from sslk.results.run import Run
from tests.codes.small import signed_rows, store_of

EPS = DiscoverSettings(eps=1.5)
COMPARISON = CodesComparison(resamples=100, kept=(100.0, 25.0), seeds=1, l2=(0.03,))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    stores = [store_of(folder / str(seed), *signed_rows(count, seed=seed)) for seed, count in ((0, 400), (1, 300))]
    outputs = linear_probe(*stores, epochs=10).outputs
    codes = fit_codes(stores[0], CodesSettings(latents=64, k=8, epochs=4, batch_size=64))
    return stores, outputs, codes


@pytest.fixture(scope="module")
def run(made):
    (train, test), outputs, codes = made
    return codes_study(train, test, outputs, codes, EPS, COMPARISON)


def test_each_side_is_scored_as_it_is_alone(made, run):
    (train, test), outputs, codes = made
    encoded = [codes.autoencoder(store.load().features) for store in (train, test)]
    of_codes = qscore(encoded[1], discover(encoded[0], eps=1.5)).scores
    one_sided = qscore(test, discover(train, eps=1.5, two_sided=False)).scores
    wanted = {name: roc_auc_score(outputs.correct, s) for name, s in (("codes", of_codes), ("one_sided", one_sided))}
    for name, value in wanted.items():
        assert run.summary[f"auroc_{name}"] == pytest.approx(value)
    gain = run.summary["gain_codes_over_one_sided"]
    assert gain == pytest.approx(wanted["codes"] - wanted["one_sided"])
    assert run.summary["gain_codes_over_one_sided_low"] <= gain <= run.summary["gain_codes_over_one_sided_high"]
    one, two, _ = run.tables[0].rows
    assert one[2] == pytest.approx(two[2], rel=0.05)  # the same mean |L_i|


def test_probes_are_on_codes_at_equal_number_and_at_equal_share(made, run):
    (train, test), _, codes = made
    kept = {(row[0], row[1]): row[3] for row in run.tables[1].rows}
    assert {number for side, number in kept if side == "one-sided sets"} == {16, 4}
    assert {number for side, number in kept if side == "sparse codes"} == {64, 16, 4}
    assert kept["one-sided sets", 16] == kept["two-sided sets", 16]  # all of them
    pairs = [(codes.autoencoder(store.load().features), store.labels()) for store in (train, test)]
    percent = discover(pairs[0][0], eps=1.5).activation_percent
    settings = CompressionSettings(selections=("discriminative",), reductions=(0.0, 75.0), seeds=1, l2=(0.03,))
    own = compression(*pairs, percent, settings).top1[0, :, 0]
    assert [kept["sparse codes", 64], kept["sparse codes", 16]] == pytest.approx((100 * own).tolist())


def test_every_number_is_a_measure(run):
    assert len(run.measures) == 3 + 2 + 2 + 3
    first = run.measures[0]
    assert (first.model, first.task, first.metric) == ("mine", "failure prediction, Q-Score of one-sided sets", "AUROC")
    assert first.value == run.summary["auroc_one_sided"] and first.low <= first.value <= first.high and first.samples == 300
    assert len({(m.data, m.model, m.task, m.metric) for m in run.measures}) == len(run.measures)


def test_findings_say_the_differences_and_whose_probe_it_is(run):
    text = " ".join(run.findings)
    for words in (
        "Sparse codes less two-sided sets: ",
        "one probe on the features; compression probes the codes",
        "of 16, or as",
    ):
        assert words in text


def test_sidedness_must_not_be_given_and_answers_must_differ(made):
    (train, test), outputs, codes = made
    with pytest.raises(ValueError, match="two_sided must not be given"):
        codes_study(train, test, outputs, codes, DiscoverSettings(two_sided=True))
    with pytest.raises(ValueError, match="kept must be percentages above 0 and up to 100"):
        CodesComparison(kept=(0.0,))


def test_the_commands_lead_from_images_to_a_comparison(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        line = f"store extract --model embedded --layer stages.3.0.bn2 --data sample --split {split} --out {split} --workers 0"
        assert main([*line.split(), "--quiet"]) == 0
    capsys.readouterr()
    for line in (
        "probe linear --train train --test test --epochs 5 --out linear --quiet",
        "codes fit train --latents 128 --k 8 --epochs 2 --out codes.safetensors --json --quiet",
        "codes encode train --codes codes.safetensors --drop-dead --dtype float16 --out train-codes",
        "codes compare test --train train --outputs linear --codes codes.safetensors --kept 100 25 --seeds 1 --l2 0.03 "
        "--resamples 100 --out compared --quiet",
    ):
        assert main(line.split()) == 0
    printed = capsys.readouterr()
    assert "train-codes will hold 2000 x " in printed.err and "train-codes: 2000 samples of" in printed.out
    assert json.loads(printed.out[printed.out.index("{") : printed.out.index("}") + 1])["latents"] == 128
    saved = Run.load("compared")
    assert saved.kind == "qscore" and len(saved.measures) == 10 and FeatureStore("train-codes").spec.dtype == "float16"
    assert sorted(path.name for path in (tmp_path / "compared").iterdir()) == [
        "auroc.csv",
        "auroc.svg",
        "compression.csv",
        "compression.svg",
        "results.json",
    ]
    assert main(["codes", "encode", "test", "--codes", "linear/outputs.safetensors", "--out", "x"]) == 1
    assert "holds no sparse codes" in capsys.readouterr().err
