"""Fits sparse codes to a feature store of any size, resumably."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import torch

from sslk.codes.autoencoder import SparseAutoencoder
from sslk.codes.fitted import Codes, CodesSource, Epoch
from sslk.codes.rows import SplitRows, explained
from sslk.codes.settings import CodesSettings
from sslk.codes.unfinished import Fit, path_of, read_fit, write_fit
from sslk.distributed import require_device
from sslk.features.manifest import StoreError
from sslk.features.store import FeatureStore
from sslk.progress import Progress

WARM_UP = 0.05  # share of the steps in which the learning rate rises from 0
DECAY = 0.2  # share of the steps, the last ones, in which it falls to 0
MOST_IDLE = 10_000_000  # rows after which a latent is dead whatever the store's size, as in Gao et al.


def fit_codes(
    store: FeatureStore | str | os.PathLike[str],
    settings: CodesSettings = CodesSettings(),  # noqa: B008 (frozen)
    *,
    out: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Codes:
    """Fit a TopK sparse autoencoder to the rows of a store, so that features become codes that are not negative.

    Gao et al., "Scaling and evaluating sparse autoencoders" (2024), after Makhzani and Frey, "k-sparse autoencoders" (2013):
    see `SparseAutoencoder` for the equations. Adam; the decoder's directions keep unit norm; the learning rate rises over the
    first 5 % of the steps and falls to 0 over the last 20 %. No labels are used.

    A share of the rows is held out and tells how much of the variance is explained. Rows that are not finite are left out and
    counted. The store is read batch by batch, shards in random order and rows out of a buffer of 65,536, so that it may be
    larger than memory. On one device and number of threads the result is the same, bit by bit, for the same seed.

    Args:
        store: complete; labels are not needed.
        settings: sizes and training.
        out: file for the codes. After every epoch what is needed to go on lies beside it, in `OUT.part`: killed at any moment,
            the same call goes on at that epoch and ends with the same codes. A finished file of the same settings is read.
        device: where to compute.
        progress: called with the rows read and to read.

    Returns:
        The codes, on the CPU.

    Raises:
        StoreError: the store is incomplete, damaged, or of several variants of an image.
        ValueError: there are more of k than latents, fewer than two finite rows or none to hold out, constant features, a loss
            that is not finite, or out holds other codes.

    >>> import tempfile
    >>> from sslk.features import store_import
    >>> x = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))
    >>> codes = fit_codes(store_import(x, Path(tempfile.mkdtemp()) / "x"), CodesSettings(k=8, epochs=5, batch_size=64))
    >>> codes.autoencoder.latents, codes.source.rows, codes.source.held_out, len(codes.history)
    (64, 360, 40, 5)
    """
    store = (store if isinstance(store, FeatureStore) else FeatureStore(store)).require()
    if store.spec.variants:
        raise StoreError(f"{store.path} holds {len(store.spec.variants)} variants of every image: codes need plain features.")
    on = require_device(device)
    rows = SplitRows(store, settings.validation_share, settings.seed, on)
    count, mean, variance = rows.moments()
    held_out = sum(len(batch) for batch in rows.batches(True))
    if count < 2 or not held_out:
        raise ValueError(f"{store.path} must have finite rows to fit codes on and to hold out, got {count} and {held_out}.")
    if not float(variance.sum()) > 0:
        raise ValueError(f"{store.path} must have features that vary, got {count} equal rows.")
    source = replace(CodesSource.of(store.spec), rows=count, held_out=held_out, nonfinite=len(store) - count - held_out)
    settings = completed(settings, store.num_features, count)
    target = None if out is None else Path(out)
    if target is not None and target.exists():
        return _finished(target, settings, source)
    auto = SparseAutoencoder(store.num_features, settings.latents or 0, settings.k, settings.seed)
    auto.mean.copy_(mean)
    auto.scale.copy_((store.num_features / variance.sum()).sqrt())
    auto.to(on)
    optimizer = torch.optim.Adam(auto.parameters(), lr=settings.learning_rate or 0.0, eps=6.25e-10)
    fit = Fit(auto, optimizer, torch.zeros(auto.latents, dtype=torch.int64, device=on))
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        read_fit(target, fit, settings, source)
    for epoch in range(len(fit.history), settings.epochs):
        fit.history += (_epoch(fit, rows, settings, epoch, progress),)
        if target is not None:
            write_fit(target, fit, settings, source)
    on_train = explained(auto, rows, held=False)
    auto.cpu().eval().requires_grad_(False)
    codes = Codes(auto, on_train.counts, settings, source, fit.history, on_train.variance)
    if target is not None:
        codes.save(target)
        path_of(target).unlink(missing_ok=True)
    return codes


def completed(settings: CodesSettings, num_features: int, rows: int) -> CodesSettings:
    """Settings with what follows from the data in the place of None.

    >>> found = completed(CodesSettings(), 256, 45_000)
    >>> found.latents, round(found.learning_rate, 6), found.k_aux, found.dead_after
    (1024, 0.0008, 128, 45000)
    """
    latents = settings.latents or 4 * num_features
    if settings.k > latents:
        raise ValueError(f"k must be at most the {latents} latents, got {settings.k}: take a smaller k or more latents.")
    return replace(
        settings,
        latents=latents,
        learning_rate=settings.learning_rate or 2e-4 * math.sqrt(2**14 / latents),
        k_aux=settings.k_aux or max(1, num_features // 2),
        dead_after=settings.dead_after or min(rows, MOST_IDLE),
    )


def rate(step: int, steps: int) -> float:
    """The learning rate of a step as a share of the largest.

    >>> [round(rate(step, 100), 2) for step in (0, 4, 50, 80, 90, 99)]
    [0.2, 1.0, 1.0, 1.0, 0.5, 0.05]
    """
    return min(1.0, (step + 1) / max(1, WARM_UP * steps), (steps - step) / max(1, DECAY * steps))


def _epoch(fit: Fit, rows: SplitRows, settings: CodesSettings, epoch: int, progress: Progress | None) -> Epoch:
    """One pass over the rows, and how well the rows held out are explained after it."""
    auto, size, total = fit.autoencoder, settings.batch_size, len(rows.store)
    per_epoch = -(-total // size)
    first = epoch * per_epoch
    lost = torch.zeros((), dtype=torch.float64, device=rows.device)
    ever = torch.zeros_like(fit.idle, dtype=torch.bool)
    seen = 0
    for number, batch in enumerate(rows.batches(False, size, shuffled_by=settings.seed * 1_000_003 + epoch)):
        if len(batch):
            for group in fit.optimizer.param_groups:
                group["lr"] = (settings.learning_rate or 0.0) * rate(first + number, settings.epochs * per_epoch)
            dead = fit.idle >= (settings.dead_after or MOST_IDLE)
            loss, reconstruction, active = auto.loss(auto.normalized(batch), dead, settings.k_aux or 1, settings.aux_weight)
            fit.optimizer.zero_grad()
            loss.backward()
            auto.project_gradient()
            fit.optimizer.step()
            auto.normalize_decoder()
            fired = torch.zeros_like(ever)
            fired[active.places[active.values > 0]] = True
            fit.idle = torch.where(fired, 0, fit.idle + len(batch))
            ever |= fired
            lost += reconstruction * len(batch)
            seen += len(batch)
        if progress is not None:
            progress(min(total, (number + 1) * size) + epoch * total, settings.epochs * total, "fitting codes")
    if not bool(lost.isfinite()):
        raise ValueError(f"the loss is not finite in epoch {epoch}: lower learning_rate, which is {settings.learning_rate:g}.")
    held = explained(auto, rows, held=True)
    return Epoch(float(lost) / seen, held.variance, held.active, float((~ever).double().mean()))


def _finished(out: Path, settings: CodesSettings, source: CodesSource) -> Codes:
    """The codes of a file, refused where they are others than those asked for."""
    found = Codes.load(out)
    if (found.settings, found.source) != (settings, source):
        raise ValueError(f"{out} holds codes of other settings or of another store: name another file, or delete it.")
    return found
