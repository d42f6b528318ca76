"""Files of several parts are put together, and files that are no checkpoints of PyTorch are called what they are."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_networks import features_are_equal, randomised, small_resnet
from torch import nn

from sslk.models import CheckpointError, load_backbone, load_checkpoint, read_checkpoint
from sslk.models.checkpoint_files import read_state


def write_parts(state: dict[str, torch.Tensor], folder: Path, suffix: str) -> Path:
    names = list(state)
    weight_map = {}
    for i, part in enumerate((names[::2], names[1::2])):
        name = f"model-{i + 1:05d}-of-00002.{suffix}"
        tensors = {key: state[key].contiguous() for key in part}
        (save_file if suffix == "safetensors" else torch.save)(tensors, folder / name)
        weight_map.update(dict.fromkeys(part, name))
    index = folder / ("model.safetensors.index.json" if suffix == "safetensors" else "pytorch_model.bin.index.json")
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("by", ["index", "folder"])
def test_parts_with_an_index(suffix: str, by: str, resnet: nn.Module, tmp_path: Path) -> None:
    index = write_parts(resnet.state_dict(), tmp_path, suffix)
    loaded = randomised(small_resnet(), 5)
    load_checkpoint(loaded, index if by == "index" else tmp_path)
    features_are_equal(resnet, loaded)


def test_index_is_not_believed(resnet: nn.Module, tmp_path: Path) -> None:
    index = write_parts(resnet.state_dict(), tmp_path, "safetensors")
    with pytest.raises(CheckpointError, match=r"is one of several parts; give their index model\.safetensors\.index\.json"):
        read_checkpoint(tmp_path / "model-00001-of-00002.safetensors")
    whole = json.loads(index.read_text())
    for changed, message in (
        ({"conv1.weight": "../x.safetensors"}, "parts must lie beside their index"),
        ({"conv1.weight": "model.safetensors.index.json"}, "parts must lie beside their index"),
        ({"conv1.weight": "gone.safetensors"}, "names the part gone.safetensors, which is not beside it"),
        ({"other.weight": "model-00001-of-00002.safetensors"}, "names the tensor 'other.weight', which none of the parts holds"),
        ({"conv1.weight": 3}, "is no index|must lie beside"),
    ):
        index.write_text(json.dumps({"weight_map": {**whole["weight_map"], **changed}}))
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(index)
    index.write_text("[]")
    with pytest.raises(CheckpointError, match="is no index of a checkpoint's parts"):
        read_checkpoint(index)


def archive(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, b"x")

    return write


def content(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data)


def scripted(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), path)


def exported(path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), path)


def big_endian(path: Path) -> None:
    torch.save({"a": torch.ones(2)}, path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, b"big" if name.endswith("byteorder") else data)


def tarred(path: Path) -> None:
    import tarfile

    with tarfile.open(path, "w") as file:
        file.add(__file__, "storages")


OTHER_KINDS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "TorchScript": ("x.pt", scripted, r"TorchScript archive.*torch\.jit\.load.*state_dict"),
    "torch.export": ("x.pt2", exported, r"program of torch\.export"),
    "npz": ("x.npz", lambda path: np.savez(path, a=np.ones(2)), r"an \.npz of NumPy arrays.*checkpoint_path=FILE"),
    "npy": ("x.npy", lambda path: np.save(path, np.ones(2)), "a single array of NumPy"),
    "ONNX": ("x.onnx", content(b"\x08\x07abc"), "an ONNX program"),
    "Flax": ("flax_model.msgpack", content(b"\x83\xa1a"), r"a file of Flax \(msgpack\)"),
    "HDF5": ("x.h5", content(b"\x89HDF\r\n\x1a\n"), "an HDF5 file, as Keras writes"),
    "Keras": ("x.keras", archive("config.json", "model.weights.h5"), "a file of Keras"),
    "TensorFlow": ("model.ckpt.data-00000-of-00001", content(b"abc"), "a file of TensorFlow"),
    "TensorFlow index": ("model.ckpt.index", content(b"abc"), "a file of TensorFlow"),
    "GGUF": ("x.gguf", content(b"GGUF\3"), "a GGUF file"),
    "gzip": ("x.pth.gz", content(b"\x1f\x8b\x08"), "compressed with gzip; unpack it first"),
    "a page": ("x.pth", content(b"<!DOCTYPE html><html>"), "a page of HTML or XML instead of the file"),
    "LFS": ("x.pth", content(b"version https://git-lfs.github.com/spec/v1\noid"), "a pointer of Git LFS.*git lfs pull"),
    "distributed": ("__0_0.distcp", content(b"PK"), "part of a distributed checkpoint.*dcp_to_torch"),
    "ZeRO": ("zero_pp_rank_0_mp_rank_00_optim_states.pt", content(b"PK"), r"ZeRO's parts of a DeepSpeed.*zero_to_fp32\.py"),
    "zip": ("x.zip", archive("a.txt"), r"a zip archive without the data\.pkl"),
    "tar": ("x.tar", tarred, "a tar archive"),
    "big-endian": ("x.pt", big_endian, "a big-endian machine"),
    "a pickle": ("x.pkl", content(pickle.dumps({"a": np.ones(2)})), r"a pickle that torch\.save did not write"),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
@pytest.mark.filterwarnings("ignore")
def test_other_kinds_of_files_are_called_what_they_are(kind: str, tmp_path: Path) -> None:
    name, write, message = OTHER_KINDS[kind]
    write(tmp_path / name)
    with pytest.raises(CheckpointError, match=message) as refusal:
        read_checkpoint(tmp_path / name)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ((), r"a folder without model\.safetensors, pytorch_model\.bin or their index"),
        ((".metadata", "__0_0.distcp"), "a folder of a distributed checkpoint.*dcp_to_torch"),
        (("latest", "global_step10/mp_rank_00_model_states.pt"), r"ZeRO's parts.*zero_to_fp32\.py"),
    ],
)
def test_folders_of_other_code(made: tuple[str, ...], message: str, tmp_path: Path) -> None:
    for name in made:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path)


def test_parts_of_fsdp_and_zero_are_told_from_their_content(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"model": {"_fsdp_wrapped_module._flat_param": torch.ones(9)}}, path)
    with pytest.raises(CheckpointError, match=r"flattened parameters of FSDP .*FULL_STATE_DICT"):
        read_checkpoint(path)
    torch.save({"module": {"a": torch.ones(0), "b": torch.ones(0)}, "ds_version": "0.15"}, path)
    with pytest.raises(CheckpointError, match=r"ZeRO's parts"):
        read_checkpoint(path)
    torch.save({"optimizer_state_dict": {"fp32": torch.ones(3)}, "ds_version": "0.15"}, path)
    with pytest.raises(CheckpointError, match=r"ZeRO's parts"):
        read_checkpoint(path)


def test_read_state_holds_nothing_but_plain_data(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(2), "n": 3}, path)
    assert read_state(path)["n"] == 3
    torch.save({"a": torch.ones(2), "n": Path("/x")}, path)
    with pytest.raises(
        CheckpointError, match=r"refused, because it holds more than tensors and plain data \(pathlib\.PosixPath\)"
    ):
        read_state(path)


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9.pt")))
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    (tmp_path / "a.pt").rename(path)
    assert read_checkpoint(path).backbone["a"].tolist() == [1, 1]


@pytest.mark.parametrize("family", ["ViT", "ResNet", "Dinov2", "Siglip", "Swin", "ViTMAE"])
@pytest.mark.filterwarnings("ignore")
def test_weights_file_inside_a_folder_of_transformers(family: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 32,
        "patch_size": 8,
    }
    config, kind = {
        "ViT": lambda: (transformers.ViTConfig(**small), transformers.ViTForImageClassification),
        "ResNet": lambda: (
            transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
            transformers.ResNetForImageClassification,
        ),
        "Dinov2": lambda: (transformers.Dinov2Config(**small), transformers.Dinov2ForImageClassification),
        "Siglip": lambda: (transformers.SiglipVisionConfig(**small), transformers.SiglipVisionModel),
        "Swin": lambda: (
            transformers.SwinConfig(image_size=32, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4),
            transformers.SwinForImageClassification,
        ),
        "ViTMAE": lambda: (
            transformers.ViTMAEConfig(
                **small,
                decoder_hidden_size=32,
                decoder_num_hidden_layers=1,
                decoder_num_attention_heads=2,
                decoder_intermediate_size=32,
            ),
            transformers.ViTMAEForPreTraining,
        ),
    }[family]()
    randomised(kind(config), 3).save_pretrained(tmp_path)
    whole = load_backbone(f"hf:{tmp_path}", "pretrained")
    for weights in (tmp_path / "model.safetensors", tmp_path):
        by_file = load_backbone(f"hf:{tmp_path}", weights)
        features_are_equal(whole, by_file, whole.input_size[0] if family != "ResNet" else 64)
        assert [name for name in by_file.checkpoint.missing if "pooler" not in name] == []
