"""Principal directions of a model's representations, and heads that let heatmaps show where they look (figure A.6)."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslk.features import FeatureStore


@dataclass(frozen=True, eq=False)
class PrincipalDirections:
    """The leading eigenvectors of the covariance of the rows.

    Attributes:
        directions: float64 `[K, D]`, orthonormal, the entry of largest size of each positive.
        mean: float64 `[D]`.
        explained: float64 `[K]`, share of the total variance.
        normalize: whether rows were divided by their L2 norm.
    """

    directions: Tensor
    mean: Tensor
    explained: Tensor
    normalize: bool

    def transform(self, features: Tensor) -> Tensor:
        """Coordinates `[n, K]` of rows `[n, D]`, float64."""
        rows = F.normalize(features.double()) if self.normalize else features.double()
        return (rows - self.mean.to(rows)) @ self.directions.to(rows).T

    def head(self) -> nn.Linear:
        """A linear head whose output k is the coordinate along direction k, for `feature_heatmaps(..., head=...)`.

        It acts on the features as the model gives them: the norm of a row is one positive number for its whole map, so
        it changes the map's scale alone. Being linear it has the closed form `relu(sum_j v_kj A_j)`: the map shows
        where the image lies on the positive side of the direction.
        """
        linear = nn.Linear(self.directions.shape[1], len(self.directions))
        with torch.no_grad():
            linear.weight.copy_(self.directions)
            linear.bias.copy_(-self.directions @ self.mean)
        return linear


def principal_directions(
    features: Tensor | FeatureStore | str | PathLike[str], components: int = 16, *, normalize: bool = True
) -> PrincipalDirections:
    """Principal directions of representations, in one pass over a feature store of any size.

    Rows that are not finite are left out.

    Args:
        features: `[N, D]`, or a complete feature store or its folder.
        components: K, at most D.
        normalize: divide rows by their L2 norm first, as everywhere in the analysis.

    Raises:
        ValueError: fewer than two rows, or components not between 1 and D.

    Examples:
        >>> rows = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 1, 1, 1, 1, 1])
        >>> found = principal_directions(rows, 2, normalize=False)
        >>> bool(found.directions[0, 0] > 0.99), round(found.explained[0].item(), 1)
        (True, 0.9)
    """
    if isinstance(features, Tensor):
        batches, width = iter(features.split(4096)), features.shape[1]
    else:
        store = (features if isinstance(features, FeatureStore) else FeatureStore(features)).require()
        batches, width = (shard.features for shard in store.shards()), store.num_features
    if not 1 <= components <= width:
        raise ValueError(f"components must be from 1 to {width}, the number of features, got {components}.")
    count = 0
    shift: Tensor | None = None
    sums = torch.zeros(width, dtype=torch.float64)
    products = torch.zeros(width, width, dtype=torch.float64)
    for batch in batches:
        batch = batch[batch.isfinite().all(1)]
        if not len(batch):
            continue
        count += len(batch)
        rows = F.normalize(batch.double()) if normalize else batch.double()
        # Sums around the first batch's mean keep their digits where the mean is large.
        shift = rows.mean(0) if shift is None else shift
        rows = rows - shift
        sums += rows.sum(0)
        products += rows.T @ rows
    if shift is None or count < 2:
        raise ValueError(f"features must hold at least two rows that are finite to have directions, got {count}.")
    covariance = products / count - torch.outer(sums, sums) / count**2
    values, vectors = torch.linalg.eigh(covariance)
    directions = vectors.T.flip(0)[:components]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    variance = values.flip(0).clamp(min=0)
    explained = variance[:components] / variance.sum().clamp(min=1e-300)
    return PrincipalDirections(directions * largest.sign(), shift + sums / count, explained, normalize)
