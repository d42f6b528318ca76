"""The predictor's weights in tiles of clusters, one step or one product at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

import ssl_kernels
from sslk.reverse.settings import ProbeSettings
from sslk.reverse.sparse_rows import SparseRows

_TILE = 64  # clusters: the weights of 1,300 concepts, 0.33 MB, and the errors of a batch share a second-level cache


class TiledWeights:
    """Weights of softmax regression in tiles of clusters, `[T, M, W]`, and biases `[K]`."""

    def __init__(self, concepts: int, clusters: int, device: torch.device, dtype: torch.dtype) -> None:
        # A GPU holds all clusters in its cache; a CPU core only so many.
        width = clusters if device.type == "cuda" else min(_TILE, -(-clusters // 16) * 16)
        self.weight = torch.zeros(-(-clusters // width), concepts, width, dtype=dtype, device=device)
        self.bias = torch.zeros(clusters, dtype=dtype, device=device)

    def zeros(self) -> tuple[Tensor, Tensor]:
        """Two tensors as the weights and the biases."""
        return torch.zeros_like(self.weight), torch.zeros_like(self.bias)

    def whole(self) -> tuple[Tensor, Tensor]:
        """Copies on the CPU, `[M, K]` and `[K]`."""
        weight = self.weight.transpose(0, 1).flatten(1)[:, : len(self.bias)]
        return weight.cpu().contiguous(), self.bias.cpu().clone()

    def epoch(
        self, rows: SparseRows, velocity: tuple[Tensor, Tensor], generator: torch.Generator, rate: float, settings: ProbeSettings
    ) -> float:
        """Steps of SGD over all rows once, in random order; the sum of the losses, each taken before its step."""
        loss = torch.zeros((), dtype=torch.float64, device=self.bias.device)
        order = torch.randperm(len(rows), generator=generator).to(self.bias.device)
        for index in order.split(settings.batch_size):
            loss += ssl_kernels.sparse_softmax_sgd_(
                self.weight,
                self.bias,
                *velocity,
                rows.columns,
                rows.offsets,
                rows.clusters,
                index,
                rate,
                settings.momentum,
                settings.weight_decay,
            )
        return float(loss)

    def logits(self, rows: SparseRows) -> Tensor:
        """`[n, K]`."""
        bags = [bag(rows.columns, tile, rows.offsets) for tile in self.weight]
        return torch.cat(bags, 1)[:, : len(self.bias)] + self.bias

    def cross_entropy(self, rows: SparseRows) -> float:
        """Mean cross-entropy over all rows, in nats."""
        losses = [F.cross_entropy(self.logits(part), part.clusters, reduction="none") for part in rows.split()]
        return float(torch.cat(losses).double().mean())


def bag(rows: Tensor, table: Tensor, offsets: Tensor) -> Tensor:
    """Sums of rows of a table, one per bag; `offsets` has one more entry than there are bags."""
    return F.embedding_bag(rows, table, offsets.int(), mode="sum", include_last_offset=True)
