"""Pre-trains the eight methods from scratch on small images, with one network and one budget.

    python examples/pretrain.py --data npz:cifar10_train.npz --out DIR [--methods byol vicreg ...] [--epochs 20]

The methods take turns, `--round` epochs at a time, so that after any time all have had about the same training. Every
turn leaves `DIR/METHOD/model.safetensors` (encoder and heads, float16): `sslk train finetune --model cifar:compact@FILE`
continues from it, `load_backbone("cifar:compact", weights=...)` reads it. Killed at any moment, the same command goes on.

On a GPU images, random numbers and steps stay there, in bfloat16 (`--precision`). `--capture` runs every step from a CUDA
graph; each turn captures anew, so let it be long: `--round EPOCHS`.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from sslk.cli.console import Output
from sslk.data import load_dataset
from sslk.data.augment import CIFAR10_MEAN, CIFAR10_STD
from sslk.models.cifar_resnet import CifarResNet
from sslk.progress import renamed
from sslk.results.provenance import provenance
from sslk.training.checkpoints import save_method
from sslk.training.config import TrainingConfig
from sslk.training.heads import build_method
from sslk.training.run import Carrying, best_precision, steps_done, train
from sslk.training.views import TensorViews, images_in_memory

# Heads for 256 features, and peak learning rates of SGD for batches of 256.
SETTINGS = {
    "simclr": (0.12, {"hidden_dim": 256, "output_dim": 128, "temperature": 0.2}),
    "moco": (0.12, {"hidden_dim": 256, "output_dim": 128, "temperature": 0.2, "momentum": 0.99, "queue_size": 4096}),
    "byol": (0.12, {"hidden_dim": 1024, "output_dim": 256, "momentum": 0.99}),
    "simsiam": (0.06, {"hidden_dim": 512, "output_dim": 512, "prediction_dim": 128}),
    "swav": (0.12, {"hidden_dim": 256, "output_dim": 128, "prototypes": 256}),
    "dino": (0.12, {"hidden_dim": 512, "bottleneck_dim": 128, "output_dim": 2048, "momentum": 0.99, "frozen_steps": 195}),
    "vicreg": (0.05, {"hidden_dim": 1024, "output_dim": 1024}),
    "barlow-twins": (0.05, {"hidden_dim": 1024, "output_dim": 1024}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="npz:cifar10_train.npz", help="a data set by name; its images are square")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--epochs", type=int, default=20, help="length of the learning rate's schedule")
    parser.add_argument("--stop", type=int, help="end after this epoch for now")
    parser.add_argument("--round", type=int, default=1, help="epochs of a method before the next has its turn")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--size", type=int, default=24, help="side of the views; whole images are used afterwards")
    parser.add_argument("--images", type=int, help="use the first so many images only")
    parser.add_argument("--learning-rate", type=float, help="in place of the methods' own")
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 256], help="widths of the network's stages")
    parser.add_argument("--keep", action="store_true", help="keep the encoder of every turn: METHOD/epoch-NNN.safetensors")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed", "16-mixed"), default=best_precision())
    parser.add_argument("--compile", action="store_true", help="compile the encoder")
    parser.add_argument("--capture", action="store_true", help="on a GPU, run every step from a CUDA graph")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    dataset = load_dataset(args.data, "train")
    images = images_in_memory(dataset)[: args.images]
    on_gpu = torch.cuda.is_available()
    stop = args.epochs if args.stop is None else min(args.stop, args.epochs)
    for until in [*range(args.round, stop, args.round), stop]:
        for name in args.methods:
            learning_rate, options = SETTINGS[name]
            config = TrainingConfig(
                epochs=args.epochs,
                batch_size=args.batch_size,
                optimizer="sgd",
                learning_rate=args.learning_rate or learning_rate,
                weight_decay=5e-4,
                view_size=args.size,
                precision=args.precision,
                channels_last=True,
                compile=args.compile,
                capture=args.capture,
                # 50 steps are half a minute on two cores; a GPU takes them in a moment, and waits where they are logged.
                checkpoint_every=len(images) // args.batch_size if on_gpu else 50,
                log_every=50 if on_gpu else 10,
                seed=args.seed,
            )
            torch.manual_seed(args.seed)
            method, _ = build_method(name, CifarResNet(args.channels), args.channels[-1], options=options, seed=args.seed)
            views = TensorViews(images, args.batch_size, args.size, CIFAR10_MEAN, CIFAR10_STD)
            folder, started = args.out / name, time.time()
            if steps_done(folder) > until * (len(images) // args.batch_size):
                continue  # it is further already: the command was given again
            identity = {"method": name, "options": options, "data": [dataset.name, dataset.fingerprint, len(images)]}
            with Output().progress() as update:
                told = renamed(update, f"{name}, epoch {until} of {args.epochs}")
                logs = train(method, views, folder, config, carrying=Carrying(identity, until), progress=told)
            info = provenance({"command": "examples/pretrain.py", "config": vars(config)})
            about = {
                "format": "pt",
                "method": name,
                "options": options,
                "dataset": f"{args.data}, {len(images)} images",
                "architecture": {"name": "CifarResNet", "channels": args.channels, "blocks": 1},
                "mean": CIFAR10_MEAN,
                "std": CIFAR10_STD,
                "epochs": str(until),
                "schedule": str(args.epochs),
                "provenance": info,
            }
            save_method(method, folder / "model.safetensors", about, half=True)
            if args.keep:
                save_method(method.backbone, folder / f"epoch-{until:03d}.safetensors", about, half=True)
            entry = {"method": name, "epoch": until, "loss": logs[-1]["loss"], "seconds": round(time.time() - started, 1)}
            print(json.dumps(entry), flush=True)


if __name__ == "__main__":
    main()
