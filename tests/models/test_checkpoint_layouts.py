"""Layouts of larger code bases and wrappers: written by name with a real network, read back bit for bit."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from small_networks import features_are_equal, mlp, randomised, small_resnet, small_vit, under
from torch import Tensor, nn

from sslk.models import CheckpointError, load_backbone, load_checkpoint, read_checkpoint

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def children(net: nn.Module) -> nn.Sequential:
    return nn.Sequential(*list(net.children())[:-1])


def without_pooling(net: nn.Module) -> nn.Sequential:
    """As small SimCLR implementations build it for CIFAR: neither max-pooling nor the classifier."""
    return nn.Sequential(*(child for child in net.children() if not isinstance(child, (nn.MaxPool2d, nn.Linear, nn.Identity))))


# Each function returns the file's content, the layout and the parts it has to find.
@case
def openmmlab(net, other):
    state = {
        **under("backbone.", net),
        **under("neck.", mlp(512, 64, 32)),
        **under("head.predictor.", mlp(32, 16, 32)),
        "data_preprocessor.mean": torch.zeros(3, 1, 1),
    }
    return {"meta": {"epoch": 3, "cfg": "x = 1"}, "state_dict": state, "optimizer": {}}, "openmmlab", {"projector", "predictor"}


@case
def openmmlab_classifier(net, other):
    state = {**under("backbone.", net), **under("head.fc.", nn.Linear(512, 10))}
    return {"meta": {}, "state_dict": state}, "openmmlab", {"classifier"}


@case
def lightly_train(net, other):
    state = {
        **under("teacher_embedding_model.model_wrapper._features.", net),
        **under("student_embedding_model.model_wrapper._features.", other),
        **under("teacher_projection_head.", mlp(512, 8)),
        **under("student_projection_head.", mlp(512, 8)),
    }
    return (
        {"state_dict": state, "lightly_train": {"version": "0.14"}},
        "lightly-train",
        {"projector", "student", "student_projector"},
    )


@case
def lightly_train_older(net, other):
    return {"state_dict": under("embedding_model.wrapped_model._model.", net)}, "lightly-train", set()


@case
def lightly_train_export(net, other):
    return net.state_dict(), "torchvision", set()


@case
def fully_sharded(net, other):
    wrapped = {
        re.sub(r"(layer\d\.)", r"_fsdp_wrapped_module.\1_fsdp_wrapped_module._checkpoint_wrapped_module.", name): t
        for name, t in net.state_dict().items()
    }
    return {"state_dict": {f"_forward_module._orig_mod.{name}": t for name, t in wrapped.items()}}, "torchvision", set()


@case
def deepspeed(net, other):
    return {"module": under("module.encoder_q.", net), "ds_version": "0.15.1", "dp_world_size": 2}, "moco", set()


@case
def deepspeed_consolidated(net, other):
    return {f"model.{name}": t.clone() for name, t in net.state_dict().items()}, "lightning", set()


@case
def numbered_bare(net, other):
    return children(net).state_dict(), "lightning", set()


@case
def numbered_attribute(net, other):
    return {"state_dict": under("features.", children(net))}, "lightning", set()


@case
def numbered_encoder(net, other):
    return {"model": {**under("module.encoder.", children(net)), **under("module.head.", mlp(512, 8))}}, "lightning", set()


@case
def numbered_without_pooling(net, other):
    return {**under("module.f.", without_pooling(net)), **under("module.g.", mlp(512, 8, 4))}, "lightning", set()


@case
def numbered_in_one_more(net, other):
    return {"state_dict": under("net.0.", nn.Sequential(children(net), nn.Linear(512, 3)))}, "lightning", set()


@pytest.mark.parametrize("name", CASES)
def test_layouts(name: str, resnet: nn.Module, momentum: nn.Module, tmp_path: Path) -> None:
    content, layout, roles = CASES[name](resnet, momentum)
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    loaded = copy.deepcopy(momentum)
    checkpoint, report = load_checkpoint(loaded, path, head="fc")
    features_are_equal(resnet, loaded)
    assert (report.layout, len(report.matched), report.missing) == (layout, 60, ())
    assert set(checkpoint.parts) == roles


def test_numbered_children_of_resnet50(tmp_path: Path) -> None:
    """`nn.Sequential(*list(resnet50.children())[:-1])`: 4 of its tensors used to match."""
    net = randomised(torchvision.models.resnet50(), 8)
    path = tmp_path / "features.pth"
    torch.save({"state_dict": under("encoder.", children(net))}, path)
    net.fc = nn.Identity()
    backbone = load_backbone("torchvision:resnet50", path)
    assert backbone.checkpoint.share_matched == 1
    features_are_equal(net, backbone)


AVERAGES = {
    "timm": lambda net, ema: {"state_dict": net.state_dict(), "state_dict_ema": ema.state_dict(), "epoch": 3},
    "model_ema": lambda net, ema: {"model": net.state_dict(), "model_ema": under("module.", ema)},
    "RT-DETR": lambda net, ema: {"model": net.state_dict(), "ema": {"module": ema.state_dict(), "updates": 7}},
    "ema-pytorch": lambda net, ema: {
        "model": net.state_dict(),
        "ema": {"initted": torch.tensor(True), **under("ema_model.", ema)},
    },
    "Lightning": lambda net, ema: {"state_dict": {**under("net.", net), **under("ema_model.module.", ema)}},
    "whole modules": lambda net, ema: {"model": net, "ema": ema},
}


@pytest.mark.parametrize("kind", AVERAGES)
def test_averaged_copies_are_named_and_chosen(kind: str, resnet: nn.Module, momentum: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(AVERAGES[kind](resnet, momentum), path)
    loaded = small_resnet()
    report = load_checkpoint(loaded, path)[1]
    features_are_equal(resnet, loaded)
    assert report.copy == ""
    assert len(report.copies) == 1
    chosen = load_checkpoint(loaded, path, "ema")[1]
    features_are_equal(momentum, loaded)
    assert (chosen.copy, chosen.copies) == (report.copies[0], ())


def test_averages_that_are_a_layouts_own_part(resnet: nn.Module, momentum: nn.Module, tmp_path: Path) -> None:
    path, loaded = tmp_path / "x.pth", small_resnet()
    torch.save({"state_dict": {**under("module.encoder_q.", resnet), **under("module.encoder_k.", momentum)}}, path)
    assert load_checkpoint(loaded, path)[1].copies == ("momentum_encoder",)
    features_are_equal(resnet, loaded)
    for layout in ("ema", "moco+ema"):
        assert load_checkpoint(loaded, path, layout)[1].copy == "momentum_encoder"
        features_are_equal(momentum, loaded)
    torch.save({"teacher": under("backbone.", momentum), "student": under("module.backbone.", resnet)}, path)
    assert load_checkpoint(loaded, path, "ema")[1].copy == "teacher/backbone"
    features_are_equal(momentum, loaded)
    torch.save({"state_dict": {**under("net.", resnet), **under("target_net.", momentum)}}, path)
    assert load_checkpoint(loaded, path, "ema")[1].copy == "target_net"
    features_are_equal(momentum, loaded)


def test_an_average_that_is_not_there(resnet: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(resnet.state_dict(), path)
    with pytest.raises(CheckpointError, match="holds no averaged copy of the weights that is known in the layout 'torchvision'"):
        read_checkpoint(path, "ema")
    with pytest.raises(ValueError, match=r"checkpoint_format must be one of .*, ema or NAME\+ema, got 'nothing\+ema'"):
        read_checkpoint(path, "nothing+ema")


def openmmlab_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """mmpretrain's `VisionTransformer`, written from its source's attribute names."""
    parts = {"norm1": "ln1", "norm2": "ln2", "mlp.fc1": "ffn.layers.0.0", "mlp.fc2": "ffn.layers.1"}
    renamed = {}
    for name, tensor in state.items():
        for mine, theirs in parts.items():
            name = re.sub(rf"^(blocks\.\d+\.){re.escape(mine)}\.", rf"\1{theirs}.", name)
        name = name.replace("blocks.", "layers.").replace("patch_embed.proj.", "patch_embed.projection.")
        renamed[re.sub(r"^norm\.", "ln1.", name)] = tensor
    return renamed


def test_vision_transformer_of_openmmlab(tmp_path: Path) -> None:
    net = randomised(small_vit(), 2)
    state = {f"backbone.{name}": tensor for name, tensor in openmmlab_names(net.state_dict()).items()}
    assert "backbone.layers.1.ffn.layers.0.0.weight" in state
    path = tmp_path / "x.pth"
    torch.save({"meta": {}, "state_dict": {**state, **under("head.fc.", nn.Linear(192, 10))}}, path)
    loaded = small_vit()
    assert load_checkpoint(loaded, path)[1].layout == "openmmlab"
    features_are_equal(net, loaded)


def dinov3_names(state: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The names of the published DINOv3 transformers, by hand from the attributes of its `DinoVisionTransformer`."""
    parts = {
        "norm1.weight": "norm1.weight",
        "norm1.bias": "norm1.bias",
        "attn.qkv.weight": "attn.qkv.weight",
        "attn.proj.weight": "attn.proj.weight",
        "attn.proj.bias": "attn.proj.bias",
        "gamma_1": "ls1.gamma",
        "norm2.weight": "norm2.weight",
        "norm2.bias": "norm2.bias",
        "mlp.fc1.weight": "mlp.fc1.weight",
        "mlp.fc1.bias": "mlp.fc1.bias",
        "mlp.fc2.weight": "mlp.fc2.weight",
        "mlp.fc2.bias": "mlp.fc2.bias",
        "gamma_2": "ls2.gamma",
    }
    names = {
        "cls_token": "cls_token",
        "reg_token": "storage_tokens",
        "patch_embed.proj.weight": "patch_embed.proj.weight",
        "patch_embed.proj.bias": "patch_embed.proj.bias",
        "norm.weight": "norm.weight",
        "norm.bias": "norm.bias",
    }
    published = {theirs: state[mine] for mine, theirs in names.items()}
    for i in range(depth):
        published |= {f"blocks.{i}.{theirs}": state[f"blocks.{i}.{mine}"] for mine, theirs in parts.items()}
        width = state["norm.weight"].numel()
        bias = [state.get(f"blocks.{i}.attn.{kind}_bias", torch.zeros(width)) for kind in ("q", "k", "v")]
        published[f"blocks.{i}.attn.qkv.bias"] = torch.cat(bias)
        published[f"blocks.{i}.attn.qkv.bias_mask"] = torch.cat([torch.ones(width), torch.zeros(width), torch.ones(width)])
    return published | {"mask_token": torch.zeros(1, width), "rope_embed.periods": torch.ones(16)}


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "vit_small_patch16_dinov3_qkvb"])
@pytest.mark.parametrize("teacher", [False, True])
def test_dinov3_names_in_timms_network(name: str, teacher: bool, tmp_path: Path) -> None:
    def build() -> nn.Module:
        return timm.create_model(name, depth=2, img_size=64, num_classes=0)

    net = randomised(build(), 4)
    for tensor in (net.state_dict().get(f"blocks.{i}.attn.k_bias") for i in range(2)):
        if tensor is not None:
            tensor.zero_()  # fixed in the published network, which masks it
    published = dinov3_names(net.state_dict(), 2)
    path, loaded = tmp_path / "dinov3.pth", build()
    torch.save({"teacher": {f"backbone.{k}": v for k, v in published.items()}} if teacher else published, path)
    report = load_checkpoint(loaded, path)[1]
    assert not report.missing
    features_are_equal(net, loaded)
    # timm's own conversion, applied by hand.
    converted = timm.models.eva.checkpoint_filter_fn(published, build())
    assert all(torch.equal(loaded.state_dict()[key], tensor) for key, tensor in converted.items())


def test_networks_published_under_names_that_timm_converts(tmp_path: Path) -> None:
    """ConvNeXt as its authors published it: a bare name of theirs, and timm's."""
    net = randomised(timm.create_model("convnext_atto", num_classes=0, depths=(1, 1, 1, 1)), 3)
    published = {}
    for name, tensor in net.state_dict().items():
        name = re.sub(r"^stem\.", "downsample_layers.0.", name)
        name = re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
        name = re.sub(r"^stages\.(\d)\.blocks\.", r"stages.\1.", name)
        name = name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv").replace("head.norm.", "norm.")
        published[name] = tensor.flatten(1) if tensor.ndim == 4 and "pwconv" in name else tensor
    path, loaded = tmp_path / "x.pth", timm.create_model("convnext_atto", num_classes=0, depths=(1, 1, 1, 1))
    torch.save({"model": published}, path)
    assert not load_checkpoint(loaded, path)[1].missing
    features_are_equal(net, loaded)
