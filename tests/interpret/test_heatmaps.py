"""Heatmaps equal GradCAM by autograd, leave nothing behind, and say what they did."""

import gc
import warnings
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import sslk
from sslk.interpret import heatmap_batches
from sslk.interpret.heatmaps import HeatmapSettings
from sslk.models import load_backbone
from tests.interpret.small import cnn, gradcam, images, scaled, unpooled
from tests.ops import oracle

EVERY = torch.ones(12, dtype=torch.bool)


def combined_oracle(model, layer, x, discriminative, eps, two_sided, size):
    """Mean of the max-normalised GradCAM maps of L_i in S, one image and one feature at a time."""
    h = model(x).detach()
    active = oracle.active_set(h, eps, two_sided) & discriminative
    out = []
    for i, image in enumerate(x):
        total = torch.zeros(())
        for j in active[i].nonzero()[:, 0].tolist():
            sign = -1.0 if two_sided and h[i, j] < h[i].mean() else 1.0
            cam = gradcam(model, layer, image, j, sign)
            total = total + (cam / cam.max() if cam.max() > 0 else cam)
        out.append(scaled(total / active[i].sum(), size) if active[i].any() else torch.zeros(size))
    return torch.stack(out), active.sum(1)


@pytest.mark.parametrize("signed", [False, True])
def test_closed_form_equals_autograd_gradcam(signed):
    model, x = cnn(signed), images()
    found = sslk.feature_heatmaps(model, x, features=range(12))
    assert found.method == "closed form"
    for i in range(len(x)):
        for j in range(12):
            wanted = scaled(gradcam(model, model.get_submodule(found.layer), x[i], j), (16, 16))
            torch.testing.assert_close(found.per_feature[i, j].double(), wanted, rtol=1e-5, atol=1e-6)


def test_closed_form_equals_the_grad_cam_package():
    """On real images and the embedded encoder; the package subtracts the map's minimum, so both are scaled that way."""
    grad_cam = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    from sslk.data.sample import load_sample
    from sslk.models.embedded import normalize_images

    model = load_backbone("embedded")
    x = normalize_images(load_sample("test")[0][::200])
    found = sslk.feature_heatmaps(model, x, features=[0, 17, 200]).per_feature
    with grad_cam.GradCAM(model=model, target_layers=[model.get_submodule(model.feature_layer)]) as cam:
        for k, feature in enumerate([0, 17, 200]):
            theirs = cam(input_tensor=x, targets=[ClassifierOutputTarget(feature)] * len(x))
            for ours, wanted in zip(found[:, k].numpy(), theirs, strict=True):
                ours, wanted = ours - ours.min(), wanted - wanted.min()
                np.testing.assert_allclose(ours / max(ours.max(), 1e-9), wanted / max(wanted.max(), 1e-9), atol=1e-5)


@pytest.mark.parametrize(("signed", "two_sided"), [(False, False), (True, True)])
@pytest.mark.parametrize("make", [cnn, unpooled])
def test_combined_map_is_the_mean_over_the_active_discriminative_features(make, signed, two_sided):
    model = make(signed) if make is cnn else make()
    x, discriminative = images(6), torch.arange(12) % 4 != 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = sslk.feature_heatmaps(
            model,
            x,
            settings=HeatmapSettings(eps=0.2, two_sided=two_sided, batch_size=4, size=(20, 18)),
            discriminative=discriminative,
        )
    wanted, counts = combined_oracle(model, model.get_submodule(found.layer), x, discriminative, 0.2, two_sided, (20, 18))
    assert found.counts.tolist() == counts.tolist() and counts.max() > 1
    torch.testing.assert_close(found.combined.double(), wanted, rtol=1e-5, atol=1e-6, check_dtype=False)
    assert found.method == ("closed form" if make is cnn else "GradCAM")


def test_empty_sets_give_no_map_and_are_counted():
    model, x = cnn(), images(4) * torch.arange(1, 5).view(4, 1, 1, 1)
    nothing = sslk.feature_heatmaps(model, x, settings=HeatmapSettings(eps=3.3), discriminative=EVERY)
    assert nothing.counts.tolist() == [0] * 4 and not nothing.has_map.any() and nothing.combined.abs().sum() == 0
    active = oracle.active_set(model(x), 1.0)
    feature = int(((active.sum(0) > 0) & (active.sum(0) < 4)).nonzero()[0])
    some = sslk.feature_heatmaps(model, x, settings=HeatmapSettings(eps=1.0), discriminative=torch.arange(12) == feature)
    assert some.counts.tolist() == active[:, feature].int().tolist()
    assert some.has_map.tolist() == (some.counts > 0).tolist() and 0 < some.has_map.sum() < 4
    assert some.combined.amax((1, 2)).tolist() == some.has_map.double().tolist()


def test_linear_heads_have_the_closed_form_and_others_go_through_captum():
    model, x = cnn(), images(3)
    linear = nn.Linear(12, 4).double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sslk.feature_heatmaps(model, x, settings=HeatmapSettings(head=linear), features=[0, 3])
    layer = model.get_submodule(found.layer)
    deep = nn.Sequential(linear, nn.Tanh())
    with pytest.warns(UserWarning, match="the head is not linear"):
        general = sslk.feature_heatmaps(model, x, settings=HeatmapSettings(head=deep), features=[0, 3])
    assert (found.method, general.method) == ("closed form", "GradCAM")
    for i in range(3):
        for k, j in enumerate([0, 3]):
            wanted = scaled(gradcam(nn.Sequential(model, linear), layer, x[i], j), (16, 16))
            torch.testing.assert_close(found.per_feature[i, k].double(), wanted, rtol=1e-5, atol=1e-6)
            wanted = scaled(gradcam(nn.Sequential(model, deep), model.get_submodule(general.layer), x[i], j), (16, 16))
            torch.testing.assert_close(general.per_feature[i, k].double(), wanted, rtol=1e-5, atol=1e-6)


def test_another_layer_takes_the_general_path_and_says_so():
    model, x = cnn(), images(3)
    with pytest.warns(UserWarning, match=r"small: the closed form does not apply \(the layer is another one\); using G"):
        found = sslk.feature_heatmaps(model, x, settings=HeatmapSettings(layer="1"), features=[2])
    assert (found.method, found.layer) == ("GradCAM", "net.1")
    wanted = scaled(gradcam(model, model.get_submodule("net.1"), x[1], 2), (16, 16))
    torch.testing.assert_close(found.per_feature[1, 0].double(), wanted, rtol=1e-5, atol=1e-6)
    with pytest.warns(UserWarning, match="no spatial means of channels"):
        sslk.feature_heatmaps(unpooled(), x, features=[2])


def test_a_plain_module_keeps_its_modes_and_gets_no_gradient():
    net = cnn().net.train()
    net[3].eval()
    modes = [module.training for module in net.modules()]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    x = images(3)
    found = sslk.feature_heatmaps(net, x, [1], EVERY, settings=HeatmapSettings(eps=1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = sslk.feature_heatmaps(net, x, [1], EVERY, settings=HeatmapSettings(eps=1.0, layer="0"))
    assert modes == [module.training for module in net.modules()]
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert not found.combined.requires_grad and not other.combined.requires_grad and x.grad is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def tensors() -> set[int]:
    """Every tensor that Python holds, by address; some are of other tests of this process, and may go at any time."""
    gc.collect()
    return {id(item) for item in gc.get_objects() if isinstance(item, torch.Tensor)}


@pytest.mark.parametrize("layer", [None, "net.1"])
def test_nothing_of_a_batch_outlives_it(layer):
    """Memory is flat over any number of images: every tensor of 200 batches can be freed when the next one comes."""
    model, alive = cnn(), []

    def batches():
        for seed in range(200):
            x = images(1, seed=seed)
            alive.append(weakref.ref(x))
            yield x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stream = heatmap_batches(model, batches(), settings=HeatmapSettings(eps=1.0, layer=layer), discriminative=EVERY)
        early: set[int] = set()
        for number, found in enumerate(stream):
            alive.append(weakref.ref(found.combined))
            if number == 40:
                early = tensors()
            elif number == 199:
                del found
                late = tensors()
    assert len(late - early) < 40  # a tensor kept of every batch would be 159
    assert sum(ref() is not None for ref in alive) <= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "features or discriminative must say"),
        ({"features": [12]}, "from 0 to 11, got 12 to 12"),
        ({"features": [-1]}, "from 0 to 11, got -1"),
        ({"features": [0.5]}, "list of feature numbers"),
        ({"features": []}, "list of feature numbers"),
        ({"discriminative": torch.ones(9, dtype=torch.bool)}, "D=9 features but these have D=12"),
        ({"features": [0], "settings": HeatmapSettings(layer="layer4")}, "layer must be the dotted name"),
        ({"features": [0], "settings": HeatmapSettings(layer="6")}, "must put out a feature map"),
        ({"features": [0], "settings": HeatmapSettings(batch_size=0)}, "batch_size must be at least 1"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        sslk.feature_heatmaps(cnn(), images(2), **arguments)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\[N, C, H, W\], normalised, got torch.uint8"):
        sslk.feature_heatmaps(cnn(), torch.zeros(2, 3, 16, 16, dtype=torch.uint8), features=[0])
    with pytest.raises(ValueError, match="at least one image"):
        sslk.feature_heatmaps(cnn(), images(0), features=[0])
    with pytest.raises(ValueError, match="only features were asked for"):
        _ = sslk.feature_heatmaps(cnn(), images(1), features=[0]).has_map
