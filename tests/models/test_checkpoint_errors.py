"""Checkpoints that do not fit, need code, or are damaged are refused in one sentence that names the file."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_networks import features_are_equal
from torch import nn

from sslk.models import LAYOUT_NAMES, CheckpointError, load_backbone, load_checkpoint, read_checkpoint


def test_too_few_matches_are_refused_with_counts_and_names(resnet: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save(resnet.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"only 60 of the network's 100 tensors match in the layout 'torchvision'"):
        load_backbone("torchvision:resnet18", path)
    torch.save({f"{name}_x": tensor for name, tensor in resnet.state_dict().items()}, path)
    message = r"only 0 of the network's 60 tensors match .* first missing: conv1\.weight, bn1\.weight, bn1\.bias"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(copy.deepcopy(resnet), path)


@pytest.mark.parametrize(("removed", "accepted"), [(3, True), (4, False)])
def test_limit_is_95_percent(removed: int, accepted: bool, resnet: nn.Module, tmp_path: Path) -> None:
    state = dict(resnet.state_dict())
    for name in [name for name in state if name.endswith("running_mean")][:removed]:
        del state[name]
    path = tmp_path / "partial.pth"
    torch.save(state, path)
    net = copy.deepcopy(resnet)
    if accepted:
        with pytest.warns(UserWarning, match="3 of 60 tensors keep their random values"):
            assert len(load_checkpoint(net, path)[1].missing) == removed
    else:
        with pytest.raises(CheckpointError, match="only 56 of the network's 60"):
            load_checkpoint(net, path)


def test_refused_checkpoint_leaves_the_network_alone(resnet: nn.Module, momentum: nn.Module, tmp_path: Path) -> None:
    net = copy.deepcopy(momentum)
    path = tmp_path / "half.pth"
    torch.save(dict(list(resnet.state_dict().items())[:40]), path)
    with pytest.raises(CheckpointError):
        load_checkpoint(net, path)
    assert all(torch.equal(tensor, momentum.state_dict()[name]) for name, tensor in net.state_dict().items())


def test_older_file_format_and_numpy_scalars(resnet: nn.Module, momentum: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    content = {"state_dict": dict(resnet.state_dict()), "best": np.float64(0.7)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    loaded = copy.deepcopy(momentum)
    load_checkpoint(loaded, path)
    features_are_equal(resnet, loaded)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("kept", [0.6, 0.0])
def test_truncated_files_are_named(kind: str, kept: float, resnet: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / ("cut.safetensors" if kind == "safetensors" else "cut.pth")
    if kind == "safetensors":
        save_file(resnet.state_dict(), path)
    else:
        torch.save(resnet.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(CheckpointError, match=rf"{path.name}: .*damaged"):
        read_checkpoint(path)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    text = tmp_path / "notes.pth"
    text.write_text("these are my notes")
    with pytest.raises(CheckpointError, match=r"notes\.pth: "):
        read_checkpoint(text)
    pickled = tmp_path / "plain.pkl"
    pickled.write_bytes(pickle.dumps({"a": np.zeros(3)}))
    with pytest.raises(CheckpointError, match=r"plain\.pkl: "):
        read_checkpoint(pickled)
    tensor = tmp_path / "tensor.pth"
    torch.save(torch.zeros(3), tensor)
    with pytest.raises(CheckpointError, match="must be a dictionary of tensors, got Tensor"):
        read_checkpoint(tensor)
    empty = tmp_path / "empty.pth"
    torch.save({"epoch": 3}, empty)
    with pytest.raises(CheckpointError, match="holds no tensors under string keys, only epoch"):
        read_checkpoint(empty)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint file"):
        read_checkpoint(tmp_path / "absent.pth")


def test_layout_names_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"checkpoint_format must be one of vissl, .*got 'mocov2'"):
        read_checkpoint(path, "mocov2")
    with pytest.raises(ValueError, match="needs weights=PATH"):
        load_backbone("torchvision:resnet18", "random", checkpoint_format="moco")
    assert len(set(LAYOUT_NAMES)) == len(LAYOUT_NAMES)
