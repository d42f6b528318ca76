"""What the monitor at its default settings adds to a training step of a ResNet-18.

    python bench/monitor.py [--cases 64x32 256x32 64x224] [--pairs 8] [--classes 10] [--threads 1] [--device cpu]

A case is BATCHxSIDE. Steps (forward, cross-entropy, backward, SGD; one view, so that nothing is cheaper than in practice) are
timed in pairs, one with and one without the monitor, in changing order; printed is the median over pairs of the difference.
The machine's noise is of the size of what is sought, so the monitor's own calls are timed by themselves too: the step's with
the recorder's copy, and an evaluation of the full queue divided by the 500 steps between two; by the clock and, on a CPU, in
seconds of the process's threads, which other processes change less, least with one thread. The same is counted in FLOPs
(products alone; the eigenvalue problem is given 4/3 D^3).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18

from sslk.results.provenance import provenance
from sslk.training import Monitor

WIDTH = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["64x32", "256x32", "64x224"])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--threads", type=int, help="of torch; its own choice by default")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rate = products(args.device)
    print(f"float32 products of this machine: {rate / 1e9:.0f} GFLOP/s")
    for case in args.cases:
        batch, side = map(int, case.split("x"))
        bench(batch, side, args.pairs, args.classes, args.device, rate)
    print(provenance({"command": "bench/monitor.py", "cases": args.cases, "pairs": args.pairs, "classes": args.classes}))


def bench(batch: int, side: int, pairs: int, classes: int, device: str, rate: float) -> None:
    torch.manual_seed(0)
    net = resnet18(num_classes=WIDTH).to(device).train()
    net.fc = torch.nn.Identity()
    head = torch.nn.Linear(WIDTH, classes, device=device)
    optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=0.01, momentum=0.9)
    images, labels = torch.randn(batch, 3, side, side, device=device), torch.randint(classes, (batch,), device=device)
    monitor = Monitor(num_classes=classes)
    settings = monitor.settings
    for _ in range(-(-settings.queue_length // batch)):  # a full queue
        monitor.push(torch.randn(batch, WIDTH, device=device).relu(), labels)

    def step(watched: bool) -> None:
        if watched:
            monitor.attach(net)
        optimizer.zero_grad()
        F.cross_entropy(head(net(images)), labels).backward()
        optimizer.step()
        if watched:
            monitor.push(labels=labels)
            monitor.close()

    features = net(images).detach()

    def push() -> None:
        monitor.push(features.clone(), labels)

    def evaluate() -> None:
        monitor.rows.clear()
        monitor.evaluate()

    plain, differences = [], []
    for pair in range(pairs + 1):
        seconds = {watched: timed(lambda watched=watched: step(watched), device) for watched in (pair % 2 == 0, pair % 2 == 1)}
        if pair:
            plain.append(seconds[False])
            differences.append(seconds[True][0] - seconds[False][0])
    evaluate()
    one, pushed, evaluated = (
        [statistics.median(column) for column in zip(*times, strict=True)]
        for times in (plain, [timed(push, device) for _ in range(30)], [timed(evaluate, device) for _ in range(3)])
    )
    shares = [100 * (a + b / settings.every_n_steps) / c for a, b, c in zip(pushed, evaluated, one, strict=True)]
    flops = counted(lambda: step(False))
    own = counted(push) + (counted(evaluate) + 4 / 3 * WIDTH**3) / settings.every_n_steps
    print(
        f"batch {batch}, {side} px: step {1e3 * one[0]:.1f} ms, {flops / 1e9:.1f} GFLOP, {flops / one[0] / rate:.2f} of that "
        f"rate; monitor {1e3 * pushed[0]:.3f} ms a step and {1e3 * evaluated[0]:.0f} ms every {settings.every_n_steps} steps, "
        f"{shares[0]:.2f} % of the step by the clock, {shares[1]:.2f} % in threads' seconds, {100 * own / flops:.3f} % in FLOPs; "
        f"steps with it less without, median of {pairs} pairs {100 * statistics.median(differences) / one[0]:+.2f} % (quartiles "
        f"{', '.join(f'{100 * value / one[0]:+.2f}' for value in statistics.quantiles(differences, n=4)[::2])})"
    )


def timed(work: Callable[[], Any], device: str) -> tuple[float, float]:
    """Seconds of one call: by the clock, and of this process's threads."""
    wait(device)
    started, used = time.perf_counter(), time.process_time()
    work()
    wait(device)
    return time.perf_counter() - started, time.process_time() - used


def counted(work: Callable[[], Any]) -> float:
    """Floating-point operations of products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def products(device: str) -> float:
    """Operations a second of a large product."""
    a = torch.randn(2048, 2048, device=device)
    return 2 * 2048**3 / min(timed(lambda: a @ a, device)[0] for _ in range(8))


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
