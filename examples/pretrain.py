"""Pre-trains the eight methods from scratch on small images, with one network and one budget.

    python examples/pretrain.py --data npz:cifar10_train.npz --out DIR [--methods byol vicreg ...] [--epochs 20]

The methods take turns, `--round` epochs at a time, so that after any time all have had about the same training. Every
turn leaves `DIR/METHOD/model.safetensors` (encoder and heads, float16): `sslk train finetune --model cifar:compact@FILE`
continues from it, `load_backbone("cifar:compact", weights=...)` reads it. Killed at any moment, the same command goes on.

`--start project:byol-cifar10`, or the folder METHOD of another run, begins a new schedule with all that was kept there:
encoder, heads, momentum copies, queue or centre, and the optimiser's momentum.

On a GPU images, random numbers and steps stay there, in bfloat16 (`--precision`). `--capture` runs every step from a CUDA
graph; each turn captures anew, so let it be long: `--round EPOCHS`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from sslk.cli.console import Output
from sslk.data import load_dataset
from sslk.data.augment import CIFAR10_MEAN, CIFAR10_STD
from sslk.files.text import read_json
from sslk.models.cifar_resnet import CifarResNet
from sslk.models.project import BUFFER, load_project, load_project_state, project_encoders
from sslk.models.source import PROJECT
from sslk.progress import renamed
from sslk.results.provenance import provenance
from sslk.training.checkpoints import LAST, read_last, save_method
from sslk.training.config import TrainingConfig
from sslk.training.heads import build_method
from sslk.training.methods import Method
from sslk.training.optimizer import build_optimizer
from sslk.training.run import Carrying, best_precision, steps_done, train
from sslk.training.views import TensorViews, images_in_memory

# Heads for 256 features, and peak learning rates of SGD for batches of 256. Those of BYOL, SimSiam, SwAV, DINO and Barlow Twins
# are from trials of 4 epochs on 20,000 training images, judged on 5,000 others of the training images (docs/finetune.md).
SETTINGS = {
    "simclr": (0.12, {"hidden_dim": 256, "output_dim": 128, "temperature": 0.2}),
    "moco": (0.12, {"hidden_dim": 256, "output_dim": 128, "temperature": 0.2, "momentum": 0.99, "queue_size": 4096}),
    "byol": (0.3, {"hidden_dim": 1024, "output_dim": 256, "momentum": 0.99}),
    "simsiam": (0.3, {"hidden_dim": 512, "output_dim": 512, "prediction_dim": 128}),
    "swav": (0.3, {"hidden_dim": 256, "output_dim": 128, "prototypes": 256}),
    "dino": (0.3, {"hidden_dim": 512, "bottleneck_dim": 128, "output_dim": 2048, "momentum": 0.99, "frozen_steps": 195}),
    "vicreg": (0.05, {"hidden_dim": 1024, "output_dim": 1024}),
    "barlow-twins": (0.03, {"hidden_dim": 1024, "output_dim": 1024}),
}
CHANNELS = [16, 32, 64, 256]


@dataclass(frozen=True, eq=False)
class Kept:
    """All that a run or a packed encoder keeps for going on.

    Attributes:
        method, options: which method, and the arguments of its class.
        tensors: the method's own, by their names in it.
        momentum: the optimiser's, by the parameter's name; none for parameters that were never stepped.
        sha256: of the file they come from.
    """

    method: str
    options: dict[str, Any]
    tensors: dict[str, Tensor]
    momentum: dict[str, Tensor]
    sha256: str

    @property
    def channels(self) -> list[int]:
        """Widths of the encoder's stages."""
        return [len(self.tensors[f"backbone.stages.{stage}.0.conv1.weight"]) for stage in range(4)]

    def build(self, seed: int = 0) -> Method:
        """The method, as it was kept."""
        channels = self.channels
        method, _ = build_method(self.method, CifarResNet(channels), channels[-1], options=self.options, seed=seed)
        method.load_state_dict(self.tensors)
        return method


class GoOn(pl.Callback):
    """Gives the optimiser the momentum it had, before the first step of a new schedule."""

    def __init__(self, momentum: dict[str, Tensor]) -> None:
        self.momentum = momentum

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.global_step:  # resumed: the checkpoint brought a later one
            return
        (optimizer,) = trainer.optimizers
        parameters = dict(module.method.named_parameters())
        for name, value in self.momentum.items():
            optimizer.state[parameters[name]]["momentum_buffer"] = torch.empty_like(parameters[name]).copy_(value)


def read_run(folder: Path) -> Kept:
    """What a run has left in `last.ckpt`, float32."""
    about, last = read_json(folder / "config.json", "the run's settings"), read_last(folder)
    tensors = {name.removeprefix("method."): value for name, value in last["state_dict"].items() if name.startswith("method.")}
    sha256 = hashlib.sha256((folder / LAST).read_bytes()).hexdigest()
    kept = Kept(about["method"], about["options"], tensors, {}, sha256)
    method, config = kept.build(), about["config"]
    names = {parameter: name for name, parameter in method.named_parameters()}
    settings = [config[key] for key in ("optimizer", "learning_rate", "momentum", "weight_decay")]
    groups = build_optimizer([method], *settings).param_groups
    state = last["optimizer_states"][0]["state"]
    for number, parameter in enumerate(parameter for group in groups for parameter in group["params"]):
        if number in state:
            kept.momentum[names[parameter]] = state[number]["momentum_buffer"]
    return kept


def read_start(start: str) -> Kept:
    """What `--start` names: a packed encoder, or the folder of a run.

    Raises:
        ValueError: heads and momentum of the packed encoder are not there.
    """
    if not start.startswith(PROJECT):
        return read_run(Path(start))
    name = start.removeprefix(PROJECT)
    (encoder, about), state = load_project(name), load_project_state(name)
    if state is None or about["method"] not in SETTINGS:
        raise ValueError(f"--start {start} brings no heads to train further: they are in the source tree, of the eight methods.")
    momentum = {key.removeprefix(BUFFER): value for key, value in state.items() if key.startswith(BUFFER)}
    heads = {key: value for key, value in state.items() if not key.startswith(BUFFER)}
    tensors = {f"backbone.{key}": value for key, value in encoder.state_dict().items()} | heads
    return Kept(about["method"], about["options"], tensors, momentum, project_encoders()[name].state_sha256)


def main() -> None:
    args = _parser().parse_args()
    start = read_start(args.start) if args.start else None
    methods, channels = args.methods or list(SETTINGS), args.channels or CHANNELS
    if start is not None:
        if args.methods not in (None, [start.method]) or args.channels not in (None, start.channels):
            raise SystemExit(f"--start {args.start} is {start.method} with the channels {start.channels}, name no others.")
        if Path(args.start).resolve() == (args.out / start.method).resolve():
            raise SystemExit("--out must be another folder than that of the run that --start names.")
        methods, channels = [start.method], start.channels

    dataset = load_dataset(args.data, "train")
    images = images_in_memory(dataset)[: args.images]
    stop = args.epochs if args.stop is None else min(args.stop, args.epochs)
    for until in [*range(args.round, stop, args.round), stop]:
        for name in methods:
            learning_rate, options = SETTINGS[name]
            options = options if start is None else start.options
            config = _config(args, learning_rate, len(images))
            torch.manual_seed(args.seed)
            if start is None:
                method, _ = build_method(name, CifarResNet(channels), channels[-1], options=options, seed=args.seed)
            else:
                method = start.build(args.seed)
            views = TensorViews(images, args.batch_size, args.size, CIFAR10_MEAN, CIFAR10_STD)
            folder, started = args.out / name, time.time()
            if steps_done(folder) > until * (len(images) // args.batch_size):
                continue  # it is further already: the command was given again
            identity = {
                "method": name,
                "options": options,
                "data": [dataset.name, dataset.fingerprint, len(images)],
                "channels": channels,
                "start": start and start.sha256,
            }
            more = {"callbacks": [GoOn(start.momentum)]} if start is not None else {}
            with Output().progress() as update:
                told = renamed(update, f"{name}, epoch {until} of {args.epochs}")
                carrying = Carrying(identity, until, trainer_options=more)
                logs = train(method, views, folder, config, carrying=carrying, progress=told)
            info = provenance({"command": "examples/pretrain.py", "config": vars(config)})
            about = {
                "format": "pt",
                "method": name,
                "options": options,
                "dataset": f"{args.data}, {len(images)} images",
                "architecture": {"name": "CifarResNet", "channels": channels, "blocks": 1},
                "mean": CIFAR10_MEAN,
                "std": CIFAR10_STD,
                "epochs": str(until),
                "schedule": str(args.epochs),
                "start": {} if start is None else {"from": Path(args.start).name, "sha256": start.sha256},
                "provenance": info,
            }
            save_method(method, folder / "model.safetensors", about, half=True)
            if args.keep:
                save_method(method.backbone, folder / f"epoch-{until:03d}.safetensors", about, half=True)
            entry = {"method": name, "epoch": until, "loss": logs[-1]["loss"], "seconds": round(time.time() - started, 1)}
            print(json.dumps(entry), flush=True)


def _config(args: argparse.Namespace, learning_rate: float, images: int) -> TrainingConfig:
    on_gpu = torch.cuda.is_available()
    return TrainingConfig(
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
        checkpoint_every=images // args.batch_size if on_gpu else 50,
        log_every=50 if on_gpu else 10,
        seed=args.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="npz:cifar10_train.npz", help="a data set by name; its images are square")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=SETTINGS, help="all eight by default, or that of --start")
    parser.add_argument("--epochs", type=int, default=20, help="length of the learning rate's schedule")
    parser.add_argument("--stop", type=int, help="end after this epoch for now")
    parser.add_argument("--round", type=int, default=1, help="epochs of a method before the next has its turn")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--size", type=int, default=24, help="side of the views; whole images are used afterwards")
    parser.add_argument("--images", type=int, help="use the first so many images only")
    parser.add_argument("--learning-rate", type=float, help="in place of the methods' own")
    parser.add_argument("--channels", type=int, nargs=4, help="widths of the network's stages, 16 32 64 256 by default")
    parser.add_argument("--keep", action="store_true", help="keep the encoder of every turn: METHOD/epoch-NNN.safetensors")
    parser.add_argument("--start", help="begin with what project:NAME, or the folder METHOD of a run, has kept")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed", "16-mixed"), default=best_precision())
    parser.add_argument("--compile", action="store_true", help="compile the encoder")
    parser.add_argument("--capture", action="store_true", help="on a GPU, run every step from a CUDA graph")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
