"""Every op once at the sizes of `bench/gpu_bench.py`, for a profiler; what is behind docs/internals/gpu.md.

    ncu --clock-control none --kernel-name-base demangled -k regex:sslk --section SpeedOfLight --section Occupancy \\
        --section SchedulerStats --section ComputeWorkloadAnalysis python bench/gpu_profile.py [PART...]
    python bench/gpu_profile.py --timeline [PART...]    the time of every kernel, torch's among them

PART: rows, small, kmeans, masking, similarity; by default all.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import ssl_kernels  # noqa: F401 (registers the ops)

ops = torch.ops.sslk
SIZES = [(40_000, 2048), (40_000, 8192), (160_000, 512), (80_000, 1024), (600_000, 64)]


def penalty(h: Tensor, chosen: Tensor) -> None:
    ops.qscore_penalty(h, chosen)
    grad_q, grad_c = torch.randn(len(h), device=h.device), torch.randn(h.shape[1], device=h.device)
    ops.qscore_penalty_backward(grad_q, grad_c, h, chosen, 4.0, True, False)


def rows() -> None:
    for n, d in SIZES:
        for dtype in (torch.float32, torch.bfloat16):
            h = torch.randn(n, d, device="cuda").relu_().to(dtype)
            chosen = torch.arange(d, device="cuda") % 4 == 0
            ops.qscore(h, chosen)
            ops.qscore_counts(h, chosen)
            for op in (ops.activation_counts, ops.row_moments, ops.column_l1, ops.activating_mask):
                op(h)
            if d >= 512:
                penalty(h, chosen)


def small() -> None:
    h, chosen = torch.randn(512, 2048, device="cuda").relu_(), torch.arange(2048, device="cuda") % 4 == 0
    ops.qscore(h, chosen)
    penalty(h, chosen)


def kmeans() -> None:
    x, centroids = torch.randn(262_144, 2048, device="cuda"), torch.randn(1000, 2048, device="cuda")
    for dtype in (torch.float32, torch.float16):
        ops.kmeans_assign(x.to(dtype), centroids.to(dtype))


def masking() -> None:
    images = torch.randint(0, 256, (256, 3, 224, 224), dtype=torch.uint8, device="cuda")
    foreground = torch.rand(256, 224, 224, device="cuda") < 0.4
    for dtype in (torch.float32, torch.bfloat16):
        ops.masked_variants(images, foreground, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], [0, 1, 2, 3, 4], None, dtype)
    ops.heatmap_iou(torch.randn(1024, 224, 224, device="cuda"), torch.rand(1024, 224, 224, device="cuda") < 0.5)


def similarity() -> None:
    torch.set_float32_matmul_precision("high")
    x = torch.randn(5, 20_000, 2048, device="cuda")
    ops.cka_matrix_backward(ops.cka_matrix(x), x, True)
    ops.cca_matrix(x[:, :5000, :512].contiguous())


PARTS: dict[str, Callable[[], None]] = {
    "rows": rows,
    "small": small,
    "kmeans": kmeans,
    "masking": masking,
    "similarity": similarity,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", help=f"among {', '.join(PARTS)}")
    parser.add_argument("--timeline", action="store_true")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("gpu_profile.py: torch sees no CUDA device here.")
    torch.manual_seed(0)
    for name in arguments.part or PARTS:
        PARTS[name]()
        torch.cuda.synchronize()
        if arguments.timeline:
            with profile(activities=[ProfilerActivity.CUDA]) as found:
                PARTS[name]()
                torch.cuda.synchronize()
            print(name, found.key_averages().table(sort_by="cuda_time_total", row_limit=20, max_name_column_width=80))


if __name__ == "__main__":
    main()
