"""The Q-Score regulariser in a plain PyTorch loop: SimCLR on the embedded images, encoder compiled.

    python examples/plain_loop.py [--steps 20] [--backend inductor]

The three lines that matter are marked. Prints the mean Q-Score of the first and the last step.
"""

import argparse

import torch
from lightly.loss import NTXentLoss

import sslk
from sslk.data.augment import BatchSimCLRTransform
from sslk.data.sample import load_sample
from sslk.models.embedded import load_embedded, load_embedded_projector, normalize_images


def main(steps: int = 20, backend: str = "inductor", batch_size: int = 64) -> list[float]:
    torch.manual_seed(0)
    images, _ = load_sample("train")
    encoder, _ = load_embedded()
    projector, augment, criterion = load_embedded_projector(), BatchSimCLRTransform(24), NTXentLoss(0.2)
    with torch.inference_mode():
        features = torch.cat([encoder(normalize_images(batch)) for batch in images[::4].split(250)])
    found = sslk.discover(features, eps="auto")  # 1. once, on the encoder as it is
    regularizer = sslk.QScoreRegularizer(found, lambda1=1e-2, lambda2=1e-4)  # 2.

    encoder.train()
    compiled = torch.compile(encoder, backend=backend)
    penalty = torch.compile(regularizer, backend=backend, fullgraph=True)
    optimizer = torch.optim.SGD([*encoder.parameters(), *projector.parameters()], lr=0.01, momentum=0.9)
    history = []
    for _ in range(steps):
        batch = images[torch.randint(len(images), (batch_size,))]
        h = compiled(torch.cat([augment(batch), augment(batch)]))
        loss = criterion(*projector(h).chunk(2)) + penalty(h)  # 3. every step, on the representations of both views
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(torch.ops.sslk.qscore(h.detach(), found.mask, found.eps).mean()))
    print(f"mean Q-Score {history[0]:.4f} -> {history[-1]:.4f} in {steps} steps, {found.summary()}")
    return history


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--backend", default="inductor", help="of torch.compile; aot_eager compiles fast")
    main(**vars(parser.parse_args()))
