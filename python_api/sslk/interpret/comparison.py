"""Images that a probe gets wrong before regularisation and right after (figure 5)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sslk.data import Dataset
from sslk.interpret.correctness import out_of_fold_correct
from sslk.interpret.raw_maps import evaluating
from sslk.models import EvaluationTransform


def misclassified_before(
    before: nn.Module, after: nn.Module, dataset: Dataset, transform: EvaluationTransform, count: int, seed: int = 0
) -> tuple[list[int], str]:
    """Images that out-of-fold linear probes misclassify on the one model's features and classify correctly on the other's.

    Args:
        before, after: the models.
        dataset: of untransformed, labelled images.
        transform: into the models' input.
        count: how many to draw at random.
        seed: of the folds and the draw.

    Returns:
        Their numbers, and one sentence with all four counts.

    Raises:
        ValueError: the data set has no labels, or there is no such image.
    """
    if dataset.labels is None:
        raise ValueError(f"a comparison needs labels, which {dataset.name} has not.")
    labels = torch.from_numpy(dataset.labels)
    right = [out_of_fold_correct(_features(m, dataset, transform), labels, seed=seed).numpy() for m in (before, after)]
    repaired, broken = np.flatnonzero(~right[0] & right[1]), int((right[0] & ~right[1]).sum())
    if not len(repaired):
        raise ValueError("no image is misclassified before and correct after: there is nothing to compare.")
    draw = np.random.default_rng(seed).choice(repaired, min(count, len(repaired)), replace=False)
    text = (
        f"Of {len(labels)} images {int(right[0].sum())} are classified correctly before and {int(right[1].sum())} after; "
        f"{len(repaired)} were repaired and {broken} broken."
    )
    return np.sort(draw).tolist(), text


class _Inputs(torch.utils.data.Dataset):
    def __init__(self, dataset: Dataset, transform: EvaluationTransform) -> None:
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.dataset[index][0])


def _features(model: nn.Module, dataset: Dataset, transform: EvaluationTransform) -> Tensor:
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        return torch.cat([model(batch.to(device)).float().cpu() for batch in DataLoader(_Inputs(dataset, transform), 64)])
