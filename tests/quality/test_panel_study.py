"""The study of the label-free panel: order of encoders, views that are encoded anew, and the command end to end."""

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

from sslk.cli import main
from sslk.data import load_dataset
from sslk.data.source import DataSource
from sslk.features.by_name import extract_by_name
from sslk.features.settings import ExtractSettings
from sslk.metrics import LiDAR
from sslk.models import load_backbone
from sslk.models.source import ModelSource
from sslk.probes import ProbeOutputs
from sslk.quality import PanelSettings, ViewSource, panel, panel_study, rank_encoders
from sslk.quality.panel_ranking import kendall
from sslk.quality.views import NoViews, encode_views
from sslk.results.run import Run
from tests.probes.stores import features, write_store

QUICK = PanelSettings(resamples=60, images=0)
RANDOM = "cifar:compact (random weights)"


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """The embedded encoder and a random one on the embedded test images."""
    folder = tmp_path_factory.mktemp("stores")
    settings = ExtractSettings(workers=0, device="cpu")
    data = DataSource("sample", "test")
    return {
        name: extract_by_name(ModelSource(name), data, folder / str(i), settings)
        for i, name in enumerate(("embedded", "cifar:compact@random"))
    }


@pytest.mark.parametrize(
    ("first", "second", "tau", "p"),
    [
        ([1, 2, 3, 4], [5, 6, 7, 8], 1, 2 / 24),
        ([1, 2, 3, 4], [8, 7, 6, 5], -1, 2 / 24),
        ([1, 2, 3, 4], [1, 2, 4, 3], 4 / 6, 8 / 24),
        ([1, 1, 2, 3], [1, 2, 3, 4], 5 / 30**0.5, None),
        ([1, 1, 1, 1], [1, 2, 3, 4], math.nan, math.nan),
    ],
)
def test_kendall_in_known_cases(first, second, tau, p):
    if p is None:  # every order of the second, by scipy one by one
        orders = [stats.kendalltau(first, order).statistic for order in itertools.permutations(second)]
        p = sum(abs(value) >= abs(tau) - 1e-9 for value in orders) / len(orders)
    assert kendall(first, second) == pytest.approx((tau, p), nan_ok=True)


def test_kendall_of_many_with_ties_draws_orders():
    first = [*range(9), 8]
    tau, p = kendall(first, range(10))
    assert tau == pytest.approx(stats.kendalltau(first, range(10)).statistic) and p == pytest.approx(1 / 10_001)


def encoders(count, noise):
    """Panels and answers of encoders that grow better with their number, in rank and in accuracy."""
    panels, outputs = [], []
    for k in range(count):
        generator = torch.Generator().manual_seed(100 + k)
        scale = torch.arange(1, 25.0) ** (-1.5 + 0.25 * k)
        panels.append(panel(torch.randn(300, 24, generator=generator) * scale, QUICK))
        right = torch.rand(400, generator=torch.Generator().manual_seed(7)) < 0.4 + noise * k
        logits = torch.stack([right.float(), 1 - right.float()], 1)
        outputs.append(ProbeOutputs.from_logits(logits, torch.arange(2), torch.zeros(400, dtype=torch.long)))
    return panels, outputs


def test_a_number_that_orders_as_the_probe_does_has_tau_1():
    panels, outputs = encoders(5, 0.1)
    ranked = rank_encoders(panels, outputs, resamples=60)
    best = ranked["RankMe"]
    assert best.tau.value == pytest.approx(1) and best.encoders == 5 and best.p == pytest.approx(2 / 120)
    assert 0.79 < best.tau.low <= best.tau.high == pytest.approx(1)
    assert ranked["uniformity"].tau.value == pytest.approx(1)  # it falls, which is claimed to be better
    assert math.isnan(ranked["dead features [%]"].tau.value)  # the same for all
    # Accuracies that other test images turn round leave tau open, though it is 1 on these.
    close = rank_encoders(panels, encoders(5, 0.005)[1], resamples=60)["RankMe"]
    assert close.tau.low < 0.8


def test_three_encoders_have_no_tau():
    panels, outputs = encoders(3, 0.1)
    assert rank_encoders(panels, outputs) == {}
    with pytest.raises(ValueError, match="one set of answers for each of 3 panels, got 2"):
        rank_encoders(panels, outputs[:2])


def test_the_study_orders_models_by_every_number_and_by_the_probe(tmp_path):
    x, y = features(240, signed=True)
    stores, probes = [], []
    for k in range(4):
        scale = torch.arange(1, 49.0) ** (-1.2 + 0.3 * k)
        store = write_store(tmp_path / str(k), x * scale, y, weights=str(k) * 64)
        stores.append((f"m{k}", store))
        right = torch.arange(200) < 100 + 20 * k
        answers = ProbeOutputs.from_logits(
            torch.stack([right.float(), 1.0 - right.float()], 1), torch.arange(2), torch.zeros(200)
        )
        probes.append(replace(answers, source={"weights_hash": str(k) * 64}))
    run = panel_study(stores, QUICK, probes=probes)
    assert run.kind == "panel" and run.summary["tau RankMe"] == pytest.approx(1)
    orders = run.tables[2]
    assert orders.columns[2] == "Kendall's tau-b" and orders.rows[0][2] == pytest.approx(1)
    assert orders.rows[0][5] == pytest.approx(2 / 24)
    assert any("p = 0.0833, which is not below 0.05 /" in sentence for sentence in run.findings)
    assert any(sentence.startswith("By RankMe m3 is ahead of m2 by ") for sentence in run.findings)
    kept = {(m.model, m.metric): m for m in run.measures}
    assert kept["m2", "RankMe"].value == run.summary["RankMe m2"] and kept["m2", "RankMe"].task == "label-free panel"
    assert kept["m2", "RankMe"].low < kept["m2", "RankMe"].value and kept["m2", "dead features [%]"].low is None
    assert {figure.file for figure in run.figures} == {"panel.svg", "panel-probe.svg"}
    run.save(tmp_path / "run")
    assert Run.load(tmp_path / "run").measures == list(run.measures) and (tmp_path / "run/panel-probe.csv").exists()
    few = panel_study(stores[:2], QUICK, probes=probes)
    assert any("needs at least 4 models with a probe, there are 2" in sentence for sentence in few.findings)


@pytest.mark.parametrize(
    ("names", "probes", "message"),
    [(["a", "a"], 0, "different names, got 'a' twice"), ([], 0, "at least one store"), (["a", "b"], 2, "got 2 of m")],
)
def test_stores_that_cannot_be_told_apart_are_refused(names, probes, message, tmp_path):
    x, y = features(60)
    stores = [(name, write_store(tmp_path / str(i), x, y)) for i, name in enumerate(names)]
    outputs = ProbeOutputs.from_logits(torch.eye(2), torch.arange(2), torch.zeros(2), source={"weights_hash": "0" * 64})
    with pytest.raises(ValueError, match=message):
        panel_study(stores, QUICK, probes=[outputs] * probes)


def test_views_are_the_same_whoever_asks_and_of_the_store_s_model(extracted):
    store = extracted["embedded"]
    views = ViewSource().of(store, images=12, views=3, seed=1)
    assert views.shape == (12, 3, 256) and torch.equal(views, ViewSource().of(store, images=12, views=3, seed=1))
    again = encode_views(load_backbone("embedded"), load_dataset("sample", "test"), 12, 3, 1)
    assert torch.equal(views, again) and not torch.equal(views, ViewSource().of(store, images=12, views=3, seed=2))
    # Two views of an image are nearer to each other than to another image's.
    unit = torch.nn.functional.normalize(views, dim=2)
    assert (unit[:, 0] - unit[:, 1]).norm(dim=1).mean() < (unit[:-1, 0] - unit[1:, 1]).norm(dim=1).mean()
    assert ViewSource().of(extracted["cifar:compact@random"], images=2, views=2).shape == (2, 2, 256)


@pytest.mark.parametrize(
    ("change", "source", "message"),
    [
        ({"content": "1"}, ViewSource(), "was imported and has no images"),
        ({"weights_hash": "1" * 64}, ViewSource(), "embedded has other weights"),
        ({"model": "cifar:resnet18"}, ViewSource(), "cannot be loaded again: weights must be named"),
        ({}, ViewSource((ModelSource("cifar:compact@random"),)), "embedded is not among the models given"),
        ({"dataset": "gone/test"}, ViewSource(), "cannot be loaded again: unknown data set"),
        ({}, ViewSource(data=DataSource("sample", "train")), "cannot be loaded again: data must be what"),
    ],
)
def test_views_that_cannot_be_had_say_why(extracted, change, source, message, monkeypatch):
    store = extracted["embedded"]
    monkeypatch.setattr(store, "manifest", replace(store.manifest, spec=replace(store.spec, **change)))
    with pytest.raises(NoViews, match=message):
        source.of(store, 2, 2)


def test_the_command_end_to_end(extracted, tmp_path, capsys):
    stores = [str(store.path) for store in extracted.values()]
    words = ["quality", "panel", *stores, "--images", "40", "--views", "3", "--resamples", "50", "--rows", "300"]
    assert main([*words, "--out", str(tmp_path / "run"), "--json", "--quiet"]) == 0
    printed = json.loads(capsys.readouterr().out)
    run = Run.load(tmp_path / "run")
    metric = LiDAR(256)
    metric.update(ViewSource().of(extracted["cifar:compact@random"], 40, 3))
    name = next(m.model for m in run.measures if m.model.startswith(RANDOM))
    assert printed[f"LiDAR {name}"] == pytest.approx(float(metric.compute()["lidar"]), rel=1e-6)
    assert {m.metric for m in run.measures if m.model == name} == set(run.tables[0].columns[4:])
    assert len(run.tables[0].columns) == 15 and {m.data for m in run.measures} == {"sample/test"}


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "give feature stores, or --model and --data"), (["s", "--test", "a", "--probe", "b"], "either --test")],
)
def test_a_command_without_what_it_needs(words, message, tmp_path, capsys):
    assert main(["quality", "panel", *words, "--out", str(tmp_path), "--quiet"]) == 1
    assert message in capsys.readouterr().err
