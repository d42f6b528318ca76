"""A plain PyTorch loop that is watched while it trains: SimCLR on the embedded images.

    python examples/monitor.py [--steps 60] [--out monitored]

Prints the values of every evaluation; leaves their curve in OUT/monitor.csv, for TensorBoard in OUT/board, and as a run in
OUT/run, which `sslk report page OUT` draws.
"""

import argparse
from pathlib import Path

import torch
from lightly.loss import NTXentLoss
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

from sslk.data.augment import BatchSimCLRTransform
from sslk.data.sample import load_sample
from sslk.models.embedded import load_embedded, load_embedded_projector, normalize_images
from sslk.training import Monitor


def main(steps: int = 60, out: str = "monitored", batch_size: int = 64) -> list[dict[str, float]]:
    torch.manual_seed(0)
    images, labels = load_sample("train")
    test_images, test_labels = load_sample("test")
    held_out = DataLoader(TensorDataset(normalize_images(test_images), test_labels), 250)
    encoder, projector = load_embedded()[0].train(), load_embedded_projector()
    augment, criterion = BatchSimCLRTransform(24), NTXentLoss(0.2)
    optimizer = torch.optim.SGD([*encoder.parameters(), *projector.parameters()], lr=0.01, momentum=0.9)

    with SummaryWriter(Path(out) / "board") as writer:
        monitor = Monitor(
            encoder,
            every_n_steps=20,
            queue_length=1024,
            num_classes=10,
            held_out=held_out,
            target=1,
            folder=out,
            loggers=[writer],
        )
        for _ in range(steps):
            rows = torch.randint(len(images), (batch_size,))
            h = encoder(torch.cat([augment(images[rows]), augment(images[rows])]))  # read by the monitor's hook
            loss = criterion(*projector(h).chunk(2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for name, value in monitor.step(labels=labels[rows]).items():
                print(f"step {monitor.steps}: {name} {value:.4g}")
    monitor.run("embedded", "sample-train").save(Path(out) / "run")
    return monitor.rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", default="monitored")
    main(**vars(parser.parse_args()))
