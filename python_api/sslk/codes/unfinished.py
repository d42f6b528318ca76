"""A fit that is under way, in a file beside the codes to come: all that going on after an interruption needs."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from sslk.codes.autoencoder import SparseAutoencoder
from sslk.codes.fitted import TENSORS, CodesSource, Epoch
from sslk.codes.settings import CodesSettings
from sslk.files.tensors import read_tensors, require_tensors
from sslk.files.text import from_fields, parse_json
from sslk.results.atomic import write_atomically

_FORMAT = "sslk-sparse-codes-fit-1"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Fit:
    """The state between two epochs.

    Attributes:
        autoencoder: what is fitted.
        optimizer: Adam over its parameters.
        idle: int64 `[M]`, rows since a latent was above 0.
        history: of the epochs that are done.
    """

    autoencoder: SparseAutoencoder
    optimizer: torch.optim.Adam
    idle: Tensor
    history: tuple[Epoch, ...] = ()


@dataclass(frozen=True)
class _Facts:
    settings: CodesSettings
    source: CodesSource
    history: tuple[Epoch, ...]
    steps: int


def path_of(out: Path) -> Path:
    """Where the state of the fit of a file lies."""
    return out.with_name(f"{out.name}.part")


def write_fit(out: Path, fit: Fit, settings: CodesSettings, source: CodesSource) -> None:
    """Put the state beside the codes to come, whole or not at all."""
    tensors = dict(fit.autoencoder.state_dict()) | {"idle": fit.idle}
    steps = 0
    for name, parameter in fit.autoencoder.named_parameters():
        state = fit.optimizer.state[parameter]
        tensors |= {f"{name}.{moment}": state[moment] for moment in _MOMENTS}
        steps = int(state["step"])
    facts = asdict(_Facts(settings, source, fit.history, steps))
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path_of(out), save(plain, {_FORMAT: json.dumps(facts)}))


def read_fit(out: Path, fit: Fit, settings: CodesSettings, source: CodesSource) -> None:
    """Put the state of an interrupted fit, where there is one of the same settings on the same store, into a new fit.

    Warns of one with other settings or on another store, which is begun anew.

    Raises:
        ValueError: the file is damaged.
    """
    path = path_of(out)
    if not path.exists():
        return
    tensors, metadata = read_tensors(path, "the unfinished fit")
    if _FORMAT not in metadata:
        raise ValueError(f"{path} holds no unfinished fit: delete it.")
    where = f"the facts in {path}"
    facts = from_fields(_Facts, parse_json(metadata[_FORMAT], where), where)
    if (facts.settings, facts.source) != (settings, source):
        warnings.warn(f"{path} is of a fit with other settings or on another store: it is begun anew.", stacklevel=3)
        return
    parameters = dict(fit.autoencoder.named_parameters())
    kinds = {f"{name}.{moment}": TENSORS[name] for name in parameters for moment in _MOMENTS}
    require_tensors(tensors, {**TENSORS, "idle": "int64 1", **kinds}, str(path), ValueError)
    try:
        fit.autoencoder.load_state_dict({name: tensors[name] for name in TENSORS})
    except RuntimeError:
        raise ValueError(f"{path} is damaged: its tensors are of other sizes; delete it to begin anew.") from None
    for name, parameter in parameters.items():
        moments = {moment: tensors[f"{name}.{moment}"].to(parameter, copy=True) for moment in _MOMENTS}
        if any(moment.shape != parameter.shape for moment in moments.values()):
            raise ValueError(f"{path} is damaged: its tensors are of other sizes; delete it to begin anew.")
        fit.optimizer.state[parameter] = {"step": torch.tensor(float(facts.steps)), **moments}
    fit.idle.copy_(tensors["idle"])
    fit.history = facts.history
