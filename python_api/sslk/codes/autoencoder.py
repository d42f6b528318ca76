"""A TopK sparse autoencoder: features as sums of a few of many unit vectors, with weights that are not negative."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sslk.probes.usable import finite_rows


class Active(NamedTuple):
    """The latents that are kept of every row: places int64 `[n, k]` and values `[n, k]`, zero or positive."""

    places: Tensor
    values: Tensor


class SparseAutoencoder(nn.Module):
    """Codes `z = TopK(ReLU(W_enc (x' - b_pre) + b_enc))` and reconstructions `x'^ = W_dec z + b_pre`.

    `x' = (x - mean) scale` is the normalised feature: centred, and of mean squared norm D over the rows the statistics are
    of. TopK keeps the k largest entries of a row, as Makhzani and Frey (2013) and Gao et al. (2024) have it. The columns of
    `W_dec`, here rows of `decoder`, have unit norm, and `W_enc` begins as its transpose.

    Args:
        num_features: D.
        latents: M.
        k: latents that are kept of a row.
        seed: of the initial directions.

    Attributes:
        encoder: `W_enc`, `[M, D]`.
        encoder_bias: `b_enc`, `[M]`.
        decoder: the transpose of `W_dec`, `[M, D]`: a direction a row.
        pre_bias: `b_pre`, `[D]`.
        mean, scale: of the normalisation, `[D]` and a number.

    Raises:
        ValueError: a size is not positive, or k is larger than M.

    >>> auto = SparseAutoencoder(8, 32, 4)
    >>> codes = auto(torch.randn(100, 8, generator=torch.Generator().manual_seed(0)))
    >>> codes.shape, bool((codes >= 0).all()), int((codes > 0).sum(1).max())
    (torch.Size([100, 32]), True, 4)
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int, latents: int, k: int, seed: int = 0) -> None:
        super().__init__()
        if num_features < 1 or not 1 <= k <= latents:
            raise ValueError(f"k must lie between 1 and the number of latents, got {k} of {latents} for D={num_features}.")
        self.k = k
        directions = torch.randn(latents, num_features, generator=torch.Generator().manual_seed(seed))
        self.decoder = nn.Parameter(functional.normalize(directions))
        self.encoder = nn.Parameter(self.decoder.detach().clone())
        self.encoder_bias = nn.Parameter(torch.zeros(latents))
        self.pre_bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(()))

    @property
    def num_features(self) -> int:
        """D."""
        return self.encoder.shape[1]

    @property
    def latents(self) -> int:
        """M."""
        return self.encoder.shape[0]

    def normalized(self, features: Tensor) -> Tensor:
        """`x'` of features `[n, D]`."""
        return (features.to(self.mean) - self.mean) * self.scale

    def before_topk(self, x: Tensor) -> Tensor:
        """`W_enc (x' - b_pre) + b_enc`, `[n, M]`, of normalised features."""
        # b_pre inside the bias: its gradient then needs no [n, M] x [M, D] product.
        return functional.linear(x, self.encoder, self.encoder_bias - self.encoder @ self.pre_bias)

    def active(self, before: Tensor) -> Active:
        """What TopK keeps of `before_topk`."""
        values, places = before.topk(self.k, dim=1, sorted=False)
        return Active(places, values.relu())

    def decoded(self, active: Active) -> Tensor:
        """`W_dec z`, `[n, D]`, in normalised features and without `b_pre`."""
        return functional.embedding_bag(active.places, self.decoder, per_sample_weights=active.values, mode="sum")

    def forward(self, features: Tensor) -> Tensor:
        """Codes `[n, M]` of features `[n, D]`; a row that is not finite has NaN for all of them."""
        x = self.normalized(features)
        codes = self.dense(self.active(self.before_topk(x)))
        finite = finite_rows(x)
        return codes if bool(finite.all()) else codes.masked_fill(~finite[:, None], math.nan)

    def dense(self, active: Active) -> Tensor:
        """Codes `[n, M]`, zero where a latent is not kept."""
        codes = active.values.new_zeros(len(active.places), self.latents)
        return codes.scatter(1, active.places, active.values)

    def reconstruct(self, features: Tensor) -> Tensor:
        """The features `[n, D]` that the codes of features stand for, in the features' own units."""
        active = self.active(self.before_topk(self.normalized(features)))
        return (self.decoded(active) + self.pre_bias) / self.scale + self.mean

    def loss(self, x: Tensor, dead: Tensor, k_aux: int, aux_weight: float) -> tuple[Tensor, Tensor, Active]:
        """Training loss, its reconstruction part, and the latents that were kept, of normalised features `[n, D]`.

        The reconstruction part is the mean squared error of an entry: normalised features have variance 1 in the mean, so
        it is the share of the variance that is not explained. The auxiliary part (AuxK, Gao et al. 2024, A.2) lets the
        k_aux largest dead latents of a row reconstruct what is left, `e = x' - x'^`: `||e - W_dec z_dead||^2 / ||e||^2`.

        Args:
            x: normalised.
            dead: bool `[M]`.
            k_aux: dead latents of a row.
            aux_weight: of the auxiliary part.
        """
        before = self.before_topk(x)
        active = self.active(before)
        left = x - self.decoded(active) - self.pre_bias
        reconstruction = left.square().mean()
        count = min(k_aux, int(dead.sum()))
        if not count or not aux_weight:
            return reconstruction, reconstruction.detach(), active
        values, places = before.masked_fill(~dead, -math.inf).topk(count, dim=1, sorted=False)
        left = left.detach()
        missed = (left - self.decoded(Active(places, values.relu()))).square().sum()
        auxiliary = missed / left.square().sum().clamp(min=torch.finfo(left.dtype).tiny)
        return reconstruction + aux_weight * auxiliary, reconstruction.detach(), active

    @torch.no_grad()
    def project_gradient(self) -> None:
        """Take from the decoder's gradient what is parallel to its directions: their norm is 1 and stays so."""
        if self.decoder.grad is not None:
            self.decoder.grad -= (self.decoder.grad * self.decoder).sum(1, keepdim=True) * self.decoder

    @torch.no_grad()
    def normalize_decoder(self) -> None:
        """Directions of unit norm."""
        self.decoder.copy_(functional.normalize(self.decoder))

    def extra_repr(self) -> str:
        return f"num_features={self.num_features}, latents={self.latents}, k={self.k}"
