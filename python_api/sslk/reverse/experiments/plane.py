"""Forward against reverse probing on colour and shape in the plane (figure 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslk.concepts.table import ConceptTable
from sslk.results.run import Run, RunTable
from sslk.reverse import figures
from sslk.reverse.experiments.result import drawn, experiment
from sslk.reverse.protocol import reverse_probe
from sslk.reverse.quantizer import quantize
from sslk.reverse.settings import KMeansSettings, ProbeSettings


@dataclass(frozen=True, eq=False)
class Toy:
    """Points `[N, 2]`, colours and shapes `[N]` in {0, 1}."""

    points: Tensor
    colour: Tensor
    shape: Tensor


def toy_data(layout: str, per_corner: int = 200, seed: int = 0) -> Toy:
    """Four blobs at the corners of a square, each corner one combination of colour and shape.

    `aligned`: colour changes along x and shape along y, both can be read linearly. `crossed`: two corners are swapped,
    so that colour is the exclusive or of the sides: no line tells it. The blobs are mirror images of each other.

    Args:
        layout: `aligned` or `crossed`.
        per_corner: points in a blob.
        seed: of the blobs.

    >>> toy_data("aligned").points.shape
    torch.Size([800, 2])
    """
    combinations = {"aligned": [[0, 0], [1, 0], [0, 1], [1, 1]], "crossed": [[0, 0], [1, 0], [1, 1], [0, 1]]}
    if layout not in combinations:
        raise ValueError(f"layout must be one of {', '.join(combinations)}, got {layout!r}.")
    noise = 0.15 * torch.randn(per_corner, 2, generator=torch.Generator().manual_seed(seed))
    signs = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    points = (signs[:, None] * (1 + noise)).reshape(-1, 2)
    colour, shape = torch.tensor(combinations[layout]).repeat_interleave(per_corner, 0).T
    return Toy(points, colour, shape)


def forward_accuracy(points: Tensor, target: Tensor) -> float:
    """Accuracy of logistic regression from points to a concept, fitted on every other point, tested on the rest.

    Both halves keep the mirror symmetry of `toy_data`, where no line is better than another at an exclusive or.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(points[::2].numpy(), target[::2].numpy())
    return float(model.score(points[1::2].numpy(), target[1::2].numpy()))


def toy(seed: int = 0) -> Run:
    """Both layouts with both kinds of probe: a forward probe misses colour where it is crossed, a reverse probe not.

    >>> toy().summary["reverse top-1 crossed [%]"]
    100.0
    """
    rows: list[list[float | str]] = []
    layouts: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    said: dict[str, str] = {}
    summary: dict[str, float | int | str | None] = {}
    for layout in ("aligned", "crossed"):
        data = toy_data(layout, seed=seed)
        colour, shape = (100 * forward_accuracy(data.points, target) for target in (data.colour, data.shape))
        found = quantize(data.points, KMeansSettings(clusters=4, clusterings=1, seed=seed))
        bits = torch.stack([data.colour == 0, data.colour == 1, data.shape == 0, data.shape == 1], 1)
        table = ConceptTable.from_dense(bits, ["blue", "orange", "circle", "triangle"], ["colour"] * 2 + ["shape"] * 2)
        reverse = 100 * reverse_probe(found, table, ProbeSettings(epochs=30, batch_size=64, seed=seed)).mean("top1")
        rows.append([layout, colour, shape, reverse])
        summary |= {f"forward colour {layout} [%]": colour, f"reverse top-1 {layout} [%]": reverse}
        layouts[layout] = (data.points.numpy(), data.colour.numpy(), data.shape.numpy())
        said[layout] = f"forward: colour {colour:.0f} %, shape {shape:.0f} %; reverse {reverse:.0f} %"
    alt = "Four blobs of points, blue or orange, circles or triangles, in an aligned and a crossed layout."
    return experiment(
        "Forward and reverse probing of colour and shape",
        [f"{layout}: {text}." for layout, text in said.items()],
        summary,
        [RunTable("Accuracy", ["layout", "forward: colour [%]", "forward: shape [%]", "reverse: top-1 [%]"], rows)],
        [
            drawn(
                "toy",
                "Two layouts of the same four clusters",
                alt,
                lambda: figures.toy_layouts(layouts, said),
                ["layout", "colour", "shape", "reverse"],
                rows,
            )
        ],
    )
