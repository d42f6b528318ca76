"""Further training of one encoder in three arms from the same start, and what it does to representations and scores."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from sslk.data import Dataset
from sslk.distributed import join_processes
from sslk.models.backbone import Backbone
from sslk.progress import Progress, renamed
from sslk.training.config import ARMS, Arm, TrainingConfig
from sslk.training.evaluate import ArmResult, Probe, evaluate_arm
from sslk.training.prepare import prepare
from sslk.training.start import TrainingStart


def finetune(
    start: TrainingStart,
    out: str | PathLike[str],
    config: TrainingConfig,
    *,
    arms: Sequence[Arm] = ARMS,
    test: Dataset | None = None,
    evaluate_start: bool = True,
    probe: Probe = "linear",
    progress: Progress | None = None,
    trainer_options: dict[str, Any] | None = None,
) -> dict[str, ArmResult]:
    """Train copies of an encoder further, one per arm, with the same batches and budget, and evaluate them.

    Interrupted at any moment, the same call goes on. The start (encoder and heads, warmed up where asked for) is
    written once and shared by the arms.

    Args:
        start: encoder, method, training images and set.
        out: folder: `start.safetensors`, `discriminative.safetensors` and, per arm, checkpoints, logs,
            `model.safetensors`, feature stores, `samples.safetensors` and, with labels, the probe's `outputs.safetensors`.
        config: settings.
        arms: which penalties.
        test: evaluation images; with labels in both sets a linear probe is trained on the training images and tested here.
        evaluate_start: also evaluate the encoder before training.
        probe: `linear`, or the faster `logreg`.
        progress: called with the steps done, all steps, and the stage: an arm, or the warming up of heads.
        trainer_options: further arguments of `pytorch_lightning.Trainer`.

    Returns:
        Results by arm; `before` is the encoder at the start.

    Raises:
        ValueError: settings that do not fit, a set of another model, or another run in `out`; each named.
        NonFiniteError: the loss became NaN.
    """
    join_processes()
    out = Path(out)
    for arm in arms:
        if arm not in ARMS:
            raise ValueError(f"arms must be among {', '.join(ARMS)}, got {arm!r}.")
    prepared = prepare(start, out, config, progress=progress, trainer_options=trainer_options)
    data, found = start.images, prepared.discriminative

    def judge(backbone: Backbone, folder: Path, log: list[dict[str, float]]) -> ArmResult:
        return evaluate_arm(backbone, data, test, folder, found, log, probe=probe, seed=config.seed, workers=config.workers)

    results = {}
    if evaluate_start:
        results["before"] = judge(copy.deepcopy(start.backbone), out / "before", [])
    for arm in arms:
        trained, log = prepared.train(out / arm, config, arm, progress=renamed(progress, arm))
        results[arm] = judge(trained, out / arm, log)
    return results
