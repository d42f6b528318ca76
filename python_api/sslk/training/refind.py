"""Finds the set S again as an encoder trains: what the paper does once, at the start."""

from __future__ import annotations

import copy
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

import ssl_kernels
from sslk.data import Dataset
from sslk.data.workers import loading_processes
from sslk.distributed import all_sum, world
from sslk.models import evaluation_transform
from sslk.models.backbone import Backbone
from sslk.probes.usable import finite_rows
from sslk.quality.discriminative import DiscriminativeFeatures

BATCH = 256


class FindSetAgain(pl.Callback):
    """Puts the set S of the encoder as it is now into the regulariser, every so many optimiser steps.

    S is found on whole images without augmentation, in float32 and with the encoder's running batch statistics, none of
    which move; eps and percentiles stay those of the first set. The set is in the checkpoints with the regulariser, and
    one that was due when a run was killed is found again from the same weights: a resumed run is bitwise the same.

    Args:
        images: training images.
        backbone: gives their transform.
        found: the first set.
        every: optimiser steps from one set to the next.
        workers: loading processes.

    Raises:
        NoDiscriminativeFeatures: in training, where no feature is left in S.
    """

    def __init__(self, images: Dataset, backbone: Backbone, found: DiscriminativeFeatures, every: int, workers: int = 0) -> None:
        self.images, self.found, self.every, self.workers = copy.copy(images), found, every, workers
        self.images.transform = evaluation_transform(backbone)
        self.found_at = 0

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *unused: Any) -> None:
        step = trainer.global_step
        if step % self.every or step == self.found_at:  # the first set, or a further batch of the same step
            return
        self.found_at = step
        self.found = self.find(module.method.backbone, module.device)  # type: ignore[union-attr, arg-type]
        module.regularizer.discriminative.copy_(self.found.mask)  # type: ignore[union-attr, operator]

    @torch.no_grad()
    def find(self, net: nn.Module, device: torch.device) -> DiscriminativeFeatures:
        """S of an encoder on the images, which all processes count together; modes of the encoder are left as they were."""
        rank, size = world()
        items = Subset(self.images, range(rank, len(self.images), size))
        # A generator of its own: seeds of the loading processes would move the global one.
        loader = DataLoader(items, BATCH, num_workers=loading_processes(self.workers), generator=torch.Generator())
        training = [part for part in net.modules() if part.training]
        net.eval()
        counts, rows = torch.zeros(self.found.num_features, dtype=torch.int64, device=device), 0
        for images, *_ in loader:
            h = net(images.to(device))
            counts += ssl_kernels.activation_counts(h, self.found.eps, self.found.two_sided)[0]
            rows += int(finite_rows(h).sum())
        for part in training:
            part.training = True
        total = int(all_sum(torch.tensor(rows, device=device)))
        old = self.found
        return DiscriminativeFeatures.from_counts(
            all_sum(counts), total, eps=old.eps, lower=old.lower, upper=old.upper, two_sided=old.two_sided
        )
