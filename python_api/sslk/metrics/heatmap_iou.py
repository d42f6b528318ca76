"""Agreement of heatmaps with annotated regions: mIoU weighted by heat."""

import torch
from torch import Tensor

import ssl_kernels
from sslk.metrics.exact import ExactMetric


class HeatmapIoU(ExactMetric):
    """`mIoU = mean_i s(R_i & M_i) / s(R_i | M_i)` (Kalibhat et al., AAAI 2024) over the images that have map and mask.

    R is where the heat exceeds the threshold, M the mask and s the sum of heat over a region. Heat that is nowhere
    below the threshold 0 makes it the share of the heat that lies inside the mask. Images without a map (no heat at
    all) or without a mask (none was annotated, or nothing of it is left inside the crop) are counted and left out of
    the mean, never taken as 0. One float64 and two flags per image are kept, for intervals.

    Args:
        threshold: in units of heat.

    `update(heat, mask, has_mask=None)` takes `[n, H, W]` and bool `[n, H, W]`; `has_mask` bool `[n]` is where the mask
    holds a pixel by default. `compute()` gives a dictionary: `miou` float64, NaN without any image; `images`,
    `without_map`, `without_mask` int64 (an image without both counts in both).

    Examples:
        >>> iou = HeatmapIoU()
        >>> heat = torch.tensor([[[0.0, 1.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
        >>> iou.update(heat, torch.tensor([[True, True], [False, False]]).expand(2, 2, 2))
        >>> {name: value.item() for name, value in iou.compute().items()}
        {'miou': 0.25, 'images': 1, 'without_map': 1, 'without_mask': 0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    overlaps: list[Tensor]
    without_map: Tensor
    without_mask: Tensor

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.set_dtype(torch.float64)  # also of the empty tensor that torchmetrics sends for a rank without data
        self.threshold = threshold
        self.add_state("overlaps", [], dist_reduce_fx="cat", persistent=True)
        self.add_state("without_map", torch.tensor(0), dist_reduce_fx="sum", persistent=True)
        self.add_state("without_mask", torch.tensor(0), dist_reduce_fx="sum", persistent=True)

    def update(self, heat: Tensor, mask: Tensor, has_mask: Tensor | None = None) -> None:
        """Add heatmaps `[n, H, W]` and masks, bool `[n, H, W]`.

        Raises:
            ValueError: shapes or dtypes do not fit, or heat is NaN.
        """
        if heat.dim() != 3 or heat.shape != mask.shape or mask.dtype != torch.bool or not heat.is_floating_point():
            raise ValueError(
                f"heat must be floating-point [n, H, W] and mask bool of that shape, got {heat.dtype} "
                f"{list(heat.shape)} and {mask.dtype} {list(mask.shape)}."
            )
        if has_mask is None:
            has_mask = mask.flatten(1).any(1)
        elif has_mask.shape != heat.shape[:1] or has_mask.dtype != torch.bool:
            raise ValueError(f"has_mask must be bool [{len(heat)}], got {has_mask.dtype} {list(has_mask.shape)}.")
        overlap = ssl_kernels.heatmap_iou(heat.detach(), mask, self.threshold).double()
        if bool(overlap.isnan().any()):
            raise ValueError(f"heat must not be NaN, got it in {int(overlap.isnan().sum())} of {len(heat)} maps.")
        has_map = heat.flatten(1).amax(1) > 0 if len(heat) else has_mask
        # NaN marks what is left out, so that the values keep the order of the images.
        self.overlaps.append(torch.where(has_map & has_mask, overlap, torch.nan))
        self.without_map = self.without_map + (~has_map).sum()
        self.without_mask = self.without_mask + (~has_mask).sum()

    def values(self) -> Tensor:
        """Overlap of every image in the order they came, float64 `[N]`; NaN for those left out."""
        if isinstance(self.overlaps, Tensor):  # one tensor after a synchronisation
            return self.overlaps
        return torch.cat(self.overlaps) if self.overlaps else torch.zeros(0, dtype=torch.float64)

    def compute(self) -> dict[str, Tensor]:
        """`miou`, `images`, `without_map` and `without_mask`."""
        values = self.values()
        kept = values[~values.isnan()]
        return {
            "miou": kept.mean() if len(kept) else torch.tensor(torch.nan, dtype=torch.float64),
            "images": torch.tensor(len(kept)),
            "without_map": self.without_map.long(),
            "without_mask": self.without_mask.long(),
        }
