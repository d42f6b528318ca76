"""From stores to a run: samples in step, rows that are not finite, rectangles, curves, and the command."""

import json

import pytest
import torch

from sslk.cli import main
from sslk.features.manifest import StoreSpec
from sslk.features.store import FeatureStore
from sslk.features.writer import StoreWriter
from sslk.results.run import Run
from sslk.similarity import SimilaritySettings, compare, similarity_study

FEW = SimilaritySettings(("cka_debiased", "cca", "procrustes", "mutual_knn", "rsa"), permutations=19, resamples=50, k=5)


def write(folder, features, model="net", data="0" * 64):
    spec = StoreSpec(model, "0" * 64, "noise/test", data, "none", len(features), features.shape[1], labels=False)
    with StoreWriter(folder, spec) as writer:
        writer.write(0, features, None, torch.arange(len(features)))
    return FeatureStore(folder)


@pytest.fixture
def parts():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(70, 6, generator=g)
    return {"a": x, "b": x @ torch.randn(6, 4, generator=g), "c": torch.randn(70, 9, generator=g)}


@pytest.fixture
def stores(parts, tmp_path):
    return {name: write(tmp_path / name, part, name) for name, part in parts.items()}


def test_stores_give_what_arrays_give_and_two_by_two_what_all_at_once(stores, parts, monkeypatch):
    once = compare(stores, FEW)
    arrays = compare({name: part.numpy() for name, part in parts.items()}, FEW)
    monkeypatch.setattr("sslk.similarity.comparison.SUMS_BYTES", 0)
    pairwise = compare(stores, FEW)
    for other in (arrays, pairwise):
        for measure, matrix in once.matrices.items():
            for name in ("value", "low", "high"):
                torch.testing.assert_close(getattr(matrix, name), getattr(other.matrices[measure], name), atol=1e-6, rtol=0)
        for measure, p in once.p_values.items():
            assert torch.equal(p.nan_to_num(9), other.p_values[measure].nan_to_num(9))


def test_rows_that_are_not_finite_in_one_are_left_out_of_all(parts, tmp_path):
    parts["b"][[3, 40]] = torch.inf
    kept = [row for row in range(70) if row not in (3, 40)]
    stores = {name: write(tmp_path / name, part, name) for name, part in parts.items()}
    found, wanted = compare(stores, FEW), compare({name: part[kept] for name, part in parts.items()}, FEW)
    assert (found.samples, found.nonfinite) == (68, 2)
    for measure, matrix in wanted.matrices.items():
        torch.testing.assert_close(found.matrices[measure].value, matrix.value, atol=1e-9, rtol=0)
    assert "2 of 70 rows are not finite" in similarity_study(stores, FEW).findings[0]


def test_a_rectangle_is_a_part_of_the_square(stores):
    square = compare(stores, FEW)
    part = compare({"a": stores["a"]}, FEW, columns={name: stores[name] for name in ("a", "b", "c")})
    for measure, matrix in square.matrices.items():
        torch.testing.assert_close(part.matrices[measure].value[0], matrix.value[0], atol=1e-9, rtol=0)
        torch.testing.assert_close(part.matrices[measure].low[0], matrix.low[0], atol=1e-9, rtol=0)
    assert torch.equal(part.p_values["rsa"][0].nan_to_num(9), square.p_values["rsa"][0].nan_to_num(9))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda folder: write(folder, torch.ones(70, 2), data="1" * 64), "of the same samples, 'x' is of"),
        (lambda folder: write(folder, torch.ones(69, 2)), "'x' has 69 rows and 'a' 70"),
    ],
)
def test_other_samples_are_refused(stores, tmp_path, other, message):
    with pytest.raises(ValueError, match=message):
        compare({"a": stores["a"], "x": other(tmp_path / "x")}, FEW)


def test_one_store_and_three_rows_are_refused(stores, parts):
    with pytest.raises(ValueError, match="must name at least two, got a"):
        compare({"a": stores["a"]}, FEW)
    with pytest.raises(ValueError, match="at least 4 usable rows, got 3"):
        compare({name: part[:3] for name, part in parts.items()}, FEW)
    with pytest.raises(ValueError, match=r"measures must be of cka_debiased, .* got 'cosine'"):
        SimilaritySettings(("cosine",))


def test_a_run_holds_every_pair_with_its_numbers(stores, tmp_path):
    run = Run.load(similarity_study(stores, FEW, curve=True).save(tmp_path / "run").parent)
    assert run.kind == "similarity" and len(run.measures) == 3 * len(FEW.measures)
    first = run.measures[0]
    assert (first.data, first.model, first.task) == ("noise/test", "a ~ b", "similarity")
    assert first.low <= first.value <= first.high and first.samples == 70
    table = run.tables[0]
    assert table.columns == ["representation", "with", "value", "low", "high", "chance", "p"]
    assert [row[:2] for row in table.rows] == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert (tmp_path / "run" / "curve.svg").exists() and (tmp_path / "run" / "rsa.csv").read_text().count("\n") >= 9
    assert any("no more alike than random pairings" in said and "a ~ c" in said for said in run.findings)


def test_the_command_takes_stores_and_rectangles(stores, tmp_path, capsys):
    a, b, c = (str(store.path) for store in stores.values())
    options = ["--measures", "cka_debiased", "rsa", "--permutations", "9", "--resamples", "20", "--quiet", "--json"]
    assert main(["similarity", a, b, "--out", str(tmp_path / "x"), *options]) == 0
    printed = json.loads(capsys.readouterr().out)
    wanted = compare(stores, FEW).matrices["cka_debiased"].value[0, 1]
    assert printed["cka_debiased a ~ b"] == pytest.approx(float(wanted))
    assert main(["similarity", "--rows", a, "--columns", b, c, "--out", str(tmp_path / "y"), *options]) == 0
    assert len(Run.load(tmp_path / "y").tables[0].rows) == 2
    assert main(["similarity", a, "--rows", a, "--out", str(tmp_path / "z")]) == 1
    assert "give either stores, for all pairs, or both --rows and --columns" in capsys.readouterr().err


def test_the_command_extracts_a_model_that_is_named(tmp_path):
    words = "similarity --rows embedded --columns cifar:compact@random --layer 0 -1 --data sample --permutations 0 --resamples 0"
    words += " --measures cka_debiased --extraction.workers 0 --extraction.device cpu --quiet --out"
    assert main([*words.split(), str(tmp_path / "run")]) == 0
    rows = Run.load(tmp_path / "run").tables[0].rows
    assert [row[0] for row in rows] == ["embedded, mean of stages.0"] * 2 + ["embedded, mean of stages.3"] * 2
