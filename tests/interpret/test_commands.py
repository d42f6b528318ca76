"""`sslk interpret` as a user runs it: results in the folder, findings printed, mistakes explained."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import sslk
from sslk.cli import main
from sslk.data.sample import load_sample
from sslk.models.embedded import load_embedded, normalize_images
from sslk.results.run import Run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """60 embedded test images as npz, their set S, and masks of the left half as core, of the right as spurious."""
    folder = tmp_path_factory.mktemp("place")
    images, labels = load_sample("test")
    chosen = torch.arange(0, 1000, 1000 // 60)[:60]
    np.savez(
        folder / "images.npz",
        images=images[chosen].permute(0, 2, 3, 1).numpy(),
        labels=labels[chosen].numpy(),
        classes=[f"class {c}" for c in range(10)],
    )
    encoder, _ = load_embedded()
    with torch.inference_mode():
        features = encoder(normalize_images(images[::4]))
    sslk.discover(features, eps=2.5).save(folder / "set.safetensors")
    left = np.zeros((32, 32), np.uint8)
    left[:, :16] = 255
    for name, mask in (("left", left), ("right", 255 - left)):
        Image.fromarray(mask).save(folder / f"{name}.png")
    rows = [
        [f"images.npz[{i}]", file, kind] for i in range(57) for file, kind in (("left.png", "core"), ("right.png", "spurious"))
    ]
    with open(folder / "masks.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["image", "mask", "kind"], *rows[:-1]])
    with open(folder / "correct.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["index", "correct"], *([i, i % 3 == 0] for i in range(60))])
    return folder


def command(place, verb, *words):
    base = ["interpret", verb, "--model", "embedded", "--data", f"npz:{place}/images.npz"]
    if "pca" not in words:
        base += ["--discriminative", f"{place}/set.safetensors"]
    return main([*base, *words])


def test_miou_leaves_a_run_with_controls_counts_and_a_figure(place, tmp_path, capsys):
    out = tmp_path / "miou"
    words = ["--masks", f"folder:{place}", "--correct", f"{place}/correct.csv", "--out", str(out), "--quiet"]
    assert command(place, "miou", *words) == 0
    printed = capsys.readouterr().out
    run = Run.load(out)
    assert run.kind == "interpret" and all(line in printed for line in run.findings)
    assert any("core - spurious > 0" in line for line in run.findings)
    assert any("3 without a core mask, 4 without a spurious mask" in line for line in run.findings)
    rows = {tuple(row[1:4]): row[4:] for row in run.tables[0].rows}
    assert run.tables[0].paper == "Figure 7"
    assert {
        ("core", "random features", "all"),
        ("spurious", "centre prior", "all"),
        ("core", "discriminative", "correct"),
    } <= set(rows)
    core, spurious = rows["core", "discriminative", "all"], rows["spurious", "discriminative", "all"]
    assert core[1] <= core[0] <= core[2] and core[3] <= 57
    assert core[0] + spurious[0] == pytest.approx(1, abs=0.02)  # halves share the heat at threshold 0
    assert rows["core", "uniform", "all"][0] == pytest.approx(0.5) == rows["core", "centre prior", "all"][0]
    with open(out / "samples.csv") as stream:
        samples = list(csv.DictReader(stream))
    assert len(samples) == 60 and samples[59]["embedded | discriminative | core"] == ""
    values = [float(s["embedded | discriminative | core"]) for s in samples if s["embedded | discriminative | core"]]
    assert np.mean(values) == pytest.approx(core[0], abs=1e-5)
    assert (out / run.figures[0].file).exists() and (out / run.figures[0].data).exists()
    assert run.provenance["correct"].endswith("correct.csv") and "torch" in run.provenance


def test_miou_draws_the_same_bytes_again(place, tmp_path):
    for out in ("a", "b"):
        words = ["--masks", f"folder:{place}", "--out", str(tmp_path / out), "--limit", "20", "--quiet"]
        assert command(place, "miou", *words) == 0
    assert (tmp_path / "a" / "miou.svg").read_bytes() == (tmp_path / "b" / "miou.svg").read_bytes()


def test_miou_before_and_after_pairs_the_images(place, tmp_path):
    encoder, _ = load_embedded()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(1 + 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    torch.save(encoder.state_dict(), tmp_path / "after.pt")
    words = [
        "--masks",
        f"folder:{place}",
        "--after",
        str(tmp_path / "after.pt"),
        "--out",
        str(tmp_path / "run"),
        "--limit",
        "20",
        "--quiet",
        "--json",
    ]
    assert command(place, "miou", *words) == 0
    run = Run.load(tmp_path / "run")
    assert {row[0] for row in run.tables[0].rows} == {"before", "after"}
    names = [row[1] for row in run.tables[1].rows]
    assert "core: after - before" in names and "spurious: after - before" in names
    same = words[:2] + words[4:]
    again = [*same[:3], str(tmp_path / "same"), *same[4:]]
    assert command(place, "miou", *again) == 0
    first = Run.load(tmp_path / "same").summary["mIoU core"]
    assert first == pytest.approx(run.summary["before: mIoU core"])


def test_heatmaps_writes_a_picture_and_the_maps(place, tmp_path, capsys):
    out = tmp_path / "heat"
    assert command(place, "heatmaps", "--images", "0", "7", "--features", "3", "--out", str(out), "--json") == 0
    assert json.loads(capsys.readouterr().out)["method"] == "closed form"
    tensors = load_file(out / "heatmaps.safetensors")
    assert tensors["combined"].shape == (2, 32, 32) and tensors["per_feature"].shape == (2, 1, 32, 32)
    assert tensors["images"].tolist() == [0, 7] and (out / "heatmaps.png").stat().st_size > 10_000
    assert Run.load(out).figures[0].file == "heatmaps.png"


def test_atlas_and_galleries_from_a_store(place, tmp_path, capsys):
    store, data = str(tmp_path / "store"), f"npz:{place}/images.npz"
    assert main(["store", "extract", "--model", "embedded", "--data", data, "--out", store, "--workers", "0", "--quiet"]) == 0
    with open(tmp_path / "concepts.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["even", "=odd"], *([int(i % 2 == 0), i % 2] for i in range(60))])
    base = ["--model", "embedded", "--data", data, "--discriminative", f"{place}/set.safetensors"]
    atlas = ["interpret", "atlas", store, *base, "--concepts", str(tmp_path / "concepts.csv"), "--out", str(tmp_path / "atlas")]
    assert main([*atlas, "--top", "3", "--tail-features", "2", "--quiet"]) == 0
    run = Run.load(tmp_path / "atlas")
    assert run.summary["features"] == len(run.tables[0].rows) == len(list((tmp_path / "atlas/pictures").iterdir()))
    assert "even" in (tmp_path / "atlas/index.html").read_text() and (tmp_path / "atlas/groups.png").exists()
    for kind, file in (("classes", "class-3.png"), ("pca", "pca.png"), ("samples", "samples.png")):
        words = ["--kind", kind, "--store", store, "--columns", "3", "--labels", "3", "--out", str(tmp_path / kind)]
        assert command(place, "gallery", *words) == 0
        assert (tmp_path / kind / file).stat().st_size > 5_000
    encoder, _ = load_embedded()
    with torch.no_grad():
        encoder.stem[0].weight.mul_(1.3) if hasattr(encoder, "stem") else next(encoder.parameters()).mul_(1.3)
    torch.save(encoder.state_dict(), tmp_path / "other.pt")
    changed = [f"cifar:compact@{tmp_path / 'other.pt'}" if word == "embedded" else word for word in atlas]
    assert main([*changed[:-1], str(tmp_path / "no"), "--quiet"]) == 1
    assert "was extracted with other weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "words", "message"),
    [
        ("heatmaps", ["--images", "99"], "images must be from 0 to 59"),
        ("miou", ["--masks", "boxes"], "masks must be annotation, folder:PATH or salient:PATH"),
        ("miou", [], "has no masks or boxes"),
        ("miou", ["--masks", "salient:x"], "needs --answers"),
        ("gallery", ["--kind", "classes"], "needs store"),
        ("gallery", ["--kind", "compare"], "needs after"),
    ],
)
def test_mistakes_are_explained(place, tmp_path, capsys, verb, words, message):
    assert command(place, verb, *words, "--out", str(tmp_path)) == 1
    assert message in capsys.readouterr().err


def test_miou_needs_to_know_who_is_correct_after(place, tmp_path, capsys):
    words = [
        "--masks",
        f"folder:{place}",
        "--correct",
        f"{place}/correct.csv",
        "--after",
        "nowhere.pt",
        "--out",
        str(tmp_path / "run"),
        "--quiet",
    ]
    assert command(place, "miou", *words) != 0
    assert "give correct_after with those of the second" in capsys.readouterr().err
    with open(tmp_path / "after.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["index", "correct"], *([i, 1 - (i % 4 == 0)] for i in range(60))])
    encoder, _ = load_embedded()
    torch.save(encoder.state_dict(), tmp_path / "after.pt")
    words[5] = str(tmp_path / "after.pt")
    assert command(place, "miou", *words, "--correct-after", str(tmp_path / "after.csv"), "--limit", "20") == 0
    run = Run.load(tmp_path / "run")
    chosen = np.linspace(0, 59, 20).astype(int)
    assert run.provenance["accuracy before"] == pytest.approx((chosen % 3 == 0).mean())
    assert run.provenance["accuracy after"] == pytest.approx((chosen % 4 != 0).mean())
    assert not (tmp_path / "run" / ".parts").exists()
