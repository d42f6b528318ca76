"""The eleven basic colour terms (Berlin and Kay, 1969) by quantising pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslk.concepts.expert import ConceptSample

COLORS = ("black", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red", "white", "yellow")

# Hue in degrees at which each chromatic term begins; red wraps around.
_HUES = (("red", 0), ("orange", 16), ("yellow", 45), ("green", 70), ("blue", 170), ("purple", 262), ("pink", 312), ("red", 345))


class Colors:
    """Which basic colour terms cover at least a share of the image.

    Every pixel gets one term from its hue, chroma and lightness (HSL); dark orange is brown, light red is pink. An
    image shows the terms that cover `min_share` of its pixels, so several, or none where colours are many.

    Args:
        min_share: share of the pixels in (0, 1].

    Raises:
        ValueError: min_share is not in (0, 1].

    >>> from PIL import Image
    >>> [COLORS[i] for i in Colors()([ConceptSample(0, Image.new("RGB", (4, 4), "yellow"))])[0]]
    ['yellow']
    """

    group = "colour"
    names = COLORS

    def __init__(self, min_share: float = 0.1) -> None:
        if not 0 < min_share <= 1:
            raise ValueError(f"min_share must be in (0, 1], got {min_share}.")
        self.min_share = min_share

    def __call__(self, samples: Sequence[ConceptSample]) -> list[list[int]]:
        found = []
        for sample in samples:
            terms = color_terms(np.asarray(sample.image.convert("RGB")))
            share = np.bincount(terms.ravel(), minlength=len(COLORS)) / terms.size
            found.append(np.flatnonzero(share >= self.min_share).tolist())
        return found

    def __repr__(self) -> str:
        return f"Colors(min_share={self.min_share})"


def color_terms(pixels: np.ndarray) -> np.ndarray:
    """The colour term of each pixel, indices into `COLORS`.

    Args:
        pixels: uint8 `[..., 3]`, sRGB.
    """
    quantised = pixels >> 3
    return _TERM[quantised[..., 0], quantised[..., 1], quantised[..., 2]]


def _terms_of_levels() -> np.ndarray:
    """The term of every colour of 32 levels a channel, uint8 `[32, 32, 32]`."""
    level = (np.arange(32) * 8 + 3.5) / 255
    red, green, blue = np.meshgrid(level, level, level, indexing="ij")
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    chroma, lightness = high - low, (high + low) / 2
    safe = np.where(chroma > 0, chroma, 1)
    hue = (
        np.where(
            high == red, (green - blue) / safe % 6, np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4)
        )
        * 60
    )
    number = {name: index for index, name in enumerate(COLORS)}
    term = np.full(hue.shape, number["red"])
    for name, start in _HUES:
        term[hue >= start] = number[name]
    term[(term == number["orange"]) & (lightness < 0.48)] = number["brown"]
    term[(term == number["yellow"]) & (hue < 52) & (lightness < 0.33)] = number["brown"]
    term[(term == number["red"]) & (lightness > 0.68)] = number["pink"]
    term[(term == number["red"]) & (hue < 16) & (lightness < 0.35) & (chroma < 0.35)] = number["brown"]
    # Little chroma reads as no colour at all; the darker, the more chroma it takes.
    grey = chroma < np.where(lightness < 0.25, 0.16, 0.11)
    term[grey] = number["grey"]
    term[(grey & (lightness < 0.22)) | (high < 0.16)] = number["black"]
    term[grey & (lightness > 0.86)] = number["white"]
    return term.astype(np.uint8)


_TERM = _terms_of_levels()
