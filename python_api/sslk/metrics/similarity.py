"""Linear CKA and CCA of many representations from one set of streamed sums, half of the products of two metrics."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sslk.metrics.cca import eigensystem
from sslk.metrics.checks import check_representations
from sslk.metrics.linear_cka import LinearCKA, merge_sums, views


class Similarity(LinearCKA):
    """Linear CKA, biased and debiased, and mean squared canonical correlation of every pair of V representations.

    The sums are those of `LinearCKA`; CCA needs no others. Only the V (V + 1) / 2 blocks on and above the diagonal
    are formed. State: `8 (sum D_v)^2` bytes, whatever the number of rows.

    Args:
        num_features: widths `D_v` of the V representations.
        rtol: of the rank, see `sslk.metrics.CCA`.
        ridge: of the canonical correlations: `C + ridge tr(C) / D I` takes the place of each covariance C.

    `update(x_1, ..., x_V)` takes `[n, D_v]` each. `compute()` gives `debiased`, `biased` (see `LinearCKA`) and `r2`
    (see `CCA`), float64 `[V, V]`, and `ranks`, int64 `[V]`.

    Examples:
        >>> similarity = Similarity([8, 4])
        >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
        >>> similarity.update(x[:40], x[:40, :4]); similarity.update(x[40:], x[40:, :4])
        >>> answer = similarity.compute()
        >>> round(answer["r2"][0, 1].item(), 9), answer["ranks"].tolist(), 0 < answer["debiased"][0, 1] < 1
        (1.0, [8, 4], tensor(True))
    """

    def __init__(self, num_features: Sequence[int], rtol: float | None = None, ridge: float = 0.0) -> None:
        super().__init__(num_features)
        if ridge < 0:
            raise ValueError(f"ridge must be zero or positive, got {ridge}.")
        self.rtol, self.ridge = rtol, ridge
        self._spectra: dict[tuple[int, float], tuple[Tensor, Tensor]] = {}
        merge = partial(_merge_upper, num_features=self.num_features)
        self.add_state("sums", self.sums, dist_reduce_fx=merge, persistent=True)

    def update(self, *representations: Tensor) -> None:
        """Add the V representations `[n, D_v]` of n samples."""
        check_representations(representations, self.num_features)
        if not len(representations[0]):
            return
        rows = torch.cat([x.detach().double() for x in representations], dim=1)
        sums = views(self.sums, self.num_features)
        if sums.n == 0:
            sums.shift.copy_(rows.mean(0))
        rows -= sums.shift
        parts = rows.split(self.num_features, dim=1)
        a = torch.stack([part.square().sum(1) for part in parts], dim=1)
        sums.n.add_(len(rows))
        sums.x.add_(rows.sum(0))
        sums.a.add_(a.sum(0))
        sums.aa.addmm_(a.T, a)
        sums.xa.addmm_(rows.T, a)
        start = 0
        for part in parts:
            stop = start + part.shape[1]
            sums.xx[start:stop, start:].addmm_(part.T, rows[:, start:])
            start = stop

    def reset(self) -> None:
        """Forget all rows."""
        self._spectra.clear()
        super().reset()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        # The loaded rows may be as many as those before, and torchmetrics keeps the last answer until the next update.
        self._spectra.clear()
        self._computed = None
        super()._load_from_state_dict(*args, **kwargs)

    def mean(self) -> Tensor:
        """float64 `[sum D_v]`: the means of all features."""
        sums = views(self.sums, self.num_features)
        return sums.shift + sums.x / sums.n

    def products(self, u: int, v: int) -> Tensor:
        """float64 `[D_u, D_v]`: the sum of centred products `X_u' X_v` of two representations."""
        if u > v:
            return self.products(v, u).T
        sums = views(self.sums, self.num_features)
        return self._block(u, v) - torch.outer(self._part(sums.x, u), self._part(sums.x, v)) / sums.n

    def whitening(self, v: int) -> Tensor:
        """float64 `[D_v, rank]` matrix W with `W' C W = 1`, C the (ridge-regularised) sum of centred products."""
        values, vectors = self.spectrum(v)
        n = float(self.sums[0])
        eps = torch.finfo(torch.float64).eps
        rtol = self.rtol if self.rtol is not None else (max(n, len(values)) * eps) ** 0.5
        kept = values > rtol**2 * values[-1].clamp(min=torch.finfo(torch.float64).tiny)
        return vectors[:, kept] / (values[kept] + self.ridge * values.sum() / len(values)).sqrt()

    def spectrum(self, v: int) -> tuple[Tensor, Tensor]:
        """float64 eigenvalues `[D_v]`, increasing, and eigenvectors `[D_v, D_v]` of the sum of centred products."""
        key = v, float(self.sums[0])  # rows are only ever added, so their number tells states apart, synced ones too
        if key not in self._spectra:
            if any(rows != key[1] for _, rows in self._spectra):
                self._spectra.clear()
            self._spectra[key] = eigensystem(self.products(v, v), v)
        return self._spectra[key]

    def compute(self) -> dict[str, Tensor]:
        """`debiased`, `biased` and `r2` `[V, V]`, `ranks` `[V]`."""
        count = len(self.num_features)
        whitening = [self.whitening(v) for v in range(count)]
        hsic, biased, r2 = (self.sums.new_full((count, count), torch.nan) for _ in range(3))
        for u in range(count):
            for v in range(u, count):
                hsic[u, v] = hsic[v, u] = self._hsic1(u, v)
                products = self.products(u, v)
                biased[u, v] = biased[v, u] = products.square().sum()
                ranks = whitening[u].shape[1], whitening[v].shape[1]
                if min(ranks):
                    correlations = whitening[u].T @ products @ whitening[v]
                    r2[u, v] = r2[v, u] = correlations.square().sum() / min(ranks)
        return {
            "debiased": _normalised(hsic),
            "biased": _normalised(biased),
            "r2": r2,
            "ranks": torch.tensor([w.shape[1] for w in whitening], device=self.sums.device),
        }

    def hsic1(self) -> Tensor:
        """float64 `[V, V]`: unbiased HSIC of every pair, what debiased CKA is the ratio of."""
        count = len(self.num_features)
        hsic = self.sums.new_zeros(count, count)
        for u in range(count):
            for v in range(u, count):
                hsic[u, v] = hsic[v, u] = self._hsic1(u, v)
        return hsic

    def _hsic1(self, u: int, v: int) -> Tensor:
        """See `sslk.metrics.linear_cka._hsic1`: the same sums, one block at a time and without a copy of them."""
        sums, block = views(self.sums, self.num_features), self._block(u, v)
        n, x, y = sums.n.squeeze(), self._part(sums.x, u), self._part(sums.x, v)
        trace = block.square().sum() - sums.aa[u, v]
        product = x @ block @ y - x @ self._part(sums.xa, u)[:, v] - y @ self._part(sums.xa, v)[:, u] + sums.aa[u, v]
        total = (x.square().sum() - sums.a[u]) * (y.square().sum() - sums.a[v])
        hsic = (trace + total / ((n - 1) * (n - 2)) - 2 / (n - 2) * product) / (n * (n - 3))
        return torch.where(n >= 4, hsic, torch.nan)

    def _block(self, u: int, v: int) -> Tensor:
        return self._part(self._part(views(self.sums, self.num_features).xx, u).T, v).T

    def _part(self, values: Tensor, v: int) -> Tensor:
        start = sum(self.num_features[:v])
        return values[start : start + self.num_features[v]]


def _merge_upper(parts: Tensor, num_features: tuple[int, ...]) -> Tensor:
    """Merge sums of ranks that hold only the blocks on and above the diagonal."""
    for packed in parts:
        xx = views(packed, num_features).xx
        start = 0
        for width in num_features:
            stop = start + width
            xx[stop:, start:stop] = xx[start:stop, stop:].T
            start = stop
    return merge_sums(parts, num_features)


def _normalised(hsic: Tensor) -> Tensor:
    scale = hsic.diagonal().sqrt()
    return hsic / torch.outer(scale, scale)
