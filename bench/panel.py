"""Speed of the label-free panel: the spectrum over a store, and uniformity, each against the products it cannot do without.

    python bench/panel.py spectrum --gigabytes 0.5
    python bench/panel.py uniformity --rows 16384

The spectrum is set against reading the store's files plus the bare products of the same blocks in float64, uniformity
against the bare products of the same tiles in float32; FLOPs are those of the products on and above the diagonal. Medians over
interleaved repetitions, in one run of one machine.
"""

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sslk.features import FeatureStore, StoreSpec, StoreWriter
from sslk.features.manifest import shard_name
from sslk.features.memory import kept_memory
from sslk.metrics import FeatureSpectrum, rankme, uniformity
from sslk.metrics.spectrum import TRIANGLE_BLOCKS, add_products, blocks_of

WIDTH = 2048
BATCH = 4096


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Peak:
    """The most memory of this process that is not the mapping of a file, in MB, while the block runs."""

    def __enter__(self) -> "Peak":
        self.before = self.most = self._now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.most = max(self.most, self._now())

    @staticmethod
    def _now() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def a_store(folder: Path, gigabytes: float) -> FeatureStore:
    """Random features behind a ReLU in shards of 64 MB; a finished store in the folder is taken as it is."""
    shard_rows = (64 << 20) // (4 * WIDTH)
    shards = max(1, round(gigabytes * 1e9 / (64 << 20)))
    spec = StoreSpec("m", "0", "d", "0", "none", shards * shard_rows, WIDTH, "float32", shard_rows=shard_rows)
    with StoreWriter(folder / "store", spec) as writer:
        h, rows = torch.relu(torch.randn(shard_rows, WIDTH)), torch.arange(shard_rows)
        for number in (number for number in range(shards) if shard_name(number) not in writer.finished):
            writer.write(number, h.roll(number, 1), rows % 10, rows + number * shard_rows)
    return FeatureStore(folder / "store")


def bench_spectrum(gigabytes: float, repetitions: int, folder: Path | None) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        store = a_store(folder or Path(temporary), gigabytes)
        files = [store.path / entry.file for entry in store.manifest.shards]
        total = sum(file.stat().st_size for file in files)
        buffer = bytearray(1 << 20)
        rows = blocks_of(next(iter(store.batches(BATCH))).features)[0].double()
        products = torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
        metric = FeatureSpectrum(WIDTH)

        def read() -> None:
            for file in files:
                fd = os.open(file, os.O_RDONLY)
                while os.readv(fd, [buffer]):
                    pass
                os.close(fd)

        def multiply() -> None:
            for _ in range(len(store) // len(rows)):
                add_products(products, rows)

        def one_pass() -> None:
            metric.reset()
            with kept_memory():
                for batch in store.batches(BATCH):
                    metric.update(batch.features)

        flops = (1 + 1 / TRIANGLE_BLOCKS) * len(store) * WIDTH**2
        read(), add_products(products, rows)
        shares = []
        for _ in range(repetitions):
            reading, multiplying = seconds(read), seconds(multiply)
            with Peak() as peak:
                passing = seconds(one_pass)
            shares.append((reading + multiplying) / passing)
            print(
                f"read {1e-9 * total / reading:.2f} GB/s, products {1e-9 * flops / multiplying:.1f} GFLOP/s float64, pass "
                f"{passing:.2f} s = {1e-9 * flops / passing:.1f} GFLOP/s: {shares[-1]:.3f} x reading plus products; "
                f"memory {peak.most - peak.before:.0f} MB more, {peak.most:.0f} MB in all"
            )
        spectra = seconds(lambda: print(f"RankMe {rankme(metric.compute()['singular_values']):.1f}"))
        print(
            f"spectrum of {len(store)} x {WIDTH} ({1e-9 * total:.2f} GB of float32, {1e-12 * flops:.2f} TFLOP): "
            f"{statistics.median(shares):.3f} x warm reading plus the products; both spectra of the sums {spectra:.1f} s"
        )


def bench_uniformity(rows: int, repetitions: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.nn.functional.normalize(torch.randn(rows, WIDTH, device=device))
    tile = min(rows, 1024 if device == "cpu" else 8192)
    buffer = x.new_empty(tile, tile)

    def multiply() -> None:
        for top in range(0, rows, tile):
            for left in range(top, rows, tile):
                a, b = x[top : top + tile], x[left : left + tile]
                torch.mm(a, b.T, out=buffer[: len(a), : len(b)] if len(b) == tile else x.new_empty(len(a), len(b)))
        buffer[0, 0].item()

    tiles = -(-rows // tile)
    flops = (1 + 1 / tiles) * rows**2 * WIDTH
    seconds(lambda: uniformity(x[: 2 * tile]).item())
    ratios = []
    for _ in range(repetitions):
        multiplying, whole = seconds(multiply), seconds(lambda: uniformity(x).item())
        ratios.append(whole / multiplying)
        print(f"products {1e-9 * flops / multiplying:.1f} GFLOP/s float32, uniformity {whole:.2f} s: {ratios[-1]:.3f} x")
    print(
        f"uniformity of {rows} x {WIDTH} on {device} ({1e-12 * flops:.2f} TFLOP): {statistics.median(ratios):.3f} x the bare "
        "products"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("spectrum")
    one.set_defaults(run=bench_spectrum)
    one.add_argument("--gigabytes", type=float, default=0.5, help="size of the store; 4 is that of the issue")
    one.add_argument("--repetitions", type=int, default=3)
    one.add_argument("--folder", type=Path, default=None, help="keeps the store; by default it is temporary")
    two = verbs.add_parser("uniformity")
    two.set_defaults(run=bench_uniformity)
    two.add_argument("--rows", type=int, default=16384, help="50000 is that of the issue")
    two.add_argument("--repetitions", type=int, default=3)
    options = vars(parser.parse_args())
    run = options.pop("run")
    run(**options)
