"""lightly's losses where theirs make the host wait for the device or bind new memory: the same numbers without.

A mask that picks elements (`logits[~diagonal]`) or a pointer read as an integer makes the host wait for every kernel
before it, once per call and once per backward; a buffer bound anew is lost on a captured step.
"""

from __future__ import annotations

import torch
from lightly.loss import DINOLoss, NTXentLoss, VICRegLoss
from lightly.loss.vicreg_loss import invariance_loss, variance_loss
from lightly.models.modules.center import center_momentum
from lightly.models.modules.memory_bank import MemoryBankModule
from lightly.models.utils import concat_all_gather
from lightly.utils import dist
from torch import Tensor
from torch.nn import functional as F


def off_diagonal(x: Tensor, offset: int = 0) -> Tensor:
    """`[n, m]` without the elements `(i, i + offset)`, row by row: `[n, m - 1]`.

    >>> off_diagonal(torch.arange(8).view(2, 4), 1)
    tensor([[0, 2, 3],
            [4, 5, 7]])
    """
    n, m = x.shape
    flat = x.flatten()
    end = offset + 1 + (n - 1) * (m + 1)  # after the last element left out; m kept ones lie between two of them
    between = flat[offset + 1 : end].view(n - 1, m + 1)[:, :-1].flatten()
    return torch.cat([part for part in (flat[:offset], between, flat[end:]) if part.numel()]).view(n, m - 1)


class NTXent(NTXentLoss):
    """NT-Xent over the global batch, without a queue."""

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """The loss `[]` of projections `[N, P]` of both views."""
        out0, out1 = F.normalize(out0, dim=1), F.normalize(out1, dim=1)
        all0, all1, offset = out0, out1, 0
        if self.gather_distributed and dist.world_size() > 1:
            all0, all1 = torch.cat(dist.gather(out0)), torch.cat(dist.gather(out1))
            offset = dist.rank() * len(out0)
        (s00, s01), (s10, s11) = (
            [torch.einsum("nc,mc->nm", out, every) / self.temperature for every in (all0, all1)] for out in (out0, out1)
        )
        s00, s11 = off_diagonal(s00, offset), off_diagonal(s11, offset)
        logits = torch.cat([torch.cat([s01, s00], dim=1), torch.cat([s10, s11], dim=1)])
        labels = torch.arange(len(out0), device=out0.device) + offset
        return self.cross_entropy(logits, labels.repeat(2))


class Queue(MemoryBankModule):
    """Keys kept as negatives; where the next ones go stands on the device. A batch that passes the end is cut there."""

    @torch.no_grad()
    def _dequeue_and_enqueue(self, batch: Tensor) -> None:
        if self.gather_distributed and dist.world_size() > 1:
            batch = concat_all_gather(batch)
        size, end = self.size[0], self.bank_ptr + len(batch)
        batch = batch[:size].to(self.bank.dtype)
        rows = self.bank_ptr + torch.arange(len(batch), device=batch.device)
        places = rows % size
        # Keys past the end are left out: where they would go, what stands there is written again.
        kept = torch.where((rows < size).unsqueeze(1), batch, self.bank[places])
        self.bank.index_copy_(0, places, kept)
        self.bank_ptr.copy_(torch.where(end >= size, 0, end))


class QueuedNTXent(NTXentLoss):
    """InfoNCE against a queue of `size` keys of `dimension`, in the state between steps."""

    def __init__(self, temperature: float, size: int, dimension: int) -> None:
        super().__init__(temperature, gather_distributed=True)
        self.memory_bank = Queue((size, dimension), gather_distributed=True)
        for name, value in list(self.memory_bank.named_buffers()):  # lightly leaves the queue out of checkpoints
            self.memory_bank.register_buffer(name, value, persistent=True)


class VICRegCovariance(VICRegLoss):
    """VICReg's three terms; variance and covariance are those of the global batch."""

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """The loss `[]` of projections `[N, P]` of both views."""
        invariance = invariance_loss(z_a, z_b)
        if self.gather_distributed and dist.world_size() > 1:
            z_a, z_b = torch.cat(dist.gather(z_a)), torch.cat(dist.gather(z_b))
        variance = 0.5 * (variance_loss(z_a, eps=self.eps) + variance_loss(z_b, eps=self.eps))
        covariance = _covariance(z_a) + _covariance(z_b)
        return self.lambda_param * invariance + self.mu_param * variance + self.nu_param * covariance


def _covariance(z: Tensor) -> Tensor:
    z = z - z.mean(dim=0)
    matrix = torch.einsum("bc,bd->cd", z, z) / (len(z) - 1)
    return off_diagonal(matrix).flatten().pow(2).sum() / z.shape[1]


class CenteredDINO(DINOLoss):
    """DINO's loss; the centre stays where it is in memory."""

    @torch.no_grad()
    def update_center(self, teacher_out: Tensor) -> None:
        mean = self._center_fn(x=teacher_out, dim=(0, 1))
        self.center.copy_(center_momentum(self.center, mean, self.center_momentum))
