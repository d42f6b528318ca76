"""mIoU against its equation in exact sums, what is missing counted, intervals and controls."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sslk.data import Annotation, Dataset
from sslk.interpret.controls import center_prior, random_features
from sslk.interpret.heatmaps import HeatmapSettings, feature_heatmaps
from sslk.interpret.masks import BoxMasks, ClassMasks
from sslk.interpret.miou import MAPS, AgreementSettings, mask_agreement
from sslk.metrics import HeatmapIoU
from sslk.models import EvaluationTransform
from sslk.statistics.intervals import group_difference, mean_interval, paired_difference
from tests.interpret.small import cnn

TRANSFORM = EvaluationTransform((16, 16), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
EVERY = torch.ones(12, dtype=torch.bool)


def iou_oracle(heat, mask, threshold):
    """`s(R & M) / s(R | M)`, pixel by pixel with sums that do not round."""
    pixels = [(float(h), bool(m)) for h, m in zip(heat.flatten(), mask.flatten(), strict=True)]
    both = math.fsum(h for h, m in pixels if h > threshold and m)
    either = math.fsum(h for h, m in pixels if h > threshold or m)
    return both / either if either else 0.0


class Float32(torch.nn.Module):
    """The float64 test model for float32 images."""

    def __init__(self):
        super().__init__()
        self.net = cnn().float().net

    def forward(self, images):
        return self.net(images)


def scenes(n=11, unannotated=(3,), outside=(5,)):
    """Random images of 24 x 16 with three classes; some without a mask, some with core only outside the centre crop."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (n, 16, 24, 3), dtype=np.uint8)
    masks = rng.integers(0, 3, (n, 16, 24), dtype=np.uint8)
    for i in outside:
        masks[i][masks[i] == 0] = 1
        masks[i, :, 0] = 0
    names = [f"scene{i}" for i in range(n)]
    annotate = lambda i: Annotation(mask=None if i in unannotated else masks[i])  # noqa: E731
    data = Dataset("scenes", lambda i: Image.fromarray(pixels[i]), names, None, ["core", "rest", "void"], annotate=annotate)
    return data, masks


@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_miou_equals_the_equation_on_cropped_masks(threshold):
    data, masks = scenes()
    model = Float32()
    found = mask_agreement(
        model,
        data,
        ClassMasks(data, ["core"], void=["void"], per_class=True),
        EVERY,
        TRANSFORM,
        settings=AgreementSettings(eps=1.0, threshold=threshold, batch_size=4, keep_representations=True),
    )
    x = torch.stack([TRANSFORM(data[i][0]) for i in range(len(data))])
    heat = feature_heatmaps(model, x, settings=HeatmapSettings(eps=1.0), discriminative=EVERY)
    wanted = {"core": [], "spurious": []}
    for i in range(len(data)):
        crop = masks[i][:, 4:20]
        for kind, number in (("core", 0), ("spurious", 1)):
            region = crop == number
            known = i != 3 and region.any() and heat.has_map[i]
            wanted[kind].append(iou_oracle(heat.combined[i].double(), region, threshold) if known else np.nan)
    for kind, values in wanted.items():
        np.testing.assert_allclose(found.overlaps["discriminative", kind], values, rtol=1e-5, atol=1e-7)
        assert found.miou(kind).value == pytest.approx(np.nanmean(values), rel=1e-5)
    assert found.without_mask == {"core": 2, "spurious": 1, "rest": 1} | {"core": 2}
    assert found.without_map == int((~heat.has_map).sum()) and found.images == 11
    torch.testing.assert_close(found.representations, heat.representations, rtol=1e-5, atol=1e-6)
    if threshold == 0:
        area = [(masks[i][:, 4:20] == 1).mean() for i in range(11)]
        kept = ~np.isnan(found.overlaps["uniform", "spurious"])
        np.testing.assert_allclose(found.overlaps["uniform", "spurious"][kept], np.array(area)[kept], rtol=1e-6)


def test_images_without_map_or_mask_are_counted_and_never_zero():
    metric = HeatmapIoU()
    heat = torch.rand(5, 4, 4)
    heat[1] = 0
    mask = torch.rand(5, 4, 4) > 0.5
    mask[2] = False
    metric.update(heat, mask)
    metric.update(heat[:1], mask[:1], has_mask=torch.tensor([False]))
    assert metric.values().isnan().tolist() == [False, True, True, False, False, True]
    out = metric.compute()
    assert (out["images"], out["without_map"], out["without_mask"]) == (3, 1, 2)
    assert out["miou"] == pytest.approx(np.mean([iou_oracle(heat[i].double(), mask[i], 0) for i in (0, 3, 4)]), rel=1e-6)
    assert HeatmapIoU().compute()["miou"].isnan()
    # A mask that the heat misses is a true zero.
    metric.reset()
    left = torch.zeros(1, 4, 4)
    left[..., 0] = 1
    metric.update(left, left.bool().flip(2))
    assert metric.compute()["miou"] == 0 and metric.compute()["images"] == 1


def test_wrong_updates_are_refused():
    metric = HeatmapIoU()
    with pytest.raises(ValueError, match=r"mask bool of that shape, got torch.float32 \[2, 3, 3\]"):
        metric.update(torch.rand(2, 3, 3), torch.rand(2, 3, 3))
    with pytest.raises(ValueError, match=r"has_mask must be bool \[2\]"):
        metric.update(torch.rand(2, 3, 3), torch.rand(2, 3, 3) > 0.5, torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="heat must not be NaN, got it in 1 of 2"):
        metric.update(torch.tensor([1.0, torch.nan])[:, None, None].expand(2, 2, 2), torch.ones(2, 2, 2).bool())


def test_split_by_correctness_and_comparisons():
    data, _ = scenes(unannotated=(), outside=())
    correct = np.arange(11) % 3 == 0
    found = mask_agreement(
        Float32(), data, ClassMasks(data, ["core"]), EVERY, TRANSFORM, settings=AgreementSettings(eps=0.5, batch_size=5)
    ).with_correct(correct)
    values = found.overlaps["discriminative", "core"]
    assert found.miou(correct=True).value == pytest.approx(np.nanmean(values[correct]))
    assert found.miou(correct=False).value == pytest.approx(np.nanmean(values[~correct]))
    compared = found.compared()
    assert compared["core: correct - incorrect"].value == pytest.approx(
        np.nanmean(values[correct]) - np.nanmean(values[~correct])
    )
    assert compared["core - spurious"].value == pytest.approx(np.nanmean(values - found.overlaps["discriminative", "spurious"]))
    excess = [found.overlaps["discriminative", k] - found.overlaps["uniform", k] for k in ("core", "spurious")]
    assert compared["core - spurious beyond uniform heat"].value == pytest.approx(np.nanmean(excess[0] - excess[1]))
    assert {f"core: discriminative - {name}" for name in MAPS[1:]} <= set(compared)
    with pytest.raises(KeyError, match="no overlaps of 'discriminative' with 'shadow'"):
        found.miou("shadow")
    with pytest.raises(ValueError, match="one value per image, got 3 for 11"):
        found.with_correct([True] * 3)
    data.transform = TRANSFORM
    with pytest.raises(ValueError, match="must give untransformed images"):
        mask_agreement(Float32(), data, ClassMasks(data, ["core"]), EVERY, TRANSFORM)


def test_workers_and_batches_do_not_change_the_numbers():
    data, _ = scenes()
    model, source = Float32(), ClassMasks(data, ["core"])
    one = mask_agreement(model, data, source, EVERY, TRANSFORM, settings=AgreementSettings(eps=0.5, batch_size=11))
    two = mask_agreement(model, data, source, EVERY, TRANSFORM, settings=AgreementSettings(eps=0.5, batch_size=11, workers=1))
    for key in one.overlaps:
        np.testing.assert_array_equal(one.overlaps[key], two.overlaps[key])


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = [low <= 0.5 <= high for _, low, high, _ in (mean_interval(rng.random(60), seed) for seed in range(120))]
    assert 0.87 <= np.mean(covered) <= 1.0
    x = rng.random(200)
    close, wide = paired_difference(x + 0.01 * rng.random(200), x), group_difference(x + 0.005, rng.permutation(x))
    assert close.high - close.low < 0.01 < wide.high - wide.low
    assert close.low < 0.005 < close.high and wide.low < 0.005 < wide.high
    values = rng.random(30)
    assert mean_interval(values) == mean_interval(values[::-1])
    assert math.isnan(mean_interval(np.array([np.nan])).value) and mean_interval(np.array([0.5])).samples == 1


def test_controls_draw_as_many_features_and_prefer_the_centre():
    g = torch.Generator().manual_seed(0)
    features = torch.rand(400, 20, generator=g) - 0.3
    active = torch.rand(400, 20, generator=g) > 0.8
    chosen = random_features(features, active, g)
    assert not (chosen & (features <= 0)).any()
    assert torch.equal(chosen.sum(1), torch.minimum(active.sum(1), (features > 0).sum(1)))
    rates = chosen.double().mean(0)
    assert (rates - rates.mean()).abs().max() < 0.08  # no feature is preferred
    prior = center_prior(8, 12)
    assert prior.shape == (8, 12) and prior.max() == 1
    torch.testing.assert_close(prior, prior.flip(0, 1))
    assert prior[3, 5] > prior[3, 3] > prior[3, 0] > prior[0, 0] > 0


def test_boxes_become_masks_of_their_pixels():
    image = Image.new("RGB", (8, 6))
    boxes = [np.array([[1, 2, 4, 5]], np.float32), np.zeros((0, 4), np.float32), np.array([[-1, 0, 2, 9]], np.float32)]
    data = Dataset("b", lambda i: image, ["0", "1", "2"], None, annotate=lambda i: Annotation(boxes=boxes[i]))
    core = BoxMasks(data)(0, 6, 8)["core"]
    assert core.sum() == 9 and core[2:5, 1:4].all()
    assert BoxMasks(data)(1, 6, 8) == {}
    both = BoxMasks(data)(2, 6, 8)
    assert both["core"].sum() == 12 and not (both["core"] & both["spurious"]).any()
    with pytest.raises(ValueError, match="must name classes of b"):
        ClassMasks(data, ["dog"])


def interrupted(parts, after):
    """Run until `after` images are done and die there."""

    def progress(done, total, stage):
        if done >= after:
            raise KeyboardInterrupt

    data, _ = scenes()
    with pytest.raises(KeyboardInterrupt):
        mask_agreement(
            Float32(),
            data,
            ClassMasks(data, ["core"]),
            EVERY,
            TRANSFORM,
            settings=AgreementSettings(eps=0.5, batch_size=2, keep_representations=True),
            parts=parts,
            progress=progress,
        )


def test_an_interrupted_run_goes_on_with_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("sslk.interpret.parts.Parts.due", True)
    data, _ = scenes()
    source, model = ClassMasks(data, ["core"]), Float32()
    settings = AgreementSettings(eps=0.5, batch_size=2, keep_representations=True)
    whole = mask_agreement(model, data, source, EVERY, TRANSFORM, settings)
    interrupted(tmp_path / "p", 6)
    seen = []
    calls = model.net.register_forward_hook(lambda *_: seen.append(1))
    again = mask_agreement(model, data, source, EVERY, TRANSFORM, settings, parts=tmp_path / "p")
    calls.remove()
    # Parts of 2, 4 and 6 images are there; the layers are looked at with two passes over noise.
    assert len(seen) <= 3 + 3
    for key in whole.overlaps:
        np.testing.assert_array_equal(again.overlaps[key], whole.overlaps[key])
    assert (again.without_map, again.without_mask) == (whole.without_map, whole.without_mask)
    assert torch.equal(again.representations, whole.representations)


def test_parts_of_other_settings_or_weights_are_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("sslk.interpret.parts.Parts.due", True)
    data, _ = scenes()
    source = ClassMasks(data, ["core"])
    settings = AgreementSettings(eps=0.5, batch_size=2, keep_representations=True)
    other = Float32()
    with torch.no_grad():
        other.net[0].weight.mul_(-1)
    for name, model, change in (
        ("set", Float32(), {"eps": 0.9}),
        ("weights", other, {}),
        ("threshold", Float32(), {"threshold": 0.3}),
    ):
        interrupted(tmp_path / name, 6)
        changed = replace(settings, **change)
        fresh = mask_agreement(model, data, source, EVERY, TRANSFORM, changed)
        found = mask_agreement(model, data, source, EVERY, TRANSFORM, changed, parts=tmp_path / name)
        for key in fresh.overlaps:
            np.testing.assert_array_equal(found.overlaps[key], fresh.overlaps[key])

    class Nameless(ClassMasks):
        __repr__ = object.__repr__

    with pytest.raises(ValueError, match="masks must have a repr that names them"):
        mask_agreement(Float32(), data, Nameless(data, ["core"]), EVERY, TRANSFORM, parts=tmp_path / "n")
