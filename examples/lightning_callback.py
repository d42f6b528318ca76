"""The Q-Score regulariser in somebody else's LightningModule, without touching it; the backbone is compiled.

    python examples/lightning_callback.py [--steps 20] [--backend inductor]

`BarlowTwins` is written as lightly's examples are; solo-learn's methods call their encoder `backbone` too.
"""

import argparse

import pytorch_lightning as pl
import torch
from lightly.loss import BarlowTwinsLoss
from lightly.models.modules.heads import BarlowTwinsProjectionHead
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import sslk
from sslk.data.augment import BatchSimCLRTransform
from sslk.data.sample import load_sample
from sslk.models.embedded import load_embedded, normalize_images
from sslk.training.callback import QScoreCallback


class BarlowTwins(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, _ = load_embedded()
        self.projection_head = BarlowTwinsProjectionHead(256, 256, 256)
        self.augment, self.criterion = BatchSimCLRTransform(24), BarlowTwinsLoss()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        z0, z1 = (self.projection_head(self.backbone(self.augment(batch[0]))) for _ in range(2))
        return self.criterion(z0, z1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.001, momentum=0.9)


def main(steps: int = 20, backend: str = "inductor", batch_size: int = 64) -> dict[str, float]:
    pl.seed_everything(0, verbose=False)
    images, _ = load_sample("train")
    module = BarlowTwins().train()
    with torch.inference_mode():
        module.backbone.eval()
        features = torch.cat([module.backbone(normalize_images(batch)) for batch in images[::4].split(250)])
        module.backbone.train()
    callback = QScoreCallback(sslk.discover(features, eps="auto"), lambda1=1e-2, lambda2=1e-4)

    module.backbone.compile(backend=backend)
    trainer = pl.Trainer(
        max_steps=steps,
        callbacks=[callback],
        log_every_n_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(TensorDataset(images), batch_size, shuffle=True, drop_last=True))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    print(", ".join(f"{name} {value:.4g}" for name, value in logged.items()))
    return logged


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--backend", default="inductor", help="of torch.compile; aot_eager compiles fast")
    main(**vars(parser.parse_args()))
