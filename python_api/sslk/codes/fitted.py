"""Fitted sparse codes: the autoencoder with what it was fitted on, kept in one file, and whether a store is its model's."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save
from torch import Tensor, nn

from sslk.codes.autoencoder import SparseAutoencoder
from sslk.codes.settings import CodesSettings
from sslk.features.manifest import StoreError, StoreSpec
from sslk.features.store import FeatureStore
from sslk.files.tensors import read_tensors, require_tensors
from sslk.files.text import from_fields, parse_json
from sslk.results.atomic import write_atomically

if TYPE_CHECKING:
    from sslk.codes.on_images import CodesBackbone
    from sslk.models import Backbone

_FORMAT = "sslk-sparse-codes-1"
TENSORS = {
    "encoder": "float32 2",
    "encoder_bias": "float32 1",
    "decoder": "float32 2",
    "pre_bias": "float32 1",
    "mean": "float32 1",
    "scale": "float32 0",
}


@dataclass(frozen=True)
class CodesSource:
    """The store that codes were fitted on.

    Attributes:
        model, weights_hash, feature: the representation, as the store's spec names it.
        dataset: the data.
        store: identity of the store.
        rows, held_out, nonfinite: rows it was fitted on, rows held out, rows left out for NaN or infinity.
    """

    model: str
    weights_hash: str
    feature: str
    dataset: str
    store: str
    rows: int = 0
    held_out: int = 0
    nonfinite: int = 0

    @classmethod
    def of(cls, spec: StoreSpec) -> CodesSource:
        """Of a store with that spec, before its rows are counted."""
        return cls(spec.model, spec.weights_hash, spec.feature, spec.dataset, spec.identity)


@dataclass(frozen=True)
class Epoch:
    """How far the fit was after an epoch.

    Attributes:
        loss: mean share of the variance not explained, over the epoch's steps.
        explained_variance: of the rows held out.
        active: mean number of latents above 0 in a row held out (L0).
        dead_share: share of the latents that were above 0 in no row of the epoch.
    """

    loss: float
    explained_variance: float
    active: float
    dead_share: float


@dataclass(frozen=True, eq=False)
class Codes:
    """Sparse codes of one representation.

    Attributes:
        autoencoder: on the CPU, in eval mode.
        counts: int64 `[M]`, in how many of the rows it was fitted on a latent is above 0, at the end.
        settings: of the fit.
        source: the store it was fitted on.
        history: after every epoch; the last entry is of the autoencoder as it is.
        train_explained_variance: share of the variance of the rows it was fitted on.
    """

    autoencoder: SparseAutoencoder
    counts: Tensor
    settings: CodesSettings
    source: CodesSource
    history: tuple[Epoch, ...]
    train_explained_variance: float

    @property
    def explained_variance(self) -> float:
        """Share of the variance of the rows held out that the reconstruction explains."""
        return self.history[-1].explained_variance

    @property
    def dead(self) -> Tensor:
        """bool `[M]`: latents that are above 0 in no row of the fit."""
        return self.counts == 0

    @property
    def hash(self) -> str:
        """SHA-256 of what decides the codes: the autoencoder and k."""
        digest = hashlib.sha256(f"{self.autoencoder.k}\n".encode())
        for name, tensor in sorted(self.autoencoder.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def weights_hash(self) -> str:
        """Of model and codes together: what the spec of a store of codes says."""
        return hashlib.sha256(f"{self.source.weights_hash} {self.hash}".encode()).hexdigest()

    @property
    def name(self) -> str:
        """Of the model whose features the codes are."""
        return f"{self.source.model} codes"

    @property
    def feature(self) -> str:
        """What the representation is, in words."""
        return f"{self.autoencoder.k} of {self.autoencoder.latents} codes of {self.source.feature or 'output'}"

    def described(self) -> dict[str, str | int | float]:
        """What they are, by name."""
        last = self.history[-1]
        return {
            "model": self.source.model,
            "representation": self.source.feature or "output",
            "data": self.source.dataset,
            "features": self.autoencoder.num_features,
            "latents": self.autoencoder.latents,
            "k": self.autoencoder.k,
            "rows": self.source.rows,
            "held_out": self.source.held_out,
            "explained_variance": last.explained_variance,
            "explained_variance_train": self.train_explained_variance,
            "active": last.active,
            "dead": int(self.dead.sum()),
            **({"nonfinite": self.source.nonfinite} if self.source.nonfinite else {}),
        }

    def without_dead(self) -> Codes:
        """The codes without the latents that were dead on the rows of the fit; k at most what is left.

        On other rows a dead latent may have been among the k largest: what is left is a set of codes of its own, with a
        hash of its own.

        Raises:
            ValueError: all latents are dead.
        """
        keep = ~self.dead
        if not bool(keep.any()):
            raise ValueError("codes must have a latent that is not dead, got none.")
        if bool(keep.all()):
            return self
        old = self.autoencoder
        auto = SparseAutoencoder(old.num_features, int(keep.sum()), min(old.k, int(keep.sum())))
        tensors = old.state_dict()
        of_latents = ("encoder", "encoder_bias", "decoder")
        auto.load_state_dict({name: tensor[keep] if name in of_latents else tensor for name, tensor in tensors.items()})
        return replace(self, autoencoder=auto.eval().requires_grad_(False), counts=self.counts[keep])

    def check(self, owner: FeatureStore | Backbone | nn.Module) -> None:
        """Refuse a store, or a backbone, of another representation than the codes were fitted on.

        Raises:
            StoreError: D, the weights or the layer differ, for a store; ValueError for a backbone.
        """
        if isinstance(owner, FeatureStore):
            spec, refusal = owner.spec, StoreError
            here = f"{owner.path} ({spec.model!r})"
            width, weights, feature = spec.num_features, spec.weights_hash, spec.feature
        else:
            from sslk.models import as_backbone

            owner = as_backbone(owner)
            here, refusal = repr(owner.name), ValueError  # type: ignore[assignment]
            width, weights, feature = owner.num_features, owner.weights_hash, owner.feature
        for name, ours, theirs in (
            ("D", self.autoencoder.num_features, width),
            ("weights", self.source.weights_hash[:12], weights[:12]),
            ("the representation", self.source.feature, feature),
        ):
            if ours != theirs:
                raise refusal(
                    f"codes were fitted on {self.source.model!r} and {here} is another: {name} is {ours} there and {theirs} "
                    "here; fit codes on a store of that model with `sslk codes fit`."
                )

    def on(self, model: Backbone | nn.Module, *, maps: bool = False) -> CodesBackbone:
        """A backbone whose representation is the codes of another's, see `sslk.codes.on_images.CodesBackbone`."""
        from sslk.codes.on_images import CodesBackbone

        return CodesBackbone(self, model, maps=maps)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to one safetensors file, atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.autoencoder.state_dict().items()}
        facts = {
            "k": self.autoencoder.k,
            "settings": asdict(self.settings),
            "source": asdict(self.source),
            "history": [asdict(epoch) for epoch in self.history],
            "train_explained_variance": self.train_explained_variance,
        }
        write_atomically(path, save({**tensors, "counts": self.counts}, {_FORMAT: json.dumps(facts)}))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Codes:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged or holds something else.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"No sparse codes at {path}: the file does not exist; `sslk codes fit` writes it.")
        tensors, metadata = read_tensors(path, "the codes")
        if _FORMAT not in metadata:
            raise ValueError(f"{path} holds no sparse codes.")
        require_tensors(tensors, {**TENSORS, "counts": "int64 1"}, str(path), ValueError)
        where = f"the facts in {path}"
        facts = from_fields(_Facts, parse_json(metadata[_FORMAT], where), where)
        counts = tensors.pop("counts")
        latents, width = tensors["encoder"].shape
        sizes = {"encoder_bias": (latents,), "decoder": (latents, width), "pre_bias": (width,), "mean": (width,)}
        fits = all(tensors[name].shape == size for name, size in sizes.items()) and len(counts) == latents
        finite = all(bool(tensor.isfinite().all()) for tensor in tensors.values())
        if not (fits and finite and width and 1 <= facts.k <= latents and facts.history):
            raise ValueError(f"{path} is damaged: its tensors must be finite, of one M and one D, and k must be at most M.")
        auto = SparseAutoencoder(width, latents, facts.k)
        auto.load_state_dict(tensors)
        auto.eval().requires_grad_(False)
        return cls(auto, counts, facts.settings, facts.source, facts.history, facts.train_explained_variance)


@dataclass(frozen=True)
class _Facts:
    """What the file of codes holds beside its tensors; see `Codes`."""

    k: int
    settings: CodesSettings
    source: CodesSource
    history: tuple[Epoch, ...]
    train_explained_variance: float = math.nan


def opened(codes: Codes | str | os.PathLike[str]) -> Codes:
    """Codes, or those of a file."""
    return codes if isinstance(codes, Codes) else Codes.load(codes)
