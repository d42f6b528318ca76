"""A bare `nn.Module` goes where a `Backbone` goes, with the same results."""

from __future__ import annotations

import pytest
import torch

from sslk.data import load_dataset
from sslk.features import ExtractSettings, extract
from sslk.interpret import gallery_study, heatmap_study
from sslk.masked.extract import MaskedBackbone
from sslk.masked.variants import VariantRenderer
from sslk.models import Backbone, as_backbone, evaluation_transform
from sslk.models.embedded import load_embedded
from sslk.probes import LinearSettings, augmented_linear_study
from sslk.probes.online import encoder_rows
from sslk.quality import check_set, discover
from sslk.training.start import TrainingStart


@pytest.fixture(scope="module")
def pair() -> tuple[torch.nn.Module, Backbone]:
    net = load_embedded()[0]
    net.pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
    return net, Backbone(net, name="CifarResNet", input_size=(32, 32), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))


def test_stores_sets_and_studies(pair: tuple[torch.nn.Module, Backbone], tmp_path) -> None:
    net, backbone = pair
    assert evaluation_transform(net) == evaluation_transform(backbone)
    images = load_dataset("sample", transform=evaluation_transform(net)).subset(range(60))
    stores = [
        extract(model, images, tmp_path / name, ExtractSettings(workers=0)) for name, model in (("a", net), ("b", backbone))
    ]
    assert stores[0].spec.weights_hash == stores[1].spec.weights_hash == as_backbone(net).weights_hash
    assert torch.equal(stores[0].load().features, stores[1].load().features)
    found = discover(stores[1], 1.0)
    check_set(found, net)
    images.transform = None
    runs = [heatmap_study(model, images, found, [3, 7]) for model in pair]
    assert runs[0].tables == runs[1].tables
    assert gallery_study("samples", net, images, found).title == "Gallery of CifarResNet: samples"
    assert TrainingStart("simclr", net, None, images).backbone.num_features == 256


def test_probes_and_masked_inputs(pair: tuple[torch.nn.Module, Backbone]) -> None:
    images = load_dataset("sample").subset(range(0, 1000, 25))
    rows = [next(iter(encoder_rows(model, images, workers=0).ordered(torch.arange(8)))) for model in pair]
    assert torch.equal(*rows)
    tops = [augmented_linear_study(model, images, images, LinearSettings(epochs=1), workers=0).summary["top1"] for model in pair]
    assert tops[0] == tops[1]
    renderer = VariantRenderer(["original", "center"], pair[1].mean, pair[1].std)
    pixels = torch.randint(256, (3, 4, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(*(MaskedBackbone(model, renderer).eval()(pixels) for model in pair))


def test_signed_features_of_a_bare_module_are_noticed(tmp_path) -> None:
    images = torch.utils.data.TensorDataset(torch.randn(6, 3, 8, 8), torch.arange(6))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
    assert extract(net, images, tmp_path / "signed", ExtractSettings(workers=0)).spec.signed
    assert not extract(net.append(torch.nn.ReLU()), images, tmp_path / "not", ExtractSettings(workers=0)).spec.signed
