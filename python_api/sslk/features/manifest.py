"""The manifest of a feature store: what was extracted from what, and which shards are finished."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sslk.files.text import from_fields, read_json

FORMAT = "sslk.features"
VERSION = 1
MANIFEST = "manifest.json"
_LATER = ("feature", "content", "names")  # fields of the spec that are written only where they say something


class StoreError(ValueError):
    """A feature store or one of its files is not what it should be; the message names the file."""


@dataclass(frozen=True)
class StoreSpec:
    """What a store holds: stores with equal `identity` were extracted from the same data by the same network.

    Attributes:
        model: name of the backbone.
        weights_hash: SHA-256 of its weights.
        dataset: name of the data set, its split included.
        data_hash: SHA-256 of the data set's name, size, classes and labels.
        transform: the image transform, as text.
        samples: size of the data set; rows may be fewer where unreadable samples were left out.
        num_features: D.
        dtype: dtype of the stored features, "float32", "float16" or "bfloat16".
        amp: dtype of the mixed-precision forward pass, or "off".
        labels: whether the shards hold labels.
        signed: whether features may be negative.
        classes: class names, empty where unknown.
        shard_rows: samples a shard covers; a matter of layout, no part of the identity.
        variants: names of the V variants of every image, whose representations stand side by side in a row, each
            `num_features / V` wide; empty for plain representations.
        feature: which layer and token of the network the representation is; empty where the model does not say.
        content: of an imported store the SHA-256 of its features as they are stored; empty where they were extracted.
        names: SHA-256 of the file that names its samples (`sslk.features.names`); empty where there is none.
    """

    model: str
    weights_hash: str
    dataset: str
    data_hash: str
    transform: str
    samples: int
    num_features: int
    dtype: str = "float32"
    amp: str = "off"
    labels: bool = True
    signed: bool = False
    classes: tuple[str, ...] = ()
    shard_rows: int = 8192
    variants: tuple[str, ...] = ()
    feature: str = ""
    content: str = ""
    names: str = ""

    def __post_init__(self) -> None:
        for name, least in (("samples", 0), ("num_features", 1), ("shard_rows", 1)):
            if not least <= getattr(self, name) < 2**63:
                raise ValueError(f"{name} must be at least {least} and below 2^63, got {getattr(self, name)}")

    @property
    def identity(self) -> str:
        """SHA-256 of the fields that decide the stored numbers; every shard carries it in its header."""
        decisive = {name: value for name, value in asdict(self).items() if name != "shard_rows"}
        for name in ("variants", *_LATER):  # stores from before there were such fields keep their identity
            if not decisive[name]:
                del decisive[name]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    @property
    def imported(self) -> bool:
        """Whether the features were brought along, so that no image is known."""
        return bool(self.content)

    @property
    def shard_count(self) -> int:
        """Number of shards of the complete store."""
        return -(-self.samples // self.shard_rows)

    def difference(self, other: "StoreSpec") -> str:
        """The fields in which two specs differ, as text for an error message; empty where they agree."""
        return ", ".join(
            f"{f.name} is {short(getattr(self, f.name))} there and {short(getattr(other, f.name))} here"
            for f in fields(self)
            if getattr(self, f.name) != getattr(other, f.name)
        )


def imported_weights(model: str) -> str:
    """What stands for the SHA-256 of weights that are not known: features imported under one name are of one network."""
    return hashlib.sha256(f"imported: {model}".encode()).hexdigest()


def short(value: object) -> str:
    """`repr`, cut to what an error message can carry."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True)
class ShardEntry:
    """One finished shard.

    Attributes:
        file: name inside the store.
        rows: rows stored.
        bytes: size of the file.
        sha256: of the whole file.
        skipped: `(sample, reason)` of the samples that could not be read.
        nonfinite_rows: rows with a NaN or an infinity.
    """

    file: str
    rows: int
    bytes: int
    sha256: str
    skipped: tuple[tuple[int, str], ...] = ()
    nonfinite_rows: int = 0

    def __post_init__(self) -> None:
        if self.file in ("", "..") or Path(self.file).name != self.file or "\0" in self.file:
            raise ValueError(f"a shard must be named by a file inside the store, got {short(self.file)}")
        if not 0 <= self.rows < 2**63 or self.bytes < 0:
            raise ValueError(f"a shard cannot have {self.rows} rows and {self.bytes} bytes")


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`: the spec and the finished shards, in the order of their names, which is that of the data."""

    spec: StoreSpec
    shards: tuple[ShardEntry, ...] = field(default=())

    @property
    def rows(self) -> int:
        """Rows of all finished shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def skipped(self) -> int:
        """Samples that could not be read, over all finished shards."""
        return sum(len(shard.skipped) for shard in self.shards)

    @property
    def complete(self) -> bool:
        """Whether every sample of the data set is stored or accounted for as unreadable."""
        return self.rows + self.skipped == self.spec.samples

    def with_shard(self, entry: ShardEntry) -> "Manifest":
        """A copy with one more shard (or that shard replaced)."""
        others = [shard for shard in self.shards if shard.file != entry.file]
        return Manifest(self.spec, tuple(sorted([*others, entry], key=lambda shard: shard.file)))

    def to_json(self) -> str:
        """The file's text; independent of the order in which the shards were finished."""
        body = {"format": FORMAT, "version": VERSION, "identity": self.spec.identity, **asdict(self)}
        body["spec"] = {name: value for name, value in body["spec"].items() if value or name not in _LATER}
        text = json.dumps(body, indent=1, ensure_ascii=False) + "\n"
        return text.encode("utf-8", "backslashreplace").decode()  # a class folder's name may be no UTF-8

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read `folder/manifest.json`.

        Raises:
            StoreError: there is none, it is no manifest of a feature store, or it is of a later version.
        """
        path = folder / MANIFEST
        try:
            body: dict[str, Any] = read_json(path, "the manifest", StoreError)
        except FileNotFoundError:
            raise StoreError(f"{folder} is not a feature store: it has no {MANIFEST}.") from None
        if not isinstance(body, dict) or body.get("format") != FORMAT:
            raise StoreError(f"{path} is not the manifest of a feature store: its format is not {FORMAT!r}.")
        if body.get("version") != VERSION:
            raise StoreError(f"{path} has version {body.get('version')!r}; this release reads version {VERSION}.")
        identity = body.get("identity")
        content = {key: value for key, value in body.items() if key not in ("format", "version", "identity")}
        manifest = from_fields(cls, content, f"{path} does not follow version {VERSION} and", StoreError)
        if identity != manifest.spec.identity:
            raise StoreError(f"{path} was altered: its identity does not match its fields.")
        if len({entry.file for entry in manifest.shards}) < len(manifest.shards):
            raise StoreError(f"{path} names a shard twice.")
        return manifest


def shard_name(number: int) -> str:
    """File name of a shard; names sort like numbers.

    >>> shard_name(7)
    'shard-000007.safetensors'
    """
    return f"shard-{number:06d}.safetensors"
