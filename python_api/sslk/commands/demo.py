"""The demo from the command line."""

from __future__ import annotations


def demo(
    out: str = "runs/demo", epochs: int = 4, learning_rate: float = 0.3, seed: int = 0, quiet: bool = False
) -> None:
    """Run Q-Score end to end on real images: extract, discover, score, probe, predict failures, train three arms, report.

    Uses the embedded encoder (SimCLR on CIFAR-10) and the embedded sample (2,000 training and 1,000 test images), no
    download. The further training is far shorter and its learning rate far larger than the paper's 50 epochs at 1e-5.

    Examples:
        $ sslk demo
        $ sslk demo --epochs 1 --out runs/short-demo

    Args:
        out: folder for results.json, index.html, the figures and the discriminative features.
        epochs: passes of further training per arm.
        learning_rate: peak learning rate of LARS in the further training.
        seed: of everything random; the same seed gives the same numbers on the same machine.
        quiet: no progress bar and no tables.
    """
    from sslk.demo import run

    run(out, epochs, learning_rate, seed, quiet)
