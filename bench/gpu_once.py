"""Runs ops once on odd sizes and compares them with the float64 reference: the first thing a new card is asked, and what
compute-sanitizer watches.

    python bench/gpu_once.py OP... [--device cpu]        (no OP: all)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

import ssl_kernels  # noqa: F401 (registers the ops)
from ssl_kernels import reference

SIZES = [(7, 3), (50, 61), (33, 257), (65, 1003), (17, 2051), (9, 8200)]  # every kernel for rows
# The same with several rows for every team of threads of a card of 132 multiprocessors.
MANY = [(40_000, 3), (40_000, 61), (9_000, 257), (9_000, 1003), (1_100, 2051), (600, 8200)]
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
ops = torch.ops.sslk


def close(got: Tensor, want: Tensor, what: str) -> None:
    """Within the rounding of the dtype, of the largest value."""
    unit = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}.get(got.dtype, 0.0)
    got, want = got.detach().double(), want.double().to(got.device)
    if not torch.equal(got.isnan(), want.isnan()):
        raise SystemExit(f"{what}: NaN in other places than in the reference.")
    error, scale = (got - want).nan_to_num().abs().max().item(), want.nan_to_num().abs().max().item()
    if error > unit * max(scale, 1e-30):
        raise SystemExit(f"{what}: off by {error:.3g} where the largest value is {scale:.3g}.")


def rows(device: str) -> list[tuple[Tensor, Tensor, str]]:
    """Matrices that start and end anywhere, with rows for both paths but none of zeros, whose gradient has no size; as float64;
    what they are."""
    found = []
    for n, d in SIZES if device == "cpu" else SIZES + MANY:
        for dtype in DTYPES:
            h = torch.randn(n, d + 1, device=device).relu_().add_(0.01).to(dtype)[:, 1:]
            h[0], h[1, d // 2] = 1.0, float("nan")
            found.append((h, h.double(), f"{n} x {d} {str(dtype)[6:]}"))
    return found


def on_rows(check: Callable[[Tensor, Tensor, Tensor, str], None]) -> Callable[[str], None]:
    def run(device: str) -> None:
        for h, wide, what in rows(device):
            check(h, wide, torch.arange(h.shape[1], device=device) % 3 != 1, what)

    return run


def qscore(h: Tensor, wide: Tensor, chosen: Tensor, what: str) -> None:
    close(ops.qscore(h, chosen, 1.0), reference.qscore(wide, chosen, 1.0), f"qscore {what}")


def qscore_counts(h: Tensor, wide: Tensor, chosen: Tensor, what: str) -> None:
    for got, want in zip(ops.qscore_counts(h, chosen, 1.0), reference.qscore_counts(wide, chosen, 1.0), strict=True):
        close(got, want, f"qscore_counts {what}")


def activation(h: Tensor, wide: Tensor, chosen: Tensor, what: str) -> None:
    for two_sided in (False, True):
        want = reference.activating_mask(wide, 1.0, two_sided)
        close(ops.activating_mask(h, 1.0, two_sided), want, f"activating_mask {what}")
        features, counts = ops.activation_counts(h, 1.0, two_sided)
        close(features, want.sum(0), f"activation_counts {what}")
        close(counts, want.sum(1), f"activation_counts {what}")


def row_moments(h: Tensor, wide: Tensor, chosen: Tensor, what: str) -> None:
    for got, want in zip(ops.row_moments(h), reference.row_moments(wide), strict=True):
        close(got, want, f"row_moments {what}")


def penalty(h: Tensor, wide: Tensor, chosen: Tensor, what: str) -> None:
    _, q, columns = ops.qscore_penalty(h, chosen, eps=1.0)
    close(q, reference.qscore(wide, chosen, 1.0), f"qscore_penalty {what}")
    finite = wide.isfinite().all(1)
    close(ops.column_l1(h[finite]), reference.column_l1(wide[finite]), f"column_l1 {what}")
    grad_q, grad_c = torch.ones_like(q), torch.ones_like(columns)
    for two_sided in (False, True):
        got = ops.qscore_penalty_backward(grad_q, grad_c, h, chosen, 1.0, True, two_sided)
        want = reference.qscore_backward(grad_q.double()[finite], wide[finite], chosen, 1.0, True, two_sided)
        close(got[finite], want + reference.column_l1_backward(grad_c.double(), wide[finite], True), f"gradient {what}")
        if not got[~finite].isnan().all():
            raise SystemExit(f"gradient {what}: a row with NaN must have a gradient of NaN.")


def column_sums(device: str) -> None:
    """So many rows that every team adds up more than it sums in float32 at once; whole blocks: tests/ops/test_large_inputs.py."""
    for dtype in DTYPES:
        h = torch.rand(20_000 if device == "cpu" else 2_300_000, 5, device=device).to(dtype)
        close(ops.column_l1(h, False), h.double().sum(0), f"column_l1 of many rows {str(dtype)[6:]}")


def kmeans(device: str) -> None:
    for n, d, k in [(7, 3, 2), (130, 61, 5), (300, 257, 70), (65, 1003, 33)]:
        for dtype in DTYPES:
            x, c = torch.randn(n, d).to(dtype).to(device), torch.randn(k, d).to(dtype).to(device)
            assignment, distance = ops.kmeans_assign(x, c)
            squared = torch.cdist(x.cpu().double(), c.cpu().double(), compute_mode="donot_use_mm_for_euclid_dist").square()
            close(assignment, squared.argmin(1), f"kmeans_assign {n} x {d}")
            close(distance, squared.min(1).values, f"kmeans_assign {n} x {d}")


def masking(device: str) -> None:
    images = torch.randint(0, 256, (3, 3, 9, 7), dtype=torch.uint8, device=device)
    foreground = torch.rand(3, 9, 7, device=device) < 0.5
    mean, std, variants = [0.5] * 3, [0.2] * 3, [0, 1, 2, 3, 4]
    want = reference.masked_variants(images.cpu(), foreground.cpu(), mean, std, variants)
    close(ops.masked_variants(images, foreground, mean, std, variants), want, "masked_variants")
    heat = torch.randn(3, 9, 7, device=device)
    close(ops.heatmap_iou(heat, foreground), reference.heatmap_iou(heat.cpu().double(), foreground.cpu()), "heatmap_iou")


def similarity(device: str) -> None:
    for n, d in ((40, 9), (9, 40)):
        x = torch.randn(3, n, d, device=device)
        wide = x.cpu().double()
        got = ops.cka_matrix(x)
        close(got, reference.cka_matrix(wide), f"cka_matrix {n} x {d}")
        ops.cka_matrix_backward(got, x, True)
        close(ops.cca_matrix(x[:2, :, :4])[0], reference.cca_matrix(wide[:2, :, :4])[0], f"cca_matrix {n} x 4")


def regression(device: str) -> None:
    torch.manual_seed(3)
    columns, offsets = torch.randint(0, 11, (60,), dtype=torch.int32), torch.arange(0, 61, 3)
    target, index = torch.randint(0, 70, (20,)), torch.randint(0, 20, (33,))
    batch = (columns, offsets, target, index)
    for dtype in (torch.float32, torch.float64):
        start = [torch.randn(2, 11, 40), torch.randn(70), torch.zeros(2, 11, 40), torch.zeros(70)]
        mine, wide = [t.to(device, dtype) for t in start], [t.double() for t in start]
        for _ in range(2):
            loss = ops.sparse_softmax_sgd_(*mine, *(t.to(device) for t in batch), 0.3, 0.9, 1e-3)
            close(loss.to(dtype), reference.sparse_softmax_sgd_(*wide, *batch, 0.3, 0.9, 1e-3), "sparse_softmax_sgd_")
        close(mine[1], wide[1], "sparse_softmax_sgd_ bias")
        close(
            mine[0].transpose(0, 1).flatten(1)[:, :70], wide[0].transpose(0, 1).flatten(1)[:, :70], "sparse_softmax_sgd_ weight"
        )


OPS: dict[str, Callable[[str], None]] = {
    "qscore": on_rows(qscore),
    "qscore_counts": on_rows(qscore_counts),
    "activation": on_rows(activation),
    "row_moments": on_rows(row_moments),
    "penalty": on_rows(penalty),
    "column_sums": column_sums,
    "kmeans": kmeans,
    "masking": masking,
    "similarity": similarity,
    "regression": regression,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("op", nargs="*", help=f"among {', '.join(OPS)}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    for name in arguments.op or OPS:
        OPS[name](arguments.device)
        if arguments.device == "cuda":
            torch.cuda.synchronize()
        print(f"{name}: right on odd sizes, all dtypes", flush=True)


if __name__ == "__main__":
    main()
