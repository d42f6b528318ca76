"""Pre-trains the embedded encoder: SimCLR on the 50,000 training images of CIFAR-10, on a CPU or a GPU.

    python examples/pretrain_embedded.py --data DIR --out DIR [--epochs 30]

DIR holds cifar10_train.npz and cifar10_test.npz: `images` uint8 [N, 32, 32, 3] and `labels` int64 [N]. Every epoch ends
with a checkpoint; the same command goes on after an interruption. The labels serve the closing linear probe only.
"""

import argparse
import copy
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from lightly.models.modules.heads import SimCLRProjectionHead
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from sslk.data.augment import CIFAR10_MEAN, CIFAR10_STD, BatchSimCLRTransform
from sslk.models.cifar_resnet import CifarResNet
from sslk.training.methods.losses import NTXent

WARMUP_EPOCHS = 1
ARCHITECTURE = {
    "architecture": json.dumps({"name": "CifarResNet", "channels": [16, 32, 64, 256], "blocks": 1}),
    "mean": json.dumps(CIFAR10_MEAN),
    "std": json.dumps(CIFAR10_STD),
}


def load(path: Path) -> tuple[Tensor, np.ndarray]:
    with np.load(path) as data:
        return torch.from_numpy(data["images"]).permute(0, 3, 1, 2).contiguous(), data["labels"]


def mean_loss(losses: list[Tensor]) -> float:
    """Waits for the device."""
    return float(np.mean(torch.stack(losses).tolist()))


@torch.inference_mode()
def features(encoder: nn.Module, images: Tensor, device: str) -> np.ndarray:
    """Representations [N, D] of whole images at their own size."""
    encoder.eval()
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (CIFAR10_MEAN, CIFAR10_STD))
    parts = [encoder((batch.to(device).float() / 255 - mean) / std).cpu() for batch in images.split(500)]
    encoder.train()
    return torch.cat(parts).numpy()


def probe(encoder: nn.Module, train: tuple[Tensor, np.ndarray], test: tuple[Tensor, np.ndarray], device: str) -> float:
    """Top-1 on the test images of a logistic regression on standardised features."""
    x, y = features(encoder, train[0], device), train[1]
    mean, std = x.mean(0), x.std(0) + 1e-6
    model = LogisticRegression(C=0.1, max_iter=300).fit((x - mean) / std, y)
    return float(model.score((features(encoder, test[0], device) - mean) / std, test[1]))


def save_half(module: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Round the weights to float16, in the module too, and save them as rounded."""
    half = {k: v.half() if v.is_floating_point() else v for k, v in module.state_dict().items()}
    module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in half.items()})
    save_file({k: v.cpu().contiguous() for k, v in half.items()}, path, metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--size", type=int, default=24, help="side of the training views; the test images stay at 32")
    parser.add_argument("--lr", type=float, default=0.12)
    parser.add_argument("--temperature", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--probe-every", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="keep the encoder of every epoch: OUT/epoch-NN.safetensors")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)

    train, test = load(args.data / "cifar10_train.npz"), load(args.data / "cifar10_test.npz")
    subset = slice(0, 10_000)  # of the training images, for the probes on the way
    encoder, projector = CifarResNet().to(args.device), SimCLRProjectionHead(256, 256, 128).to(args.device)
    augment, criterion = BatchSimCLRTransform(args.size).to(args.device), NTXent(args.temperature)
    parameters = [*encoder.parameters(), *projector.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=args.lr, momentum=0.9, weight_decay=5e-4)
    steps_per_epoch = len(train[0]) // args.batch_size
    total, warmup = args.epochs * steps_per_epoch, WARMUP_EPOCHS * steps_per_epoch
    compiled = torch.compile(encoder)
    on_device = train[0].to(args.device)  # in a step nothing is copied to a GPU and nothing waits for it

    checkpoint, log, first_epoch, seconds = args.out / "checkpoint.pt", [], 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        encoder.load_state_dict(state["encoder"])
        projector.load_state_dict(state["projector"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        first_epoch, log, seconds = state["epoch"], json.loads(state["log"]), state["seconds"]
        print(f"going on at epoch {first_epoch}", flush=True)

    if args.keep and not first_epoch:
        save_half(copy.deepcopy(encoder), args.out / "epoch-00.safetensors", ARCHITECTURE)
    for epoch in range(first_epoch, args.epochs):
        started, losses = time.time(), []
        order = torch.randperm(len(train[0])).to(args.device)
        for i, index in enumerate(order.split(args.batch_size)[:steps_per_epoch]):
            step = epoch * steps_per_epoch + i
            ramp = min(1.0, (step + 1) / warmup)
            optimizer.param_groups[0]["lr"] = args.lr * ramp * 0.5 * (1 + math.cos(math.pi * step / total))
            images = on_device[index]
            z = projector(compiled(torch.cat([augment(images), augment(images)])))
            loss = criterion(*z.chunk(2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            if i % 20 == 19:
                rate = (i + 1) * args.batch_size / (time.time() - started)
                left = (args.epochs - epoch) * len(train[0]) / rate - (time.time() - started)
                print(
                    f"epoch {epoch} step {i + 1}/{steps_per_epoch} loss {mean_loss(losses[-20:]):.3f} "
                    f"{rate:.0f} images/s, {left / 60:.0f} min left",
                    flush=True,
                )
        seconds += time.time() - started
        entry = {"epoch": epoch + 1, "loss": mean_loss(losses), "seconds": time.time() - started}
        if (epoch + 1) % args.probe_every == 0 and epoch + 1 < args.epochs:
            entry["probe_10k"] = probe(encoder, (train[0][subset], train[1][subset]), test, args.device)
        log.append(entry)
        print(json.dumps(entry), flush=True)
        if args.keep:
            save_half(copy.deepcopy(encoder), args.out / f"epoch-{epoch + 1:02d}.safetensors", ARCHITECTURE)
        state = {
            "encoder": encoder.state_dict(),
            "projector": projector.state_dict(),
            "epoch": epoch + 1,
            "optimizer": optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "log": json.dumps(log),
            "seconds": seconds,
        }
        torch.save(state, args.out / "checkpoint.tmp")
        os.replace(args.out / "checkpoint.tmp", checkpoint)

    metadata = {
        **ARCHITECTURE,
        "projector": json.dumps({"name": "SimCLRProjectionHead", "dimensions": [256, 256, 128]}),
        "method": "SimCLR",
        "dataset": "CIFAR-10 train, 50,000 images",
        "epochs": str(args.epochs),
        "batch_size": str(args.batch_size),
        "view_size": str(args.size),
        "temperature": str(args.temperature),
        "seed": str(args.seed),
        "training_seconds": f"{seconds:.0f}",
        "torch": torch.__version__,
    }
    for name, module in (("encoder", encoder), ("projector", projector)):
        save_half(module, args.out / f"{name}.safetensors", metadata)
        if name == "encoder":  # measured with the rounded weights, as they ship
            metadata["probe_top1"] = f"{probe(encoder, train, test, args.device):.4f}"
            save_half(module, args.out / f"{name}.safetensors", metadata)
    (args.out / "log.json").write_text(json.dumps({"log": log, "probe_top1": float(metadata["probe_top1"])}, indent=1))
    print(f"linear probe on all labels: {metadata['probe_top1']} top-1 on the 10,000 test images", flush=True)


if __name__ == "__main__":
    main()
