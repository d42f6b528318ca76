"""The spectrum of a representation, centred and not, from one exact pass over its rows."""

import torch
from torch import Tensor

from sslk.metrics.cca import merge_covariances
from sslk.metrics.checks import check_features
from sslk.metrics.exact import ExactMetric

BLOCK_BYTES = 32 << 20  # of rows in float64: a batch of any size is worked through in blocks of this
TRIANGLE_BLOCKS = 8  # products of 8 x 8 blocks on and above the diagonal: 36 of 64


def add_products(products: Tensor, rows: Tensor) -> None:
    """Add `rows' rows` `[D, D]` to the blocks of `products` on and above the diagonal; those below are left alone."""
    width = rows.shape[1]
    step = max(128, -(-width // TRIANGLE_BLOCKS))
    for start in range(0, width, step):
        stop = start + step
        products[start:stop, start:].addmm_(rows[:, start:stop].T, rows[:, start:])


def blocks_of(h: Tensor) -> tuple[Tensor, ...]:
    """Rows in blocks that are small as float64."""
    return h.split(max(1, BLOCK_BYTES // (8 * h.shape[1])))


def parts_of(sums: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views: count `[1]`, mean `[D]`, sum of centred products `[D, D]`, which is right on and above the diagonal."""
    n, mean, products = sums.split([1, width, width * width])
    return n, mean, products.view(width, width)


def add_rows(sums: Tensor, block: Tensor) -> None:
    """Add rows `[n, D]`, at least one, to packed sums in place."""
    n, mean, products = parts_of(sums, block.shape[1])
    # About a row or the mean so far: what is constant becomes exactly 0. Then about the block's own mean.
    shift = (mean if n > 0 else block[0]).double()
    rows = block - shift
    offset = rows.mean(0)
    rows -= offset
    total = n + len(rows)
    add_products(products, rows)
    if n > 0:
        products.addr_(offset * (n * len(rows) / total), offset)
    torch.add(shift, offset * (len(rows) / total), out=mean)
    n.copy_(total)


def merge_spectra(parts: Tensor) -> Tensor:
    """Merge packed sums `[W, 1 + D + D^2]` of ranks or groups of rows: those of all their rows."""
    width = int((parts.shape[1] - 1) ** 0.5)
    filled = (parts[:, 0] > 0).nonzero().flatten()
    if not len(filled):
        return parts[0]
    # Means are merged as differences from one of them, so that equal ones stay equal: a constant keeps the variance 0.
    anchor = parts[filled[0], 1 : 1 + width].clone()
    shifted = parts[filled]
    shifted[:, 1 : 1 + width] -= anchor
    merged = merge_covariances(shifted, width)
    merged[1 : 1 + width] += anchor
    return merged


class FeatureSpectrum(ExactMetric):
    """Mean, variances and both spectra of a representation: of its covariance, and of the rows as they are.

    What RankMe, effective rank, alpha-ReQ and NESum need (`sslk.metrics.spectra`), from one pass. Kept are the count, the
    mean and the sums of centred products in float64, `8 D^2` bytes: any batch split and any number of ranks give the same
    answer. Only products on and above the diagonal are formed.

    Args:
        num_features: D.

    `update(h)` takes representations `[n, D]`; n = 0 is fine. `compute()` gives a dictionary: `rows` int64, N; `mean` and
    `variance` float64 `[D]` (population); `eigenvalues` of the population covariance and `singular_values` of the rows,
    not centred, both float64 `[min(N, D)]`, decreasing. A constant has eigenvalues of exactly 0.

    Singular values are roots of eigenvalues of sums of products, so those below about `sqrt(D eps)` of the largest (eps of
    float64: 7e-7 at D = 2048) are rounding, and given as 0. A row that is not finite makes every value NaN, and so do
    squares beyond float64 (values beyond 1e150).

    Examples:
        >>> spectrum = FeatureSpectrum(3)
        >>> spectrum.update(torch.tensor([[1.0, 2.0, 0.0]])); spectrum.update(torch.tensor([[3.0, 2.0, 0.0]]))
        >>> answer = spectrum.compute()
        >>> answer["eigenvalues"].tolist(), answer["singular_values"].square().sum().item()
        ([1.0, 0.0], 18.0)
    """

    is_differentiable = False
    full_state_update = False
    sums: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        # Packed: count, mean and products reduce together or not at all.
        zeros = torch.zeros(1 + num_features + num_features**2, dtype=torch.float64)
        self.add_state("sums", zeros, dist_reduce_fx=merge_spectra, persistent=True)

    def update(self, h: Tensor) -> None:
        """Add representations `[n, D]`."""
        check_features(h, self.num_features)
        for block in blocks_of(h.detach()) if len(h) else ():
            add_rows(self.sums, block)

    def eigenvalues(self) -> Tensor:
        """float64 `[min(N, D)]`, decreasing: of the population covariance `1/N sum (h - mean)(h - mean)'`."""
        n, _, products = parts_of(self.sums, self.num_features)
        return spectrum_of(products, int(n)) / n

    def singular_values(self) -> Tensor:
        """float64 `[min(N, D)]`, decreasing: of the `[N, D]` matrix of all rows, not centred."""
        n, mean, products = parts_of(self.sums, self.num_features)
        return spectrum_of(products + torch.outer(mean * n, mean), int(n)).sqrt()

    def compute(self) -> dict[str, Tensor]:
        """`rows`, `mean`, `variance`, `eigenvalues` and `singular_values`."""
        n, mean, products = parts_of(self.sums, self.num_features)
        return {
            "rows": n[0].long(),
            "mean": mean.clone(),
            "variance": products.diagonal() / n.clamp(min=1),
            "eigenvalues": self.eigenvalues(),
            "singular_values": self.singular_values(),
        }


def spectrum_of(products: Tensor, rows: int) -> Tensor:
    """The `min(rows, D)` largest eigenvalues, decreasing, of a sum of products given on and above its diagonal.

    Those that rounding cannot tell from 0, at most `D eps` of the largest, are 0; all are NaN where a product is not finite.
    """
    kept = min(rows, len(products))
    upper = products.triu()
    if not upper.isfinite().all():
        return products.new_full((kept,), torch.nan)
    values = torch.linalg.eigvalsh(upper, UPLO="U").flip(0)[:kept]
    tolerance = len(products) * torch.finfo(torch.float64).eps
    return torch.where(values > tolerance * values[:1], values, 0.0)
