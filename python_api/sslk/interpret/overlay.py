"""Heat drawn over images."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps

_COLOURS = (colormaps["turbo"](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.float32)


def overlay(images: np.ndarray, heat: np.ndarray, strength: float = 0.7) -> np.ndarray:
    """Images with their heat in colour on top, the more opaque the hotter: without heat the image shows unchanged.

    Args:
        images: uint8 `[..., H, W, 3]`.
        heat: `[..., H, W]` in [0, 1].
        strength: opacity of the hottest pixel.

    Returns:
        uint8 `[..., H, W, 3]`.

    >>> grey = np.full((2, 2, 3), 100, np.uint8)
    >>> overlay(grey, np.array([[0.0, 0.0], [0.0, 1.0]]))[0, 0].tolist()
    [100, 100, 100]
    """
    opacity = strength * np.clip(heat, 0, 1)[..., None].astype(np.float32)
    colours = _COLOURS[np.clip(np.rint(heat * 255), 0, 255).astype(np.intp)]
    return np.rint(images * (1 - opacity) + colours * opacity).astype(np.uint8)
