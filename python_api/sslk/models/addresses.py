"""The tensors of a checkpoint under their addresses, with what wraps networks looked through; see `layouts`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sslk.models.checkpoint_files import ZERO, CheckpointError, Content
from sslk.models.layouts import CONTAINERS
from sslk.models.pickle_globals import Array, tensor_of
from sslk.models.stand_ins import StandIn, Unreadable

_MOST_ENTRIES, _MOST_TENSORS = 300_000, 50_000
_MOST_NESTED = 100
_LONGEST_ADDRESS = 1000
# DistributedDataParallel in front; torch.compile, FSDP, activation checkpointing and Lightning's strategies anywhere.
_FRONT_WRAPPER = re.compile(r"(^|/)(?:module\.)+")
_WRAPPERS = re.compile(r"(?:(?<=[./])|^)(?:(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.)+")
# Where code keeps averaged weights beside the trained ones: timm, Ultralytics, RT-DETR, ema-pytorch, torch.optim.swa_utils.
_AVERAGED = re.compile(
    r"(state_dict_ema|model_ema(?:_state_dict)?|ema(?:_state_dict|_model|_net|_weights)?|swa_model|averaged_model)[./]"
)


@dataclass
class Addresses:
    """What of a checkpoint could be a network's.

    Attributes:
        tensors: by address.
        container: the one the tensors are in, or "".
        averaged: the same for each averaged copy, by the key it is kept under.
        ignored: names of the classes and functions that nothing stands for.
    """

    tensors: dict[str, Tensor]
    container: str
    averaged: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def find_addresses(content: Content, where: str) -> Addresses:
    """The tensors of a file's content.

    Raises:
        CheckpointError: There are none, one is no plain tensor, they are in parts, or nested without end.
    """
    value = content.value if isinstance(content.value, Mapping) else {"": content.value}
    container = next((key for key in CONTAINERS if isinstance(value.get(key), (Mapping, StandIn))), "")
    found = Addresses({}, container, ignored=content.ignored)
    for raw, tensor in _flatten(value, where):
        address = _clean(raw)
        if re.search(r"(^|[./])_?flat_param(_\d+)?$", address):
            raise CheckpointError(
                f"{where}: holds the flattened parameters of FSDP ({raw[-80:]}); save it with StateDictType.FULL_STATE_DICT"
            )
        averaged = _AVERAGED.match(address)
        if averaged is None:
            found.tensors[address] = tensor
        else:
            found.averaged.setdefault(averaged[1], {})[_clean(address[averaged.end() :])] = tensor
        if len(found.tensors) > _MOST_TENSORS:
            raise CheckpointError(f"{where}: holds more than {_MOST_TENSORS:,} tensors, which no network here has")
    for name in [name for name, copy in found.averaged.items() if all(tensor.ndim == 0 for tensor in copy.values())]:
        del found.averaged[name]  # an average that is no network: a counter, a decay
    if not found.tensors and found.averaged:
        found.tensors = found.averaged.pop(next(iter(found.averaged)))
    if not found.tensors or (("ds_version" in value or "ds_config" in value) and _emptied(found.tensors)):
        if "ds_version" in value or "ds_config" in value:
            raise CheckpointError(f"{where}: cannot be read, it holds {ZERO}")
        keys = ", ".join(key[:40] for key in list(value)[:5] if isinstance(key, str))
        raise CheckpointError(f"{where}: holds no tensors under string keys, only {keys or 'nothing'}")
    return found


def _clean(address: str) -> str:
    """An address without containers and wrappers."""
    for prefix in CONTAINERS:
        address = address.removeprefix(f"{prefix}/")
    # DINO's student is wrapped inside its own dictionary: the wrapper follows a slash there.
    return _FRONT_WRAPPER.sub(r"\1", _WRAPPERS.sub("", address).removeprefix("/"))


def _emptied(tensors: Mapping[str, Tensor]) -> bool:
    return sum(tensor.numel() == 0 for tensor in tensors.values()) > len(tensors) / 2


def _flatten(content: Mapping[Any, Any], where: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under string keys; what made-up dictionaries cost is bounded."""
    visited = 0
    open_ = [_entries("", content)]
    while open_:
        try:
            address, joint, value = next(open_[-1])
        except StopIteration:
            open_.pop()
            continue
        visited += 1
        if visited > _MOST_ENTRIES or len(open_) > _MOST_NESTED or len(address) > _LONGEST_ADDRESS:
            raise CheckpointError(f"{where}: its dictionaries are nested too deeply, or hold themselves")
        if isinstance(value, Array) and value.array is not None:
            value = tensor_of(value.array)
        if isinstance(value, Unreadable) or (isinstance(value, Tensor) and value.layout != torch.strided):
            kind = value.kind if isinstance(value, Unreadable) else str(value.layout)
            raise CheckpointError(f"{where}: {address[:80]!r} must be a plain tensor, got {kind}")
        if isinstance(value, Tensor):
            yield address, value
        elif isinstance(value, Mapping) or (isinstance(value, StandIn) and value.state is not None):
            open_.append(_entries(address + joint, value))


def _entries(prefix: str, value: Mapping[Any, Any] | StandIn) -> Iterator[tuple[str, str, Any]]:
    """Address, what follows it and value: of a dictionary's entries, or of a pickled module's tensors and modules."""
    if isinstance(value, Mapping):
        # An optimizer numbers its states, so integer keys lead to no network.
        yield from ((prefix + k, "/", v) for k, v in value.items() if isinstance(k, str) and not k.startswith("optimizer"))
        return
    state = value.state or {}
    dropped = state.get("_non_persistent_buffers_set")
    for kind in ("_parameters", "_buffers", "_modules"):
        members = state.get(kind)
        for key, member in members.items() if isinstance(members, Mapping) else ():
            if isinstance(key, str) and not (kind == "_buffers" and isinstance(dropped, set) and key in dropped):
                yield prefix + key, ".", member
