"""Principal directions, galleries and correctness."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from sklearn.decomposition import PCA

import sslk
from sslk.interpret import galleries
from sslk.interpret.correctness import out_of_fold_correct, read_correct
from sslk.interpret.heatmaps import HeatmapSettings
from sslk.interpret.overlay import overlay
from sslk.interpret.pca import principal_directions
from tests.interpret.scene import TRANSFORM, make_scene
from tests.interpret.small import cnn, gradcam, images, scaled


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("scene"))


@pytest.mark.parametrize("normalize", [False, True])
def test_directions_equal_scikit_learns_for_tensor_and_store(scene, normalize):
    rows = scene.store.load().features.double()
    wanted_rows = torch.nn.functional.normalize(rows) if normalize else rows
    wanted = PCA(4).fit(wanted_rows.numpy())
    for source in (rows, scene.store):
        found = principal_directions(source, 4, normalize=normalize)
        signs = np.sign((found.directions.numpy() * wanted.components_).sum(1))[:, None]
        np.testing.assert_allclose(found.directions.numpy() * signs, wanted.components_, atol=1e-6)
        np.testing.assert_allclose(found.explained.numpy(), wanted.explained_variance_ratio_, rtol=1e-6)
        expected = wanted.transform(wanted_rows.numpy())
        np.testing.assert_allclose(found.transform(rows).numpy() * signs.T, expected, atol=1e-6)
        assert (found.directions.gather(1, found.directions.abs().argmax(1, keepdim=True)) > 0).all()
    with pytest.raises(ValueError, match="from 1 to 12"):
        principal_directions(rows, 13)
    with pytest.raises(ValueError, match="at least two rows"):
        principal_directions(rows[:1], 2)


def test_maps_of_a_direction_are_gradcam_of_its_coordinate():
    model, x = cnn(), images(4)
    found = principal_directions(model(x).detach(), 3, normalize=False)
    head = found.head().double()
    torch.testing.assert_close(head(model(x)), found.transform(model(x)))
    maps = sslk.feature_heatmaps(model, x, settings=HeatmapSettings(head=head), features=[0, 2])
    layer = model.get_submodule(model.feature_layer)
    for i in range(4):
        for k, direction in enumerate([0, 2]):
            wanted = scaled(gradcam(torch.nn.Sequential(model, head), layer, x[i], direction), (16, 16))
            torch.testing.assert_close(maps.per_feature[i, k].double(), wanted, rtol=1e-5, atol=1e-6)


def test_overlay_leaves_cold_pixels_alone_and_colours_hot_ones():
    image = np.full((3, 4, 3), 90, np.uint8)
    heat = np.zeros((3, 4))
    heat[1, 2] = 1
    shown = overlay(image, heat)
    assert (shown[heat == 0] == 90).all() and shown[1, 2, 0] > 100 > shown[1, 2, 2]
    np.testing.assert_array_equal(overlay(image[None], heat[None])[0], shown)


def test_galleries_draw_every_row(scene):
    figure = galleries.sample_gallery(
        {"before": scene.model, "after": scene.model}, scene.data, [0, 5, 9], scene.found, TRANSFORM
    )
    assert sum(bool(ax.images) for ax in figure.axes) == 9
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["image", "before", "after"]
    before, after = (np.asarray(figure.axes[k].images[0].get_array()) for k in (3, 6))
    np.testing.assert_array_equal(before, after)
    plt.close(figure)
    figure = galleries.class_gallery(scene.model, scene.store, scene.data, scene.found, 1, TRANSFORM, features=2, columns=4)
    labels = [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]
    unit = torch.nn.functional.normalize(scene.store.load().features)
    mean = unit[torch.from_numpy(scene.data.labels == 1)].mean(0)
    best = torch.where(scene.found.mask, mean, -1).topk(2).indices.tolist()
    assert labels[:2] == [f"discriminative {j}" for j in best]
    assert all(label.startswith("low ") for label in labels[2:])
    plt.close(figure)
    figure = galleries.pca_gallery(scene.model, scene.store, scene.data, TRANSFORM, components=3, columns=4)
    assert sum(bool(ax.images) for ax in figure.axes) == 12
    plt.close(figure)
    with pytest.raises(ValueError, match="label 7 has no image"):
        galleries.class_gallery(scene.model, scene.store, scene.data, scene.found, 7, TRANSFORM)


def test_out_of_fold_probes_never_see_the_image_they_judge():
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    informative = torch.eye(3)[labels] * 3 + torch.randn(300, 3, generator=g)
    assert out_of_fold_correct(informative, labels, epochs=20).double().mean() > 0.85
    # As many features as images: a probe that saw the image would know it.
    noise = torch.randn(300, 300, generator=g)
    assert out_of_fold_correct(noise, labels, epochs=20).double().mean() < 0.5
    with pytest.raises(ValueError, match="at least 5 images, got 0"):
        out_of_fold_correct(informative, labels * 0 - 1)


def test_correctness_from_a_file(tmp_path):
    (tmp_path / "c.csv").write_text("index,correct\n2,1\n0,0\n1,true\n")
    assert read_correct(tmp_path / "c.csv", [0, 1, 2]).tolist() == [False, True, True]
    assert read_correct(tmp_path / "c.csv", [2, 0]).tolist() == [True, False]
    with pytest.raises(ValueError, match=r"it lacks 1: 3"):
        read_correct(tmp_path / "c.csv", [2, 3])
    (tmp_path / "d.csv").write_text("index,right\n0,1\n")
    with pytest.raises(ValueError, match="needs the columns index, correct"):
        read_correct(tmp_path / "d.csv", [0])
