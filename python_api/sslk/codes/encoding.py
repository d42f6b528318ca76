"""The codes of a feature store's rows, as a feature store of their own."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from os import PathLike
from pathlib import Path

import torch

from sslk.codes.fitted import Codes, opened
from sslk.distributed import require_device
from sslk.features.intact import dtype_of
from sslk.features.manifest import StoreSpec
from sslk.features.names import names_of, packed, write_names
from sslk.features.store import FeatureStore
from sslk.features.writer import StoreWriter
from sslk.progress import Progress

ROWS = 4096  # that are encoded at once


def codes_spec(store: FeatureStore, codes: Codes, dtype: str | None = None) -> StoreSpec:
    """What a store of the codes of a store's rows holds: other features, of the same samples.

    Args:
        store: of the features.
        codes: fitted on that model.
        dtype: float32, float16 or bfloat16; as the features are stored by default.
    """
    spec = store.spec
    content = hashlib.sha256(f"{spec.content} {codes.hash}".encode()).hexdigest() if spec.imported else ""
    return replace(
        spec,
        model=codes.name,
        weights_hash=codes.weights_hash,
        num_features=codes.autoencoder.latents,
        dtype=dtype or spec.dtype,
        signed=False,
        feature=codes.feature,
        content=content,
    )


def size_of(spec: StoreSpec) -> str:
    """Rows, columns, dtype and bytes of a store to come, in words.

    >>> size_of(StoreSpec("m", "0", "d", "0", "none", 1000, 2048, "float16"))
    '1000 x 2048 float16, 4.1 MB, zeros included'
    """
    size = spec.samples * spec.num_features * dtype_of(spec.dtype).itemsize
    return f"{spec.samples} x {spec.num_features} {spec.dtype}, {size / 1e6:,.1f} MB, zeros included"


def encode_store(
    store: FeatureStore | str | PathLike[str],
    codes: Codes | str | PathLike[str],
    out: str | PathLike[str],
    *,
    dtype: str | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> FeatureStore:
    """Write the codes of a store's rows into a feature store, which takes part wherever a representation does.

    Rows, labels, classes, indices and names are those of the store. A row that is not finite has NaN for all its codes. Killed
    at any moment, the same call goes on at the first unfinished shard and ends with the same bytes.

    Args:
        store: complete, of the model that the codes were fitted on.
        codes: from `fit_codes`, or a file of them; `Codes.without_dead` leaves out the latents that were never active.
        out: folder of the store; its size is `[N, M]`, zeros included, which `size_of(codes_spec(...))` says beforehand.
        dtype: float32, float16 or bfloat16; as the features are stored by default.
        device: where to compute.
        progress: called after every block of rows.

    Raises:
        StoreError: the store is incomplete, damaged or of another model, or out holds something else.
        ValueError: an unknown dtype, or codes that do not fit it.
        OSError: the disk has no room, or out cannot be written to.

    >>> import tempfile
    >>> from sslk.codes import CodesSettings, fit_codes
    >>> from sslk.features import store_import
    >>> x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    >>> store = store_import(x, Path(tempfile.mkdtemp()) / "x", labels=torch.arange(300) % 3)
    >>> codes = fit_codes(store, CodesSettings(latents=32, k=4, epochs=2))
    >>> encoded = encode_store(store, codes, Path(tempfile.mkdtemp()) / "codes")
    >>> encoded.num_features, encoded.spec.signed, encoded.labels().equal(store.labels())
    (32, False, True)
    """
    source = (store if isinstance(store, FeatureStore) else FeatureStore(store)).require()
    codes = opened(codes)
    codes.check(source)
    spec = codes_spec(source, codes, dtype)
    dtype_of(spec.dtype)
    on = require_device(device)
    names = names_of(source)
    auto = copy.deepcopy(codes.autoencoder).to(on)
    done = 0
    with StoreWriter(out, spec) as writer:
        if names is not None:
            write_names(Path(out), packed(list(names)), spec)
        for entry in source.manifest.shards:
            if entry.file in writer.finished:
                done += entry.rows
                continue
            shard = source.shard(entry)
            parts = []
            with torch.inference_mode():
                for rows in shard.features.split(ROWS):
                    parts.append(auto(rows.to(on)).cpu())  # the writer refuses what does not fit the dtype
                    done += len(rows)
                    if progress is not None:
                        progress(done, len(source), "encoding")
            number = int(entry.file.removeprefix("shard-").removesuffix(".safetensors"))
            writer.write(number, torch.cat(parts), shard.labels, shard.indices, entry.skipped)
    return FeatureStore(out)
