"""Chooses every arm's settings on validation images, by as many trials, and trains each with them, seed by seed.

Every finished piece is a file of its own, a trial `trials/ARM/NUMBER.json` and a final training `final/ARM/SEED.safetensors`:
an interrupted study goes on with the pieces that are missing, and inside one of them with its last checkpoint.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from sslk.data import Dataset
from sslk.files.text import read_json
from sslk.progress import Progress
from sslk.quality.discriminative import DiscriminativeFeatures, NoDiscriminativeFeatures
from sslk.results.atomic import write_atomically
from sslk.training.checkpoints import NonFiniteError
from sslk.training.config import TrainingConfig
from sslk.training.evaluate import OUTPUTS, Probe, evaluate_arm
from sslk.training.prepare import Prepared, found_set, prepare
from sslk.training.samples import SAMPLES, ArmSamples
from sslk.training.search import held_out_images
from sslk.training.settings import PAPER, ArmSearch, Variant
from sslk.training.start import TrainingStart

BEFORE = "before"
_WEIGHTS = {"baseline": (), "lasso": ("lasso",), "qscore": ("lambda1", "lambda2")}


@dataclass(frozen=True)
class ArmTrial:
    """One training that judges an arm's settings.

    Attributes:
        arm: name of the variant.
        number: of the trial.
        settings: its learning rate and the lambdas that its penalty has.
        accuracy: of a probe on the validation images, in [0, 1]; None where the training diverged.
    """

    arm: str
    number: int
    settings: dict[str, float]
    accuracy: float | None


def planned_trials(variant: Variant, search: ArmSearch) -> list[dict[str, float]]:
    """Settings of every trial of an arm, the paper's first.

    >>> plan = planned_trials(Variant("lasso", "lasso"), ArmSearch(trials=3))
    >>> plan[0], [trial["learning_rate"] for trial in plan[1:]]
    ({'learning_rate': 1e-05, 'lasso': 0.0001}, [0.00316228, 1.0])
    >>> sorted(trial["lasso"] for trial in plan[1:])
    [1e-07, 0.01]
    """
    others = search.trials - 1
    rng = np.random.default_rng(search.seed)
    rates = _decades(search.learning_rates, search.trials)[1:]
    columns = {"learning_rate": rates} | {
        name: rng.permutation(_decades(getattr(search, name), others)) for name in _WEIGHTS[variant.arm]
    }
    paper = {name: PAPER[name] for name in columns}
    return [paper, *({name: float(values[i]) for name, values in columns.items()} for i in range(others))]


def _decades(ends: tuple[float, float], count: int) -> np.ndarray:
    """`count` values in equal steps of the exponent, to six digits, so that they read and compare well."""
    return np.array([float(f"{value:.6g}") for value in np.geomspace(*ends, count)]) if count else np.empty(0)


class Arms:
    """The pieces of a study of arms, in a folder.

    Args:
        start: encoder with its heads, method and labelled training images.
        out: folder.
        config: settings of the final trainings; their learning rate, lambdas and seed are those of each training instead.
        search: of the choice.
        test: labelled test images, on which every final encoder is evaluated, and nothing else.
        validation: labelled images that judge the trials, which then train on all images; a share of these is held out by
            default.
        progress: called with the pieces done, to do, and which it is.
    """

    def __init__(
        self,
        start: TrainingStart,
        out: Path,
        config: TrainingConfig,
        search: ArmSearch,
        test: Dataset,
        validation: Dataset | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.start, self.out, self.config, self.search, self.test = start, out, config, search, test
        self.progress, self.done, self.total = progress, 0, 0
        if validation is None:
            self.rest, self.validation = held_out_images(start.images, search.validation_share, search.seed)
            self._trials_at = "search"
        else:  # trials see the images of the final trainings, so what was prepared on these is theirs
            self.rest, self.validation = start.images, validation
            self._trials_at = "trained"
        self._prepared: dict[str, Prepared] = {}
        self._sets: dict[str, DiscriminativeFeatures] = {}

    def run(self, variants: Sequence[Variant]) -> tuple[list[ArmTrial], dict[str, dict[str, float]], dict[str, list[ArmSamples]]]:
        """All trials, the chosen settings by arm, and what every final encoder gives by arm, one entry a seed."""
        count = len(self.search.seeds)
        self.total = sum(self.search.trials * variant.searched + count for variant in variants) + count
        trials = [self.trial(variant, n) for variant in variants if variant.searched for n in range(self.search.trials)]
        chosen = {variant.name: best([trial for trial in trials if trial.arm == variant.name], variant) for variant in variants}
        samples = {BEFORE: [self.before(seed) for seed in self.search.seeds]}
        for variant in variants:
            samples[variant.name] = [self.final(variant, chosen[variant.name], seed) for seed in self.search.seeds]
        return trials, chosen, samples

    def trial(self, variant: Variant, number: int) -> ArmTrial:
        """Train with the settings of one trial and judge it on the validation images; read where that was done."""
        settings, file = planned_trials(variant, self.search)[number], self.out / "trials" / variant.name / f"{number}.json"
        if not file.exists():
            folder = self.out / "search" / f"{variant.name}-{number}"
            config = replace(self._config(variant, settings), epochs=self.search.epochs, seed=self.search.seed)
            try:
                accuracy = self._train(self._trials_at, "logreg", variant, config, folder, self.validation)
            except (NonFiniteError, NoDiscriminativeFeatures):
                accuracy = None
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps({**settings, "accuracy": accuracy}, indent=1).encode())
            self._clear(folder)
        self._tell(f"{variant.name}, trial {number}")
        found = read_json(file, "the trial")
        if not isinstance(found, dict) or {name: found.get(name) for name in settings} != settings or "accuracy" not in found:
            raise ValueError(f"{file} is damaged: it must hold the trial {settings}; delete it to train it again.")
        return ArmTrial(variant.name, number, settings, found["accuracy"])

    def final(self, variant: Variant, settings: dict[str, float], seed: int) -> ArmSamples:
        """Train with the chosen settings on all images and evaluate on the test images, once; read where that was done."""
        file = self.out / "final" / variant.name / f"{seed}.safetensors"
        if not file.exists():
            folder = self.out / "trained" / f"{variant.name}-{seed}"
            config = replace(self._config(variant, settings), seed=seed)
            self._train("trained", "linear", variant, config, folder, self.test)
            ArmSamples.load(folder / SAMPLES).save(file, half=True)
            self._clear(folder)
        self._tell(f"{variant.name}, seed {seed}")
        return ArmSamples.load(file)

    def before(self, seed: int) -> ArmSamples:
        """The encoder at the start, on the test images, by the probe of one seed."""
        file = self.out / "final" / BEFORE / f"{seed}.safetensors"
        if not file.exists():
            folder, prepared = self.out / "trained" / BEFORE, self._at("trained")
            (folder / OUTPUTS).unlink(missing_ok=True)  # those of another seed
            backbone, images = copy.deepcopy(self.start.backbone), self.start.images
            evaluate_arm(backbone, images, self.test, folder, prepared.discriminative, [], seed=seed)
            ArmSamples.load(folder / SAMPLES).save(file, half=True)
        self._tell(f"{BEFORE}, seed {seed}")
        return ArmSamples.load(file)

    def _config(self, variant: Variant, settings: dict[str, float]) -> TrainingConfig:
        return replace(self.config, **{**variant.settings, **settings})

    def _train(
        self, place: str, probe: Probe, variant: Variant, config: TrainingConfig, folder: Path, judged_on: Dataset
    ) -> float:
        """Train and evaluate; the accuracy. Scores are those of the set of the start, whatever set the penalty saw."""
        prepared = self._at(place)
        trained, log = prepared.train(folder, config, variant.arm, discriminative=self._set(place, config))
        result = evaluate_arm(
            trained,
            prepared.start.images,
            judged_on,
            folder,
            prepared.discriminative,
            log,
            probe=probe,
            seed=config.seed,
            workers=config.workers,
        )
        assert result.top1 is not None  # both sides have labels
        return result.top1

    def _at(self, place: str) -> Prepared:
        """The start on the images that train there: `search`, less those that are held out, or `trained`, all."""
        if place not in self._prepared:
            images = self.rest if place == "search" else self.start.images
            config = replace(self.config, seed=self.search.seed)
            self._prepared[place] = prepare(replace(self.start, images=images), self.out / place, config)
        return self._prepared[place]

    def _set(self, place: str, config: TrainingConfig) -> DiscriminativeFeatures:
        """The set that a penalty sees: that of the start, or one at the eps of the variant."""
        prepared = self._at(place)
        if config.eps == self.config.eps:
            return prepared.discriminative
        key = f"{place}-{config.eps}"
        if key not in self._sets:
            file = self.out / place / f"discriminative-{config.eps}.safetensors"
            self._sets[key] = found_set(prepared.start, file, config)
            self._sets[key].save(file)
        return self._sets[key]

    def _clear(self, folder: Path) -> None:
        if not self.search.keep:
            shutil.rmtree(folder, ignore_errors=True)

    def _tell(self, stage: str) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total, stage)


def best(trials: Sequence[ArmTrial], variant: Variant) -> dict[str, float]:
    """The settings of the most accurate trial, the first of equals; those of a variant without a search.

    Raises:
        NonFiniteError: every trial diverged.
    """
    if not variant.searched:
        return {name: variant.settings[name] for name in ("learning_rate", *_WEIGHTS[variant.arm]) if name in variant.settings}
    finished = [trial for trial in trials if trial.accuracy is not None]
    if not finished:
        raise NonFiniteError(f"every trial of {variant.name} diverged: give lower learning_rates.")
    return max(finished, key=lambda trial: (trial.accuracy, -trial.number)).settings


def described(
    start: TrainingStart, config: TrainingConfig, search: ArmSearch, test: Dataset, validation: Dataset | None = None
) -> dict[str, object]:
    """What a study is of, by contents and not by names; pieces in a folder count for this alone.

    Variants and seeds may be added later.
    """
    training = {k: v for k, v in asdict(config).items() if k not in ("learning_rate", "lambda1", "lambda2", "lasso", "seed")}
    return {
        "method": start.method,
        "weights": start.backbone.weights_hash,
        "options": dict(start.options),
        "data": start.images.fingerprint,
        "test": test.fingerprint,
        "validation": None if validation is None else validation.fingerprint,
        "training": training,
        "search": {k: v for k, v in asdict(search).items() if k not in ("seeds", "resamples", "keep")},
        "discriminative": None if start.discriminative is None else start.discriminative.summary(),
    }
