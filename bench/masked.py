"""Speed of the masked-input study against what it replaces, and whether both agree.

    python bench/masked.py variants   # five variants against the forward pass of one
    python bench/masked.py matrices   # CKA and CCA of 15 representations against a loop over pairs
    python bench/masked.py folds      # five-fold evaluation of five variants against scikit-learn's loop
    python bench/masked.py segment    # GrabCut at its working size against full size, on generated photos of 12 megapixels
    python bench/masked.py memory     # peak memory of the matrices with their intervals at several numbers of rows

The C library's allocator gives large activations back to the system after every layer, and taking them again costs a
third of a forward pass: MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 keeps them.

Times are CPU seconds of the process, which hold on a busy machine too; set OMP_NUM_THREADS=1 there, waiting threads burn
time. Ratios are medians over interleaved repetitions. The loop over pairs is timed on a few pairs and scaled to all of
them, and so are the sums over batches, of equal sizes; the output says how many were timed. Every part ends with one line
of JSON.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from sslk.masked import MaskedBackbone, MaskedImages, VariantRenderer
from sslk.masked.analysis import one_variant
from sslk.masked.evaluation import fold_accuracy
from sslk.metrics import Similarity
from sslk.models import ModelSource, load_backbone
from sslk.results.provenance import provenance


def timed(function):
    """CPU seconds of this process, all threads together, and the result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def bench_variants(model: str, image_size: int, batch: int, repetitions: int) -> dict:
    """One decode for all: normalised images through the network once, against masking and five passes."""
    backbone = ModelSource(model, image_size=image_size).load()
    renderer = VariantRenderer(mean=backbone.mean, std=backbone.std)
    masked = MaskedBackbone(backbone, renderer).eval()
    images = torch.randint(256, (batch, 4, image_size, image_size), dtype=torch.uint8)
    original = VariantRenderer(["original"], backbone.mean, backbone.std)(images)[0]
    times: dict[str, list[float]] = {"one": [], "five": [], "masking": []}
    with torch.inference_mode():
        for repetition in range(repetitions + 1):
            now = {
                "one": timed(lambda: backbone(original))[0],
                "five": timed(lambda: masked(images))[0],
                "masking": timed(lambda: renderer(images))[0],
            }
            if repetition:
                for name, seconds in now.items():
                    times[name].append(seconds)
    return {
        "model": model,
        "image_size": image_size,
        "batch": batch,
        "one_forward_s": statistics.median(times["one"]),
        "five_variants_over_one_forward": statistics.median(
            five / one for five, one in zip(times["five"], times["one"], strict=True)
        ),
        "masking_share_of_five": statistics.median(
            part / five for part, five in zip(times["masking"], times["five"], strict=True)
        ),
    }


def gram_cka(x: torch.Tensor, y: torch.Tensor) -> float:
    """The usual code: centred N x N Gram matrices."""

    def centred(z):
        k = z @ z.T
        k -= k.mean(0)
        k -= k.mean(1, keepdim=True)
        return k

    k, m = centred(x), centred(y)
    return float((k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt())


def svd_cca(x: torch.Tensor, y: torch.Tensor) -> float:
    """The usual code: bases by SVD, for every pair anew."""
    p, q = (torch.linalg.svd(z - z.mean(0), full_matrices=False)[0] for z in (x, y))
    return float((p.T @ q).square().sum() / min(p.shape[1], q.shape[1]))


def bench_matrices(representations: int, rows: int, width: int, pairs: int, batch: int, timed_batches: int) -> dict:
    """Streamed sums against pairs; the features are low-rank signal plus noise, made batch by batch for the stream."""
    mixing = torch.randn(representations, 64, width, generator=torch.Generator().manual_seed(0))

    def features(start: int, stop: int) -> list[torch.Tensor]:
        g = torch.Generator().manual_seed(start + 1)
        shared = torch.randn(stop - start, 64, generator=g)
        return [shared @ m + torch.randn(stop - start, width, generator=g) for m in mixing]

    data = [features(start, min(start + batch, rows)) for start in range(0, rows, batch)]
    metric = Similarity([width] * representations)
    spent = [timed(lambda parts=parts: metric.update(*parts))[0] for parts in data[:timed_batches]]
    peaks = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]
    finish = timed(metric.compute)[0]
    seconds = len(data) * statistics.median(spent) + finish
    exact = Similarity([width] * 2)  # the values must be those of all rows
    for parts in data:
        exact.update(*parts[:2])
    answer = exact.compute()
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    per_pair, errors = {"cka": [], "cca": []}, []
    x, y = (torch.cat([parts[w] for parts in data]) for w in (0, 1))
    for _ in range(pairs):
        cost, value = timed(lambda: gram_cka(x, y))
        per_pair["cka"].append(cost)
        errors.append(abs(value - float(answer["biased"][0, 1])))
        cost, value = timed(lambda: svd_cca(x, y))
        per_pair["cca"].append(cost)
        errors.append(abs(value - float(answer["r2"][0, 1])))
    count = representations * (representations - 1) // 2
    loop = count * sum(statistics.median(costs) for costs in per_pair.values())
    return {
        "representations": representations,
        "rows": rows,
        "width": width,
        "batches": len(data),
        "batches_timed": len(spent),
        "batch_s": statistics.median(spent),
        "compute_s": finish,
        "streamed_s": seconds,
        "gram_cka_s_per_pair": statistics.median(per_pair["cka"]),
        "svd_cca_s_per_pair": statistics.median(per_pair["cca"]),
        "pairs_timed": pairs,
        "pairs": count,
        "loop_s_scaled": loop,
        "times_faster": loop / seconds,
        "largest_difference": max(errors),
        "state_MB": metric.sums.nbytes / 1e6,
        "peak_MB": peaks[-1] / 1e3,
    }


def bench_memory(rows: list[int], width: int, models: int) -> dict:
    """Both passes of `compare_variants` in a fresh process for every number of rows; batches are made on the fly."""
    return {
        "width": width,
        "models": models,
        "variants": 5,
        "rows": rows,
        "sums_MB": 8e-6 * (5 * models * width) ** 2,
        "peak_MB": [
            int(
                subprocess.run(
                    [sys.executable, __file__, "peak", f"{n}", f"{width}", f"{models}"],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.split()[-1]
            )
            / 1e3
            for n in rows
        ],
    }


def peak(rows: int, width: int, models: int) -> None:
    """Print the peak memory of this process in kB."""
    from sslk.masked.similarity import compare_variants

    def stream():
        g = torch.Generator().manual_seed(0)
        for _ in range(0, rows, 500):
            yield torch.randn(5, 500, width, generator=g).unbind()

    compare_variants(
        {f"m{number}": stream for number in range(models)},
        {f"m{number}": width for number in range(models)},
        "abcde",
        resamples=200,
    )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def bench_folds(images: int) -> dict:
    """Real features: five variants of the embedded sample under the embedded encoder, discs for masks."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from sslk.data import load_dataset
    from sslk.features import FeatureStore
    from sslk.masked import build_masks, choose_images, extract_variants, segmenter
    from sslk.models import evaluation_transform

    folder = Path("runs/bench-masked")
    data, backbone = load_dataset("sample", "train"), load_backbone("embedded")
    masks = build_masks(data, segmenter("grabcut"), folder / f"masks-{images}", indices=choose_images(data, images))
    store: FeatureStore = extract_variants(
        backbone, MaskedImages(data, evaluation_transform(backbone), masks), folder / f"store-{images}"
    )
    labels = store.labels()
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    usual = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    ours_s, theirs_s, ours, theirs = [], [], [], []
    fold_accuracy(one_variant(store, "original")[::8], labels[::8])  # warm
    for variant in store.spec.variants:
        x = one_variant(store, variant)
        seconds, result = timed(lambda x=x: fold_accuracy(x, labels))
        ours_s.append(seconds)
        ours.append(100 * result.mean)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seconds, scores = timed(
                lambda x=x: cross_val_score(usual, x.numpy(), labels.numpy(), cv=folds, scoring="balanced_accuracy")
            )
        theirs_s.append(seconds)
        theirs.append(100 * float(np.mean(scores)))
    return {
        "images": len(labels),
        "width": backbone.num_features,
        "ours_s": sum(ours_s),
        "scikit_learn_s": sum(theirs_s),
        "times_faster": sum(theirs_s) / sum(ours_s),
        "balanced_accuracy": ours,
        "scikit_learn_accuracy": theirs,
        "largest_difference_points": max(abs(a - b) for a, b in zip(ours, theirs, strict=True)),
    }


def bench_segment(photos: int, side: int) -> dict:
    """A bright disc on a smooth coloured ground with noise; masks of both sizes must agree."""
    import tempfile

    import cv2
    from PIL import Image

    from sslk.data import load_dataset
    from sslk.masked import build_masks, segmenter

    cv2.setNumThreads(1)
    folder, generator = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    y, x = np.mgrid[:3000, :4000]
    for number in range(photos):
        ground = Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize(
            (4000, 3000), Image.Resampling.BICUBIC
        )
        pixels = np.asarray(ground).astype(np.int16) // 2
        disc = (y - 1400) ** 2 + (x - 2100 + 100 * number) ** 2 < 800**2
        pixels[disc] = pixels[disc] // 3 + np.array([150, 40, 20])
        pixels += generator.integers(-12, 13, pixels.shape, dtype=np.int16)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
    data = load_dataset(f"folder:{folder}")
    count, found, seconds = {side: photos, 0: 1}, {}, {}
    for size, images in count.items():
        taken, masks = timed(
            lambda s=size, n=images: build_masks(data, segmenter("grabcut", side=s), folder / f"m{s}", indices=range(n))
        )
        seconds[size], found[size] = taken / images, masks[0]
    agreement = (found[side] & found[0]).sum() / (found[side] | found[0]).sum()
    return {
        "side": side,
        "photos": photos,
        "seconds_a_photo": seconds[side],
        "full_size_seconds_a_photo": seconds[0],
        "iou_of_the_first": float(agreement),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        peak(*map(int, sys.argv[2:]))
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("variants")
    one.set_defaults(run=bench_variants)
    one.add_argument("--model", default="efficientnet-lite0")
    one.add_argument("--image-size", type=int, default=224)
    one.add_argument("--batch", type=int, default=16)
    one.add_argument("--repetitions", type=int, default=7)
    two = verbs.add_parser("matrices")
    two.set_defaults(run=bench_matrices)
    two.add_argument("--representations", type=int, default=15)
    two.add_argument("--rows", type=int, default=10_000)
    two.add_argument("--width", type=int, default=1280)
    two.add_argument("--pairs", type=int, default=1)
    two.add_argument("--batch", type=int, default=1000)
    two.add_argument("--timed-batches", type=int, default=3)
    three = verbs.add_parser("folds")
    three.set_defaults(run=bench_folds)
    three.add_argument("--images", type=int, default=4000)
    five = verbs.add_parser("segment")
    five.set_defaults(run=bench_segment)
    five.add_argument("--photos", type=int, default=3)
    five.add_argument("--side", type=int, default=256)
    four = verbs.add_parser("memory")
    four.set_defaults(run=bench_memory)
    four.add_argument("--rows", type=int, nargs="+", default=[2_500, 10_000, 40_000])
    four.add_argument("--width", type=int, default=128)
    four.add_argument("--models", type=int, default=2)
    options = vars(parser.parse_args())
    run = options.pop("run")
    print(json.dumps({**run(**options), "machine": provenance({})["machine"]}))
