"""The Q-Score regulariser as a module: add its output to any self-supervised loss."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssl_kernels.reference.rows import penalty_loss
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.score import resolve_set


class QScoreRegularizer(nn.Module):
    """`-lambda1 mean_i(1[Q_i < alpha] Q_i) + lambda2 sum_k(1[c_k > beta] c_k)`, `c_k = ||H_:k||_1` (equations 2-3).

    Raises low scores and shrinks the columns that are large over the batch. The set of discriminative features is fixed
    at construction. In a process group of several ranks alpha, beta and the column norms are those of the global batch,
    and the gradients, averaged over ranks as DistributedDataParallel does, are those of one process with that batch
    (every rank must hold the same number of rows).

    Args:
        discriminative: what `discover` returned, or a bool mask `[D]`.
        lambda1, lambda2: weights of the two terms, >= 0.
        eps, two_sided: as stored in `discriminative` by default; 4.0 and False for a bare mask.
        normalize: use L2-normalised rows; false for the projector's input as it is, whose scores and norms grow with it.
        alpha, beta: fixed thresholds in place of the batch means.
        alpha_quantile: quantile of the (global) batch's scores in place of their mean; not beside a fixed alpha.

    Attributes:
        last_scores: detached Q-Scores `[N]` of the last batch, for logging.
        last_column_l1: detached column norms `[D]` of the last (global) batch.

    Raises:
        ValueError: a weight is negative or the set is empty; in `forward`, representations of another D.

    Examples:
        >>> import torch, sslk
        >>> regularizer = sslk.QScoreRegularizer(torch.arange(64) < 32, eps=1.0)
        >>> h = torch.randn(16, 64, requires_grad=True)
        >>> loss = h.square().mean() + regularizer(h)      # ssl_loss + regulariser
        >>> loss.backward(); regularizer.last_scores.shape
        torch.Size([16])
    """

    discriminative: Tensor

    def __init__(
        self,
        discriminative: DiscriminativeFeatures | Tensor,
        lambda1: float = 1e-4,
        lambda2: float = 1e-4,
        *,
        eps: float | None = None,
        normalize: bool = True,
        two_sided: bool | None = None,
        alpha: float | None = None,
        beta: float | None = None,
        alpha_quantile: float | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("lambda1", lambda1), ("lambda2", lambda2)):
            if not value >= 0:
                raise ValueError(f"{name} must be zero or positive, got {value}.")
        if alpha_quantile is not None and not (0 < alpha_quantile <= 1 and alpha is None):
            raise ValueError(f"alpha_quantile must lie between 0 and 1, without a fixed alpha, got {alpha_quantile} and {alpha}.")
        size = discriminative.num_features if isinstance(discriminative, DiscriminativeFeatures) else len(discriminative)
        mask, self.eps, self.two_sided = resolve_set(discriminative, size, eps, two_sided)
        self.register_buffer("discriminative", mask.clone())
        self.lambda1, self.lambda2, self.normalize = lambda1, lambda2, normalize
        self.alpha, self.beta, self.alpha_quantile = alpha, beta, alpha_quantile
        self.last_scores: Tensor | None = None
        self.last_column_l1: Tensor | None = None

    def forward(self, h: Tensor) -> Tensor:
        """The penalty `[]` of representations `[N, D]` (all views of the batch)."""
        if h.ndim != 2 or h.shape[1] != len(self.discriminative):
            raise ValueError(f"h must be [N, {len(self.discriminative)}], the D of the discriminative set, got {list(h.shape)}.")
        dtype = torch.float64 if h.dtype == torch.float64 else torch.float32
        alpha, beta = (
            None if value is None else torch.full((), value, dtype=dtype, device=h.device)  # no copy from the host
            for value in (self.alpha, self.beta)
        )
        loss, scores, columns = torch.ops.sslk.qscore_penalty(
            h, self.discriminative, self.lambda1, self.lambda2, self.eps, self.normalize, self.two_sided, alpha, beta
        )
        if _ranks() > 1 or self.alpha_quantile is not None:
            # The gradient of the columns' sum is itself summed over ranks: world size times the wanted one, which the
            # averaging of DistributedDataParallel then undoes, as it does for the local means of the scores.
            columns = _SumOverRanks.apply(columns) if _ranks() > 1 else columns
            loss = penalty_loss(scores, columns, self.lambda1, self.lambda2, self.threshold(scores), beta)
        self.last_scores, self.last_column_l1 = scores.detach(), columns.detach()
        return loss

    @torch.no_grad()
    def threshold(self, scores: Tensor) -> Tensor:
        """alpha `[]` of a batch with these scores `[N]`: fixed, or the mean or a quantile over all ranks."""
        if self.alpha is not None:
            return scores.new_full((), self.alpha)  # no copy from the host
        if _ranks() > 1:
            parts = [torch.empty_like(scores) for _ in range(_ranks())]
            dist.all_gather(parts, scores.detach().contiguous())
            scores = torch.cat(parts)
        return scores.mean() if self.alpha_quantile is None else scores.quantile(self.alpha_quantile)

    def extra_repr(self) -> str:
        return (
            f"features={len(self.discriminative)}, discriminative={int(self.discriminative.sum())}, "
            f"lambda1={self.lambda1:g}, lambda2={self.lambda2:g}, eps={self.eps:g}"
        )


def _ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _SumOverRanks(torch.autograd.Function):
    """`all_reduce` with a gradient: every rank's loss depends on every rank's input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total
