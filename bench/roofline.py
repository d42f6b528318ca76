"""Draws the CPU's results as a roofline: `python bench/roofline.py bench/results/cpu.json docs/images/roofline.svg`.

Every op is a point: floating-point operations per byte that must move, and operations per second. The roofs are the
machine's own rates in the same run: reading (`x.sum()`) and matrix products (`torch.mm`).
"""

import argparse
import json
import math
import re
import statistics
from pathlib import Path

from matplotlib import pyplot as plt

# Operations per element that the algorithm cannot avoid: additions, products, comparisons. Row ops sum values and squares
# (3) and compare (1); norms take 2, absolute sums 2; gradients multiply and add what they write.
PER_ELEMENT = {
    "qscore": 4,
    "qscore_counts": 4,
    "row_moments": 3,
    "activation_counts": 4,
    "activating_mask": 4,
    "column_l1": 4,
    "qscore_penalty": 7,
    "qscore_backward": 8,
    "column_l1_backward": 6,
    "qscore_penalty_forward_and_backward": 17,
}


def operations(name: str) -> float | None:
    """Floating-point operations of a benchmark, from its name and shape; None where there is no count."""
    op, _, parameters = name.partition("[")
    numbers = [int(n) for n in re.findall(r"\d+", parameters.replace("float32", "").replace("bfloat16", ""))]
    if op in PER_ELEMENT and len(numbers) == 2:
        return PER_ELEMENT[op] * numbers[0] * numbers[1]
    if op == "cka_matrix" and len(numbers) == 3:
        v, n, d = numbers
        return v * (v + 1) / 2 * 2 * n * d * d
    if op == "kmeans_assign" and len(numbers) == 3:
        n, d, k = numbers
        return 2 * n * d * k
    return None


def draw(source: Path, target: Path) -> None:
    rows = json.loads(source.read_text())["rows"]
    if not any(row["of"] == "sum" for row in rows):
        raise SystemExit(f"{source} holds no row beside a read (`of` is sum): it is not of `make bench`.")
    reads = [row["GB/s"] / row["share"] for row in rows if row["of"] == "sum"]
    products = [
        count / row["ms"] / 1e6 / row["share"]
        for row in rows
        if row["of"] == "mm" and row["name"].startswith("cka_matrix[") and (count := operations(row["name"]))
    ]
    read = statistics.median(reads)
    figure, ax = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    peak = max(products) if products else None
    left, right = 0.5, 2000.0
    knee = peak / read if peak else right
    ax.plot([left, knee], [left * read, knee * read], color="0.3", label=f"reading, {read:.1f} GB/s")
    if peak:
        ax.plot([knee, right], [peak, peak], color="0.3", ls="--", label=f"matrix products, {peak:.0f} GFLOP/s")
    labelled: list[tuple[float, float]] = []
    markers = {"float32": ("o", "#0072B2"), "bfloat16": ("s", "#D55E00")}
    for row in rows:
        count = operations(row["name"])
        if count is None:
            continue
        dtype = "bfloat16" if "bfloat16" in row["name"] else "float32"
        marker, colour = markers[dtype]
        x, y = count / (row["MB"] * 1e6), count / row["ms"] / 1e6
        ax.plot(x, y, marker, color=colour, ms=6, alpha=0.8)
        if dtype == "float32" and "40000x256" not in row["name"]:
            place = math.log10(x), math.log10(y)
            if all(abs(place[0] - a) > 0.6 or abs(place[1] - b) > 0.04 for a, b in labelled):  # labels must not meet
                labelled.append(place)
                text = row["name"].partition("[")[0]
                ax.annotate(text, (x, y), fontsize=6.5, xytext=(4, -3), textcoords="offset points")
    for dtype, (marker, colour) in markers.items():
        ax.plot([], [], marker, color=colour, label=dtype)
    ax.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="GFLOP/s", xlim=(left, right))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    draw(arguments.source, arguments.target)
