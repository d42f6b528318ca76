"""Cross-validation equals scikit-learn's, findings say what matrices hold, and the study leaves what it promises."""

import csv
import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sslk.cli import main
from sslk.data.source import DataSource
from sslk.features import FeatureStore, StoreSpec, StoreWriter
from sslk.masked import StudySettings, masked_study
from sslk.masked.analysis import accuracies
from sslk.masked.evaluation import fold_accuracy, folds_of
from sslk.masked.findings import ordered_pairs, similarity_findings
from sslk.masked.similarity import Comparison, Matrix
from sslk.models.source import ModelSource
from sslk.results.run import Run


def classes(counts, d=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.tensor([3, 7, 40]), torch.tensor(counts))
    centres = torch.randn(3, d, generator=g)
    place = torch.bucketize(labels, torch.tensor([3, 7, 40]))
    return centres[place] + torch.randn(len(labels), d, generator=g), labels


def test_balanced_accuracy_of_every_fold_equals_scikit_learn():
    x, y = classes([120, 60, 20])  # unbalanced: accuracy and balanced accuracy differ
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-8))
    folds = StratifiedKFold(5, shuffle=True, random_state=3)
    wanted = cross_val_score(model, x.numpy(), y.numpy(), cv=folds, scoring="balanced_accuracy")
    found = fold_accuracy(x, y, 5, seed=3)
    np.testing.assert_allclose(found.folds, wanted, atol=0.005)
    assert found.converged and found.classes == 3
    assert found.mean == pytest.approx(np.mean(found.folds)) and found.std == pytest.approx(np.std(found.folds))


def test_small_classes_lower_the_folds_and_single_samples_are_refused():
    x, y = classes([30, 30, 3])
    assert folds_of(y) == 3 and len(fold_accuracy(x, y).folds) == 3
    with pytest.raises(ValueError, match="class 40 has one sample"):
        folds_of(classes([30, 30, 1])[1])
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        folds_of(torch.zeros(9, dtype=torch.long))
    with pytest.raises(ValueError, match="folds must be at least 2, got 1"):
        folds_of(y, 1)


VARIANTS = ("original", "foreground", "background", "center", "border")


def comparison(cka: torch.Tensor, control: torch.Tensor, samples: int = 9) -> Comparison:
    def matrices(value):
        return dict.fromkeys(("cka_debiased", "cca"), Matrix(value, value - 0.1, value + 0.1))

    within = {"trained": matrices(cka), "control": matrices(control)}
    ranks = {model: torch.full((5,), 4) for model in within}
    return Comparison(VARIANTS, ("trained", "control"), samples, within, ranks)


def symmetric(pairs) -> torch.Tensor:
    matrix = torch.eye(5, dtype=torch.float64)
    for (u, v), value in pairs.items():
        matrix[u, v] = matrix[v, u] = value
    return matrix


def test_findings_confirm_or_refute_the_paper():
    order = {
        (0, 1): 0.9,
        (0, 3): 0.8,
        (1, 3): 0.7,
        (0, 2): 0.6,
        (0, 4): 0.55,
        (2, 4): 0.5,
        (1, 4): 0.4,
        (2, 3): 0.35,
        (1, 2): 0.2,
        (3, 4): -0.1,
    }
    as_expected = symmetric(order)
    flat = symmetric({pair: 0.5 + 0.01 * value for pair, value in order.items()} | {(0, 4): 0.99})
    found = similarity_findings(comparison(as_expected, flat), ["control"])
    assert "most similar original–foreground 0.90 [0.80, 1.00], least center–border -0.10 [-0.20, 0.00]" in found[0]
    assert "center most similar: confirmed; complements least: confirmed" in found[0]
    assert "center most similar: refuted; complements least: confirmed" in found[2]
    assert "original–foreground 2, original–center 3, foreground–background 9, center–border 10)" in found[2]
    assert "trained -0.10 to 0.90, control 0.50 to 0.99" in found[4]
    assert found[4].endswith("confirmed (range 0.49 against 1.00 or more).")
    found = similarity_findings(comparison(flat, as_expected), ["control"])
    assert "trained ones: refuted" in found[4]
    found = similarity_findings(comparison(as_expected, flat, samples=8), ["control"])  # ranks of 4 + 4 in 7 dimensions
    assert "says nothing here" in found[1] and "confirmed" not in found[1]
    assert ordered_pairs(as_expected * torch.nan, VARIANTS) == []


MODELS = ModelSource.several(["embedded", "cifar:compact@random"])
SMALL = StudySettings(images=50, resamples=30, folds=3, k=4, umap_share=0, rbf_fraction=0.8)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    run = masked_study(MODELS, DataSource("sample"), out, SMALL)
    run.save(out)
    return out, run


def test_the_run_holds_every_table_and_figure_with_its_data(study):
    out, run = study
    assert Run.load(out).findings == run.findings and run.kind == "masked"
    evaluation = run.tables[0]
    assert evaluation.paper == "masked_table1"
    assert evaluation.columns == ["dataset", "model", "variant", "balanced_accuracy", "std"]
    assert len(evaluation.rows) == 10 and all(0 <= row[3] <= 1 for row in evaluation.rows)
    wanted = {
        "variants",
        "cka_debiased",
        "cka_biased",
        "cca",
        "svcca",
        "pwcca",
        "cka_rbf",
        "neighbours",
        "across_cka_debiased",
        "across_cca",
    }
    assert {figure.file.partition(".")[0] for figure in run.figures} == wanted
    for figure in run.figures:
        assert (out / figure.file).stat().st_size > 1000 and figure.alt
        with (out / figure.data).open() as stream:
            rows = list(csv.DictReader(stream))
        beside = json.loads((out / figure.file).with_suffix(".json").read_text())
        assert len(rows) == len(beside["rows"]) > 0
    with (out / "cka_debiased.csv").open() as stream:
        for row in csv.DictReader(stream):
            assert float(row["low"]) <= float(row["value"]) <= float(row["high"]) or row["variant"] == row["with"]
    assert run.provenance["config"]["images"] == 50 and run.provenance["models"] == ["embedded", "cifar:compact@random"]
    assert str(out) not in json.dumps(run.provenance)
    assert any("compact (random weights): 50 images for representations" in finding for finding in run.findings)


def test_random_weights_are_those_of_the_seed_and_leave_the_callers_numbers_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, second = (ModelSource("cifar:compact@random:5").load().weights_hash for _ in range(2))
    assert first == second != ModelSource("cifar:compact@random:6").load().weights_hash
    assert torch.equal(torch.random.get_rng_state(), before)


def test_called_again_the_study_extracts_nothing(study):
    out, run = study
    seen = []
    again = masked_study(MODELS, DataSource("sample"), out, SMALL, progress=lambda done, total, step: seen.append(step))
    assert not any(step.startswith("features") for step in seen)
    assert again.findings == run.findings and again.tables == run.tables


def test_bad_arguments_are_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for models, settings, message in (
        (["embedded", "embedded"], {}, "models must differ"),
        ([], {}, "at least one model"),
        (["embedded"], {"segmenter": "grabkut"}, "did you mean 'grabcut'"),
        (["embedded"], {"images": 9}, "has one sample"),
        (["embeded"], {"images": 60, "variants": ("original",)}, "near ones"),
    ):
        sources = ModelSource.several(models)
        with pytest.raises(ValueError, match=message):
            masked_study(sources, DataSource("sample"), tmp_path / "run", StudySettings(**settings))
    with pytest.raises(ValueError, match="one size a model, got 2 for 1"):
        ModelSource.several(["embedded"], [32, 64])
    for name, value in (("umap_share", 2.0), ("folds", 1), ("k", 0), ("resamples", -1)):
        with pytest.raises(ValueError, match=name):
            StudySettings(**{name: value})


def test_masks_from_the_command_line(tmp_path, capsys):
    masks, sheet = str(tmp_path / "masks"), str(tmp_path / "sheet.png")
    assert main(["masked", "build", "--data", "sample", "--images", "20", "--out", masks, "--quiet"]) == 0
    assert "20 masks by grabcut:center(0.8) x5" in capsys.readouterr().out
    assert main(["masked", "preview", masks, "--data", "sample", "--count", "6", "--out", sheet]) == 0
    assert (tmp_path / "sheet.png").stat().st_size > 5000
    assert main(["masked", "preview", str(tmp_path), "--data", "sample", "--out", sheet]) == 1
    assert "holds no masks" in capsys.readouterr().err
    assert main(["masked", "preview", masks, "--data", "sample", "--split", "train", "--out", sheet]) == 1
    assert "holds masks of sample/test, not of sample/train" in capsys.readouterr().err


def test_images_without_a_label_are_no_class_of_their_own(tmp_path):
    spec = StoreSpec("tiny", "0", "noise", "0", "none", 40, 6, variants=("original", "center"))
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    rows = torch.randn(40, 6, generator=g) + 4 * labels[:, None]
    labels[30:] = -1
    with StoreWriter(tmp_path / "s", spec) as writer:
        writer.write(0, rows, labels, torch.arange(40))
    found = accuracies(FeatureStore(tmp_path / "s"), 5, 0)["original"]
    assert found.classes == 2 and found.mean > 0.9


def test_folds_of_masked_inputs_leave_unlabelled_rows_out():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 5, generator=generator)
    y = (x[:, 0] > 0).long()
    y[::6] = -1
    assert fold_accuracy(x, y) == fold_accuracy(x[y >= 0], y[y >= 0])
