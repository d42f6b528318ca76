"""Times every CUDA op and compares with the copy rate measured on the same card; `bench/gpu.sh` runs it.

`share` is the op's rate (bytes that must move, each counted once, over the median time) as a share of the rate of a
large device-to-device copy, bytes read plus written. Inputs rotate over buffers larger than the L2 cache inside one
CUDA graph, so that neither the cache nor launch gaps are measured; where an op cannot be captured its row says so.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import ssl_kernels

BUFFER_BYTES = 768 << 20  # of rotating inputs, several times any L2 cache
ROUNDS = 15


@dataclass
class Row:
    op: str
    dtype: str
    shape: list[int]
    mbytes: float  # that must move
    ms: float
    gbps: float
    share: float  # of the copy rate, or of `against`
    against: str
    captured: bool  # timed as a CUDA graph
    spread: float  # (slowest - fastest) / median of the rounds


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def time_calls(calls: list[Callable[[], object]], device: str) -> tuple[float, bool, float]:
    """Seconds per call (median over rounds through all of `calls`), whether captured, and the spread."""
    for call in calls[:2]:
        call()
    synchronize(device)
    graph = capture(calls) if device == "cuda" else None
    run = graph.replay if graph is not None else lambda: [call() for call in calls]
    run()
    times = []
    for _ in range(ROUNDS if device == "cuda" else 2):
        if device == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3 / len(calls))
        else:
            begin = time.perf_counter()
            run()
            times.append((time.perf_counter() - begin) / len(calls))
    median = statistics.median(times)
    return median, graph is not None, (max(times) - min(times)) / median


def capture(calls: list[Callable[[], object]]) -> torch.cuda.CUDAGraph | None:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.stream(stream):
            calls[0]()
            with torch.cuda.graph(graph, stream=stream):
                for call in calls:
                    call()
    except RuntimeError:  # something in the op waits for the device
        torch.cuda.synchronize()
        return None
    torch.cuda.synchronize()
    return graph


def rotating(make: Callable[[], Tensor], device: str) -> list[Tensor]:
    first = make()
    bytes_each = max(first.numel() * first.element_size(), 1)
    return [first, *(make() for _ in range(min(64, BUFFER_BYTES // bytes_each) if device == "cuda" else 0))]


def copy_rate(device: str) -> float:
    """Bytes per second of a large copy, read plus written."""
    source = torch.randn((1 << 30) // 4 if device == "cuda" else 1 << 20, device=device)
    target = torch.empty_like(source)
    seconds, _, _ = time_calls([lambda: target.copy_(source)], device)
    return 2 * source.numel() * 4 / seconds


class Bench:
    def __init__(self, device: str, small: bool) -> None:
        self.device, self.small, self.rows = device, small, []
        self.copy = copy_rate(device)

    def add(
        self,
        op: str,
        inputs: list[Tensor],
        call: Callable[[Tensor], object],
        nbytes: float,
        against: Callable[[Tensor], object] | None = None,
        name: str = "copy",
    ) -> None:
        seconds, captured, spread = time_calls([lambda x=x: call(x) for x in inputs], self.device)
        rate = nbytes / seconds
        share = rate / self.copy
        if against is not None:
            share = time_calls([lambda x=x: against(x) for x in inputs], self.device)[0] / seconds
        row = Row(
            op,
            str(inputs[0].dtype)[6:],
            list(inputs[0].shape),
            nbytes / 1e6,
            seconds * 1e3,
            rate / 1e9,
            share,
            name,
            captured,
            spread,
        )
        self.rows.append(row)
        print(
            f"{op:26s} {row.dtype:9s} {row.shape!s:24s} {row.ms:9.4f} ms {row.gbps:8.1f} GB/s  {share:5.2f} x {name}"
            f"{'' if captured else '  (not captured)'}",
            flush=True,
        )

    def row_ops(self) -> None:
        ops = torch.ops.sslk
        sizes = [(40000, 2048), (40000, 8192), (160000, 512), (80000, 1024), (600000, 64), (300000, 256)]
        for n, d in [(64, 128)] if self.small else sizes:
            for dtype in (torch.float32, torch.bfloat16):
                item = dtype.itemsize
                inputs = rotating(lambda n=n, d=d, dtype=dtype: torch.randn(n, d, device=self.device).to(dtype), self.device)
                chosen = torch.arange(d, device=self.device) % 4 == 0
                grad_q, grad_c = torch.randn(n, device=self.device), torch.randn(d, device=self.device)
                read, both = n * d * item, 2 * n * d * item
                self.add("qscore", inputs, lambda h, s=chosen: ops.qscore(h, s), read)
                self.add(
                    "qscore_backward", inputs, lambda h, s=chosen, g=grad_q: ops.qscore_backward(g, h, s, 4.0, True, False), both
                )
                self.add("activating_mask", inputs, lambda h: ops.activating_mask(h), read + n * d)
                self.add("activation_counts", inputs, lambda h: ops.activation_counts(h), read)
                self.add("row_moments", inputs, lambda h: ops.row_moments(h), read)
                self.add("column_l1", inputs, lambda h: ops.column_l1(h), read)
                self.add("qscore_penalty", inputs, lambda h, s=chosen: ops.qscore_penalty(h, s), read)
                self.add(
                    "qscore_penalty_backward",
                    inputs,
                    lambda h, s=chosen, g=grad_q, c=grad_c: ops.qscore_penalty_backward(g, c, h, s, 4.0, True, False),
                    both,
                )
                del inputs

    def image_ops(self) -> None:
        n, size = (2, 8) if self.small else (256, 224)
        images = rotating(lambda: torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, device=self.device), self.device)
        foreground = torch.rand(n, size, size, device=self.device) < 0.4
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        for dtype in (torch.float32, torch.bfloat16):
            written = 5 * images[0].numel() * dtype.itemsize
            self.add(
                "masked_variants",
                images[:8],
                lambda x, t=dtype: torch.ops.sslk.masked_variants(x, foreground, mean, std, [0, 1, 2, 3, 4], None, t),
                images[0].numel() + foreground.numel() + written,
            )
        heat = rotating(lambda: torch.randn(16 * n, size, size, device=self.device), self.device)
        mask = torch.rand(16 * n, size, size, device=self.device) < 0.5
        self.add("heatmap_iou", heat, lambda h: torch.ops.sslk.heatmap_iou(h, mask), heat[0].numel() * 5)

    def similarity_ops(self) -> None:
        v, n, d = (2, 32, 8) if self.small else (5, 20000, 2048)
        x = torch.randn(v, n, d, device=self.device)

        def products(x: Tensor) -> None:
            for i in range(v):
                torch.mm(x[i].T, x[i:].transpose(0, 1).reshape(n, -1) if self.small else flat[:, i * d :])

        flat = x.transpose(0, 1).reshape(n, v * d).contiguous()
        grad = torch.randn(v, v, device=self.device)
        nbytes = x.numel() * 4
        self.add("cka_matrix", [x], lambda x: torch.ops.sslk.cka_matrix(x), nbytes, products, "torch.mm of the products")
        self.add(
            "cka_matrix_backward",
            [x],
            lambda x: torch.ops.sslk.cka_matrix_backward(grad, x, True),
            nbytes,
            products,
            "torch.mm of the products",
        )
        y = x[:, : n // 4, : max(d // 4, 1)].contiguous()
        self.add("cca_matrix", [y], lambda y: torch.ops.sslk.cca_matrix(y), y.numel() * 4)

    def kmeans(self) -> None:
        n, d, k = (64, 16, 5) if self.small else (1_280_000, 2048, 1000)
        x = torch.randn(n, d, device=self.device)
        centroids = torch.randn(k, d, device=self.device)
        nbytes = x.numel() * 4
        self.add("kmeans_assign", [x], lambda x: torch.ops.sslk.kmeans_assign(x, centroids), nbytes)
        for name, search in peers(x, centroids):
            self.add(f"kmeans: {name}", [x], search, nbytes)


def peers(x: Tensor, centroids: Tensor) -> Iterator[tuple[str, Callable[[Tensor], object]]]:
    """Other ways to assign, where they are installed."""
    if x.device.type != "cuda":
        return
    try:
        faiss = importlib.import_module("faiss")
        importlib.import_module("faiss.contrib.torch_utils")
        resources = faiss.StandardGpuResources()
        yield "faiss", lambda x: faiss.knn_gpu(resources, x, centroids, 1)
    except (ImportError, AttributeError):
        print("faiss with GPU support is not installed: no comparison with it.")
    try:
        assign = importlib.import_module("flash_kmeans").batch_kmeans_Euclid
        yield (
            "flash_kmeans, one iteration",
            lambda x: assign(x[None], n_clusters=len(centroids), max_iters=1, init_centroids=centroids[None]),
        )
    except (ImportError, AttributeError):
        print("flash-kmeans is not installed: no comparison with it.")


def commit() -> str:
    root = Path(__file__).resolve().parents[1]
    try:
        return subprocess.check_output(["git", "-C", root, "rev-parse", "HEAD"], text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine(device: str) -> dict[str, object]:
    about: dict[str, object] = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "build": ssl_kernels.build_info(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split("\n")[0].strip()
        about |= {
            "card": properties.name,
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "capability": f"{properties.major}.{properties.minor}",
            "driver": driver or "unknown",
        }
    return about


def run_once(device: str) -> None:
    """Every op once on odd sizes, for compute-sanitizer."""
    ops = torch.ops.sslk
    for n, d in [(7, 3), (50, 61), (33, 257), (65, 1003), (17, 2051), (9, 8200)]:
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            h = torch.randn(n, d + 1, device=device).to(dtype)[:, 1:]
            h[0] = 1.0  # takes the exact path
            chosen = torch.ones(d, dtype=torch.bool, device=device)
            _, q, c = ops.qscore_penalty(h, chosen, eps=1.0)
            ops.qscore(h, chosen, 1.0)
            ops.qscore_penalty_backward(q, c, h, chosen, 1.0, True, True)
            ops.qscore_backward(q, h, chosen, 1.0, True, False)
            ops.activating_mask(h, 1.0)
            ops.activation_counts(h, 1.0)
            ops.row_moments(h)
            ops.column_l1_backward(ops.column_l1(h), h, True)
            ops.kmeans_assign(h, h[:5])
    images = torch.randint(0, 256, (3, 3, 9, 7), dtype=torch.uint8, device=device)
    foreground = torch.rand(3, 9, 7, device=device) < 0.5
    ops.masked_variants(images, foreground, [0.5] * 3, [0.2] * 3, [0, 1, 2, 3, 4])
    ops.heatmap_iou(torch.randn(3, 9, 7, device=device), foreground)
    for n, d in ((40, 9), (9, 40)):
        x = torch.randn(3, n, d, device=device)
        ops.cka_matrix_backward(ops.cka_matrix(x), x, True)
        ops.cca_matrix(x)
    synchronize(device)
    print("Every op ran once.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--once", action="store_true", help="run every op once on odd sizes and stop")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on the CPU: checks this script, measures nothing")
    parser.add_argument("--stage", action="append", default=[], metavar="NAME=RESULT", help="recorded in the JSON")
    arguments = parser.parse_args()
    device = "cpu" if arguments.smoke else "cuda"
    torch.manual_seed(0)
    if arguments.once:
        run_once(device)
        return
    bench = Bench(device, small=arguments.smoke)
    print(f"copy: {bench.copy / 1e9:.0f} GB/s read plus written")
    for part in (bench.row_ops, bench.image_ops, bench.similarity_ops, bench.kmeans):
        part()
    result = {
        "commit": commit(),
        "machine": machine(device),
        "stages": dict(stage.split("=", 1) for stage in arguments.stage),
        "copy_gbps": bench.copy / 1e9,
        "rows": [asdict(row) for row in bench.rows],
    }
    assert all(math.isfinite(row.ms) for row in bench.rows)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"Wrote {arguments.out}.")


if __name__ == "__main__":
    main()
