"""What reverse probing cannot use or say: rows left out, empty clusters, top-5 of a few, other kinds of arguments."""

import math

import numpy as np
import pytest
import torch

import sslk
from sslk.concepts import ConceptTable
from sslk.reverse import Clusterings, KMeansSettings, quantize, reverse_metrics
from sslk.reverse.experiments import labels_from_concepts
from sslk.reverse.experiments.other_data import shifted_test
from sslk.reverse.experiments.result import metric_columns, metric_row
from sslk.reverse.study import read_assignment
from tests.probes.stores import features, write_store

pytestmark = pytest.mark.filterwarnings("ignore:.*(unlabelled|not finite)")
BAD = [2, 50, 199]
KMEANS = {"clusters": 6, "clusterings": 2, "restarts": 2, "iterations": 20}


def table_of(labels, group="labels"):
    names = [str(name) for name in range(int(labels.max()) + 1)]
    return ConceptTable.from_rows([[max(label, 0)] for label in labels.tolist()], names, group)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("stored", [False, True])
def test_rows_that_are_not_finite_are_not_clustered(tmp_path, stored, value):
    clean, y = features(240)
    keep = [row for row in range(240) if row not in BAD]
    x = clean.clone()
    x[BAD, 1] = value
    with pytest.warns(UserWarning, match="3 of 240 rows are not finite"):
        found = quantize(write_store(tmp_path / "s", x, y) if stored else x, **KMEANS)
    expected = quantize(clean[keep], KMeansSettings(**KMEANS))
    assert torch.equal(found.assignments, expected.assignments) and torch.equal(found.centroids, expected.centroids)
    assert found.samples.tolist() == keep and (found.rows.given, found.rows.nonfinite) == (240, 3)
    again = Clusterings.load(found.save(tmp_path / "c.safetensors"))
    assert again.rows == found.rows
    result = sslk.reverse_probe(again, table_of(y % 3), epochs=2)
    assert result.warnings[0] == "3 of 240 rows are not finite (NaN or infinity) and left out."
    run = shifted_test(expected, table_of(y % 3), x, torch.arange(240), table_of(y % 3))
    assert "3 of 240 shifted rows are not finite (NaN or infinity) and left out." in run.findings
    with pytest.raises(ValueError, match="features must hold a row that is finite, got NaN or infinity in all 240"):
        quantize(x * math.nan, **KMEANS)


@pytest.mark.parametrize("missing", [-1, -4, math.nan, None])
def test_assignments_without_a_cluster_are_left_out(missing):
    values = np.arange(40, dtype=object) % 7
    values[2] = values[30] = missing
    keep = [row for row in range(40) if row not in (2, 30)]
    with pytest.warns(UserWarning, match="2 of 40 rows are unlabelled"):
        found = Clusterings.given(values)
    assert found.assignments[0].tolist() == [row % 7 for row in keep] and found.samples.tolist() == keep
    assert found.rows.unlabelled == 2 and found.num_clusters == 7


def test_class_labels_leave_the_unlabelled_out():
    y = torch.arange(210) % 7
    clean = labels_from_concepts(y[10:], torch.arange(10, 210), table_of(y, "colour"), repeats=2)
    y[:10] = -1
    run = labels_from_concepts(y, torch.arange(210), table_of(y, "colour"), repeats=2)
    assert run.summary == clean.summary and run.tables[0].rows == clean.tables[0].rows
    assert "all: 10 of 210 rows are unlabelled (label below 0) and left out." in run.findings


def test_a_file_of_assignments_with_gaps(tmp_path):
    (tmp_path / "a.csv").write_text("sample,cluster\n5,1.0\n3,nan\n2,\n9,-1\n0,2.0\n7,None\n")
    found = read_assignment(str(tmp_path / "a.csv"))
    assert found.samples.tolist() == [5, 0] and found.assignments.tolist() == [[0, 1]] and found.rows.unlabelled == 4
    (tmp_path / "b.csv").write_text("5,1.5\n")
    with pytest.raises(ValueError, match="must hold two columns, sample number and cluster, both integers"):
        read_assignment(str(tmp_path / "b.csv"))


@pytest.mark.parametrize("clusters", [3, 5, 6])
def test_top_5_of_five_clusters_or_fewer_is_absent(clusters):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(clusters, (300,), generator=generator)
    logits = torch.randn(300, clusters, generator=generator)
    found = reverse_metrics(logits, target)
    order = np.argsort(-logits.numpy(), axis=1)[:, :5]
    by_hand = (order == target.numpy()[:, None]).any(1).mean()
    assert found.top5 == (None if clusters <= 5 else pytest.approx(by_hand))
    assert clusters > 5 or by_hand == 1.0
    result = sslk.reverse_probe(Clusterings.given(target), table_of(target), epochs=2)
    row = dict(zip(metric_columns(), metric_row(result), strict=True))
    assert (row["top-5 [%]"] is None) == (clusters <= 5)
    said = f"Top-5 is left out: of {clusters} clusters it is right whatever is predicted."
    assert (said in result.warnings) == (clusters <= 5) and math.isnan(result.mean("top5")) == (clusters <= 5)


def test_empty_clusters_are_counted_and_said():
    """Four different rows for seven clusters: three stay empty."""
    x = torch.eye(4).repeat(50, 1)
    found = quantize(x, clusters=7, clusterings=2, restarts=1)
    assert found.empty == [len(set(range(7)) - set(row.tolist())) for row in found.assignments] == [3, 3]
    result = sslk.reverse_probe(found, table_of(torch.arange(200) % 4), epochs=2)
    assert result.empty == 3 and "Up to 3 of 7 clusters are empty." in result.warnings


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, t: sslk.reverse_probe("runs/store", t), r"clusterings must be Clusterings, from quantize\(.*, got str"),
        (lambda c, t: sslk.reverse_probe(torch.zeros(9, 4), t), "clusterings must be Clusterings, .* got Tensor"),
        (lambda c, t: sslk.reverse_probe(c, "concepts.safetensors"), "concepts must be a ConceptTable, .* got str"),
        (lambda c, t: sslk.reverse_probe(c, t, epoch=2), "reverse_probe has no setting 'epoch': did you mean epochs"),
        (lambda c, t: quantize(torch.zeros(9, 4), k=2), "quantize has no setting 'k'"),
        (lambda c, t: quantize([["a"]], clusters=2), "features must be numbers"),
        (lambda c, t: Clusterings.given(np.array(["a", "b"])), "assignments must be integers, got the text 'a'"),
    ],
)
def test_other_kinds_of_arguments_are_named(call, message):
    labels = torch.arange(40) % 4
    with pytest.raises(TypeError, match=message):
        call(Clusterings.given(labels), table_of(labels))
