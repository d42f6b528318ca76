"""Tensors out of `torch.save` files, without executing or allocating what the file asks for."""

from __future__ import annotations

import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslk.files.arrays import reason_of
from sslk.files.regular import require_regular_file

# All that a pickle of tensors needs. `weights_only` would also call bytearray(10**12), which fills memory.
_TENSORS = re.compile(
    r"torch\._utils _rebuild_(tensor_v2|parameter)|torch \w+Storage|torch\.storage \w+Storage|torch Size"
    r"|torch (float|bfloat|u?int)\d+|torch bool|collections OrderedDict"
)
_MOST_PICKLE = 256 << 20


def read_pickled(path: Path, what: str) -> Any:
    """What a `torch.save` file holds, its tensors mapped into memory.

    Raises:
        ValueError: no regular file, of the layout from before PyTorch 1.6, damaged, something else than tensors in
            containers, or a tensor that claims more than the file holds.
        OSError: it cannot be opened.
    """
    require_regular_file(path, what)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{what} {path} is no file of torch.save, or one from before PyTorch 1.6: load and save it again.")
    try:
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError:
        raise
    except Exception as problem:  # a damaged archive fails in any way
        raise ValueError(f"{what} {path} cannot be read as tensors: {reason_of(problem)}.") from None
    for tensor in _tensors(content):
        if tensor.layout is torch.strided and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{what} {path} holds a tensor {list(tensor.shape)} of fewer numbers: save a copy (clone).")
    return content


def _check_archive(path: Path) -> None:
    """Refuse an archive that unpacks to more than it is, or whose pickle names anything but tensors."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > path.stat().st_size:
                raise ValueError(f"{info.filename} in it is compressed, which torch.save does not do")
        pickles = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > _MOST_PICKLE:
            raise ValueError("it does not hold one pickle of tensors")
        for opcode, argument, _ in pickletools.genops(archive.read(pickles[0])):
            if opcode.name in ("INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                raise ValueError(f"its pickle has the instruction {opcode.name}, which tensors do not need")
            if opcode.name == "GLOBAL" and not _TENSORS.fullmatch(str(argument)):
                raise ValueError(
                    f"it names {str(argument).replace(' ', '.')[:80]}, and only tensors in dictionaries and lists are read: "
                    "save such, or a .npy"
                )


def _tensors(content: Any) -> list[Tensor]:
    """All tensors in dictionaries and lists."""
    found, waiting, seen = [], [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))  # a pickle may put a list into itself
            waiting += value.values() if isinstance(value, dict) else value
    return found
