"""Which representation: every family's own, and layers and tokens that were asked for, against hooks of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from sslk.models import Backbone, ModelSource, Readouts, as_backbone, load_backbone
from sslk.models.readout import block_names, resolve_layer

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
VIT = {**SMALL, "image_size": 32, "patch_size": 8}


def noise(backbone: Backbone) -> Tensor:
    return torch.randn(2, 3, *backbone.input_size, generator=torch.Generator().manual_seed(1))


def outputs_of(net: nn.Module, images: Tensor, *names: str) -> list[Any]:
    seen: dict[str, Any] = {}
    handles = [
        net.get_submodule(name).register_forward_hook(lambda m, a, out, name=name: seen.__setitem__(name, out)) for name in names
    ]
    with torch.no_grad():
        net(images)
    for handle in handles:
        handle.remove()
    return [seen[name] for name in names]


@pytest.mark.parametrize(
    ("kind", "options", "feature"),
    [
        ("vit", VIT, "cls"),  # its pooler is a dense layer that no self-supervised method trains
        ("deit", VIT, "cls"),
        ("dinov2", VIT, "pooler"),
        ("dinov2_with_registers", {**VIT, "num_register_tokens": 4}, "pooler"),
        ("dinov3_vit", {**VIT, "num_register_tokens": 4}, "pooler"),
        ("vit_mae", VIT, "cls"),
        ("vit_msn", VIT, "cls"),
        ("ijepa", VIT, "mean"),
        ("siglip_vision_model", VIT, "pooler"),
        ("clip_vision_model", VIT, "pooler"),
        ("swin", SWIN, "pooler"),
        ("convnext", STAGES, "pooler"),
        ("resnet", {"embedding_size": 8, **STAGES}, "pooler"),
    ],
)
def test_transformers_own_pooled_output(kind: str, options: dict[str, Any], feature: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **options)).eval()
    model.save_pretrained(tmp_path)
    backbone = load_backbone(f"hf:{tmp_path}", "pretrained")
    images = noise(backbone)
    if kind == "vit_mae":
        model.embeddings.config.mask_ratio = 0.0
    with torch.no_grad():
        output = model(images)
        if feature == "pooler":
            expected = output.pooler_output.flatten(1)
        else:
            hidden = output.last_hidden_state
            expected = hidden[:, 0] if feature == "cls" else hidden.mean(1)
        torch.testing.assert_close(backbone(images), expected)
    assert backbone.feature == feature
    assert backbone.num_features == expected.shape[1]
    if kind == "siglip_vision_model":
        assert not torch.allclose(expected, output.last_hidden_state[:, 0])
        taken = load_backbone(f"hf:{tmp_path}", "pretrained", token="mean")
        torch.testing.assert_close(taken(images), output.last_hidden_state.mean(1))
    if kind == "dinov2_with_registers":  # neither the class token nor the registers are patches
        taken = load_backbone(f"hf:{tmp_path}", "pretrained", token="cls+mean")
        hidden = output.last_hidden_state
        torch.testing.assert_close(taken(images), torch.cat([hidden[:, 0], hidden[:, 5:].mean(1)], 1))


@pytest.mark.parametrize(
    ("name", "options", "feature"),
    [
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 2}, "cls"),
        ("vit_base_patch16_siglip_224", {"img_size": 64, "depth": 2, "embed_dim": 64, "num_heads": 2}, "pooler"),
        ("eva02_tiny_patch14_224", {"img_size": 56, "depth": 2}, "mean"),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1), "embed_dim": 24}, "mean"),
        ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, "output"),
        ("resnet10t", {}, "mean of layer4"),
    ],
)
def test_timms_own_pooled_output(name: str, options: dict[str, Any], feature: str) -> None:
    net = timm.create_model(name, num_classes=0, **options).eval()
    backbone = as_backbone(net)
    images = noise(backbone)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), net.forward_head(net.forward_features(images), pre_logits=True))
    assert backbone.feature == feature
    spread = net.forward_features(images)
    mean = Backbone(net, name="mean", input_size=backbone.input_size, token="mean")
    expected = (
        spread.mean((1, 2) if "swin" in name else (2, 3)) if spread.ndim == 4 else spread[:, net.num_prefix_tokens :].mean(1)
    )
    torch.testing.assert_close(mean(images), expected)


def test_layers_by_name_and_number() -> None:
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64, depth=3).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    first, last, patches = outputs_of(net, images, "blocks.0", "blocks.2", "patch_embed")
    taken = {
        ("0", None): first[:, 0],
        ("blocks.0", "mean"): first[:, 1:].mean(1),
        ("-1", "cls+mean"): torch.cat([last[:, 0], last[:, 1:].mean(1)], 1),
        ("patch_embed", None): patches.mean(1),  # no class token yet
    }
    for (layer, token), expected in taken.items():
        backbone = Backbone(net, name="vit", input_size=(64, 64), layer=layer, token=token)
        torch.testing.assert_close(backbone(images), expected, rtol=0, atol=0)
    assert backbone.feature == "mean of patch_embed"
    resnet = torchvision.models.resnet18().eval()
    (second,) = outputs_of(resnet, images, "layer2")
    backbone = Backbone(resnet, name="resnet", input_size=(64, 64), layer="1")
    torch.testing.assert_close(backbone(images), second.mean((2, 3)))
    assert (backbone.feature, backbone.feature_layer, backbone.signed) == ("mean of layer2", "net.net.layer2", False)
    assert backbone.forward_features(images).shape == (2, 128, 8, 8)
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, depths=(1, 1), embed_dim=24).eval()
    (stage,) = outputs_of(swin, torch.zeros(2, 3, 224, 224), "layers.0")
    backbone = Backbone(swin, name="swin", input_size=(224, 224), layer="0")
    torch.testing.assert_close(backbone(torch.zeros(2, 3, 224, 224)), stage.mean((1, 2)))  # timm's Swin keeps channels last


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("torchvision:resnet18", ["layer1", "layer4"]),
        ("torchvision:vit_b_16", ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_11"]),
        ("torchvision:convnext_tiny", ["features.0", "features.7"]),
        ("timm:convnext_atto", ["stages.0", "stages.3"]),
        ("timm:efficientnet_b0", ["blocks.0", "blocks.6"]),
    ],
)
def test_blocks_are_found(name: str, blocks: list[str]) -> None:
    family, _, rest = name.partition(":")
    with torch.device("meta"):
        net = torchvision.models.get_model(rest) if family == "torchvision" else timm.create_model(rest)
    found = block_names(net)
    assert [found[0], found[-1]] == blocks


def test_several_in_one_pass_are_those_taken_alone() -> None:
    source = ModelSource("timm:resnet10t@random", image_size=64, layer=("0", "layer3", "-1"))
    backbones = source.load_several()
    readouts = Readouts(backbones)
    images = noise(backbones[0])
    calls = []
    readouts.net.conv1.register_forward_hook(lambda *_: calls.append(1))
    found = readouts(images)
    assert len(calls) == 1
    assert list(found) == ["mean of layer1", "mean of layer3", "mean of layer4"]
    for backbone in backbones:
        assert torch.equal(found[backbone.feature], backbone(images))
        assert backbone.name == "timm:resnet10t (random weights)"
    own = ModelSource("timm:resnet10t@random", image_size=64).load()
    torch.testing.assert_close(found["mean of layer4"], own(images))
    assert own.weights_hash == backbones[2].weights_hash != backbones[0].weights_hash  # what it does not depend on is left out
    with pytest.raises(ValueError, match=r"must name one representation here, got .*'layer3'"):
        source.load()
    with pytest.raises(ValueError, match="must differ, got mean of layer1, mean of layer1"):
        Readouts(own.read_out(["0", "layer1"]))


@pytest.mark.parametrize(
    ("layer", "token", "message"),
    [
        ("layer5", None, r"got 'layer5'; near ones: .*layer"),
        ("4", None, r"layer=4 is out of range: the network has 4 blocks, layer1 to layer4"),
        (None, "cls", r"token='cls' needs a class token, and layer 'layer4' gives a map"),
        (None, "pooler", r"token='pooler' needs a model with a pooler"),
        ("layer1", "pooler", r"layer must not be given, got 'layer1'"),
    ],
)
def test_what_is_not_there_is_refused(layer: str | None, token: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_backbone("torchvision:resnet18", "random", image_size=64, layer=layer, token=token)


def test_a_number_needs_numbered_blocks() -> None:
    with pytest.raises(ValueError, match="needs a network of numbered blocks"):
        resolve_layer(nn.Sequential(nn.Conv2d(3, 4, 3)), "0")
