"""Codes of images: a backbone whose representation is the sparse codes of another's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

from sslk.codes.autoencoder import SparseAutoencoder
from sslk.models import Backbone, as_backbone

if TYPE_CHECKING:
    from sslk.codes.fitted import Codes


class CodesBackbone(Backbone):
    """A backbone whose representation is the codes of another's: images in, codes `[N, M]` out.

    It is what extraction, probes on images, heatmaps and reverse probing take. Its `weights_hash` is that of the stores that
    `encode_store` writes, so that a discriminative set found on such a store belongs to it.

    Args:
        codes: fitted on a store of the model.
        model: the backbone, on the device it shall stay on.
        maps: compute codes as spatial means of maps `[N, M, h, w]`, from which heatmaps are drawn in closed form; the
            model's own features must be spatial means. Where a code of a row is kept, it is
            `mean_p(scale W_enc (A_p - mean) + b)` over the places p of the feature map A, since TopK keeps or leaves a latent
            for the whole row. A map takes `M h w` numbers an image.

    Raises:
        ValueError: the codes are of another representation; or maps are asked for and there are none.

    >>> from sslk.codes import CodesSettings, fit_codes
    >>> from sslk.features import ExtractSettings
    >>> from sslk.features.by_name import extract_by_name
    >>> from sslk.data.source import DataSource
    >>> from sslk.models import ModelSource
    >>> import tempfile, torch
    >>> store = extract_by_name(ModelSource("embedded"), DataSource("sample"), tempfile.mkdtemp(), ExtractSettings(workers=0))
    >>> codes = fit_codes(store, CodesSettings(latents=64, k=8, epochs=1))
    >>> backbone = codes.on(ModelSource("embedded").load(), maps=True)
    >>> backbone.name, backbone.feature, backbone.num_features, backbone.signed, backbone.feature_layer
    ('embedded codes', '8 of 64 codes of mean of stages', 64, False, 'net.maps')
    """

    def __init__(self, codes: Codes, model: Backbone | nn.Module, *, maps: bool = False) -> None:
        backbone = as_backbone(model)
        codes.check(backbone)
        if maps and not backbone.pooled:
            raise ValueError(f"maps needs features that are spatial means of channels, those of {backbone.name!r} are not.")
        weight = next(backbone.parameters())
        auto = SparseAutoencoder(codes.autoencoder.num_features, codes.autoencoder.latents, codes.autoencoder.k)
        auto.load_state_dict(codes.autoencoder.state_dict())
        auto.to(weight.device).requires_grad_(False)
        super().__init__(
            _Encoded(backbone, auto, maps),
            name=codes.name,
            input_size=backbone.input_size,
            mean=backbone.mean,
            std=backbone.std,
            interpolation=backbone.interpolation,
            feature=codes.feature,
            checkpoint=backbone.checkpoint,
        )
        self._hash = codes.weights_hash

    @property
    def weights_hash(self) -> str:
        """Of model and codes, as the spec of a store of these codes has it."""
        return self._hash


class _Encoded(nn.Module):
    """Images to codes, plainly or as means of maps."""

    def __init__(self, backbone: Backbone, autoencoder: SparseAutoencoder, maps: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.autoencoder = autoencoder
        self.maps = _CodeMaps(autoencoder) if maps else None

    def forward(self, images: Tensor) -> Tensor:
        if self.maps is None:
            return self.autoencoder(self.backbone(images))
        return self.maps(self.backbone.forward_features(images)).mean((2, 3))


class _CodeMaps(nn.Module):
    """The maps `[N, M, h, w]` whose spatial means are the codes."""

    def __init__(self, autoencoder: SparseAutoencoder) -> None:
        super().__init__()
        self.autoencoder = (autoencoder,)  # no module of its own: its tensors stand in the state once

    def forward(self, features: Tensor) -> Tensor:
        (auto,) = self.autoencoder
        kept = auto(features.mean((2, 3))) > 0
        x = (features.to(auto.mean) - auto.mean[:, None, None]) * auto.scale
        weight = auto.encoder[:, :, None, None]
        maps = functional.conv2d(x, weight, auto.encoder_bias - auto.encoder @ auto.pre_bias)
        return maps * kept[:, :, None, None]
