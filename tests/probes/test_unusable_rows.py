"""Labels and rows that a probe cannot use: left out as if they had never been there, counted, and said."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from sslk.cli import main
from sslk.features.manifest import StoreError
from sslk.models import Backbone
from sslk.probes import kfold_probe, knn_probe, linear_probe
from sslk.probes.head import head_outputs
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.rows import EncoderRows
from sslk.probes.source import answered_rows
from sslk.probes.studies import head_study, kfold_study, knn_study, linear_study
from sslk.probes.usable import finite_rows, whole_labels
from sslk.results.run import Run
from tests.probes.stores import features, write_store

pytestmark = pytest.mark.filterwarnings("ignore:.*(left out|count as wrong|counts as wrong)")

PROBES = {
    "linear": lambda train, test: linear_probe(train, test, epochs=3),
    "knn": lambda train, test: knn_probe(train, test, neighbors=(1, 5, 20)),
    "kfold": lambda train, _: kfold_probe(train, folds=3, l2=(1e-3, 1e-2)),
}
DROPPED = [4, 17, 55]


def as_given(y, form):
    """Labels of `DROPPED` taken away, in one of the forms users have them in."""
    missing = {"minus one": -1, "below": -7, "nan": np.nan, "none": None}[form]
    values = y.numpy().astype({"nan": np.float32, "none": object}.get(form, np.int32))
    values[DROPPED] = missing
    return values if form in ("nan", "none") else torch.from_numpy(values)


def others(n):
    return [row for row in range(n) if row not in DROPPED]


def assert_same(found, expected, rows):
    """The same answers bit by bit, and the accuracy that NumPy counts on them."""
    assert torch.equal(found.outputs.logits, expected.outputs.logits)
    assert found.outputs.index.tolist() == rows and torch.equal(found.outputs.labels, expected.outputs.labels)
    assert torch.equal(found.outputs.classes, expected.outputs.classes) and -1 not in found.outputs.classes.tolist()
    by_hand = np.mean(found.outputs.predictions.numpy() == found.outputs.labels.numpy())
    assert found.outputs.accuracy == expected.outputs.accuracy == by_hand


@pytest.mark.parametrize("form", ["minus one", "below", "nan", "none"])
@pytest.mark.parametrize("probe", PROBES)
def test_unlabelled_rows_are_as_if_they_were_not_there(probe, form):
    (x, y), (x_test, y_test) = features(200), features(90, seed=1)
    keep, keep_test = others(200), others(90)
    expected = PROBES[probe]((x[keep], y[keep]), (x_test[keep_test], y_test[keep_test]))
    found = PROBES[probe]((x, as_given(y, form)), (x_test, as_given(y_test, form)))
    assert_same(found, expected, keep if probe == "kfold" else keep_test)
    assert (found.unlabelled, found.nonfinite) == (3 if probe == "kfold" else 6, 0)
    assert (expected.unlabelled, expected.nonfinite) == (0, 0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("probe", PROBES)
def test_rows_that_are_not_finite_are_as_if_they_were_not_there(probe, value):
    (x, y), (x_test, y_test) = features(200), features(90, seed=1)
    keep, keep_test = others(200), others(90)
    expected = PROBES[probe]((x[keep], y[keep]), (x_test[keep_test], y_test[keep_test]))
    for rows in (x, x_test):
        rows[DROPPED, 5] = value
    with pytest.warns(UserWarning, match="3 of 200 .*rows are not finite") as said:
        found = PROBES[probe]((x, y), (x_test, y_test))
    assert_same(found, expected, keep if probe == "kfold" else keep_test)
    assert (found.unlabelled, found.nonfinite) == (0, 3 if probe == "kfold" else 6)
    assert probe == "kfold" or any("3 of 90 test rows are not finite" in str(one.message) for one in said)


def test_a_store_is_read_without_them(tmp_path):
    """What the rows that are left out hold changes nothing, bit by bit; samples keep their numbers."""
    (x, y), (x_test, y_test) = features(400), features(160, seed=1)
    y[DROPPED], y_test[DROPPED] = -1, -1
    x_test[[30, 31]] = torch.nan
    found = []
    for value in (0.0, 1e6, torch.inf):
        x[DROPPED] = value
        train = write_store(tmp_path / f"train{value}", x, y)
        test = write_store(tmp_path / f"test{value}", x_test, y_test)
        found.append(linear_probe(train.path, str(test.path), epochs=3))
    left = [row for row in others(160) if row not in (30, 31)]
    for one in found:
        assert torch.equal(one.logits, found[0].logits) and one.outputs.index.tolist() == left
        assert (one.train_rows.used, one.test_rows.used, one.unlabelled, one.nonfinite) == (397, 155, 6, 2)
    assert found[0].top1 > 0.6
    assert answered_rows(test, found[-1].outputs).tolist() == left
    part = found[-1].outputs
    short = ProbeOutputs.from_logits(part.logits[1:], part.classes, part.labels[1:], part.index[1:])
    with pytest.raises(StoreError, match="other samples"):  # row 0 is labelled and finite
        answered_rows(test, short)
    with pytest.raises(StoreError, match="other samples"):
        answered_rows(write_store(tmp_path / "few", x_test[:150], y_test[:150]), part)


def test_images_without_a_label_are_as_if_they_were_not_there():
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randint(256, (60, 3, 4, 4), generator=generator).to(torch.uint8), torch.arange(60) % 2
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(48, 8))

    def rows(kept, given):
        data = torch.utils.data.TensorDataset(images[kept], given)
        return EncoderRows(encoder, data, given, lambda batch, _: batch.float() / 255, lambda batch: batch.float() / 255)

    keep = others(60)
    expected = linear_probe(rows(keep, labels[keep]), rows(keep, labels[keep]), epochs=2)
    labels[DROPPED] = -1
    found = linear_probe(rows(range(60), labels), rows(range(60), labels), epochs=2)
    assert_same(found, expected, keep)
    assert found.unlabelled == 6


@pytest.mark.parametrize("study", ["linear", "knn", "kfold", "head"])
def test_a_run_says_what_is_left_out_and_unknown(tmp_path, study):
    (x, y), (x_test, y_test) = features(300, classes=(0, 1, 2)), features(100, classes=(0, 1, 2), seed=1)
    y[:5], x[7, 0] = -1, torch.nan
    y_test[:4], x_test[6:8, 3] = -3, torch.inf
    y_test[10:30] = 9
    train, test = write_store(tmp_path / "train", x, y), write_store(tmp_path / "test", x_test, y_test)
    if study in ("kfold", "head"):
        if study == "kfold":
            run = kfold_study(train)
        else:
            head, net = nn.Linear(48, 4), nn.Sequential(nn.Flatten(), nn.Linear(48, 48))
            backbone = Backbone(net, name="b", input_size=(4, 4), classifier=head)
            train = write_store(tmp_path / "own", x, y, weights=backbone.weights_hash)
            run = head_study(train, backbone)
            keep = [row for row in range(300) if row > 4 and row != 7]
            expected = float((head(x[keep]).argmax(1) == y[keep]).double().mean())
            assert run.summary["top1"] == pytest.approx(expected) and len(head_outputs(train, head).labels) == 294
        assert run.summary["samples"] == 294 and (run.summary["unlabelled"], run.summary["nonfinite"]) == (5, 1)
        assert "5 of 300 rows are unlabelled (label below 0) and left out." in run.findings
        return
    run = {"linear": linear_study, "knn": knn_study}[study](train, test)
    summary = run.summary
    assert (summary["unlabelled_train"], summary["nonfinite_train"]) == (5, 1)
    assert (summary["unlabelled_test"], summary["nonfinite_test"], summary["unknown_class"]) == (4, 2, 20)
    assert summary["samples"] == 94 and summary["top1_known_classes"] * 74 == pytest.approx(summary["top1"] * 94)
    assert "1 of 300 training rows is not finite (NaN or infinity) and left out." in run.findings
    assert any(text.startswith("20 of 94 test samples are of one class that training lacks (9)") for text in run.findings)


def test_commands_say_it(tmp_path, capsys):
    (x, y), (x_test, y_test) = features(300), features(100, seed=1)
    y[:5], x_test[6, 3] = -1, torch.nan
    train, test = write_store(tmp_path / "train", x, y), write_store(tmp_path / "test", x_test, y_test)
    words = ["--train", str(train.path), "--test", str(test.path), "--out", str(tmp_path / "run"), "--quiet"]
    assert main(["probe", "knn", *words]) == 0
    run = Run.load(tmp_path / "run")
    assert "5 of 300 training rows are unlabelled (label below 0) and left out." in run.findings
    assert "1 of 100 test rows is not finite (NaN or infinity) and left out." in run.findings


def test_default_neighbours_beyond_the_bank_are_left_out_and_named():
    x, y = features(120)
    with pytest.warns(UserWarning, match="The default k 200 is left out: the bank, training less validation, holds 108 rows"):
        found = knn_probe(x, y, x, y)
    assert found.beyond == (200,) and {row[0] for row in found.grid} == {1, 5, 10, 20, 50, 100}
    with pytest.raises(ValueError, match=r"neighbors must lie between 1 and 108, .* got \[5, 200\]"):
        knn_probe(x, y, x, y, neighbors=(5, 200))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert knn_probe(*features(223), *features(9, seed=1)).beyond == ()


@pytest.mark.parametrize("probe", ["linear", "knn"])
def test_test_classes_that_training_lacks_are_counted(probe):
    (x, y), (x_test, y_test) = features(200), features(60, seed=1)
    y_test = torch.where(y_test == 7, 41, y_test)
    with pytest.warns(UserWarning, match=r"test samples are of one class that training lacks \(41\) and count as wrong"):
        outputs = PROBES[probe]((x, y), (x_test, y_test)).outputs
    right, known = outputs.predictions.numpy() == y_test.numpy(), y_test.numpy() != 41
    assert outputs.unknown == int((~known).sum()) and not outputs.correct[~known].any()
    assert outputs.accuracy == right.mean() and outputs.known_accuracy == right[known].mean()


@pytest.mark.parametrize("probe", ["linear", "knn"])
def test_one_class_is_refused(probe):
    x, y = features(100)
    with pytest.raises(ValueError, match="train_labels must hold at least two classes, got 1"):
        PROBES[probe]((x, torch.where(y == 3, 3, -1)), (x, y))


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y * 0 - 1), "labels must hold a label of 0 or more in some row, got none in 100 rows"),
        (lambda x, y: (x * torch.nan, y), "features must hold finite numbers in some row, got none in 100 rows"),
        (lambda x, y: (x, y + 0.5), r"labels must be whole numbers, got \d+.5 in row 0"),
        (lambda x, y: (x, y[:90]), r"features must be \[N, D\] with .*labels \[N\], got \[100, 48\] and \[90\]"),
        (lambda x, y: (x, y[:, None]), r"labels must be one number for each row, \[N\], got \[100, 1\]"),
        (lambda x, y: (x[:, 0], y), r"features must be a matrix \[N, D\], got \[100\]"),
    ],
)
def test_what_cannot_be_used_at_all_is_named(probe, change, message):
    x, y = features(100)
    with pytest.raises(ValueError, match=message):
        PROBES[probe](change(x, y), features(50, seed=1))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (torch.zeros(9, 4), r"train must be features with labels .* or its folder, got Tensor \[9, 4\]"),
        (3, "got int"),
        ((1, 2, 3), "got tuple of 3"),
        ((torch.zeros(9, 4), ["cat"] * 9), "train_labels must be integers, got the text 'cat': number the classes"),
        ((np.array([["a"]]), [1]), "train_features must be numbers"),
    ],
)
@pytest.mark.parametrize("probe", ["linear", "knn"])
def test_what_is_no_labelled_set(probe, train, message):
    with pytest.raises(TypeError, match=message):
        PROBES[probe](train, features(9))
    with pytest.raises(StoreError, match="nowhere"):
        PROBES[probe]("nowhere", features(9))


def test_settings_by_name_and_arrays_one_after_another():
    (x, y), (x_test, y_test) = features(200), features(60, seed=1)
    arrays = [part.numpy() for part in (x, y, x_test, y_test)]
    pair = linear_probe((x, y), (x_test, y_test), epochs=2, learning_rates=0.1)
    assert torch.equal(linear_probe(*arrays, epochs=2, learning_rates=[0.1]).logits, pair.logits)
    assert len(pair.grid) == 4
    knn = knn_probe(*arrays, neighbors=5, temperatures=0.2)
    assert torch.equal(
        knn.outputs.logits, knn_probe((x, y), (x_test, y_test), neighbors=(5,), temperatures=(0.2,)).outputs.logits
    )
    assert kfold_probe(x, y, folds=3, l2=1e-2).fold.max() == 2
    big_endian = linear_probe(x.numpy().astype(">f4")[::-1][::-1], arrays[1], *arrays[2:], epochs=2, learning_rates=0.1)
    assert torch.equal(big_endian.logits, pair.logits)
    for call, message in (
        (lambda: linear_probe(x, y, x, y, epoch=2), "linear_probe has no setting 'epoch': did you mean epochs"),
        (lambda: knn_probe(x, y, x, y, neighbours=2), "did you mean neighbors"),
        (lambda: linear_probe(x, y, x, y, epochs="2"), "epochs must be a number, got '2'"),
        (lambda: linear_probe(x, y, x, y, epochs=2.5), "epochs must be a whole number, got 2.5"),
        (lambda: linear_probe(x, y, x), "linear_probe needs train and test, .* got 3 arguments"),
    ):
        with pytest.raises(TypeError, match=message):
            call()
    with pytest.raises(ValueError, match="train_features and test_features must have the same D, got 48 and 47"):
        knn_probe(x, y, x_test[:, :47], y_test)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([True, False], [1, 0]),
        (np.array([1.0, np.nan, 3.0], dtype=np.float16), [1, -1, 3]),
        (torch.tensor([2.0, -5.0, torch.nan], dtype=torch.bfloat16), [2, -1, -1]),
        (np.array([None, 3, np.float64("nan"), np.int8(4)], dtype=object), [-1, 3, -1, 4]),
        (np.array([7, 255], dtype=np.uint8), [7, 255]),
        ([], []),
    ],
)
def test_labels_in_every_form(given, expected):
    found = whole_labels(given)
    assert found.dtype == torch.int64 and found.tolist() == expected


@pytest.mark.parametrize("given", [[1.5], [1e17], ["3"], [b"3"], [object()], np.array([2**63], dtype=np.uint64), [1j]])
def test_labels_that_are_none(given):
    with pytest.raises((TypeError, ValueError), match=r"^y must be"):
        whole_labels(given, "y")


def test_rows_whose_sum_overflows_are_finite():
    x = torch.tensor([[1e308, 1e308], [torch.inf, 0.0], [1.0, torch.nan]], dtype=torch.float64)
    assert finite_rows(x).tolist() == [True, False, False]
    assert finite_rows(torch.tensor([[65504.0, 65504.0]], dtype=torch.float16)).tolist() == [True]
