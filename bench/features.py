"""Speed of extraction against loops as users write them, and of discover + score over a store against reading its files.

    python bench/features.py extract --images 256
    python bench/features.py stream --gigabytes 1

Ratios are medians over interleaved repetitions; give a machine to itself for numbers to publish. CPU-second ratios
hold on a busy machine too; use OMP_NUM_THREADS=1 there, waiting threads burn time.
"""

import argparse
import io
import os
import re
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torchvision.transforms as T
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet50

from sslk.features import FeatureStore, StoreSpec, StoreWriter, extract
from sslk.features.manifest import shard_name
from sslk.features.settings import ExtractSettings


class Photos(Dataset):
    """JPEGs of 500 x 375 in memory, about 60 KB each, decoded and cut to 224 pixels as they are loaded."""

    name = "photos"

    def __init__(self, n: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.transform = T.Compose(
            [T.Resize(256), T.CenterCrop(224), T.ToTensor(), T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
        )
        self.labels = torch.randint(1000, (n,), generator=generator).tolist()
        self.files = []
        for _ in range(n):
            coarse = torch.rand(1, 3, 47, 63, generator=generator)
            smooth = torch.nn.functional.interpolate(coarse, (375, 500), mode="bicubic")[0]
            noisy = smooth + 0.05 * torch.randn(3, 375, 500, generator=generator)
            self.files.append(io.BytesIO())
            T.functional.to_pil_image(noisy.clamp(0, 1)).save(self.files[-1], "JPEG", quality=85)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.open(io.BytesIO(self.files[index].getvalue()))), self.labels[index]


class Decoded(Dataset):
    """The same images as tensors in memory."""

    name, transform = "decoded photos", None

    def __init__(self, n: int) -> None:
        photos = Photos(n)
        self.labels = photos.labels
        self.images = torch.stack([image for image, _ in photos])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], self.labels[index]


def plain_loop(model: torch.nn.Module, data: Dataset, options: dict[str, int], channels_last: bool, half: bool) -> torch.Tensor:
    """What a careful user writes: a DataLoader with workers, inference mode, layout and precision by choice."""
    device = next(model.parameters()).device
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(memory_format=layout)
    features = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        for images, _ in DataLoader(data, pin_memory=device.type == "cuda", **options):
            features.append(model(images.to(device, non_blocking=True).contiguous(memory_format=layout)))
    model.to(memory_format=torch.contiguous_format)
    return torch.cat(features).float().cpu()


def bench_extract(images: int, batch_size: int, workers: int, repetitions: int, decoded: bool, only: str) -> None:
    """ResNet-50 at 224 pixels: four plain loops, and `extract` in two precisions, interleaved."""
    model = resnet50(weights=None).to("cuda" if torch.cuda.is_available() else "cpu").eval()
    model.fc = torch.nn.Identity()
    data = (Decoded if decoded else Photos)(images)
    options = {"batch_size": batch_size, "num_workers": workers}

    def extracted(amp: str) -> torch.Tensor:
        with tempfile.TemporaryDirectory() as folder:
            settings = ExtractSettings(batch_size, workers=workers, amp=amp, dtype="float32")
            return extract(model, data, Path(folder) / "s", settings).load().features.clone()

    ways = {
        "plain": lambda: plain_loop(model, data, options, False, False),
        "channels-last": lambda: plain_loop(model, data, options, True, False),
        "extract": lambda: extracted("off"),
        "bfloat16": lambda: plain_loop(model, data, options, False, True),
        "bfloat16, channels-last": lambda: plain_loop(model, data, options, True, True),
        "extract, bfloat16": lambda: extracted("bfloat16"),
    }
    ways = {name: way for name, way in ways.items() if re.search(only, name)}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    cpu_speeds: dict[str, list[float]] = {name: [] for name in ways}
    plain_loop(model, torch.utils.data.Subset(data, range(min(images, batch_size))), options, True, False)  # warms up
    reference = None
    for _ in range(repetitions):
        for name, way in ways.items():
            start, cpu = time.perf_counter(), sum(os.times()[:4])
            features = way()
            speeds[name].append(images / (time.perf_counter() - start))
            cpu_speeds[name].append(images / (sum(os.times()[:4]) - cpu))
            reference = features if name == "plain" else reference
            if name == "extract" and reference is not None:
                print(f"extract differs from the plain loop by {(features - reference).abs().max() / reference.abs().max():.1e}")
    kind = f"{next(model.parameters()).device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"ResNet-50, 224 pixels, {images} {data.name}, batches of {batch_size}, {workers} workers; {kind}")
    print(f"{'':24} images/s    to the best plain loop of its precision   images per CPU second, workers included")
    for half in (False, True):
        group = [name for name in ways if ("bfloat16" in name) == half]
        medians = {name: statistics.median(speeds[name]) for name in group}
        best = max((name for name in group if "extract" not in name), key=medians.__getitem__, default=None)
        for name in group:
            ratio = statistics.median(a / b for a, b in zip(speeds[name], speeds[best], strict=True)) if best else float("nan")
            print(f"{name:24} {medians[name]:8.1f}    {ratio:8.3f} {'':31} {statistics.median(cpu_speeds[name]):8.2f}")


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
    one.add_argument("--decoded", action="store_true", help="tensors in memory instead of JPEGs")
    one.add_argument("--only", default="", help="a pattern of the ways to measure")
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
