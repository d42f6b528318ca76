"""Hashes and names that tell whether two extractions would give the same numbers."""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


def weights_hash(model: nn.Module) -> str:
    """`model.weights_hash` of a backbone, else SHA-256 of all parameters and buffers: names, dtypes, shapes, bytes.

    >>> a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> weights_hash(a) == weights_hash(b), weights_hash(a) == weights_hash(a)
    (False, True)
    """
    stated = getattr(model, "weights_hash", None)
    if isinstance(stated, str):
        return stated
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not isinstance(value, Tensor):  # extra state of a module
            digest.update(f"{name} {value!r}\n".encode())
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())  # as a backbone does
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def model_name(model: nn.Module) -> str:
    """`model.name` where the backbone has one, else its class."""
    return str(getattr(model, "name", None) or type(model).__qualname__)


def dataset_name(dataset: Dataset[Any]) -> str:
    """`dataset.name` where it has one, else its class."""
    return str(getattr(dataset, "name", None) or type(dataset).__qualname__)


def labels_of(dataset: Dataset[Any]) -> Sequence[int] | Tensor | None:
    """The data set's labels without loading an image: its `labels`, or `targets` as torchvision calls them."""
    labels = getattr(dataset, "labels", None)
    return labels if labels is not None else getattr(dataset, "targets", None)


def data_hash(dataset: Dataset[Any]) -> str:
    """SHA-256 of name, size, classes, labels and, where the data set offers one, its `fingerprint`.

    Pixels are not decoded: of the files of a folder the fingerprint covers names, sizes and last bytes.
    """
    labels = labels_of(dataset)
    facts = [
        dataset_name(dataset),
        len(dataset),  # type: ignore[arg-type]
        [str(name) for name in getattr(dataset, "classes", None) or ()],
        None if labels is None else torch.as_tensor(labels).tolist(),
        str(getattr(dataset, "fingerprint", "")),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def transform_text(dataset: Dataset[Any]) -> str:
    """The data set's transform as text, and how its files were decoded where it says so.

    Raises:
        ValueError: the text holds a memory address, so that no later run could recognise the same transform.
    """
    text = re.sub(r"\s+", " ", repr(getattr(dataset, "transform", None)))
    if re.search(r" at 0x[0-9a-fA-F]+", text):
        raise ValueError(
            f"the transform of dataset must have a repr that names it, got {text}: a stored extraction could not be "
            "recognised; use transforms that are modules, or give your callable a __repr__."
        )
    decoding = str(getattr(dataset, "decoding", "") or "")
    return f"{text} of images {decoding}" if decoding else text
