"""Operations and host waits of a training step, counted on a device that is not there: what a GPU's host would launch.

    python -m bench.launches [--batch-size 256] [--size 32] [--arm baseline] [--optimizer sgd]

Nothing is computed or timed. An operation is a call that torch dispatches and that computes; views and new memory are none.
One over a list of tensors counts once, and few operations launch more than a kernel or two, so that the number is near that of
the launches. Waits are numbers that Python reads and masks that pick; copies are those between host and device. The step is not
a logged one: views, forward, loss, penalty, backward, optimiser, momentum update, as `examples/pretrain.py` takes it.
"""

import argparse

import torch

from sslk.models.cifar_resnet import CifarResNet
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.training.config import ARMS, TrainingConfig
from sslk.training.heads import build_method
from sslk.training.methods import METHODS, Method
from sslk.training.views import TensorViews
from tests.training.on_device import beside_the_graph, step_on_device

# Widths of `examples/pretrain.py`; they change no count.
OPTIONS = {"moco": {"queue_size": 4096}, "swav": {"prototypes": 256}, "dino": {"output_dim": 2048}}


def made(name: str, args: argparse.Namespace) -> tuple[Method, TensorViews]:
    method, _ = build_method(name, CifarResNet(), 256, options=OPTIONS.get(name))
    images = torch.zeros(8 * args.batch_size, 3, 32, 32, dtype=torch.uint8)
    return method, TensorViews(images, args.batch_size, args.size, (0.5,) * 3, (0.25,) * 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--arm", choices=ARMS, default="baseline")
    parser.add_argument("--optimizer", choices=("sgd", "lars"), default="sgd")
    args = parser.parse_args()
    config = TrainingConfig(
        batch_size=args.batch_size, optimizer=args.optimizer, epochs=2, channels_last=True, log_every=1000, learning_rate=0.1
    )
    found = DiscriminativeFeatures.from_counts(torch.arange(256), 300, eps=2.0)
    print("| method | operations | host waits | copies | beside the graph, captured |\n|---|---|---|---|---|")
    for name in METHODS:
        counts, captured = (count(*made(name, args), args.arm, config, found) for count in (step_on_device, beside_the_graph))
        numbers = (counts.total(), counts.waits.total(), counts.transfers.total(), captured.total())
        print(f"| {name} | {' | '.join(map(str, numbers))} |", flush=True)


if __name__ == "__main__":
    main()
