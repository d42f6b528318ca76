"""Makes a training and a test set, DIR/train.npz and DIR/test.npz, of a data set that has only one part.

    python examples/split_dataset.py tiny-imagenet:tiny_imagenet_val.zip --split val --out DIR [--test-share 0.2]
    python examples/split_dataset.py digits --out DIR

The share is drawn from every class alike, with a seed. `digits` are scikit-learn's 1,797 handwritten digits of 8 x 8
pixels. What comes out is for `sslk probe transfer npz:DIR/train.npz+npz:DIR/test.npz`.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sslk.data import load_dataset


def load(name: str, split: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images uint8 `[N, H, W, 3]` of one size, labels `[N]` and class names."""
    if name == "digits":
        digits = load_digits()
        grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
        return np.repeat(grey[..., None], 3, -1), digits.target, [str(name) for name in digits.target_names]
    data = load_dataset(name, split)
    if data.labels is None:
        raise SystemExit(f"{name} has no labels: there is nothing to transfer to.")
    return np.stack([np.asarray(data.image(i)) for i in range(len(data))]), data.labels, data.classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a data set by name, or digits")
    parser.add_argument("--split", default="train")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--test-share", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    images, labels, classes = load(args.data, args.split)
    train, test = train_test_split(np.arange(len(labels)), test_size=args.test_share, stratify=labels, random_state=args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        np.savez(args.out / f"{name}.npz", images=images[rows], labels=labels[rows], classes=classes)
        print(f"{args.out / name}.npz: {len(rows)} images, {len(np.unique(labels[rows]))} classes")


if __name__ == "__main__":
    main()
