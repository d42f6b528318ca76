"""LiDAR: the rank of what tells images apart, measured against what differs between views of one image."""

import torch
from torch import Tensor

from sslk.metrics.exact import ExactMetric
from sslk.metrics.spectra import rankme
from sslk.metrics.spectrum import BLOCK_BYTES, add_products, add_rows, merge_spectra, parts_of


class LiDAR(ExactMetric):
    """LiDAR: `exp(-sum_k p_k log p_k)`, `p_k = lambda_k / ||lambda||_1 + eps`, of a linear discriminant analysis of views.

    lambda are the D eigenvalues of `S_w^(-1/2) S_b S_w^(-1/2)`: `S_b = mean_i (m_i - m)(m_i - m)'` between images, m_i the
    mean over the q views of image i; `S_w = mean_i mean_v (h_iv - m_i)(h_iv - m_i)' + delta I` within (Thilak et al., ICLR
    2024). From 1 to at most the number of images less one; high where views of many images are told apart in many
    directions. The paper takes 1,000 images and 50 views; delta is 1e-4 in units of the squared features, so LiDAR depends
    on their scale.

    The sums are kept in float64, `16 D^2` bytes, and do not depend on how the images are batched.

    Args:
        num_features: D.
        delta: added to the diagonal of S_w, positive.
        eps: added to every share.

    `update(views)` takes representations `[n, q, D]`, the q >= 2 views of n images; q may change. `compute()` gives a
    dictionary: `lidar` float64, 0 where all images have the same mean, NaN below two images or where a value is not
    finite; `eigenvalues` float64 `[D]`, decreasing; `images` int64.

    Examples:
        >>> lidar = LiDAR(4)
        >>> means = torch.eye(4)[:3] * 10
        >>> lidar.update(means[:, None] + torch.tensor([[[1.0, 1, 1, 1]], [[-1.0, -1, -1, -1]]]).transpose(0, 1))
        >>> round(lidar.compute()["lidar"].item(), 2)
        2.0
    """

    is_differentiable = False
    full_state_update = False
    between: Tensor
    within: Tensor

    def __init__(self, num_features: int, delta: float = 1e-4, eps: float = 1e-7) -> None:
        super().__init__()
        if delta <= 0:
            raise ValueError(f"delta must be positive, got {delta}.")
        self.num_features, self.delta, self.eps = num_features, delta, eps
        zeros = torch.zeros(1 + num_features + num_features**2, dtype=torch.float64)
        self.add_state("between", zeros, dist_reduce_fx=merge_spectra, persistent=True)
        within = torch.zeros(num_features, num_features, dtype=torch.float64)
        self.add_state("within", within, dist_reduce_fx="sum", persistent=True)

    def update(self, views: Tensor) -> None:
        """Add the views `[n, q, D]` of n images."""
        shape = list(views.shape)
        if len(shape) != 3 or shape[1] < 2 or shape[2] != self.num_features or not views.is_floating_point():
            raise ValueError(
                f"views must be floating-point [n, q, {self.num_features}] with at least 2 views, got {views.dtype} {shape}."
            )
        images = max(1, BLOCK_BYTES // (8 * shape[1] * shape[2]))
        for block in views.detach().split(images) if shape[0] else ():
            # About the first view: what is the same in all of them becomes exactly 0.
            first = block[:, :1].double()
            rows = block - first
            offset = rows.mean(1, keepdim=True)
            rows -= offset
            add_products(self.within, rows.flatten(0, 1) / shape[1] ** 0.5)
            add_rows(self.between, (first + offset).squeeze(1))

    def compute(self) -> dict[str, Tensor]:
        """`lidar`, `eigenvalues` and `images`."""
        n, _, products = parts_of(self.between, self.num_features)
        within, between = (upper.triu() + upper.triu(1).T for upper in (self.within / n, products / n))
        values = torch.full_like(within[0], torch.nan)
        if n >= 2 and within.isfinite().all() and between.isfinite().all():
            spread, axes = torch.linalg.eigh(within)
            whitening = axes / (spread.clamp(min=0) + self.delta).sqrt()
            values = torch.linalg.eigvalsh(whitening.T @ between @ whitening).flip(0).clamp(min=0)
        return {"lidar": rankme(values, self.eps), "eigenvalues": values, "images": n[0].long()}
