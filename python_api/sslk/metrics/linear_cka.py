"""Linear CKA between representations of one data set, exact over all rows from sums of size O(D^2)."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from sslk.metrics.checks import check_representations, check_widths
from sslk.metrics.exact import ExactMetric


class Sums(NamedTuple):
    """What is summed over rows `x = [x_1 | ... | x_V]` of width D, shifted; `a_v = |x_v|^2`. Views of one tensor."""

    n: Tensor  # [1]
    shift: Tensor  # [D], taken off every row
    x: Tensor  # [D]
    a: Tensor  # [V]
    aa: Tensor  # [V, V]: sum a_u a_v
    xa: Tensor  # [D, V]: sum x a_v
    xx: Tensor  # [D, D]: sum x x'


def views(packed: Tensor, num_features: Sequence[int]) -> Sums:
    """The parts of the packed sums; writing to them writes to `packed`."""
    d, v = sum(num_features), len(num_features)
    n, shift, x, a, aa, xa, xx = packed.split([1, d, d, v, v * v, d * v, d * d])
    return Sums(n, shift, x, a, aa.view(v, v), xa.view(d, v), xx.view(d, d))


def membership(num_features: Sequence[int], device: torch.device) -> Tensor:
    """`[D, V]`, 1 where a column belongs to a representation: sums over blocks become products with it."""
    rows = torch.repeat_interleave(torch.tensor(num_features, device=device))
    return torch.nn.functional.one_hot(rows, len(num_features)).double()


def translated(sums: Sums, shift: Tensor, block: Tensor) -> Sums:
    """The sums as if `shift` had been taken off the rows instead: exact algebra, every term is a sum we have.

    With `x' = x + d` and `a'_v = a_v + 2 d_v.x_v + |d_v|^2`.
    """
    n, d = sums.n, sums.shift - shift
    m = block * d[:, None]  # [D, V]: x @ m = (d_v . x_v)_v
    length = m.square().sum(0)  # |d_v|^2
    mx = m.T @ sums.x
    xm = sums.xa.T @ m  # [u, v]: sum a_u (d_v . x_v)
    a = sums.a + 2 * mx + n * length
    cross = torch.outer(sums.a + 2 * mx, length)
    return Sums(
        n,
        shift,
        sums.x + n * d,
        a,
        sums.aa + 2 * (xm + xm.T) + 4 * m.T @ sums.xx @ m + cross + cross.T + n * torch.outer(length, length),
        sums.xa + 2 * sums.xx @ m + torch.outer(sums.x, length) + torch.outer(d, a),
        sums.xx + torch.outer(sums.x, d) + torch.outer(d, sums.x) + n * torch.outer(d, d),
    )


def merge_sums(parts: Tensor, num_features: tuple[int, ...]) -> Tensor:
    """Merge packed sums `[W, ...]` whose shifts differ: all are moved to the shift of the first that has rows."""
    block = membership(num_features, parts.device)
    filled = [packed for packed in parts if packed[0] > 0] or [parts[0]]
    merged = filled[0].clone()
    target = views(merged, num_features)
    for packed in filled[1:]:
        moved = translated(views(packed, num_features), target.shift, block)
        for name in Sums._fields:
            if name != "shift":
                getattr(target, name).add_(getattr(moved, name))
    return merged


class LinearCKA(ExactMetric):
    """Linear CKA of every pair of V representations of the same samples, biased and debiased, over any number of rows.

    Biased: `||X'Y||_F^2 / (||X'X||_F ||Y'Y||_F)`, columns centred (Kornblith et al., ICML 2019). Debiased: with the
    unbiased HSIC_1 of Song et al. (2012) in numerator and denominator, as Nguyen et al. (ICLR 2021) use it; it may be
    negative, and is not clamped. Biased values of wide representations are large even for independent data.

    Both are those of the whole data set, not means over batches: only sums are kept, in float64 and about the mean of
    the first batch, `8 (sum D_v)^2` bytes. Ranks may have different shifts.

    Args:
        num_features: widths `D_v` of the V representations.

    `update(x_1, ..., x_V)` takes `[n, D_v]` each, the same n. `compute()` gives a dictionary of float64 `[V, V]`
    matrices `debiased` (NaN below 4 rows) and `biased`; NaN for a representation without variance.

    Examples:
        >>> cka = LinearCKA([8, 4])
        >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
        >>> cka.update(x[:40], x[:40, :4]); cka.update(x[40:], x[40:, :4])
        >>> cka.compute()["biased"].shape, round(cka.compute()["debiased"][0, 0].item(), 12)
        (torch.Size([2, 2]), 1.0)
    """

    is_differentiable = False
    full_state_update = False
    sums: Tensor

    def __init__(self, num_features: Sequence[int]) -> None:
        super().__init__()
        self.num_features = check_widths(num_features)
        d, v = sum(num_features), len(num_features)
        zeros = torch.zeros(1 + 2 * d + v + v * v + d * v + d * d, dtype=torch.float64)
        merge = partial(merge_sums, num_features=self.num_features)
        self.add_state("sums", zeros, dist_reduce_fx=merge, persistent=True)

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
        a = torch.stack([part.square().sum(1) for part in rows.split(self.num_features, dim=1)], dim=1)
        sums.n.add_(len(rows))
        sums.x.add_(rows.sum(0))
        sums.a.add_(a.sum(0))
        sums.aa.addmm_(a.T, a)
        sums.xa.addmm_(rows.T, a)
        sums.xx.addmm_(rows.T, rows)

    def compute(self) -> dict[str, Tensor]:
        """`debiased` and `biased`, `[V, V]`."""
        sums = views(self.sums, self.num_features)
        block = membership(self.num_features, self.sums.device)
        centred = sums.xx - torch.outer(sums.x, sums.x) / sums.n
        biased = block.T @ centred.square() @ block
        return {"debiased": _normalised(_hsic1(sums, block)), "biased": _normalised(biased)}


def _hsic1(sums: Sums, block: Tensor) -> Tensor:
    """Unbiased HSIC_1 of every pair, `[V, V]`, without an n x n matrix; K~ is the Gram matrix with a zero diagonal."""
    n = sums.n
    x = block * sums.x[:, None]  # [D, V]
    trace = block.T @ sums.xx.square() @ block - sums.aa  # tr(K~ L~)
    total = x.square().sum(0) - sums.a  # 1' K~ 1
    mixed = x.T @ sums.xa
    product = x.T @ sums.xx @ x - mixed - mixed.T + sums.aa  # 1' K~ L~ 1
    hsic = (trace + torch.outer(total, total) / ((n - 1) * (n - 2)) - 2 / (n - 2) * product) / (n * (n - 3))
    return torch.where(n >= 4, hsic, torch.nan)


def _normalised(hsic: Tensor) -> Tensor:
    scale = hsic.diagonal().sqrt()
    return hsic / torch.outer(scale, scale)
