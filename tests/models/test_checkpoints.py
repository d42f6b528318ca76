"""Every documented checkpoint layout, written with a real network, gives the network's features back bit for bit."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from small_networks import features_are_equal, mlp, randomised, small_dinov2, small_vit, under
from torch import Tensor, nn

from sslk.models import load_backbone, load_checkpoint, read_checkpoint

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    return randomised(small_vit(), 2)


def numbered(net: nn.Module) -> nn.Sequential:
    return nn.Sequential(*list(net.children())[:-1])


RESNET_LAYOUTS = {}
VIT_LAYOUTS = {}


def resnet_layout(function):
    RESNET_LAYOUTS[function.__name__] = function
    return function


def vit_layout(function):
    VIT_LAYOUTS[function.__name__] = function
    return function


# Each function returns the file's content, the layout and the parts it has to find.
@resnet_layout
def torchvision_supervised(net, other):
    return {**net.state_dict(), **under("fc.", nn.Linear(512, 10))}, "torchvision", {"classifier"}


@resnet_layout
def torchvision_in_training_checkpoint(net, other):
    state = {"epoch": 9, "arch": "resnet18", "state_dict": under("module.", net), "optimizer": {"state": {0: {}}}}
    return state, "torchvision", set()


@resnet_layout
def solo_learn(net, other):
    state = {
        **under("backbone.", net),
        **under("classifier.", nn.Linear(512, 100)),
        **under("projector.", mlp(512, 64, 32)),
        **under("predictor.", mlp(32, 16, 32)),
        **under("momentum_backbone.", other),
        **under("momentum_projector.", mlp(512, 64, 32)),
    }
    lightning = {"state_dict": state, "pytorch-lightning_version": "2.1.2", "hyper_parameters": {"lr": 0.1}}
    roles = {"classifier", "projector", "predictor", "momentum_encoder", "momentum_projector"}
    return lightning, "solo-learn", roles


@resnet_layout
def solo_learn_first_releases(net, other):
    state = {
        **under("encoder.", net),
        **under("classifier.", nn.Linear(512, 10)),
        **under("projector.", mlp(512, 64, 32)),
        "queue": torch.zeros(2, 3),
    }
    return {"state_dict": state, "epoch": 3}, "solo-learn", {"classifier", "projector"}


@resnet_layout
def lightly_numbered_children(net, other):
    state = {
        **under("backbone.", numbered(net)),
        **under("projection_head.layers.", mlp(512, 64, 32)),
        **under("prediction_head.layers.", mlp(32, 16, 32)),
        **under("backbone_momentum.", numbered(other)),
        **under("projection_head_momentum.layers.", mlp(512, 64, 32)),
        **under("prototypes.heads.0.", nn.Linear(32, 20, bias=False)),
    }
    roles = {"projector", "predictor", "momentum_encoder", "momentum_projector", "prototypes"}
    return {"state_dict": state, "pytorch-lightning_version": "2.4"}, "lightly", roles


@resnet_layout
def lightly_dino(net, other):
    state = {
        **under("teacher_backbone.", numbered(net)),
        **under("student_backbone.", numbered(other)),
        **under("teacher_head.layers.", mlp(512, 64, 32)),
        **under("student_head.layers.", mlp(512, 64, 32)),
    }
    return {"state_dict": state}, "lightly", {"projector", "student", "student_projector"}


@resnet_layout
def lightning_attribute(net, other):
    state = {**under("model.encoder.", net), **under("ema.", other), **under("head.", mlp(512, 8))}
    return {"state_dict": state, "pytorch-lightning_version": "2.4", "callbacks": {}}, "lightning", set()


@resnet_layout
def lightning_with_known_signature(net, other):
    state = {**under("backbone.net.", net), **under("classifier.", nn.Linear(512, 10))}
    return {"state_dict": state, "pytorch-lightning_version": "2.4"}, "lightning", set()


@resnet_layout
def compiled_and_wrapped(net, other):
    return {"state_dict": under("module._orig_mod.", net)}, "torchvision", set()


@resnet_layout
def vissl_swav(net, other):
    heads = {**under("0.projection_head.", mlp(512, 64, 32)), **under("0.prototypes0.", nn.Linear(32, 20, bias=False))}
    model = {"trunk": under("_feature_blocks.", net), "heads": heads}
    state = {"phase_idx": 1, "classy_state_dict": {"base_model": {"model": model, "meters": {}}}}
    return state, "vissl", {"projector", "prototypes"}


@resnet_layout
def moco_v2(net, other):
    state = {
        **under("module.encoder_q.", net),
        **under("module.encoder_q.fc.", mlp(512, 64, 32)),
        **under("module.encoder_k.", other),
        **under("module.encoder_k.fc.", mlp(512, 64, 32)),
        "module.queue": torch.zeros(128, 64),
        "module.queue_ptr": torch.zeros(1, dtype=torch.long),
    }
    content = {"epoch": 200, "arch": "resnet18", "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}
    return content, "moco", {"projector", "momentum_encoder", "momentum_projector"}


@resnet_layout
def moco_v3(net, other):
    state = {
        **under("module.base_encoder.", net),
        **under("module.base_encoder.fc.", mlp(512, 64, 32)),
        **under("module.momentum_encoder.", other),
        **under("module.momentum_encoder.fc.", mlp(512, 64, 32)),
        **under("module.predictor.", mlp(32, 16, 32)),
    }
    roles = {"projector", "predictor", "momentum_encoder", "momentum_projector"}
    return {"state_dict": state}, "moco", roles


@resnet_layout
def swav_official(net, other):
    state = {
        **under("module.", net),
        **under("module.projection_head.", mlp(512, 64, 32)),
        **under("module.prototypes.", nn.Linear(32, 20, bias=False)),
    }
    return state, "swav", {"projector", "prototypes"}


@resnet_layout
def dino_full(net, other):
    head = {"mlp.0.weight": torch.zeros(4, 512), "last_layer.weight_g": torch.ones(8, 1)}
    content = {
        "student": {**under("module.backbone.", other), **{f"module.head.{name}": tensor for name, tensor in head.items()}},
        "teacher": {**under("backbone.", net), **{f"head.{name}": tensor for name, tensor in head.items()}},
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(1)}}, "param_groups": []},
        "args": argparse.Namespace(arch="resnet18", lr=0.3),
        "epoch": 800,
    }
    return content, "dino", {"projector", "prototypes", "student", "student_projector"}


@resnet_layout
def vicreg_full(net, other):
    state = {**under("module.backbone.", net), **under("module.projector.", mlp(512, 64, 32))}
    return {"epoch": 1000, "model": state, "optimizer": {"state": {}}}, "vicreg", {"projector"}


@resnet_layout
def barlow_twins_full(net, other):
    state = {
        **under("module.backbone.", net),
        **under("module.projector.", mlp(512, 64, 32)),
        **under("module.bn.", nn.BatchNorm1d(32, affine=False)),
    }
    return {"epoch": 1000, "model": state}, "barlow-twins", {"projector"}


@resnet_layout
def byol_learner(net, other):
    state = {
        **under("online_encoder.net.", net),
        **under("online_encoder.projector.", mlp(512, 64, 32)),
        **under("online_predictor.", mlp(32, 16, 32)),
        **under("target_encoder.net.", other),
        **under("target_encoder.projector.", mlp(512, 64, 32)),
    }
    return state, "byol", {"projector", "predictor", "momentum_encoder", "momentum_projector"}


@resnet_layout
def byol_two_networks(net, other):
    content = {
        "online_network_state_dict": {**under("encoder.", numbered(net)), **under("projetion.net.", mlp(512, 64, 32))},
        "target_network_state_dict": {**under("encoder.", numbered(other)), **under("projetion.net.", mlp(512, 64, 32))},
        "optimizer_state_dict": {"state": {}, "param_groups": []},
    }
    return content, "byol", {"projector", "momentum_encoder", "momentum_projector"}


@resnet_layout
def simsiam_official(net, other):
    state = {
        **under("module.encoder.", net),
        **under("module.encoder.fc.", mlp(512, 64, 32)),
        **under("module.predictor.", mlp(32, 16, 32)),
    }
    return {"state_dict": state, "arch": "resnet18"}, "simsiam", {"projector", "predictor"}


@vit_layout
def timm_supervised(net):
    return {**net.state_dict(), **under("head.", nn.Linear(192, 10))}, "timm", {"classifier"}


@vit_layout
def dino_vit_teacher(net):
    content = {"student": under("module.backbone.", net), "teacher": under("backbone.", net)}
    return content, "dino", {"student"}


@vit_layout
def mae_encoder(net):
    return {"model": dict(net.state_dict())}, "mae", set()


@vit_layout
def mae_with_decoder(net):
    decoder = {"decoder_embed.weight": torch.zeros(8, 192), "mask_token": torch.zeros(1, 1, 8)}
    return {"model": {**net.state_dict(), **decoder}}, "mae", {"decoder"}


@vit_layout
def lightly_mae(net):
    state = {**under("backbone.vit.", net), **under("decoder.", nn.Linear(192, 8))}
    return {"state_dict": state}, "lightly", {"decoder"}


@vit_layout
def moco_v3_vit(net):
    state = {
        **under("module.base_encoder.", net),
        **under("module.base_encoder.head.", mlp(192, 64, 32)),
        **under("module.momentum_encoder.", net),
    }
    return {"state_dict": state, "epoch": 300}, "moco", {"projector", "momentum_encoder"}


@pytest.mark.parametrize("case", RESNET_LAYOUTS)
def test_resnet_layouts(case: str, resnet: nn.Module, momentum: nn.Module, tmp_path: Path) -> None:
    content, layout, roles = RESNET_LAYOUTS[case](resnet, momentum)
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    loaded = copy.deepcopy(momentum)
    checkpoint, report = load_checkpoint(loaded, path, head="fc")
    features_are_equal(resnet, loaded)
    assert report.layout == layout
    assert len(report.matched) == 60
    assert not report.missing
    assert set(checkpoint.parts) == roles
    forced = copy.deepcopy(momentum)
    load_checkpoint(forced, path, layout)
    features_are_equal(resnet, forced)


@pytest.mark.parametrize("case", VIT_LAYOUTS)
def test_vit_layouts(case: str, vit: nn.Module, tmp_path: Path) -> None:
    content, layout, roles = VIT_LAYOUTS[case](vit)
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    loaded = small_vit()
    checkpoint, report = load_checkpoint(loaded, path, head="head")
    features_are_equal(vit, loaded)
    assert report.layout == layout
    assert not report.missing
    assert set(checkpoint.parts) == roles


def dinov2_names(net: nn.Module) -> dict[str, Tensor]:
    return {**net.state_dict(), "mask_token": torch.zeros(1, 384)}


def chunked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("blocks.", "blocks.0.", 1): tensor for name, tensor in state.items()}


@pytest.mark.parametrize("kind", ["released", "teacher", "chunked"])
def test_dinov2(kind: str, tmp_path: Path) -> None:
    net = randomised(small_dinov2(), 4)
    released = dinov2_names(net)
    head = under("dino_head.", mlp(384, 8))
    content = {
        "released": released,
        "teacher": {"teacher": {**{f"backbone.{k}": v for k, v in released.items()}, **head}},
        "chunked": {"teacher": {**{f"backbone.{k}": v for k, v in chunked(released).items()}, **head}},
    }[kind]
    path = tmp_path / "dinov2.pth"
    torch.save(content, path)
    loaded = small_dinov2()
    _, report = load_checkpoint(loaded, path)
    features_are_equal(net, loaded, 56)
    assert report.layout == "dinov2"
    assert not report.missing


def test_dinov2_registers_become_timms(tmp_path: Path) -> None:
    # timm keeps the class token's position inside the token, DINOv2 in front of the patches' positions.
    net = randomised(small_dinov2("vit_small_patch14_reg4_dinov2"), 5)
    state = dict(net.state_dict())
    position = torch.full((1, 1, 384), 0.25)
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
    state["cls_token"] = state["cls_token"] - position
    path = tmp_path / "reg.pth"
    torch.save({**state, "mask_token": torch.zeros(1, 384)}, path)
    loaded = small_dinov2("vit_small_patch14_reg4_dinov2").eval()
    load_checkpoint(loaded, path)
    images = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), net(images))


def test_position_embeddings_are_resampled_and_patches_are_not(tmp_path: Path) -> None:
    path = tmp_path / "vit.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), path)
    backbone = load_backbone("timm:vit_tiny_patch16_224", path, image_size=96)
    assert backbone.input_size == (96, 96)
    assert backbone(torch.zeros(1, 3, 96, 96)).shape == (1, 192)
    torch.save(small_vit(patch_size=8).state_dict(), path)
    with pytest.warns(UserWarning, match="1 of 30 tensors keep their random values: patch_embed.proj.weight"):
        load_checkpoint(small_vit(), path)


def test_cifar_stem_of_solo_learn_is_padded_by_two(tmp_path: Path) -> None:
    net = torchvision.models.resnet18()
    net.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=2, bias=False)
    net.maxpool, net.fc = nn.Identity(), nn.Identity()
    randomised(net, 6)
    path = tmp_path / "solo.ckpt"
    torch.save({"state_dict": {**under("backbone.", net), **under("classifier.", nn.Linear(512, 10))}}, path)
    backbone = load_backbone("cifar:resnet18", path)
    features_are_equal(net, backbone, 32)
    assert backbone.logits(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_lightly_own_resnet(tmp_path: Path) -> None:
    from lightly.models import ResNetGenerator

    net = randomised(ResNetGenerator("resnet-9"), 7)
    path = tmp_path / "lightly.ckpt"
    children = numbered(net)
    state = {**under("backbone.", children), **under("projection_head.layers.", mlp(512, 8))}
    torch.save({"state_dict": state}, path)
    net.linear = nn.Identity()
    backbone = load_backbone("lightly:resnet-9", path)
    features_are_equal(net, backbone, 32)
    assert backbone.checkpoint.layout == "lightly"


@pytest.mark.parametrize("layout", ["vicreg", "barlow-twins", "dino", "torchvision"])
def test_bare_state_dict_of_the_backbone(layout: str, resnet: nn.Module, momentum: nn.Module, tmp_path: Path) -> None:
    # VICReg, Barlow Twins and DINO publish their ResNet-50 like this.
    path = tmp_path / "resnet50.pth"
    torch.save(resnet.state_dict(), path)
    loaded = copy.deepcopy(momentum)
    load_checkpoint(loaded, path, layout)
    features_are_equal(resnet, loaded)


def test_resnet50_of_torchvision_is_that_of_timm(tmp_path: Path) -> None:
    net = randomised(torchvision.models.resnet50(), 8)
    net.fc = nn.Identity()
    path = tmp_path / "resnet50.pth"
    torch.save({"state_dict": under("module.encoder_q.", net)}, path)
    features_are_equal(net, load_backbone("timm:resnet50", path))


def test_supervised_classifier_gives_logits(tmp_path: Path) -> None:
    net = randomised(torchvision.models.resnet18(num_classes=7), 9)
    path = tmp_path / "supervised.safetensors"
    save_file(net.state_dict(), path)
    backbone = load_backbone("torchvision:resnet18", path)
    with torch.no_grad():
        assert torch.equal(backbone.logits(IMAGES), net(IMAGES))
    with pytest.raises(ValueError, match="logits needs weights with a classifier"):
        load_backbone("torchvision:resnet18", "random").logits(IMAGES)


def test_momentum_encoder_and_projector_are_read_under_their_own_names(
    resnet: nn.Module, momentum: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "moco.pth"
    torch.save(moco_v2(resnet, momentum)[0], path)
    parts = read_checkpoint(path).parts
    for name, tensor in momentum.state_dict().items():
        assert torch.equal(parts["momentum_encoder"][name], tensor)
    mlp(512, 64, 32).load_state_dict(parts["projector"])
