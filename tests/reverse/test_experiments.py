"""The experiments: the toy's numbers, what groups contribute, shifts, pairs, and the command line end to end."""

import json

import pytest
import torch
from PIL import Image

from sslk.cli import main
from sslk.concepts import ConceptError, ConceptTable
from sslk.data import Dataset
from sslk.features import FeatureStore
from sslk.features.identity import data_hash
from sslk.features.manifest import StoreSpec
from sslk.features.writer import StoreWriter
from sslk.results.run import Run
from sslk.reverse import Clusterings, KMeansSettings, ProbeSettings, ReverseInputs, quantize, reverse_study
from sslk.reverse import experiments as ex
from sslk.reverse.settings import ExperimentSettings

QUICK = ProbeSettings(epochs=20, batch_size=64, learning_rate=0.5)


def world(rows: int = 600, seed: int = 0):
    """Features that hold kind (of 3) and colour (of 2); concepts that name both, and noise."""
    generator = torch.Generator().manual_seed(seed)
    kind, colour, noise = (torch.randint(n, (rows,), generator=generator) for n in (3, 2, 4))
    features = torch.cat([torch.eye(3)[kind], torch.eye(2)[colour]], 1) * 10
    features = torch.cat([features, torch.zeros(rows, 1)], 1) + 0.1 * torch.randn(rows, 6, generator=generator)
    bits = [[int(k), 3 + int(c), 5 + int(n)] for k, c, n in zip(kind, colour, noise, strict=True)]
    names = ["cat", "dog", "car", "red", "blue", "n0", "n1", "n2", "n3"]
    table = ConceptTable.from_rows(bits, names, ["labels"] * 3 + ["colour"] * 2 + ["noise"] * 4)
    return features, kind, colour, table


def test_the_toy_forward_fails_where_reverse_does_not():
    """Figure 2: forward 100 % and 50 %, reverse 100 % and 100 %."""
    for seed in range(3):
        found = ex.toy(seed).summary
        assert found["forward colour aligned [%]"] == 100 and found["reverse top-1 aligned [%]"] == 100
        assert found["forward colour crossed [%]"] == 50
        assert found["reverse top-1 crossed [%]"] == 100


def test_groups_contribute_what_the_features_hold():
    features, _, _, table = world()
    found = quantize(features, KMeansSettings(clusters=6, clusterings=2))
    result = ex.breakdown({"enc": found}, table, QUICK)
    ratio = {row[1]: row[result.tables[0].columns.index("I/H [%]")] for row in result.tables[0].rows}
    entropy = 100 * torch.tensor(3.0).log() / torch.tensor(6.0).log()
    assert (
        ratio["labels"] == pytest.approx(float(entropy), abs=2)
        and min(ratio["labels + colour"], ratio["labels + colour + noise"]) > 97
    )
    assert 30 < ratio["colour"] < 42 and 30 < ratio["colour + noise"] < 42
    gained = ex.gain({"enc": found}, table, QUICK).summary
    assert gained["enc: gain of colour [points]"] > 15 > gained["enc: gain of noise [points]"]
    with pytest.raises(ConceptError, match="got smell"):
        ex.breakdown({"enc": found}, table, QUICK, order=["smell"])


def test_ranking_puts_features_above_noise():
    features, _, _, table = world()
    noise = torch.randn(600, 6, generator=torch.Generator().manual_seed(1))
    settings = KMeansSettings(clusters=6, clusterings=2)
    encoders = {"noise": quantize(noise, settings), "good": quantize(features, settings)}
    result = ex.ranking(encoders, table, QUICK, accuracy={"noise": 10.0, "good": 90.0})
    assert [row[1] for row in result.tables[0].rows] == ["good", "noise"]
    assert result.summary["NMI good [%]"] > 95 and result.summary["NMI noise [%]"] < 10
    assert result.tables[0].paper == "reverse_table2"


def test_clusters_near_the_number_of_rows_are_not_ranked_by_chance():
    """Random clusters, four rows each, have twice the NMI of clusters that half follow the concepts, and an AMI of 0."""
    _, kind, colour, table = world()
    generator = torch.Generator().manual_seed(3)
    random = torch.randperm(600, generator=generator) % 150
    half = torch.rand(600, generator=generator) < 0.5
    real = torch.where(half, torch.randint(0, 6, (600,), generator=generator), 2 * kind + colour)
    encoders = {"random": Clusterings.given(random), "real": Clusterings.given(real)}
    result = ex.ranking(encoders, table, QUICK, accuracy={"random": 10.0, "real": 80.0})
    assert result.summary["NMI random [%]"] > 1.5 * result.summary["NMI real [%]"]
    assert [row[1] for row in result.tables[0].rows] == ["real", "random"]
    assert result.findings[0].startswith("By AMI: real ")
    assert "points of NMI are chance agreement, with 150 clusters on 120 test rows" in result.findings[1]
    assert list(result.figures[0].columns)[2] == "AMI [%]"
    plain = ex.ranking({"whole": Clusterings.given(2 * kind + colour)}, table, QUICK)
    assert plain.findings[0].startswith("By NMI: ") and "chance" not in " ".join(plain.findings)


def test_labels_are_told_from_concepts_without_the_labels_themselves():
    _, kind, colour, table = world()
    result = ex.labels_from_concepts(colour, torch.arange(600), table, QUICK, repeats=2)
    accuracy = {row[0]: row[result.tables[0].columns.index("top-1 [%]")] for row in result.tables[0].rows}
    assert accuracy["colour"] == 100 and accuracy["noise"] < 65 and "labels" not in accuracy
    given = ex.self_labels({"kind": Clusterings.given(kind)}, table, QUICK)
    assert given.summary["NMI kind [%]"] == 100


def test_a_shift_in_concepts_lowers_the_result_and_other_columns_are_refused():
    features, _, _, table = world()
    other, _, _, shifted = world(seed=5)
    found = quantize(features, KMeansSettings(clusters=6, clusterings=2))
    same = ex.shifted_test(found, table, other, torch.arange(600), shifted, QUICK).summary
    assert same["NMI shifted [%]"] > 95
    mixed = shifted.take(torch.randperm(600, generator=torch.Generator().manual_seed(0)))
    mixed = ConceptTable(mixed.offsets, mixed.columns, mixed.names, mixed.groups, torch.arange(600))
    assert ex.shifted_test(found, table, other, torch.arange(600), mixed, QUICK).summary["NMI shifted [%]"] < 10
    with pytest.raises(ConceptError, match="same columns, got 9 and 2"):
        ex.shifted_test(found, table, other, torch.arange(600), shifted.select(["colour"]), QUICK)


def test_pairs_are_those_the_group_separates():
    _, kind, colour, table = world()
    clusters = kind * 2 + colour
    pairs = ex.separated_pairs(clusters, 6, table, "colour", 3, QUICK)
    assert len(pairs) == 3
    for pair in pairs:
        assert pair.first // 2 == pair.second // 2 and pair.after == 0 and pair.before > 0.3
        first_is_red = pair.first % 2 == 0
        assert (pair.words["red"] > 0) == first_is_red and (pair.words["blue"] < 0) == first_is_red
    pytest.importorskip("wordcloud")
    found = Clusterings.given(clusters)
    result = ex.cluster_pairs(found, table, "colour", lambda i: Image.new("RGB", (8, 8), "red"), QUICK, count=1)
    assert [figure.file for figure in result.figures] == ["pair_1.png"]


def test_more_clusters_are_harder():
    features, _, _, table = world()
    numbers = torch.arange(600)
    kmeans = KMeansSettings(clusterings=1, restarts=2)
    result = ex.vary_clusters({"enc": (features, numbers)}, table, [6, 40], kmeans, QUICK)
    nmi = [row[result.tables[0].columns.index("NMI [%]")] for row in result.tables[0].rows]
    assert nmi[0] > 95 > nmi[1]
    moved = ex.transfer({"enc": (features, numbers)}, table, (6,), kmeans, QUICK)
    assert moved.tables[0].paper == "reverse_table4" and moved.summary["NMI enc, K = 6 [%]"] > 95


def test_the_command_line_end_to_end(tmp_path, capsys):
    features, kind, _, table = world()
    spec = StoreSpec("enc", "0" * 64, "world", "0" * 64, "none", samples=600, num_features=6, shard_rows=600)
    with StoreWriter(tmp_path / "store", spec) as writer:
        writer.write(0, features, kind, torch.arange(600))
    table.save(tmp_path / "c.st")
    out = tmp_path / "out"
    words = [
        "reverse",
        "study",
        f"enc={tmp_path / 'store'}",
        "--concepts",
        str(tmp_path / "c.st"),
        "--out",
        str(out),
        "--kmeans.clusters",
        "6",
        "--kmeans.clusterings",
        "2",
        "--probe.epochs",
        "5",
        "--quiet",
    ]
    assert main(words) == 0, capsys.readouterr().err
    run = Run.load(out)
    assert run.kind == "reverse" and run.provenance["config"]["kmeans"]["clusters"] == 6
    assert run.summary["NMI enc [%]"] > 90
    stamp = (out / "clusterings" / "enc.safetensors").stat().st_mtime_ns
    assert main(words) == 0 and (out / "clusterings" / "enc.safetensors").stat().st_mtime_ns == stamp  # reused
    assert Run.load(out).summary == run.summary
    capsys.readouterr()
    assert main([*words, "--groups", "smell"]) == 1 and "got smell" in capsys.readouterr().err
    assert main(["700" if word == "6" else word for word in words]) == 1 and "K=700 for N=600" in capsys.readouterr().err
    assert main(["concepts", "info", str(tmp_path / "c.st"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["groups"] == {"labels": 3, "colour": 2, "noise": 4}


def test_every_experiment_heeds_the_groups_and_the_images(tmp_path):
    features, kind, _, table = world()
    names, classes = [f"{i}.png" for i in range(600)], ("cat", "dog", "car")
    images = Dataset("world", lambda i: Image.new("RGB", (8, 8)), names, kind.numpy(), classes)
    sizes = {"samples": 600, "num_features": 6, "shard_rows": 600}
    spec = StoreSpec("enc", "0" * 64, "world", data_hash(images), "none", classes=classes, **sizes)
    with StoreWriter(tmp_path / "store", spec) as writer:
        writer.write(0, features, kind, torch.arange(600))
    store = FeatureStore(tmp_path / "store")
    inputs = ReverseInputs({"enc": store}, table, images=images)
    quick = KMeansSettings(clusters=6, clusterings=2, restarts=1)

    def run(experiment, inputs=inputs, out=None, **settings):
        return reverse_study(experiment, inputs, ExperimentSettings(**settings), quick, ProbeSettings(epochs=2), out=out)

    for experiment in ("ranking", "breakdown", "gain", "labels", "pairs"):
        with pytest.raises(ConceptError, match="got smell"):
            run(experiment, groups=("smell",), group="colour")
    with pytest.raises(ConceptError, match="got smell"):
        run("vary-k", groups=("smell",), ks=(4,))
    assert len(run("breakdown", label_group="none").tables[0].rows) == 3  # of a table without labels
    done = run("pairs", group="colour", count=1, out=tmp_path / "out")
    assert done.provenance["config"]["kmeans"]["clusterings"] == 1
    assert len(Clusterings.load(tmp_path / "out" / "clusterings" / "enc.safetensors").assignments) == 1  # the one it needs
    other = Dataset("other", lambda i: Image.new("RGB", (8, 8)), [f"other-{name}" for name in names], None)
    with pytest.raises(ValueError, match=r"data must be what .* was extracted from, world, got other"):
        run("pairs", ReverseInputs({"enc": store}, table, images=other), group="colour")


def test_a_table_of_shifted_classes_is_refused(tmp_path, capsys):
    """One folder more when the table was built: its images carry the neighbours' numbers."""
    features, kind, _, table = world()
    names = ("cat", "dog", "car")
    spec = StoreSpec("enc", "0" * 64, "world", "0" * 64, "none", samples=600, num_features=6, shard_rows=600, classes=names)
    with StoreWriter(tmp_path / "store", spec) as writer:
        writer.write(0, features, kind, torch.arange(600))
    shifted = ConceptTable(table.offsets, table.columns, table.names, table.groups, (table.samples + 1) % 600)
    table.save(tmp_path / "right.st")
    shifted.save(tmp_path / "shifted.st")
    words = [
        "reverse",
        "study",
        f"enc={tmp_path / 'store'}",
        "--out",
        str(tmp_path / "out"),
        "--kmeans.clusters",
        "6",
        "--kmeans.clusterings",
        "1",
        "--probe.epochs",
        "1",
        "--quiet",
        "--concepts",
    ]
    assert main([*words, str(tmp_path / "right.st")]) == 0
    capsys.readouterr()
    assert main([*words, str(tmp_path / "shifted.st")]) == 1
    said = capsys.readouterr().err
    assert "of 600 images have another class in the concept table than in" in said and "build the table from" in said
