"""How long the steps of a plan will take, from a trial of each model and of this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from sslk.data import Dataset, UnreadableImageError
from sslk.distributed import best_device
from sslk.evaluation.plan import EvaluatedModel, Step
from sslk.evaluation.settings import EvaluationSettings
from sslk.models import evaluation_transform
from sslk.models.source import ModelSource

_TRIAL_IMAGES = 16
_VARIANTS = 5  # of the masked study


@dataclass(frozen=True)
class Trial:
    """What a trial of a model found: seconds per image (loading included), features, or why it failed."""

    seconds_per_image: float = 0.0
    num_features: int = 0
    error: str | None = None


def try_model(model: EvaluatedModel, settings: EvaluationSettings, images: Dataset) -> Trial:
    """Load a model, run it over a few images twice and time the second pass.

    Args:
        model: what is tried.
        settings: device and image size.
        images: of the data set, untransformed; those that cannot be read are passed over.
    """
    try:
        device = settings.device or best_device()
        backbone = ModelSource(model.model, image_size=settings.image_size).load(device=device).eval()
        transform = evaluation_transform(backbone, image_size=settings.image_size)
        chosen = first_images(images, _TRIAL_IMAGES)
        with torch.inference_mode():
            for _ in range(2):
                started = time.perf_counter()
                batch = torch.stack([transform(images.image(number)) for number in chosen]).to(device)
                features = backbone(batch).cpu()
                seconds = time.perf_counter() - started
        return Trial(seconds / len(chosen), features.shape[1])
    except (ValueError, TypeError, RuntimeError, OSError, ImportError, AttributeError, KeyError) as error:
        return Trial(error=f"{type(error).__name__}: {error}")


def first_images(images: Dataset, count: int) -> list[int]:
    """Numbers of the first images that can be read, at most so many.

    Raises:
        ValueError: none can.
    """
    chosen: list[int] = []
    for number in range(len(images)):
        with suppress(UnreadableImageError):
            images.image(number)
            chosen.append(number)
        if len(chosen) == count:
            break
    if not chosen:
        raise ValueError(f"none of the {len(images)} images of {images.name} can be read.")
    return chosen


def estimate(
    steps: Sequence[Step], trials: dict[str, Trial], sizes: dict[str, int], classes: int = 1000, *, seconds_per_mask: float = 0.0
) -> dict[str, float]:
    """Seconds of every step, roughly: forward passes from the trials, the rest from this machine's arithmetic and memory.

    Args:
        steps: the plan.
        trials: by model label.
        sizes: images per split.
        classes: of the probes, at most.
        seconds_per_mask: that the segmenter takes.
    """
    bytes_per_second, flops_per_second = _machine()
    seconds: dict[str, float] = {}
    for step in steps:
        known = [trials[label] for label in step.models if label in trials]
        forward = sum(trial.seconds_per_image for trial in known)
        width = max((trial.num_features for trial in known), default=0)
        products = 2.0 * sizes["train"] * width  # flops of one pass of one output over the training features
        seconds[step.name] = {
            "extract": forward * sizes.get(step.name.rpartition(" ")[2], 0),
            "masked": (_VARIANTS * forward + seconds_per_mask) * sizes["test"],
            "discover": 3 * 4.0 * sizes["train"] * width / bytes_per_second,
            "score": 4.0 * sizes["test"] * width / bytes_per_second,
            "failure": 1e-3 * sizes["test"],  # a thousand bootstrap samples of every score
            "knn": 2.0 * sizes["train"] * sizes["test"] * width / flops_per_second,
            "reverse": 5 * 5 * 100 * 100 * products / flops_per_second,  # five clusterings of five restarts
        }.get(step.call.__name__, 3 * 100 * min(classes, 1000) * products / flops_per_second)  # 100 epochs of a linear probe
    return seconds


def _machine() -> tuple[float, float]:
    """Bytes read and floating-point operations per second, measured for a few milliseconds."""
    vector, matrix = torch.ones(1 << 22), torch.ones(512, 512)
    rates = []
    for work, cost in ((vector.sum, vector.nbytes), (lambda: matrix @ matrix, 2 * 512**3)):
        work()
        started = time.perf_counter()
        for _ in range(3):
            work()
        rates.append(3 * cost / (time.perf_counter() - started))
    return rates[0], rates[1]
