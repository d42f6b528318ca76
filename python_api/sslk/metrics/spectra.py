"""Label-free numbers of a representation that follow from its spectrum.

They take what `sslk.metrics.FeatureSpectrum` computes. A spectrum without rows, or with a value that is not finite, has no
answer: NaN. A spectrum of zeros (a constant, where it is centred) has rank 0.
"""

import torch
from torch import Tensor


def rankme(singular_values: Tensor, eps: float = 1e-7) -> Tensor:
    """RankMe: `exp(-sum_k p_k log p_k)` with `p_k = sigma_k / ||sigma||_1 + eps` (Garrido et al., ICML 2023).

    Of the `min(N, D)` singular values of the matrix of all representations, not centred, as published. The eps is part of
    the definition: every value that is 0 adds 1.6e-6 to the entropy. From 1 (all rows on a line) to `min(N, D)`.

    Args:
        singular_values: `[min(N, D)]`, `FeatureSpectrum.compute()["singular_values"]`.
        eps: added to every share; 1e-7 in the paper.

    Returns:
        float64 scalar; 0 where all values are 0, NaN where there is none.

    Examples:
        >>> round(rankme(torch.ones(8)).item(), 4), round(rankme(torch.tensor([3.0, 0.0, 0.0])).item(), 4)
        (8.0, 1.0)
    """
    values = _values(singular_values)
    return _none_is_zero(values, torch.special.entr(values / values.sum() + eps).sum().exp())


def effective_rank(singular_values: Tensor) -> Tensor:
    """Effective rank: `exp(-sum_k p_k log p_k)` with `p_k = sigma_k / ||sigma||_1` and `0 log 0 = 0` (Roy and Vetterli 2007).

    RankMe without its eps. Of the rows as they are with `singular_values`; of the centred rows with
    `eigenvalues.sqrt()`, which has the same shares.

    Args:
        singular_values: `[min(N, D)]`.

    Returns:
        float64 scalar; 0 where all values are 0, NaN where there is none.

    Examples:
        >>> round(effective_rank(torch.tensor([2.0, 2.0, 0.0])).item(), 12), effective_rank(torch.zeros(3)).item()
        (2.0, 0.0)
    """
    values = _values(singular_values)
    return _none_is_zero(values, torch.special.entr(values / values.sum()).sum().exp())


def nesum(eigenvalues: Tensor) -> Tensor:
    """NESum: `sum_i lambda_i / lambda_1` of the covariance's eigenvalues (He and Ozay, ICML 2022).

    From 1 (all variance in one direction) to D (white). Centred.

    Args:
        eigenvalues: `[min(N, D)]`, `FeatureSpectrum.compute()["eigenvalues"]`.

    Returns:
        float64 scalar; 0 where all values are 0, NaN where there is none.

    Examples:
        >>> nesum(torch.tensor([4.0, 2.0, 2.0])).item()
        2.0
    """
    values = _values(eigenvalues)
    return _none_is_zero(values, values.sum() / values.amax() if len(values) else values.new_tensor(torch.nan))


def alpha_req(eigenvalues: Tensor, first: int = 11, last: int = 100) -> Tensor:
    """alpha-ReQ: the decay alpha of the covariance's spectrum, `lambda_i ~ i^-alpha` (Agrawal et al., NeurIPS 2022).

    Least squares of `log lambda_i` on `log i` for i from `first` to `last`, each weighted by `1 / i` so that every part of
    the logarithmic axis counts alike, as Stringer et al. (Nature 2019) fit it. About 1 is best by the paper; 0 is white.

    Args:
        eigenvalues: `[min(N, D)]`, decreasing; `FeatureSpectrum.compute()["eigenvalues"]`.
        first, last: the range of indices, from 1 and inclusive; what lies beyond the spectrum is left out.

    Returns:
        float64 scalar; NaN where the range holds fewer than two positive eigenvalues.

    Raises:
        ValueError: the range is empty.

    Examples:
        >>> round(alpha_req(torch.arange(1, 101.0) ** -1.5).item(), 6)
        1.5
    """
    if not 1 <= first < last:
        raise ValueError(f"first and last must be indices from 1 with first < last, got {first} and {last}.")
    spectrum = _values(eigenvalues)
    values = spectrum[first - 1 : last]
    place = torch.arange(first, first + len(values), device=values.device, dtype=torch.float64)
    kept = values > 0
    if spectrum.isnan().any() or kept.sum() < 2:
        return values.new_tensor(torch.nan)
    x, y, weight = place[kept].log(), values[kept].log(), 1 / place[kept]
    x, y = x - (weight * x).sum() / weight.sum(), y - (weight * y).sum() / weight.sum()
    return -(weight * x * y).sum() / (weight * x * x).sum()


def dead_features(mean: Tensor, variance: Tensor, rtol: float = 1e-6) -> Tensor:
    """Which features are the same for every row, up to rounding: standard deviation at most `rtol` of the root mean square.

    `sqrt(v_j) <= rtol sqrt(m_j^2 + v_j)`. A feature that is 0 for every row, never active behind a ReLU, is one of them;
    of these the mean is 0 as well.

    Args:
        mean, variance: `[D]`, from `FeatureSpectrum`, or from `FeatureMoments` (`std` squared).
        rtol: 1e-6 is some steps of float32; a feature that jumps between two neighbouring bfloat16 values needs 1e-2.

    Returns:
        bool `[D]`; its mean is the share of dead features. False where a value was not finite.

    Examples:
        >>> dead_features(torch.tensor([0.0, 5.0, 5.0]), torch.tensor([0.0, 0.0, 1.0])).tolist()
        [True, True, False]
    """
    mean, variance = mean.double(), variance.double()
    return variance.sqrt() <= rtol * (mean.square() + variance).sqrt()


def _values(spectrum: Tensor) -> Tensor:
    """float64 `[K]`; torchmetrics hands out a spectrum of one value as a scalar."""
    return spectrum.double().flatten()


def _none_is_zero(values: Tensor, answer: Tensor) -> Tensor:
    """The answer; 0 for a spectrum of zeros, NaN for an empty one."""
    if not len(values):
        return answer.new_tensor(torch.nan)
    return torch.where((values == 0).all(), 0.0, answer)
