"""GradCAM at any layer of a CNN, by captum: one forward and backward pass per feature of the fullest image."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sslk.interpret.raw_maps import MapMethod, RawMaps


def rounds(rows: Tensor) -> Iterator[Tensor]:
    """Positions of pairs that can share a pass: the first feature of every image, then the second, ...

    Args:
        rows: int64 `[K]`, ascending.

    >>> [part.tolist() for part in rounds(torch.tensor([0, 0, 2, 2, 2, 5]))]
    [[0, 2, 5], [1, 3], [4]]
    """
    if not len(rows):
        return
    _, counts = rows.unique_consecutive(return_counts=True)
    starts = counts.cumsum(0) - counts
    turn = torch.arange(len(rows), device=rows.device) - starts.repeat_interleave(counts)
    for number in range(int(counts.max())):
        yield (turn == number).nonzero().squeeze(1)


def gradcam_maps(method: MapMethod, images: Tensor) -> RawMaps:
    """GradCAM (Selvaraju et al., ICCV 2017) at `method.layer`; parameters get no gradient.

    `relu(sum_c mean(dh_j / dA_c) A_c)`, as `captum.attr.LayerGradCam` computes it.

    Raises:
        ImportError: captum is not installed.
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise ImportError(f"GradCAM outside the closed form needs captum: pip install captum ({error})") from error
    with torch.no_grad():
        features = method.output(images)

    def signed_output(batch: Tensor, signs: Tensor) -> Tensor:
        return method.output(batch) * signs

    cam = LayerGradCam(signed_output, method.model.get_submodule(method.layer))

    def pairs(rows: Tensor, columns: Tensor, signs: Tensor) -> Tensor:
        out: Tensor | None = None
        for part in rounds(rows):
            attributed = cam.attribute(
                images[rows[part]],
                target=columns[part],
                additional_forward_args=(signs[part, None].to(images),),
                relu_attributions=True,
            )
            maps = attributed[:, 0].detach()
            out = maps.new_zeros(len(rows), *maps.shape[1:]) if out is None else out
            out[part] = maps
        return features.new_zeros(0, 1, 1) if out is None else out

    return RawMaps(features, pairs)
