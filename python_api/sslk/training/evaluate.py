"""What an encoder is worth before or after further training: features, Q-Scores and a probe on evaluation images."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

import ssl_kernels
from sslk.data import Dataset
from sslk.distributed import world
from sslk.features import FeatureStore, extract
from sslk.features.settings import ExtractSettings
from sslk.models import evaluation_transform
from sslk.models.backbone import Backbone
from sslk.probes.linear import linear_probe
from sslk.probes.logreg import logreg_probe
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.settings import LinearSettings, LogregSettings
from sslk.probes.source import answered_rows
from sslk.probes.usable import finite_rows
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.score import qscore
from sslk.statistics.selective import Ranking
from sslk.training.checkpoints import NonFiniteError
from sslk.training.samples import SAMPLES, ArmSamples
from sslk.training.views import SMALL_IMAGE

OUTPUTS = "outputs.safetensors"
Probe = Literal["linear", "logreg"]
# Around the values that the full grid of 45 chooses on features of 256 to 2,048 dimensions, in a fifth of its time.
STRENGTHS = (1e-2, 1e-1, 1.0, 10.0, 100.0)


@dataclass(frozen=True)
class ArmResult:
    """One encoder after (or before) further training.

    Attributes:
        mean_q, mean_active, empty_share: over the evaluation images, with the set S of the start.
        column_tail: share of the columns' L1 norms, over the same images, that lies in columns above their mean.
        top1, auroc: of a linear probe on them, and of Q-Score as its failure predictor; None without labels, and the area also
            where all answers are right or all wrong.
        log: the logged steps; empty before training.
    """

    mean_q: float
    mean_active: float
    empty_share: float
    column_tail: float
    top1: float | None
    auroc: float | None
    log: list[dict[str, float]]


def evaluate_arm(
    backbone: Backbone,
    data: Dataset,
    test: Dataset | None,
    out: Path,
    found: DiscriminativeFeatures,
    log: list[dict[str, float]],
    *,
    probe: Probe = "linear",
    seed: int = 0,
    workers: int = 0,
) -> ArmResult:
    """Evaluate an encoder; interrupted, the same call goes on with the stores and answers it has left in `out`.

    Args:
        backbone: the encoder; not modified.
        data: images the probe is trained on.
        test: evaluation images; those of `data` by default, without a probe.
        out: folder: `train/`, `test/`, `outputs.safetensors` and `samples.safetensors`.
        found: the set S of the start.
        log: of the training.
        probe: `linear`, 100 epochs over the grid of `LinearSettings`, or `logreg`, a logistic regression in a sixth of the time.
        seed: of the probe.
        workers: processes that load large images.

    Raises:
        NonFiniteError: no representation is finite.
    """
    train = features(backbone, data, out / "train", workers)
    shown = train if test is None else features(backbone, test, out / "test", workers)
    batch = shown.load()
    if not bool(finite_rows(batch.features).any()):
        raise NonFiniteError(f"no representation of the images is finite after the training that {out} evaluates.")
    scores = qscore(batch.features, found)
    columns = torch.ops.sslk.column_l1(batch.features).double()
    tail = float(columns[columns > columns.mean()].sum() / columns.sum())
    _, active = ssl_kernels.activation_counts(batch.features, found.eps, found.two_sided)
    index, top1, auroc, correct = torch.cat([shard.indices for shard in shown.shards()]), None, None, None
    rows = torch.arange(len(index))
    if test is not None and train.has_labels and shown.has_labels:
        outputs = _answers(train, shown, out / OUTPUTS, probe, seed)
        rows, top1, correct = answered_rows(shown, outputs), outputs.accuracy, outputs.correct
        area = float(Ranking(scores.scores[rows], correct).measures(areas_only=True)[0, 0])
        auroc = area if area == area else None
    if world()[0] == 0:
        ArmSamples(index[rows], scores.scores[rows], active[rows], correct).save(out / SAMPLES)
    mean = float(scores.scores.double().nanmean())
    return ArmResult(mean, scores.mean_active, scores.empty_share, tail, top1, auroc, log)


def features(backbone: Backbone, data: Dataset, out: Path, workers: int = 0) -> FeatureStore:
    """Representations of whole images without augmentation."""
    images = copy.copy(data)
    images.transform = evaluation_transform(backbone)
    workers = 0 if max(data[0][0].size) <= SMALL_IMAGE else workers
    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    return extract(backbone, images, out, ExtractSettings(workers=workers, device=device))


def _answers(train: FeatureStore, test: FeatureStore, file: Path, probe: Probe, seed: int) -> ProbeOutputs:
    """Outputs of the probe, from their file where an interrupted run of these weights has left them."""
    if file.exists():
        outputs = ProbeOutputs.load(file)
        if outputs.source.get("weights_hash") == test.spec.weights_hash and outputs.source.get("probe") == probe:
            return outputs
    if probe == "linear":
        outputs = linear_probe(train, test, LinearSettings(seed=seed)).outputs
    else:
        outputs = logreg_probe(train, test, settings=LogregSettings(c=STRENGTHS, seed=seed)).outputs
    if world()[0] == 0:
        outputs.save(file)
    return outputs
