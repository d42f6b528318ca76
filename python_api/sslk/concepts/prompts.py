"""Concepts in words, seen by an image-text model (CLIP)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from sslk.concepts.expert import ConceptSample


class Prompts:
    """Concepts in words, seen by an image-text model (CLIP): prompts whose probability beats a threshold.

    The softmax runs over the prompts and a background prompt, so that an image may show none.

    Args:
        model: with `encode_image` and `encode_text`, as open_clip's.
        tokenizer: list of texts -> tokens.
        transform: PIL image -> tensor, the model's own preprocessing.
        prompts: concept name -> text.
        background: text of the class that is no concept.
        threshold: the paper's is 0.5.
        group: of the columns.
        title: what the table remembers the network by.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Callable[[list[str]], Tensor],
        transform: Callable[[Image.Image], Tensor],
        prompts: dict[str, str],
        *,
        background: str = "a photo",
        threshold: float = 0.5,
        group: str = "other",
        title: str = "clip",
    ) -> None:
        self.model, self.transform, self.threshold, self.group, self.title = model, transform, threshold, group, title
        self.names, self.background = list(prompts), background
        with torch.inference_mode():
            text = model.encode_text(tokenizer([*prompts.values(), background]))
        self._text = nn.functional.normalize(text.float(), dim=1)
        scale = getattr(model, "logit_scale", None)
        self._scale = 100.0 if scale is None else float(torch.as_tensor(scale).exp())

    @torch.inference_mode()
    def __call__(self, samples: Sequence[ConceptSample]) -> list[list[int]]:
        images = self.model.encode_image(torch.stack([self.transform(sample.image) for sample in samples]))
        scores = self._scale * nn.functional.normalize(images.float(), dim=1) @ self._text.T
        probability = scores.softmax(1)[:, :-1]
        return [row.nonzero().flatten().tolist() for row in probability > self.threshold]

    def __repr__(self) -> str:
        names = ", ".join(self.names)
        return f"Prompts({self.title}: {names}; background {self.background!r}, > {self.threshold}, {self.group!r})"


def clip_prompts(
    prompts: dict[str, str], model: str = "ViT-B-32", pretrained: str | None = "laion2b_s34b_b79k", **settings: Any
) -> Prompts:
    """`Prompts` with an open_clip model by name or checkpoint file; open_clip downloads published weights.

    Raises:
        ImportError: open_clip is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise ImportError(f"CLIP prompts need the package open_clip_torch: pip install open_clip_torch ({error})") from error
    network, _, transform = open_clip.create_model_and_transforms(model, pretrained=pretrained)
    network.eval()
    return Prompts(network, open_clip.get_tokenizer(model), transform, prompts, title=f"{model} {pretrained}", **settings)
