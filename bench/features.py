"""Speed of extraction against the bare forward pass, and of discover + score over a store against reading its files.

    python bench/features.py extract --images 256
    python bench/features.py stream --gigabytes 1

Ratios are medians over interleaved repetitions; give a machine to itself for numbers to publish. CPU-second ratios
(of this process, loading workers left out) hold on a busy machine too; use OMP_NUM_THREADS=1 there, waiting threads
burn time.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.data import Dataset

from sslk.features import FeatureStore, StoreSpec, StoreWriter, extract
from sslk.features.manifest import shard_name
from sslk.features.settings import ExtractSettings


class Images(Dataset):
    """uint8 images in memory, normalised as they are loaded."""

    name = "images in memory"
    transform = None

    def __init__(self, n: int) -> None:
        self.pixels = torch.randint(256, (n, 3, 224, 224), dtype=torch.uint8)
        self.labels = torch.randint(1000, (n,)).tolist()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.pixels[index].float().div_(255).sub_(0.45).div_(0.225), self.labels[index]


def bench_extract(images: int, batch_size: int, workers: int, repetitions: int) -> None:
    """ResNet-18 at 224 pixels, float32."""
    from torchvision.models import resnet18

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = resnet18(weights=None).to(device).eval()
    model.fc = torch.nn.Identity()
    data = Images(images)
    batches = [torch.stack([data[i][0] for i in range(s, s + batch_size)]) for s in range(0, images, batch_size)]
    batches = [batch.to(device) for batch in batches]
    ratios, cpu_ratios = [], []
    for repetition in range(repetitions + 1):
        start, cpu = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            for batch in batches:
                model(batch)
        if device == "cuda":
            torch.cuda.synchronize()
        bare, bare_cpu = time.perf_counter() - start, time.process_time() - cpu
        with tempfile.TemporaryDirectory() as folder:
            start, cpu = time.perf_counter(), time.process_time()
            extract(model, data, Path(folder) / "s", ExtractSettings(batch_size, images // 2, workers))
            whole, whole_cpu = time.perf_counter() - start, time.process_time() - cpu
        if repetition:  # the first warms up
            ratios.append(bare / whole)
            cpu_ratios.append(bare_cpu / whole_cpu)
            print(f"forward {images / bare:.1f} images/s, extract {images / whole:.1f} images/s, {bare / whole:.3f}")
    print(
        f"extraction at {statistics.median(ratios):.3f} x the bare forward pass (median of {repetitions}, {device}); "
        f"{statistics.median(cpu_ratios):.3f} in CPU seconds"
    )


def anonymous_megabytes() -> float:
    """Memory of this process that is not the mapping of a file."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def bench_stream(gigabytes: float, dtype: str, repetitions: int, folder: Path) -> None:
    """A store of D = 2048 in shards of 64 MB; both passes, against reading the files twice into one buffer.

    A finished store in the folder is used as it is, so that a second run measures alone.
    """
    from sslk.quality import discover, qscore

    size = {"float32": 4, "float16": 2, "bfloat16": 2}[dtype]
    shard_rows = (64 << 20) // (2048 * size)
    shards = max(1, round(gigabytes * 1e9 / (64 << 20)))
    spec = StoreSpec("m", "0", "d", "0", "none", shards * shard_rows, 2048, dtype, shard_rows=shard_rows)
    with StoreWriter(folder / "store", spec) as writer:
        h = torch.relu(torch.randn(shard_rows, 2048))
        rows = torch.arange(shard_rows)
        for number in (number for number in range(shards) if shard_name(number) not in writer.finished):
            writer.write(number, h.roll(number, 0), rows % 10, rows + number * shard_rows)
    store = FeatureStore(folder / "store")
    files = [store.path / entry.file for entry in store.manifest.shards]
    total = sum(file.stat().st_size for file in files)
    buffer = bytearray(1 << 20)

    def read() -> None:
        for file in files:
            fd = os.open(file, os.O_RDONLY)
            while os.readv(fd, [buffer]):
                pass
            os.close(fd)

    found = discover(store, 2.0)
    ratios, cpu_ratios, before = [], [], anonymous_megabytes()
    peak = before

    def watch(done: int, rows: int, stage: str) -> None:
        nonlocal peak
        peak = max(peak, anonymous_megabytes())

    discover(store, 2.0, progress=watch)
    qscore(store, found, progress=watch)
    for _ in range(repetitions):
        start, cpu = time.perf_counter(), time.process_time()
        read()
        read()
        reading, reading_cpu = time.perf_counter() - start, time.process_time() - cpu
        start, cpu = time.perf_counter(), time.process_time()
        discover(store, 2.0)
        middle = time.perf_counter()
        qscore(store, found)
        end = time.perf_counter()
        ratios.append(reading / (end - start))
        cpu_ratios.append(reading_cpu / (time.process_time() - cpu))
        print(
            f"read {2e-9 * total / reading:.2f} GB/s, discover {1e-9 * total / (middle - start):.2f} GB/s, "
            f"score {1e-9 * total / (end - middle):.2f} GB/s, {ratios[-1]:.3f}"
        )
    print(
        f"discover + score at {statistics.median(ratios):.3f} x reading ({1e-9 * total:.2f} GB of {dtype}); "
        f"{statistics.median(cpu_ratios):.3f} in CPU seconds, all threads together"
    )
    print(f"memory beyond the mapping grew by {peak - before:.0f} MB over the {before:.0f} MB before")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("extract")
    one.set_defaults(run=bench_extract)
    one.add_argument("--images", type=int, default=256)
    one.add_argument("--batch-size", type=int, default=32)
    one.add_argument("--workers", type=int, default=2)
    one.add_argument("--repetitions", type=int, default=3)
    two = verbs.add_parser("stream")
    two.set_defaults(run=bench_stream)
    two.add_argument("--gigabytes", type=float, default=1.0)
    two.add_argument("--dtype", default="float32")
    two.add_argument("--repetitions", type=int, default=5)
    two.add_argument("--folder", type=Path, default=None)
    options = vars(parser.parse_args())
    run = options.pop("run")
    if options.get("folder", True) is None:
        with tempfile.TemporaryDirectory() as temporary:
            run(**{**options, "folder": Path(temporary)})
    else:
        run(**options)
