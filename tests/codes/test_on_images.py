"""Codes of images: the embedded encoder with codes in front equals its store's codes."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from sslk.codes import CodesSettings, encode_store, fit_codes
from sslk.data.sample import load_sample
from sslk.data.source import DataSource
from sslk.features import ExtractSettings, extract
from sslk.features.by_name import extract_by_name, images_for
from sslk.interpret.maps import map_method
from sslk.models import Backbone, ModelSource, load_backbone
from sslk.quality import check_set, discover

EXTRACT = ExtractSettings(workers=0, device="cpu")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    store = extract_by_name(ModelSource("embedded"), DataSource("sample", "test"), folder / "features", EXTRACT)
    codes = fit_codes(store, CodesSettings(latents=96, k=12, epochs=2, batch_size=128))
    return store, codes, encode_store(store, codes, folder / "codes")


@pytest.fixture(scope="module")
def images():
    model, data = ModelSource("embedded"), DataSource("sample", "test")
    data = images_for(model.load(), model, data, early=False)
    return torch.stack([data[n][0] for n in range(48)])


@pytest.mark.parametrize("maps", [False, True])
def test_codes_of_images_are_the_codes_of_their_features(parts, images, maps):
    _, codes, encoded = parts
    backbone = codes.on(load_backbone("embedded"), maps=maps)
    with torch.no_grad():
        found = backbone(images)
    wanted = encoded.load().features[:48]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(found > 0, wanted > 0)
    assert (backbone.weights_hash, backbone.feature) == (encoded.spec.weights_hash, encoded.spec.feature)
    assert (backbone.pooled, backbone.signed, backbone.num_features) == (maps, False, 96)
    check_set(discover(encoded), backbone)  # a set of the store belongs to the backbone


def test_an_extraction_with_codes_in_front_is_the_store_of_codes(tmp_path, parts):
    _, codes, encoded = parts
    model, data = ModelSource("embedded"), DataSource("sample", "test")
    backbone = codes.on(model.load())
    own = extract(backbone, images_for(backbone, model, data, early=False), tmp_path / "own", EXTRACT)
    assert own.spec == encoded.spec
    torch.testing.assert_close(own.load().features, encoded.load().features, rtol=1e-4, atol=1e-4)


def test_the_map_of_a_code_is_the_closed_form_of_its_mean(parts, images):
    """And a code that is not kept has an empty map."""
    _, codes, _ = parts
    backbone = codes.on(load_backbone("embedded"), maps=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")  # the closed form, without a backward pass
        assert map_method(backbone, (3, 32, 32)).layer == "net.maps"
        maps, z = backbone.forward_features(images[:6]), backbone(images[:6])
        plain = load_backbone("embedded").forward_features(images[:6])
    auto = codes.autoencoder
    for n, m in ((z > 0).nonzero()[:10]).tolist():
        x = (plain[n] - auto.mean[:, None, None]) * auto.scale - auto.pre_bias[:, None, None]
        wanted = (auto.encoder[m][:, None, None] * x).sum(0) + auto.encoder_bias[m]
        torch.testing.assert_close(maps[n, m], wanted, rtol=1e-3, atol=1e-3)
    assert bool((maps[z == 0] == 0).all())


def test_another_backbone_is_refused(parts):
    _, codes, _ = parts
    with pytest.raises(ValueError, match=r"codes were fitted on 'embedded' and .* is another: weights is"):
        codes.on(load_backbone("embedded").read_out(["stages.3.0.bn2"])[0])
    elsewhere = replace(codes, source=replace(codes.source, feature="cls"))  # of the same weights
    with pytest.raises(ValueError, match="is another: the representation is cls there and mean of stages here"):
        elsewhere.on(load_backbone("embedded"))
    with pytest.raises(ValueError, match="is another: D is 256 there and 4 here"):
        codes.on(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))


def test_maps_need_features_that_are_spatial_means(parts, tmp_path):
    class Corner(nn.Module):
        """The first value of a map: no mean."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            return self.conv(x)[:, :, 0, 0]

    backbone = Backbone(Corner(), name="corner", input_size=(32, 32))
    pixels = torch.utils.data.TensorDataset(load_sample("test")[0][:64].float() / 255)
    codes = fit_codes(extract(backbone, pixels, tmp_path / "s", EXTRACT), CodesSettings(k=4, epochs=1, batch_size=32))
    assert codes.on(backbone)(torch.zeros(1, 3, 32, 32)).shape == (1, 32)
    with pytest.raises(ValueError, match="maps needs features that are spatial means of channels"):
        codes.on(backbone, maps=True)
