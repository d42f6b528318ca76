"""Times one part of the ops on a GPU, beside the copy rate of the same card in the same run; `bench/gpu.py` runs the parts.

    python bench/gpu_bench.py PART [--device cpu] [--rows]

`share` is the op's rate (bytes that must move, each counted once, over the median time) as a share of the rate of a large
device-to-device copy, read plus written (the faster of `copy_` and of a negation), or how many times faster the op is than
what `of` names. Inputs rotate over
buffers larger than the L2 cache inside one CUDA graph, so that neither the cache nor launch gaps are measured (small batches,
whose launches are what is timed, come from it where it holds 34 MB); where an op
cannot be captured its row says so. `--rows` prints every row as JSON too. `--device cpu` runs tiny sizes: it checks this
file and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

import ssl_kernels  # noqa: F401 (registers the ops)
from ssl_kernels import reference

BUFFER_BYTES = 768 << 20  # of rotating inputs, several times any L2 cache
ROUNDS = 15
ops = torch.ops.sslk


@dataclass
class Row:
    """One number; `target` is what was asked of `share` (at least) or of `ms` (at most, for small batches)."""

    op: str
    dtype: str
    shape: str
    MB: float  # that must move
    ms: float
    GBps: float
    share: float
    of: str
    target: float | None
    met: bool | None
    captured: bool  # timed as a CUDA graph
    spread: float  # (slowest - fastest) / median of the rounds


Call = Callable[[Tensor], object]


class Bench:
    def __init__(self, device: str, rows: bool) -> None:
        self.device, self.rows, self.small = device, rows, device == "cpu"
        self.copy = self._copy_rate()

    def _copy_rate(self) -> float:
        """Bytes per second of a large copy, read plus written; as launched, for inside a graph `copy_` is a slower engine's."""
        source = torch.randn(1 << (16 if self.small else 28), device=self.device)
        target = torch.empty_like(source)
        ways: list[Callable[[], object]] = [lambda: target.copy_(source), lambda: torch.neg(source, out=target)]
        return 2 * source.numel() * 4 / min(self.time([way] * 8, capture=False)[0] for way in ways)

    def synchronize(self) -> None:
        if not self.small:
            torch.cuda.synchronize()

    def rotating(self, make: Callable[[], Tensor]) -> list[Tensor]:
        first = make()
        many = min(64, BUFFER_BYTES // max(first.numel() * first.element_size(), 1))
        return [first, *(make() for _ in range(0 if self.small else many))]

    def time(self, calls: list[Callable[[], object]], capture: bool = True) -> tuple[float, bool, float]:
        """Seconds per call (median over rounds through all of `calls`), whether captured, and the spread."""
        for call in calls[:2]:
            call()
        self.synchronize()
        graph = self.capture(calls) if capture and not self.small else None
        run = graph.replay if graph is not None else lambda: [call() for call in calls]
        run()
        times = []
        for _ in range(2 if self.small else ROUNDS):
            if self.small:
                begin = time.perf_counter()
                run()
                times.append((time.perf_counter() - begin) / len(calls))
            else:
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                run()
                end.record()
                end.synchronize()
                times.append(start.elapsed_time(end) / 1e3 / len(calls))
        median = statistics.median(times)
        return median, graph is not None, (max(times) - min(times)) / median

    def capture(self, calls: list[Callable[[], object]]) -> torch.cuda.CUDAGraph | None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(stream):
                calls[0]()
                with torch.cuda.graph(graph, stream=stream):
                    for call in calls:
                        call()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # something in the op waits for the device
            torch.cuda.synchronize()
            return None
        torch.cuda.synchronize()
        return graph

    def add(
        self,
        op: str,
        inputs: list[Tensor],
        call: Call,
        nbytes: float,
        target: float | None = None,
        versus: tuple[str, Call] | None = None,
        capture: bool = True,
    ) -> None:
        """A row; with `versus`, `(name, function)`, share says how many times faster than it the op is."""
        seconds, captured, spread = self.time([lambda x=x: call(x) for x in inputs], capture)
        of, share = "copy", nbytes / seconds / self.copy
        if versus is not None:
            of, other = versus
            share = self.time([lambda x=x: other(x) for x in inputs[:8]])[0] / seconds
        self.emit(
            op, inputs[0], nbytes, seconds, share, of, target, None if target is None else share >= target, captured, spread
        )

    def add_small(self, op: str, inputs: list[Tensor], call: Call, nbytes: float, target: float | None) -> None:
        """A row of a small batch, whose target is a time in ms: what counts are launches, not bytes."""
        seconds, captured, spread = self.time([lambda x=x: call(x) for x in inputs])
        met = None if target is None else seconds * 1e3 <= target
        self.emit(
            op, inputs[0], nbytes, seconds, nbytes / seconds / self.copy, "copy; target in ms", target, met, captured, spread
        )

    def emit(
        self,
        op: str,
        x: Tensor,
        nbytes: float,
        seconds: float,
        share: float,
        of: str,
        target: float | None,
        met: bool | None,
        captured: bool,
        spread: float,
    ) -> None:
        if self.small:  # tiny sizes on a CPU decide nothing
            target = met = None
        shape = "x".join(map(str, x.shape))
        dtype = str(x.dtype).removeprefix("torch.")
        row = Row(op, dtype, shape, nbytes / 1e6, seconds * 1e3, nbytes / seconds / 1e9, share, of, target, met, captured, spread)
        verdict = "" if met is None else f"  (asked {target}: {'met' if met else 'MISSED'})"
        print(
            f"{op:28s} {dtype:9s} {shape:22s} {row.ms:9.4f} ms {row.GBps:8.1f} GB/s  {share:6.2f} of {of}{verdict}"
            f"{'' if captured or self.small else '  (not captured)'}",
            flush=True,
        )
        if self.rows:
            print("ROW " + json.dumps(asdict(row)), flush=True)

    def representations(self, n: int, d: int, dtype: torch.dtype) -> list[Tensor]:
        n = min(n, 64) if self.small else n
        return self.rotating(lambda: torch.randn(n, d, device=self.device).relu_().to(dtype))


def eager(h: Tensor, chosen: Tensor, eps: float = 4.0) -> Tensor:
    """Equation (1) as one would first write it."""
    h = torch.nn.functional.normalize(h.float(), dim=1)
    mean, std = h.mean(1, keepdim=True), h.std(1, correction=0, keepdim=True)
    active = (h > mean + eps * std) & chosen
    return torch.where(active, h - mean, 0.0).sum(1) / active.sum(1).clamp_min(1)


SIZES = [(40_000, 2048), (40_000, 8192), (160_000, 512), (80_000, 1024), (600_000, 64), (300_000, 256)]


def target_of(d: int, dtype: torch.dtype) -> float:
    """The share of the copy rate that reading ops were asked to reach."""
    if d <= 256:
        return 0.5
    if dtype == torch.float32:
        return 0.9 if d >= 2048 else 0.75
    return 0.85 if d >= 2048 else 0.75


def qscore(bench: Bench) -> None:
    for n, d in SIZES:
        for dtype in (torch.float32, torch.bfloat16):
            inputs = bench.representations(n, d, dtype)
            chosen = torch.arange(d, device=bench.device) % 4 == 0
            bench.add("qscore", inputs, lambda h, s=chosen: ops.qscore(h, s), inputs[0].nbytes, target_of(d, dtype))
            del inputs


def counts(bench: Bench) -> None:
    for n, d in SIZES:
        for dtype in (torch.float32, torch.bfloat16):
            inputs = bench.representations(n, d, dtype)
            read, target = inputs[0].nbytes, target_of(d, dtype)
            chosen = torch.arange(d, device=bench.device) % 4 == 0
            bench.add("activation_counts", inputs, ops.activation_counts, read, target)
            bench.add("row_moments", inputs, ops.row_moments, read, target)
            bench.add("column_l1", inputs, ops.column_l1, read, 0.85 if d >= 512 else None)
            bench.add("activating_mask", inputs, ops.activating_mask, read + inputs[0].numel(), 0.85 if d >= 512 else None)
            bench.add("qscore_counts", inputs, lambda h, s=chosen: ops.qscore_counts(h, s), read)
            del inputs


def penalty(bench: Bench) -> None:
    """Forward and backward together: bytes are those of 3.3 passes over `h`, so that a share of 1 is what was asked."""
    for n, d in SIZES[:4]:
        for dtype in (torch.float32, torch.bfloat16):
            inputs = bench.representations(n, d, dtype)
            chosen = torch.arange(d, device=bench.device) % 4 == 0
            grad_q, grad_c = torch.randn(len(inputs[0]), device=bench.device), torch.randn(d, device=bench.device)

            def backward(h: Tensor, s: Tensor = chosen, q: Tensor = grad_q, c: Tensor = grad_c) -> object:
                return ops.qscore_penalty_backward(q, c, h, s, 4.0, True, False)

            def both(h: Tensor, s: Tensor = chosen, backward: Call = backward) -> None:
                ops.qscore_penalty(h, s)
                backward(h)

            size = inputs[0].nbytes
            bench.add("qscore_penalty", inputs, lambda h, s=chosen: ops.qscore_penalty(h, s), size)
            bench.add("qscore_penalty_backward", inputs, backward, 2 * size)
            bench.add(
                "qscore_backward", inputs, lambda h, s=chosen, q=grad_q: ops.qscore_backward(q, h, s, 4.0, True, False), 2 * size
            )
            bench.add("penalty, both, 3.3 passes", inputs, both, 3.3 * size, 1.0 if dtype == torch.float32 else None)
            del inputs


def small(bench: Bench) -> None:
    """The training case: a batch of 512 x 2048, inside a CUDA graph and as it is launched from Python."""
    inputs = bench.representations(512, 2048, torch.float32)[:8]
    chosen = torch.arange(2048, device=bench.device) % 4 == 0
    grad_q, grad_c = torch.randn(len(inputs[0]), device=bench.device), torch.randn(2048, device=bench.device)
    size = inputs[0].nbytes
    bench.add_small("small qscore", inputs, lambda h: ops.qscore(h, chosen), size, 0.012)
    bench.add_small("small qscore_penalty", inputs, lambda h: ops.qscore_penalty(h, chosen), size, 0.012)
    bench.add_small(
        "small penalty_backward",
        inputs,
        lambda h: ops.qscore_penalty_backward(grad_q, grad_c, h, chosen, 4.0, True, False),
        2 * size,
        0.015,
    )
    if bench.small:
        return
    for name, call in (
        ("qscore", lambda: ops.qscore(inputs[0], chosen)),
        ("penalty", lambda: ops.qscore_penalty(inputs[0], chosen)),
    ):
        call()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(200):
            call()
        torch.cuda.synchronize()
        seconds = (time.perf_counter() - begin) / 200
        bench.emit(
            f"small {name}, launched", inputs[0], size, seconds, size / seconds / bench.copy, "copy", None, None, False, 0.0
        )


def versus(bench: Bench) -> None:
    """Against the same computation in eager PyTorch and under torch.compile."""
    inputs = bench.representations(40_000, 2048, torch.float32)[:4]
    chosen = torch.arange(2048, device=bench.device) % 4 == 0
    size = inputs[0].nbytes
    bench.add("qscore", inputs, lambda h: ops.qscore(h, chosen), size, 8.0, ("eager", lambda h: eager(h, chosen)))
    if not bench.small:
        compiled = torch.compile(eager)
        bench.add("qscore", inputs, lambda h: ops.qscore(h, chosen), size, 1.3, ("torch.compile", lambda h: compiled(h, chosen)))


def kmeans(bench: Bench) -> None:
    """Beside the loop that a user would write (products in float16, the least of each row), faiss and flash-kmeans."""
    n, d, k = (64, 16, 5) if bench.small else (1_280_000, 2048, 1000)
    if not bench.small:  # half of the card's memory for x in both types
        n = min(n, torch.cuda.get_device_properties(0).total_memory // 2 // (6 * d))
    x, centroids = torch.randn(n, d, device=bench.device), torch.randn(k, d, device=bench.device)

    def half_products(x: Tensor) -> list[Tensor]:
        packed, squares = centroids.half(), centroids.square().sum(1)
        return [(squares - 2 * (part.half() @ packed.T)).min(1).indices for part in x.split(1 << 16)]

    def assign(x: Tensor) -> object:
        return ops.kmeans_assign(x, centroids)

    bench.add("kmeans_assign", [x], assign, x.nbytes)
    bench.add("kmeans_assign", [x], assign, x.nbytes, None, ("float16 products and min", half_products))
    try:
        import faiss
        import faiss.contrib.torch_utils

        resources = faiss.StandardGpuResources()
        bench.add("kmeans_assign", [x], assign, x.nbytes, 1.0, ("faiss-gpu", lambda x: faiss.knn_gpu(resources, x, centroids, 1)))
    except (ImportError, AttributeError):
        print("faiss with GPU support is not installed: no comparison with it.")
    try:
        from flash_kmeans.assign_euclid_triton import euclid_assign_triton
    except ImportError:
        print("flash-kmeans is not installed: no comparison with it.")
        return
    for dtype in (torch.float32, torch.float16):
        beside_flash_kmeans(bench, euclid_assign_triton, x.to(dtype), centroids.to(dtype))


def beside_flash_kmeans(bench: Bench, euclid_assign_triton: Callable[..., Tensor], x: Tensor, centroids: Tensor) -> None:
    """Its assignment alone, with the squares of both sides given; it may name another centroid where two are near."""
    squares = [part.float().square().sum(1)[None] for part in (x, centroids)]
    out = torch.empty(1, len(x), dtype=torch.int32, device=x.device)

    def flash(x: Tensor) -> object:
        return euclid_assign_triton(x[None], centroids[None], squares[0], out, squares[1])

    name = f"flash-kmeans's assignment, {str(x.dtype)[6:]}"
    bench.add("kmeans_assign", [x], lambda x: ops.kmeans_assign(x, centroids), x.nbytes, 1.0, (name, flash))
    differ = (flash(x)[0] != ops.kmeans_assign(x, centroids)[0]).float().mean().item()
    print(f"flash-kmeans names another centroid in {differ:.4%} of the rows")


def masking(bench: Bench) -> None:
    n, size = (2, 8) if bench.small else (256, 224)
    images = bench.rotating(lambda: torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, device=bench.device))
    foreground = torch.rand(n, size, size, device=bench.device) < 0.4
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    for dtype in (torch.float32, torch.bfloat16):
        moved = images[0].numel() + foreground.numel() + 5 * images[0].numel() * dtype.itemsize
        bench.add(
            f"masked_variants, {str(dtype)[6:]}",
            images[:8],
            lambda x, t=dtype: ops.masked_variants(x, foreground, mean, std, [0, 1, 2, 3, 4], None, t),
            moved,
            0.85,
        )
    heat = bench.rotating(lambda: torch.randn(4 * n, size, size, device=bench.device))
    mask = torch.rand(4 * n, size, size, device=bench.device) < 0.5
    bench.add("heatmap_iou", heat, lambda h: ops.heatmap_iou(h, mask), heat[0].numel() * 5)


def similarity(bench: Bench) -> None:
    """Beside the bare products, with TF32 off and on."""
    v, n, d = (2, 32, 8) if bench.small else (5, 20_000, 2048)
    x = torch.randn(v, n, d, device=bench.device)
    flat = x.transpose(0, 1).reshape(n, v * d).contiguous()
    grad = torch.randn(v, v, device=bench.device)

    def products(x: Tensor) -> None:
        for i in range(v):
            torch.mm(x[i].T, flat[:, i * d :])

    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        name = f"torch.mm of the products, {'TF32' if precision == 'high' else 'float32'}"
        bench.add("cka_matrix", [x], ops.cka_matrix, x.nbytes, 0.9, (name, products))
    bench.add("cka_matrix_backward", [x], lambda x: ops.cka_matrix_backward(grad, x, True), x.nbytes, None, (name, products))
    torch.set_float32_matmul_precision("highest")
    y = x[:, : n // 4, : max(d // 4, 1)].contiguous()
    bench.add("cca_matrix", [y], ops.cca_matrix, y.nbytes, capture=False)  # its decomposition waits for the device


def regression(bench: Bench) -> None:
    """A step of softmax regression on sparse binary rows beside its dense form."""
    rows, concepts, classes, ones, batch = (50, 40, 10, 4, 16) if bench.small else (200_000, 4000, 1000, 40, 4096)
    device = bench.device
    columns = torch.randint(0, concepts, (rows * ones,), device=device, dtype=torch.int32)
    offsets = torch.arange(rows + 1, device=device) * ones
    target, index = torch.randint(0, classes, (rows,), device=device), torch.randint(0, rows, (batch,), device=device)
    weight = torch.zeros(1, concepts, classes, device=device)
    state = [weight, torch.zeros(classes, device=device), torch.zeros_like(weight), torch.zeros(classes, device=device)]

    def step(function: Callable[..., object]) -> Call:
        return lambda _: function(*state, columns, offsets, target, index, 0.1, 0.9, 1e-4)

    dense = ("the dense form", step(reference.sparse_softmax_sgd_))
    bench.add("sparse_softmax_sgd_", [weight], step(ops.sparse_softmax_sgd_), 4 * weight.nbytes, None, dense)


# In the order of what one would rather not miss.
PARTS = {
    "qscore": qscore,
    "penalty": penalty,
    "small": small,
    "versus": versus,
    "kmeans": kmeans,
    "counts": counts,
    "masking": masking,
    "similarity": similarity,
    "regression": regression,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rows", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    bench = Bench(arguments.device, arguments.rows)
    print(f"copy: {bench.copy / 1e9:.0f} GB/s read plus written", flush=True)
    if arguments.rows:
        print("COPY " + json.dumps(bench.copy / 1e9), flush=True)
    PARTS[arguments.part](bench)


if __name__ == "__main__":
    main()
