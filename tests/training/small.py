"""A small encoder, images and methods for the tests, importable by killed and spawned processes too."""

import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslk.data.sample import load_sample
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.training.config import TrainingConfig
from sslk.training.heads import build_method
from sslk.training.methods import METHODS, Method
from sslk.training.run import train
from sslk.training.views import TensorViews

FEATURES = 32
OPTIONS: dict[str, dict[str, Any]] = {
    "simclr": {"hidden_dim": 16, "output_dim": 8},
    "swav": {"hidden_dim": 16, "output_dim": 8, "prototypes": 12},
    "moco": {"hidden_dim": 16, "output_dim": 8, "queue_size": 64},
    "byol": {"hidden_dim": 16, "output_dim": 8},
    "dino": {"hidden_dim": 16, "bottleneck_dim": 8, "output_dim": 24},
    "simsiam": {"hidden_dim": 16, "output_dim": 16, "prediction_dim": 8},
    "vicreg": {"hidden_dim": 16, "output_dim": 16},
    "barlow-twins": {"hidden_dim": 16, "output_dim": 16},
}
assert set(OPTIONS) == set(METHODS)


def small_encoder(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, FEATURES, 3, 2), nn.BatchNorm2d(FEATURES), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )


def small_method(name: str) -> Method:
    return build_method(name, small_encoder(), FEATURES, options=OPTIONS[name])[0]


@cache
def small_images(count: int = 48) -> torch.Tensor:
    return load_sample("train")[0][:: 2000 // count][:count].contiguous()


def small_views(images: torch.Tensor, config: TrainingConfig) -> TensorViews:
    return TensorViews(images, config.batch_size, config.view_size or 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), config.local_views)


def small_set() -> DiscriminativeFeatures:
    return DiscriminativeFeatures.from_counts(torch.arange(FEATURES), 100, eps=0.5, lower=30, upper=90)


def small_config(**changes: Any) -> TrainingConfig:
    settings = {
        "epochs": 3,
        "batch_size": 16,
        "learning_rate": 0.2,
        "checkpoint_every": 1,
        "log_every": 1,
        "lambda1": 0.1,
        "lambda2": 1e-3,
        "view_size": 16,
    }
    return TrainingConfig(**{**settings, **changes})


def train_small(name: str, folder: Path, arm: str = "qscore", **changes: Any) -> Method:
    """Train one small method; returns it."""
    config, images = small_config(**changes), small_images()
    method = small_method(name)
    train(method, small_views(images, config), folder, config, arm, small_set())  # type: ignore[arg-type]
    return method


def train_logging(name: str, folder: Path, log: Path, pause: float) -> None:
    """What the tests of SIGKILL start: a line in `log` after every step, a pause, and the weights at the end."""
    torch.set_num_threads(1)
    config, images = small_config(), small_images()

    def on_step(step: int, total: int, stage: str) -> None:
        with open(log, "a") as file:
            file.write(f"{step}\n")
        time.sleep(pause)

    trained = small_method(name)
    train(trained, small_views(images, config), folder, config, "qscore", small_set(), progress=on_step)
    torch.save(trained.state_dict(), folder / "final.pt")
