"""What the Q-Score regulariser adds to a training step of an encoder.

    python bench/regularizer.py [--model cifar:resnet18@random] [--size 32] [--batch-size 256] [--repeats 3] [--device cpu]

Both parts are timed alternately within one run; medians. The step is forward, NT-Xent, backward and LARS over two views.
"""

import argparse
import statistics
import time

import torch
from lightly.loss import NTXentLoss
from lightly.utils.lars import LARS

import sslk
from sslk.models import ModelSource
from sslk.results.provenance import provenance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar:resnet18@random")
    parser.add_argument("--size", type=int, help="side of the images; that of the model's input by default")
    parser.add_argument("--threads", type=int, help="of torch; its own choice by default")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.threads:
        torch.set_num_threads(args.threads)
    backbone = ModelSource(args.model).load()
    size, features = args.size or backbone.input_size[0], backbone.num_features
    encoder = backbone.net.train().to(args.device)
    criterion, optimizer = NTXentLoss(0.2), LARS(encoder.parameters(), lr=1e-5, momentum=0.9, weight_decay=1e-6)
    views = torch.randn(2 * args.batch_size, 3, size, size, device=args.device)
    regularizer = sslk.QScoreRegularizer(torch.arange(features) % 2 == 0, eps=2.0).to(args.device)
    h = encoder(views).detach().requires_grad_()

    def step() -> None:
        loss = criterion(*encoder(views).chunk(2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def penalty() -> None:
        h.grad = None
        regularizer(h).backward()

    seconds: dict[str, list[float]] = {"step": [], "penalty": []}
    for turn in range(args.repeats + 1):
        for name, work, count in (("step", step, 1), ("penalty", penalty, 20)):
            _synchronize(args.device)
            started = time.perf_counter()
            for _ in range(count):
                work()
            _synchronize(args.device)
            if turn:  # the first turn warms up
                seconds[name].append((time.perf_counter() - started) / count)
    one, added = statistics.median(seconds["step"]), statistics.median(seconds["penalty"])
    print(f"step {1e3 * one:.1f} ms, regulariser {1e3 * added:.2f} ms, {100 * added / one:.3f} % of the step")
    print(
        provenance(
            {
                "model": args.model,
                "size": size,
                "threads": torch.get_num_threads(),
                "batch_size": args.batch_size,
                "rows": 2 * args.batch_size,
            }
        )
    )


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
