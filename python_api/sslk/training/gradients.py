"""How large the penalties' gradients are beside that of the self-supervised loss, and whether they point the same way.

Both penalties are linear in their lambdas, so that one pass at unit weights gives the gradient for every lambda. At equal
lambdas the terms of equation (3) are of very different size: the first is a mean over the 2N rows of a batch, the second, like
lasso, a sum over rows and columns.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from sslk.progress import Progress
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.training.checkpoints import load_method
from sslk.training.config import TrainingConfig
from sslk.training.methods import Method
from sslk.training.module import build_regularizer
from sslk.training.prepare import prepare
from sslk.training.start import TrainingStart
from sslk.training.views import Batches

TERMS = ("SSL loss", "lambda1 term", "lambda2 term", "lasso term")
PENALTIES = TERMS[1:]
SIDES = ("encoder", "h")


@dataclass(frozen=True, eq=False)
class PenaltyGradients:
    """Gradients over several batches, at weight 1 of every penalty.

    Attributes:
        norms: float64 `[2, 4, B]`, L2 norms: with respect to the encoder's parameters and to h, of `TERMS`, by batch.
        cosines: float64 `[2, 4, B]`, with the gradient of the SSL loss; 1 for itself, NaN where a gradient is zero.
        values: float64 `[4, B]`, the terms themselves.
        discriminative: the set S.
    """

    norms: Tensor
    cosines: Tensor
    values: Tensor
    discriminative: DiscriminativeFeatures

    def ratios(self, weight: float = 1.0) -> Tensor:
        """float64 `[2, 3, B]`: norms of the penalties at this lambda over that of the SSL loss, of every batch."""
        return weight * self.norms[:, 1:] / self.norms[:, :1]


def penalty_gradients(
    start: TrainingStart,
    config: TrainingConfig = TrainingConfig(),  # noqa: B008 (frozen)
    *,
    batches: int = 16,
    progress: Progress | None = None,
) -> PenaltyGradients:
    """Gradients of the SSL loss and of every penalty on the first batches of a training, its weights left as they are.

    Computed in float32 on the CPU, with the encoder in training mode as in a step. Fresh heads are warmed up first where
    the settings say so.

    Args:
        start: encoder with its heads, method and images; the set S is found on them where none is given.
        config: settings; its lambdas are not used.
        batches: how many.
        progress: called with the batches done and to do.

    Raises:
        ValueError: fewer batches than two, or as for `finetune`.

    >>> from sslk.data import load_dataset
    >>> from sslk.models.source import ModelSource
    >>> from sslk.training.start import load_start
    >>> start = load_start("simclr", ModelSource("embedded"), load_dataset("sample", "train").subset(torch.arange(256)))
    >>> found = penalty_gradients(start, TrainingConfig(batch_size=64), batches=2)
    >>> found.norms.shape, bool((found.ratios(1e-4)[0, 1] > 10 * found.ratios(1e-4)[0, 0]).all())  # lambda2 above lambda1
    (torch.Size([2, 4, 2]), True)
    """
    if batches < 2:
        raise ValueError(f"batches must be at least 2, for an interval, got {batches}.")
    with TemporaryDirectory() as folder:
        prepared = prepare(start, Path(folder), config)
        method = prepared.build()
        load_method(method, prepared.file)
        found = prepared.discriminative
        views = copy.deepcopy(prepared.views)
    method.train()
    stream = iter(Batches(len(views), config.batch_size, batches, config.seed, views))
    norms, cosines, values = (torch.zeros(*shape, batches, dtype=torch.float64) for shape in ((2, 4), (2, 4), (4,)))
    for number in range(batches):
        terms, h = _terms(method, views(next(stream)), found, config)
        gradients = list(_gradients(terms, h, method))
        values[:, number] = torch.stack([term.detach().double() for term in terms])
        for side in range(2):
            reference = gradients[0][side]
            for term, gradient in enumerate(part[side] for part in gradients):
                norms[side, term, number] = gradient.norm()
                cosines[side, term, number] = gradient @ reference / (gradient.norm() * reference.norm())
        if progress is not None:
            progress(number + 1, batches, "taking gradients")
    return PenaltyGradients(norms, cosines, values, found)


def _terms(
    method: Method, views: list[Tensor], found: DiscriminativeFeatures, config: TrainingConfig
) -> tuple[list[Tensor], Tensor]:
    """SSL loss and the three penalties at weight 1, each `[]`, and the representations h `[2N, D]`."""
    loss, h = method(views)
    first, second = (build_regularizer(found, config, lambda1=a, lambda2=1 - a)(h) for a in (1.0, 0.0))
    return [loss, first, second, torch.ops.sslk.column_l1(h, config.normalize).sum()], h


def _gradients(terms: list[Tensor], h: Tensor, method: Method) -> Iterator[tuple[Tensor, Tensor]]:
    """Of every term, its gradient with respect to the encoder's parameters and to h, flat and in float64."""
    parameters = [parameter for parameter in method.backbone.parameters() if parameter.requires_grad]
    for term in terms:
        found = torch.autograd.grad(term, [*parameters, h], retain_graph=True, materialize_grads=True)
        yield torch.cat([part.double().flatten() for part in found[:-1]]), found[-1].double().flatten()
