"""Segment Anything through transformers, prompted by a box, a point, or nothing."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from sslk.distributed import require_device
from sslk.masked.segmenters.scene import Scene
from sslk.models.architectures import optional_import


class SegmentAnything:
    """SAM (Kirillov et al., ICCV 2023): the mask it is surest of under a prompt.

    Args:
        checkpoint: Hugging Face hub id (`facebook/sam-vit-base`) or a folder with the weights and their processor.
        prompt: `box`: the data set's bounding box; `center`: the middle pixel; `grid`: no prompt from outside, a grid
            of points, from whose masks the one is taken that covers most of the image's central disc per own area
            among those of enough predicted quality.
        points: points per side of the grid.
        device: where to compute.
        side: shorter side to which larger images are reduced before; that of a 4 : 3 picture in the network's square of
            1024 pixels by default. None for no reduction.

    The paper prompts SAM with the image's class through a text model; SAM's published weights take no text.

    Raises:
        ImportError: transformers is not installed.
        OSError: the weights are neither on disk nor to be downloaded.
    """

    def __init__(
        self,
        checkpoint: str = "facebook/sam-vit-base",
        prompt: Literal["box", "center", "grid"] = "center",
        points: int = 4,
        device: str | torch.device = "cpu",
        side: int | None = 768,
    ) -> None:
        if prompt not in ("box", "center", "grid"):
            raise ValueError(f"prompt must be 'box', 'center' or 'grid', got {prompt!r}.")
        if points < 1:
            raise ValueError(f"points must be at least 1, got {points}.")
        transformers = optional_import("transformers", "the segmenter 'sam'", "transformers")
        self.prompt, self.points, self.device, self.side = prompt, points, require_device(device), side
        grid = f" {points}x{points}" if prompt == "grid" else ""
        self.settings = f"sam:{checkpoint} {prompt}{grid}" + ("" if side is None else f" {side}px")
        self.processor: Any = transformers.SamProcessor.from_pretrained(checkpoint)
        self.net: Any = transformers.SamModel.from_pretrained(checkpoint).eval().to(self.device)

    def __call__(self, scene: Scene) -> np.ndarray:
        """True in the chosen mask.

        Raises:
            ValueError: the prompt is `box` and the data set has no boxes.
        """
        image = scene.image.convert("RGB")
        prompts = self._prompts(scene)
        inputs = self.processor(image, return_tensors="pt", **prompts)
        sizes, resized = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        with torch.inference_mode():
            outputs = self.net(**inputs.to(self.device))
        masks = self.processor.image_processor.post_process_masks(outputs.pred_masks.cpu(), sizes, resized)[0]
        candidates = masks.flatten(0, 1).numpy().astype(bool)  # [prompts x 3, H, W]
        quality = outputs.iou_scores.cpu().flatten().numpy()
        return candidates[self._choose(candidates, quality)]

    def _prompts(self, scene: Scene) -> dict[str, Any]:
        width, height = scene.image.size
        if self.prompt == "box":
            return {"input_boxes": [[[float(edge) for edge in scene.box()]]]}
        if self.prompt == "center":
            return {"input_points": [[[[width / 2, height / 2]]]]}
        steps = [(i + 0.5) / self.points for i in range(self.points)]
        return {"input_points": [[[[x * width, y * height]] for y in steps for x in steps]]}

    def _choose(self, candidates: np.ndarray, quality: np.ndarray) -> int:
        if self.prompt != "grid":
            return int(quality.argmax())
        height, width = candidates.shape[1:]
        y, x = np.mgrid[:height, :width]
        disc = ((y + 0.5) / height - 0.5) ** 2 + ((x + 0.5) / width - 0.5) ** 2 <= 1 / (2 * np.pi)
        union = (candidates | disc).sum((1, 2))
        overlap = (candidates & disc).sum((1, 2)) / union
        good = quality >= np.quantile(quality, 0.5)
        return int(np.where(good, overlap, -1.0).argmax())
