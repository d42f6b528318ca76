"""Makes the embedded sample of CIFAR-10: the first 200 training and 100 test images of every class, lossless.

    python examples/make_sample.py DIR

DIR holds cifar10_train.npz and cifar10_test.npz: `images` uint8 [N, 32, 32, 3] and `labels` int64 [N], in the official
order. The images are laid out as one WebP mosaic per split, class after class.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sslk.data import sample


def main(data: Path) -> None:
    for split, per_class in sample.PER_CLASS.items():
        with np.load(data / f"cifar10_{split}.npz") as arrays:
            images, labels = arrays["images"], arrays["labels"]
        chosen = np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in range(len(sample.CLASSES))])
        tiles = images[chosen].reshape(-1, sample.COLUMNS, 32, 32, 3)
        mosaic = tiles.transpose(0, 2, 1, 3, 4).reshape(-1, sample.COLUMNS * 32, 3)
        path = sample.path(split)
        Image.fromarray(mosaic).save(path, lossless=True, quality=100, method=6)
        assert np.array_equal(sample.load_sample(split)[0].numpy(), images[chosen].transpose(0, 3, 1, 2))
        print(path.name, len(chosen), "images", path.stat().st_size, "bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
