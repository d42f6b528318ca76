"""Speed of the interpretability part; ratios are medians of interleaved rounds of one run.

Use OMP_NUM_THREADS=1 on a busy machine: on the CPU ratios are of processor time.

python bench/interpret.py gradcam    closed form against one-by-one GradCAM of the pytorch-grad-cam package
python bench/interpret.py extract    features with heatmaps against features alone
python bench/interpret.py miou       mIoU of 6,858 maps of 224 pixels with core and spurious masks
python bench/interpret.py atlas      writes an atlas of 512 features over 10,000 images and opens it in Chromium
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sslk.interpret.heatmaps import HeatmapSettings

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def timed(function) -> float:
    """Seconds on a GPU; on the CPU seconds of processor time, which a busy machine does not change."""
    if DEVICE == "cpu":
        start = time.process_time()
        function()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def bench_gradcam(
    model: str, images: int, size: int, rounds: int, data: str | None, split: str, discriminative: Path | None
) -> None:
    """Maps of every feature in `L_i` and S of every image: ours in one pass, theirs one image and feature at a time.

    Without --data the images are noise, without --discriminative S holds all features and eps is 2.5.
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    from sslk.data import load_dataset
    from sslk.interpret import feature_heatmaps
    from sslk.interpret.heatmaps import active_features
    from sslk.models import ModelSource, evaluation_transform
    from sslk.quality.discriminative import DiscriminativeFeatures

    torch.manual_seed(0)
    backbone = ModelSource(model).load(device=DEVICE)
    x = torch.randn(images, 3, size, size, device=DEVICE)
    if data is not None:
        dataset = load_dataset(data, split, transform=evaluation_transform(backbone))
        rows = np.linspace(0, len(dataset) - 1, images).astype(int).tolist()
        x = torch.stack([dataset[row][0] for row in rows]).to(DEVICE)
    chosen = torch.ones(backbone.num_features, dtype=torch.bool), 2.5
    if discriminative is not None:
        found = DiscriminativeFeatures.load(discriminative)
        chosen = found.mask, found.eps
    with torch.no_grad():
        active, _ = active_features(backbone(x), *chosen)
    pairs = active.nonzero().tolist()
    feature_list = sorted({j for _, j in pairs})
    cam = GradCAM(model=backbone, target_layers=[backbone.get_submodule(backbone.feature_layer)])
    print(
        f"{model} on {DEVICE}: {images} images of {x.shape[-1]} ({data or 'noise'}), {len(pairs) / images:.1f} features an "
        f"image of {int(chosen[0].sum())} in S"
    )

    def one_by_one(part):
        return [cam(input_tensor=x[i : i + 1], targets=[ClassifierOutputTarget(j)])[0] for i, j in part]

    def ours():
        return feature_heatmaps(backbone, x, settings=HeatmapSettings(eps=chosen[1]), discriminative=chosen[0])

    def minmax(heat):
        heat = heat - heat.min()
        return heat / max(heat.max(), 1e-12)

    sample = pairs[:: max(1, len(pairs) // 24)]
    maps = feature_heatmaps(backbone, x, features=feature_list).per_feature.cpu().numpy()
    theirs = one_by_one(sample)
    worst = max(
        np.abs(minmax(maps[i, feature_list.index(j)]) - minmax(wanted)).max()
        for (i, j), wanted in zip(sample, theirs, strict=True)
    )
    ratios, whole = [], []
    for number in range(rounds + 1):
        ours_seconds = timed(ours)
        their_seconds = timed(lambda: one_by_one(sample)) * len(pairs) / len(sample)
        per_image = timed(lambda: one_by_one(sample[:8])) * images / len(sample[:8])
        if number:
            ratios.append(their_seconds / ours_seconds)
            whole.append(per_image / ours_seconds)
    print(f"largest difference of maps {worst:.1e} (both scaled to [0, 1])")
    print(
        f"all features of L_i in S: x {statistics.median(ratios):.0f} ({min(ratios):.0f} to {max(ratios):.0f} over {rounds} "
        f"rounds; theirs extrapolated from {len(sample)} pairs)"
    )
    print(f"one feature an image: x {statistics.median(whole):.1f}")


def bench_extract(model: str, images: int, size: int, rounds: int) -> None:
    """The combined maps of a batch, at the images' size, on top of the features."""
    from sslk.interpret.heatmaps import heatmap_batches
    from sslk.models import ModelSource

    torch.manual_seed(0)
    backbone = ModelSource(model).load(device=DEVICE)
    # Channels last, as the maps want it: both sides run the same convolutions.
    x = torch.randn(images, 3, size, size, device=DEVICE).contiguous(memory_format=torch.channels_last)
    mask = torch.rand(backbone.num_features, generator=torch.Generator().manual_seed(0)) < 0.45
    parts = x.split(32)

    def features():
        with torch.no_grad():
            for part in parts:
                backbone(part)

    def heat():
        for _ in heatmap_batches(backbone, parts, settings=HeatmapSettings(eps=2.5), discriminative=mask):
            pass

    ratios = []
    for number in range(rounds + 2):
        with_maps, without = timed(heat), timed(features)
        if number > 1:
            ratios.append(with_maps / without - 1)
    print(
        f"{model} on {DEVICE}: heatmaps cost {100 * statistics.median(ratios):.1f} % on top of the features (median of {rounds})"
    )


def bench_miou(images: int, size: int) -> None:
    """Maps of 7 x 7 as they come from a ResNet are resized, scaled and compared with two kinds of masks."""
    from sslk.interpret.raw_maps import resize_and_scale
    from sslk.metrics import HeatmapIoU
    from sslk.statistics.intervals import mean_interval

    g = torch.Generator().manual_seed(0)
    maps = torch.rand(images, 7, 7, generator=g).square()
    masks = torch.rand(2, 256, size, size, generator=g) > 0.7  # 256 different ones stand for all of them
    start, processor = time.perf_counter(), time.process_time()
    metrics = {kind: HeatmapIoU() for kind in ("core", "spurious")}
    for part in torch.arange(images).split(256):
        heat = resize_and_scale(maps[part], (size, size))
        for number, metric in enumerate(metrics.values()):
            metric.update(heat, masks[number, : len(part)])
    found = {kind: mean_interval(metric.values().numpy()) for kind, metric in metrics.items()}
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    print(
        f"{images} images of {size}, two masks, intervals: {seconds:.2f} s with {torch.get_num_threads()} threads, "
        f"{processor:.2f} s of processor time; {found}"
    )


def bench_atlas(features: int, images: int, folder: Path) -> None:
    """Random images and representations; the model is the compact CIFAR network, of another width if need be."""
    from sslk.data import Dataset
    from sslk.features import StoreSpec, StoreWriter
    from sslk.interpret.atlas import AtlasInputs, build_atlas
    from sslk.models import Backbone, EvaluationTransform
    from sslk.quality.discriminative import DiscriminativeFeatures

    if (folder / "atlas" / "index.html").exists():
        open_in_chromium(folder / "atlas" / "index.html")
        return
    g = torch.Generator().manual_seed(0)
    width = 2 * features
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 8, stride=8), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    model = Backbone(net, name="random", input_size=(32, 32))
    pixels = torch.randint(256, (images, 32, 32, 3), dtype=torch.uint8, generator=g).numpy()
    labels = torch.randint(100, (images,), generator=g)
    names = [f"image-{i}.png" for i in range(images)]
    data = Dataset("noise", lambda i: Image.fromarray(pixels[i]), names, labels.numpy(), [f"class {c}" for c in range(100)])
    spec = StoreSpec("random", "0", "noise", "0", "none", images, width, labels=True, classes=tuple(data.classes))
    rows = torch.relu(torch.randn(images, width, generator=g)).square()
    with StoreWriter(folder / "store", spec) as writer:
        for number, part in enumerate(torch.arange(images).split(spec.shard_rows)):
            writer.write(number, rows[part], labels[part], part)
    counts, _ = torch.ops.sslk.activation_counts(rows, 2.0, False)
    found = DiscriminativeFeatures.from_counts(counts, images, eps=2.0, lower=25, upper=75)
    from sslk.features import FeatureStore

    start = time.perf_counter()
    transform = EvaluationTransform((32, 32), (0.5,) * 3, (0.5,) * 3)
    built = build_atlas(AtlasInputs(FeatureStore(folder / "store"), model, data, found, transform), folder / "atlas")
    size = sum(file.stat().st_size for file in (folder / "atlas").rglob("*") if file.is_file()) / 1e6
    print(
        f"{len(built.cards)} features over {images} images written in {time.perf_counter() - start:.0f} s, {size:.0f} MB, "
        f"page {built.page.stat().st_size / 1e6:.1f} MB"
    )
    open_in_chromium(built.page)


def open_in_chromium(page: Path, rounds: int = 3) -> None:
    """Milliseconds from navigation to the end of loading, as the browser itself measures them."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("no chromium: the page was not opened")
        return
    script = """<script>
      addEventListener("load", () => {
        const milliseconds = performance.now();  // since navigation
        const paint = performance.getEntriesByName("first-contentful-paint")[0];
        const images = [...document.images], node = document.createElement("pre");
        const loaded = images.filter(image => image.complete && image.naturalWidth).length;
        node.id = "result";
        node.textContent = JSON.stringify({
          "load [ms]": Math.round(milliseconds), "first paint [ms]": paint ? Math.round(paint.startTime) : null,
          images: images.length, "loaded images": loaded});
        document.body.append(node);
      });
    </script>"""
    driven = page.with_name("timed.html")
    driven.write_text(page.read_text(encoding="utf-8").replace("</body>", script + "</body>"), encoding="utf-8")
    for _ in range(rounds):
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--blink-settings=lazyLoadEnabled=true",  # which --dump-dom turns off
            "--dump-dom",
            driven.as_uri(),
        ]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
        result = re.search(r'<pre id="result">(.*?)</pre>', dom)
        seen = json.loads(result[1]) if result else {}
        print("Chromium:", ", ".join(f"{name} {value}" for name, value in seen.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for name, function, images in (("gradcam", bench_gradcam, 32), ("extract", bench_extract, 64)):
        verb = verbs.add_parser(name)
        verb.set_defaults(run=function)
        verb.add_argument("--model", default="torchvision:resnet50@random")
        verb.add_argument("--images", type=int, default=images)
        verb.add_argument("--size", type=int, default=224)
        verb.add_argument("--rounds", type=int, default=3)
        if function is bench_gradcam:
            verb.add_argument("--data")
            verb.add_argument("--split", default="test")
            verb.add_argument("--discriminative", type=Path)
    verb = verbs.add_parser("miou")
    verb.set_defaults(run=bench_miou)
    verb.add_argument("--images", type=int, default=6858)
    verb.add_argument("--size", type=int, default=224)
    verb = verbs.add_parser("atlas")
    verb.set_defaults(run=bench_atlas)
    verb.add_argument("--features", type=int, default=512)
    verb.add_argument("--images", type=int, default=10_000)
    verb.add_argument("--folder", type=Path, default=None, help="an atlas that is there is only opened")
    options = vars(parser.parse_args())
    run = options.pop("run")
    if "folder" in options and options["folder"] is None:
        options["folder"] = Path(tempfile.mkdtemp(dir=os.environ.get("TMPDIR")))
    run(**options)
