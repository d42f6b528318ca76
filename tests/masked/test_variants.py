"""Variants equal their definition, occluders included, and one store holds what V plain extractions would."""

import numpy as np
import pytest
import torch
from PIL import Image

from sslk.data import Dataset, load_dataset
from sslk.features import FeatureStore, StoreError, StoreSpec, StoreWriter, extract
from sslk.features.settings import ExtractSettings
from sslk.masked import VARIANTS, MaskedImages, VariantRenderer, build_masks, extract_variants, segmenter
from sslk.masked.analysis import one_variant, sampled_variants, streams_of
from sslk.masked.extract import variant_features
from sslk.masked.variants import OCCLUDERS, BlurredBackground, RandomPatches
from sslk.models import EvaluationTransform, evaluation_transform, load_backbone

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def images(n=6, height=21, width=30) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    batch = torch.randint(256, (n, 4, height, width), generator=g, dtype=torch.uint8)
    batch[:, 3] = (batch[:, 3] > 127).to(torch.uint8)
    return batch


def normalised(batch: torch.Tensor) -> np.ndarray:
    """The definition, pixel by pixel, in float64."""
    mean, std = (np.array(value)[None, :, None, None] for value in (MEAN, STD))
    return (batch[:, :3].numpy() / 255.0 - mean) / std


@pytest.mark.parametrize("radius", [None, 0.2, 0.9])
def test_the_five_variants_equal_their_definition(radius):
    batch = images()
    out = VariantRenderer(VARIANTS, MEAN, STD, radius)(batch).numpy()
    pixels, inside = normalised(batch), batch[:, 3:].numpy() > 0
    rows, columns = np.mgrid[:21, :30]
    reach = np.sqrt(21 * 30 / (2 * np.pi)) if radius is None else radius * 21
    disc = (rows + 0.5 - 10.5) ** 2 + (columns + 0.5 - 15) ** 2 <= reach**2
    for found, mask in zip(out, [np.ones_like(inside), inside, ~inside, disc, ~disc], strict=True):
        np.testing.assert_allclose(found, pixels * mask, atol=2e-6)
        assert (found[~np.broadcast_to(mask, found.shape)] == 0).all()


def test_random_patches_remove_half_and_do_not_depend_on_the_batch():
    batch = images(8, 28, 28)
    render = VariantRenderer(["random-patches", "original"], MEAN, STD)
    patches, original = render(batch)
    gone = (patches == 0).all(1)
    assert torch.equal(torch.where(gone[:, None], patches, original), patches)  # what is left is untouched
    squares = gone.view(8, 7, 4, 7, 4)
    assert torch.equal(squares.all(4).all(2), squares.any(4).any(2))  # whole patches only
    assert squares.all(4).all(2).sum((1, 2)).tolist() == [24] * 8  # round(0.5 * 49), ties to even
    assert len({tuple(mask.flatten().tolist()) for mask in gone}) == 8
    alone = torch.cat([render(batch[i : i + 1])[0] for i in reversed(range(8))]).flip(0)
    assert torch.equal(alone, patches)
    other = VariantRenderer(["random-patches"], MEAN, STD, occluders={"random-patches": RandomPatches(seed=1)})(batch)
    assert not torch.equal(other[0], patches)


def test_blurred_background_keeps_the_object_and_smooths_the_rest():
    batch = images(3, 32, 32)
    batch[:, 3] = 0
    batch[:, 3, 8:24, 8:24] = 1
    blurred, original = VariantRenderer(["blurred-background", "original"], MEAN, STD)(batch)
    inside = batch[:, 3:].bool().expand_as(original)
    assert torch.equal(blurred[inside], original[inside])
    assert blurred[~inside].std() < 0.3 * original[~inside].std()
    torch.testing.assert_close(blurred[~inside].mean(), original[~inside].mean(), atol=0.1, rtol=0)


def test_an_own_occluder_and_unknown_names():
    flip = VariantRenderer(["flipped", "center"], MEAN, STD, occluders={"flipped": lambda b: b.original.flip(-1)})
    batch = images()
    torch.testing.assert_close(flip(batch)[0].flip(-1), VariantRenderer(["original"], MEAN, STD)(batch)[0])
    with pytest.raises(ValueError, match="did you mean 'foreground'"):
        VariantRenderer(["forground"])
    with pytest.raises(ValueError, match="each once"):
        VariantRenderer(["center", "center"])
    with pytest.raises(ValueError, match="radius must be a positive share"):
        VariantRenderer(radius=0.0)
    assert repr(VariantRenderer(radius=0.3)) != repr(VariantRenderer())
    assert repr(BlurredBackground()) in repr(VariantRenderer([*OCCLUDERS]))


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked")
    data, backbone = load_dataset("sample"), load_backbone("embedded")
    masks = build_masks(data, segmenter("grabcut"), folder / "masks", indices=range(0, 40, 2))
    chosen = MaskedImages(data, evaluation_transform(backbone), masks)
    store = extract_variants(backbone, chosen, folder / "store", settings=ExtractSettings(shard_rows=8, batch_size=3))
    return folder, data, backbone, chosen, store


def test_one_store_equals_plain_extractions_of_every_variant(extracted, tmp_path):
    _, data, backbone, chosen, store = extracted
    render = VariantRenderer(mean=backbone.mean, std=backbone.std)
    variants = render(torch.stack([chosen[k][0] for k in range(20)]))
    assert store.spec.variants == VARIANTS and len(store) == 20
    assert store.labels().tolist() == data.labels[::2][:20].tolist()
    with torch.inference_mode():
        for name, rendered in zip(VARIANTS, variants, strict=True):
            torch.testing.assert_close(one_variant(store, name), backbone(rendered), atol=1e-5, rtol=1e-4)
    # The original is what a plain extraction of the same images gives.
    plain = Dataset(
        "part",
        lambda i: data.image(2 * i),
        [str(i) for i in range(20)],
        data.labels[::2][:20],
        transform=evaluation_transform(backbone),
    )
    features = extract(backbone, plain, tmp_path / "plain", ExtractSettings(workers=0)).load().features
    torch.testing.assert_close(one_variant(store, "original"), features, atol=2e-5, rtol=1e-4)


def test_a_killed_extraction_goes_on_to_the_same_bytes(extracted, tmp_path):
    _, _, backbone, chosen, store = extracted
    done = []

    def stop(images, total, stage):
        done.append(images)
        if images >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_variants(backbone, chosen, tmp_path / "s", settings=ExtractSettings(shard_rows=8, batch_size=3), progress=stop)
    again = extract_variants(backbone, chosen, tmp_path / "s", settings=ExtractSettings(shard_rows=8, batch_size=3))
    assert [shard.sha256 for shard in again.manifest.shards] == [shard.sha256 for shard in store.manifest.shards]


def test_other_radius_masks_or_variants_are_another_extraction(extracted):
    folder, _, backbone, chosen, _ = extracted
    for other in (VariantRenderer(radius=0.3), VariantRenderer(["original"])):
        other.mean, other.std = list(backbone.mean), list(backbone.std)
        with pytest.raises(StoreError, match="holds another extraction"):
            extract_variants(backbone, chosen, folder / "store", other, settings=ExtractSettings(shard_rows=8))


def test_masks_are_needed_only_where_a_variant_uses_them(extracted, tmp_path):
    _, data, backbone, _, _ = extracted
    bare = MaskedImages(data, evaluation_transform(backbone), indices=np.arange(4))
    with pytest.raises(ValueError, match="images must have masks"):
        extract_variants(backbone, bare, tmp_path / "s")
    store = extract_variants(backbone, bare, tmp_path / "s", VariantRenderer(["original", "border"]))
    assert store.num_features == 2 * backbone.num_features


def test_stores_stream_by_variant_and_samples_agree(extracted, tmp_path):
    _, data, backbone, chosen, store = extracted
    parts = list(variant_features(store, 7))
    assert [len(part[0]) for part in parts] == [7, 7, 6] or sum(len(part[0]) for part in parts) == 20
    whole = [torch.cat(column) for column in zip(*parts, strict=True)]
    for name, features in zip(VARIANTS, whole, strict=True):
        assert torch.equal(features, one_variant(store, name))
    sample = sampled_variants(store, 6, seed=0)
    rows = (whole[0][:, None] == sample[0][None]).all(2).nonzero()[:, 0]
    assert len(rows) == 6
    assert torch.equal(whole[4][rows], sample[4])
    other = extract_variants(
        backbone,
        MaskedImages(data, evaluation_transform(backbone), chosen.masks),
        tmp_path / "s",
        VariantRenderer(["original", "center"], backbone.mean, backbone.std),
    )
    with pytest.raises(StoreError, match="other images or variants"):
        streams_of({"a": store, "b": other})
    plain = extract(
        backbone,
        Dataset("one", lambda i: Image.new("RGB", (32, 32)), ["0"], None, transform=EvaluationTransform((32, 32), MEAN, STD)),
        tmp_path / "plain",
        ExtractSettings(workers=0),
    )
    with pytest.raises(StoreError, match="holds plain representations"):
        next(variant_features(plain))


def test_the_blur_has_the_stated_standard_deviation():
    side, sigma = 64, 0.1
    step = torch.zeros(1, 4, side, side, dtype=torch.uint8)
    step[:, :3, :, side // 2 :] = 200  # its blur is the Gaussian's distribution function
    occluder = {"blurred-background": BlurredBackground(sigma)}
    render = VariantRenderer(["blurred-background"], [0.0] * 3, [1.0] * 3, occluders=occluder)
    x = (torch.arange(side) + 0.5 - side / 2) / (sigma * side)
    wanted = 200 / 255 * torch.special.ndtr(x)
    middle = slice(8, -8)  # farther out the reflected border shows
    torch.testing.assert_close(render(step)[0, 0, 0, 20][middle], wanted[middle], rtol=0, atol=0.02)


def test_rows_that_are_not_finite_are_refused_before_they_are_compared(tmp_path):
    spec = StoreSpec("tiny", "0", "noise", "0", "none", 6, 4, labels=False, variants=("original", "center"))
    rows = torch.rand(6, 4)
    rows[2, 1] = torch.inf
    with StoreWriter(tmp_path / "s", spec) as writer:
        writer.write(0, rows, None, torch.arange(6))
    with pytest.raises(StoreError, match=r"1 rows that are not finite.* weights of tiny-model"):
        streams_of({"tiny-model": FeatureStore(tmp_path / "s")})
