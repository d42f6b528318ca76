"""What is in a checkpoint file: its kind is told from its first bytes, and a kind that is not read is called by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslk.files.regular import require_regular_file
from sslk.files.tensors import read_tensors
from sslk.models.archives import read_archive
from sslk.models.stand_ins import Damaged, Global, Refused, StandIn

_MOST_INDEX_BYTES = 64 << 20
_INDEX_NAMES = ("model.safetensors.index.json", "pytorch_model.bin.index.json", "diffusion_pytorch_model.safetensors.index.json")
_FILE_NAMES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_CONVERT = "convert its weights to PyTorch and save the state_dict with torch.save"
# First bytes of what people have beside checkpoints, and what to do with it.
_OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF", f"an HDF5 file, as Keras writes its weights; {_CONVERT}"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ", "compressed with xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"GGUF", f"a GGUF file of llama.cpp; {_CONVERT}"),
    (b"\x93NUMPY", "a single array of NumPy, and a checkpoint holds many tensors by name"),
    (b"version https://git-lfs", "a pointer of Git LFS to a file that was not fetched; run `git lfs pull` where it was cloned"),
    (b"<", "a page of HTML or XML instead of the file, as a failed download leaves it; fetch it again"),
)
_OTHER_NAMES: tuple[tuple[str, str], ...] = (
    (r"\.onnx", f"an ONNX program; {_CONVERT}"),
    (r"\.msgpack", f"a file of Flax (msgpack); {_CONVERT}, or load the model with transformers' from_flax"),
    (r"\.(h5|keras|hdf5)", f"a file of Keras; {_CONVERT}"),
    (r"\.(pb|tflite|ckpt\.(index|meta|data-\d+-of-\d+)|index|data-\d{5}-of-\d{5})", f"a file of TensorFlow; {_CONVERT}"),
    (r"\.(mlmodel|engine|trt|plan)", f"a compiled program; {_CONVERT}"),
    (
        r"\.distcp",
        "a part of a distributed checkpoint; make one file of the folder with "
        "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE`",
    ),
)
ZERO = (
    "ZeRO's parts of a DeepSpeed checkpoint; make one file of them with `python zero_to_fp32.py FOLDER FILE`, which DeepSpeed "
    "puts beside them"
)


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit the network; the message is one sentence."""


@dataclass(frozen=True)
class Content:
    """What is in a checkpoint file.

    Attributes:
        value: dictionaries, lists, numbers, strings and tensors; `StandIn` in the place of any other object.
        ignored: dotted names of the classes and functions that the file names and nothing stands for.
    """

    value: Mapping[Any, Any] | StandIn
    ignored: tuple[str, ...] = ()


def read_state(path: Path) -> Mapping[str, Any]:
    """The dictionary in a checkpoint file that holds nothing but plain data and tensors.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: As for `read_content`, and where an object of another class is in it.
    """
    content = read_content(path)
    if content.ignored or not isinstance(content.value, Mapping):
        name = content.ignored[0] if content.ignored else "a class"
        raise CheckpointError(
            f"{path}: refused, because it holds more than tensors and plain data ({name}); re-save only its state_dict"
        )
    return content.value


def read_content(path: Path) -> Content:
    """What is in a file of torch.save or safetensors, or in the several files of an index; nothing in them is run.

    Args:
        path: The file, the index of its parts (`*.index.json`), or a folder that holds weights under their usual name.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is another kind of file, damaged, or holds no dictionary.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint file {path}")
    if path.is_dir():
        path = _file_of_folder(path)
    try:
        size = require_regular_file(path, "the checkpoint")
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    if path.name.endswith(".index.json"):
        return _read_index(path)
    with path.open("rb") as file:
        start = file.read(64)
    if path.suffix == ".safetensors" or (start[8:9] == b"{" and not start.startswith(b"PK")):
        return _read_safetensors(path, size)
    other = next((what for first, what in _OTHER_KINDS if start.startswith(first)), None)
    other = other or next((what for name, what in _OTHER_NAMES if re.search(f"{name}$", path.name)), None)
    if other or re.search(r"(zero_pp_rank_\d+_mp_rank_\d+_optim|optim)_states\.pt$", path.name):
        raise CheckpointError(f"{path}: cannot be read, it is {other or ZERO}")
    try:
        value, ignored = read_archive(path)
    except Refused as refusal:
        raise CheckpointError(f"{path}: refused: {refusal}") from None
    except Exception as error:  # a damaged zip fails in any way
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        if not isinstance(error, Damaged) and size == 0:
            reason = "it is empty"
        raise CheckpointError(f"{path}: truncated or damaged checkpoint ({size} bytes): {reason}") from None
    if isinstance(value, Mapping) or (isinstance(value, StandIn) and value.state is not None):
        return Content(value, ignored)
    kind = value.name if isinstance(value, (StandIn, Global)) else type(value).__name__
    raise CheckpointError(f"{path}: a checkpoint must be a dictionary of tensors, got {kind[:80]}")


def _read_safetensors(path: Path, size: int) -> Content:
    index = re.sub(r"-\d{5}-of-(\d{5})\.safetensors$", ".safetensors.index.json", path.name)
    if index != path.name and (path.parent / index).exists():
        raise CheckpointError(f"{path}: is one of several parts; give their index {index} instead")
    try:
        return Content(read_tensors(path, "the checkpoint", CheckpointError)[0])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: truncated or damaged safetensors file ({size} bytes): {error}") from None


def _file_of_folder(folder: Path) -> Path:
    for name in (*_FILE_NAMES, *_INDEX_NAMES):
        if (folder / name).is_file():
            return folder / name
    if (folder / ".metadata").exists():
        raise CheckpointError(f"{folder}: cannot be read, it is {_OTHER_NAMES[-1][1].replace('a part of a', 'a folder of a')}")
    if (folder / "latest").exists() or any(folder.glob("*_optim_states.pt")):
        raise CheckpointError(f"{folder}: cannot be read, it holds {ZERO}")
    raise CheckpointError(f"{folder}: is a folder without {', '.join(_FILE_NAMES[:2])} or their index; give the checkpoint file")


def _read_index(path: Path) -> Content:
    """The tensors of all parts that an index names; they lie beside it."""
    try:
        require_regular_file(path, "the index", _MOST_INDEX_BYTES)
        parts = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(parts.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{path}: is no index of a checkpoint's parts, a JSON object with weight_map") from None
    tensors: dict[Any, Any] = {}
    ignored: dict[str, None] = {}
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name.endswith(".index.json"):
            raise CheckpointError(f"{path}: names the part {str(name)[:80]!r}, and parts must lie beside their index")
        part = path.parent / name
        if not part.exists():
            raise CheckpointError(f"{path}: names the part {name}, which is not beside it")
        content = _read_part(part)
        tensors.update({key: value for key, value in content.value.items() if key in parts})  # type: ignore[union-attr]
        ignored.update(dict.fromkeys(content.ignored))
    lacking = next((name for name in parts if name not in tensors), None)
    if lacking is not None:
        raise CheckpointError(f"{path}: names the tensor {lacking[:80]!r}, which none of the parts holds")
    return Content(tensors, tuple(ignored))


def _read_part(path: Path) -> Content:
    if path.suffix == ".safetensors":
        return Content(read_tensors(path, "the part", CheckpointError)[0])
    content = read_content(path)
    if not isinstance(content.value, Mapping):
        raise CheckpointError(f"{path}: a part of a checkpoint must be a dictionary of tensors")
    return content
