"""Prepares the inputs of the published interpretability runs: GrabCut masks, who is classified correctly, training images.

    python bench/interpret_runs.py grabcut --test cifar10_test.npz --out runs/cifar --images 2000
    python bench/interpret_runs.py folds --store runs/effnet-tiny --out runs/tiny-correct.csv
    python bench/interpret_runs.py probe --train-store runs/embedded-train --images runs/cifar/images.npz --out runs/correct.csv
    python bench/interpret_runs.py subset --train cifar10_train.npz --out runs/cifar-train.npz --images 5000

The commands that use them stand in docs/interpretability.md.
"""

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from sslk.probes.settings import LinearSettings


def grabcut_core(image: np.ndarray) -> np.ndarray:
    """bool `[H, W]`, GrabCut's foreground of one uint8 image `[H, W, 3]`."""
    large = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    mask = np.zeros(large.shape[:2], np.uint8)
    cv2.setRNGSeed(0)
    rectangle = (8, 8, large.shape[1] - 16, large.shape[0] - 16)
    cv2.grabCut(large[..., ::-1].copy(), mask, rectangle, None, None, 5, cv2.GC_INIT_WITH_RECT)
    inside = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    return cv2.resize(inside, image.shape[1::-1], interpolation=cv2.INTER_AREA) >= 0.5


def grabcut(test: Path, out: Path, images: int) -> None:
    """The first of 2,000 evenly spread test images, and a mask folder: core is GrabCut's foreground, spurious the rest.

    GrabCut (Rother et al., SIGGRAPH 2004; OpenCV's) starts from a rectangle two pixels inside the border of the image
    enlarged four times. Images where it finds nothing, or everything, get no mask.
    """
    with np.load(test) as arrays:
        chosen = np.unique(np.linspace(0, len(arrays["images"]) - 1, 2000).astype(int))[:images]
        pixels, labels = arrays["images"][chosen], arrays["labels"][chosen]
        classes = {"classes": arrays["classes"]} if "classes" in arrays else {}
    (out / "masks").mkdir(parents=True, exist_ok=True)
    np.savez(out / "images.npz", images=pixels, labels=labels, **classes)
    rows, shares = [], []
    for number, image in enumerate(pixels):
        done = out / f"masks/{number}-core.png"  # an interrupted run goes on where it stopped
        core = np.asarray(Image.open(done)) > 0 if done.exists() else grabcut_core(image)
        if not 0 < core.mean() < 1:
            continue
        shares.append(core.mean())
        for kind, region in (("core", core), ("spurious", ~core)):
            file = f"masks/{number}-{kind}.png"
            if not (out / file).exists():
                Image.fromarray((region * 255).astype(np.uint8)).save(out / file)
            rows.append([f"images.npz[{number}]", file, kind])
    with (out / "masks.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "mask", "kind"], *rows])
    print(f"{len(shares)} of {len(pixels)} images have a mask, which covers {np.mean(shares):.3f} on average")


def write_correct(correct: torch.Tensor, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as stream:
        csv.writer(stream).writerows([["index", "correct"], *enumerate(correct.int().tolist())])
    print(f"{out}: {100 * correct.double().mean():.2f} % of {len(correct)} images are classified correctly")


def folds(store: Path, out: Path) -> None:
    """Out-of-fold linear probes on all rows of a store."""
    from sslk.features import FeatureStore
    from sslk.interpret.correctness import out_of_fold_correct

    rows = FeatureStore(store).load()
    write_correct(out_of_fold_correct(rows.features.float(), rows.labels, epochs=6), out)


def probe(train_store: Path, images: Path, out: Path) -> None:
    """A linear probe on the store of a training set, tested on the embedded encoder's features of some images."""
    from sslk.features import FeatureStore
    from sslk.models.embedded import load_embedded, normalize_images
    from sslk.probes.linear import linear_probe

    train = FeatureStore(train_store).load()
    encoder, _ = load_embedded()
    with np.load(images) as arrays, torch.inference_mode():
        pixels = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2)
        features = torch.cat([encoder(normalize_images(part)) for part in pixels.split(250)])
        labels = torch.from_numpy(arrays["labels"]).long()
    found = linear_probe(
        (train.features.float(), train.labels),
        (features, labels),
        LinearSettings(epochs=15, learning_rates=(0.01, 0.03), weight_decays=(1e-4,)),
    )
    write_correct(found.correct, out)


def subset(train: Path, out: Path, images: int) -> None:
    """Evenly spread images of a training set, for `sslk train finetune`."""
    with np.load(train) as arrays:
        chosen = np.unique(np.linspace(0, len(arrays["images"]) - 1, images).astype(int))
        np.savez(out, **{name: arrays[name][chosen] if name in ("images", "labels") else arrays[name] for name in arrays})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for function, paths in (
        (grabcut, ("test", "out")),
        (folds, ("store", "out")),
        (probe, ("train-store", "images", "out")),
        (subset, ("train", "out")),
    ):
        verb = verbs.add_parser(function.__name__)
        verb.set_defaults(run=function)
        for path in paths:
            verb.add_argument(f"--{path}", type=Path, required=True)
        if function in (grabcut, subset):
            verb.add_argument("--images", type=int, default=2000 if function is grabcut else 5000)
    options = vars(parser.parse_args())
    options.pop("run")(**options)
