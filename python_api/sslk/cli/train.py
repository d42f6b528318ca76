"""`sslk train`: further training with and without the Q-Score regulariser."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from sslk.cli.console import FLAT, Output, scalar
from sslk.data.source import DataSource, OnCorrupt
from sslk.models.source import ModelSource
from sslk.quality.settings import LambdaSettings
from sslk.training.config import ARMS, Arm, MethodName, TrainingConfig
from sslk.training.settings import ArmSearch, GradientSettings

if TYPE_CHECKING:
    from sslk.data import Dataset
    from sslk.quality.ablation import Train
    from sslk.results.run import Run
    from sslk.training.start import TrainingStart

Options = dict[str, Annotated[int | float | bool | str, Parameter(converter=scalar)]]


def finetune(
    *,
    method: MethodName,
    out: str,
    arms: list[Arm | Literal["all"]] = ["all"],  # noqa: B006 (never written to)
    model: str = "embedded",
    checkpoint_format: str | None = None,
    data: str = "sample",
    split: str = "train",
    test_data: str | None = None,
    test_split: str = "test",
    root: str | None = None,
    on_corrupt: OnCorrupt = "raise",
    discriminative: str | None = None,
    further_trained: bool = False,
    options: Options | None = None,
    training: TrainingConfig = TrainingConfig(),  # noqa: B008 (frozen)
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Train an encoder further with a self-supervised method, with and without the Q-Score regulariser.

    Examples:
        $ sslk train finetune --method simclr --out runs/simclr --training.epochs 2 --training.learning-rate 0.3
        $ sslk train finetune --method byol --model cifar:compact@byol.safetensors --arms qscore --out runs/byol
        $ torchrun --nproc-per-node 8 -m sslk.cli train finetune --method dino --model timm:resnet50@pretrained --data imagenet --test-split val --out runs/dino

    Args:
        method: simclr, swav, moco, byol, dino, simsiam, vicreg or barlow-twins.
        out: folder for checkpoints, logs, models and results; the same command goes on with what it holds.
        arms: baseline (no penalty), lasso, qscore, or all, one after the other from the same start.
        model: the encoder, NAME or NAME@CHECKPOINT; the method's heads are taken from its checkpoint where they are in it.
        checkpoint_format: layout of the checkpoint, ema or LAYOUT+ema for averaged weights; detected by default.
        data: training images: sample, npz:PATH, folder:PATH, manifest:PATH, cifar10, imagenet, ...
        split: split of the training images.
        test_data: images for the evaluation; the same set by default.
        test_split: split of the images for the evaluation; none for no evaluation by a probe.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        on_corrupt: an unreadable image ends the work, or is left out, counted and listed.
        discriminative: file of `sslk qscore discover` for the encoder that training starts from, refused for another; found
            on the training images by default.
        further_trained: the encoder was trained further since the set was found, so that its weights are others.
        options: settings of the method, such as --options.hidden_dim 512.
        training: settings of the training.
    """  # noqa: E501
    from sslk.distributed import world
    from sslk.training import finetune_study

    chosen = list(ARMS) if "all" in arms else [arm for arm in ARMS if arm in arms]
    images = DataSource(data, split, root).load(on_corrupt)
    start = _start(method, ModelSource(model, checkpoint_format), images, discriminative, further_trained, options)
    test = None if test_split == "none" else DataSource(test_data or data, test_split, root).load(on_corrupt)
    with output.progress() as update:
        run = finetune_study(start, out, training, arms=chosen, test=test, progress=update)
    if world()[0] == 0:
        output.leave(_with_skipped(run, images, test), out)


def lambdas(
    *,
    out: str,
    train: str | None = None,
    method: MethodName | None = None,
    model: str = "embedded",
    checkpoint_format: str | None = None,
    data: str = "sample",
    split: str = "train",
    validation_share: float = 0.2,
    root: str | None = None,
    on_corrupt: OnCorrupt = "raise",
    discriminative: str | None = None,
    options: Options | None = None,
    training: TrainingConfig = TrainingConfig(),  # noqa: B008
    search: Annotated[LambdaSettings, FLAT] = LambdaSettings(),  # noqa: B008
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Search the regulariser's weights as the paper does: lambda1 at lambda2 = 0, then lambda2 at the best lambda1.

    Examples:
        $ sslk train lambdas --method simclr --training.epochs 2 --training.learning-rate 0.05 --out runs/lambdas
        $ sslk train lambdas --train my_training:train --lambda1 0 1e-4 1e-3 --seeds 0 1 2 --out runs/lambdas

    Args:
        out: folder of the run; finished trainings are kept in journal.json, an interrupted search goes on.
        train: MODULE:FUNCTION in place of a method, called as function(lambda1, lambda2, seed); it trains further and
            returns the accuracy of a probe on validation data.
        method: simclr, swav, moco, byol, dino, simsiam, vicreg or barlow-twins: the arm qscore of `sslk train finetune`.
        model: the encoder it starts from, NAME or NAME@CHECKPOINT.
        checkpoint_format: layout of the checkpoint, ema or LAYOUT+ema for averaged weights; detected by default.
        data: labelled images; a share of them is held out to judge by, none are test images.
        split: split of these images.
        validation_share: share of the images held out.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        on_corrupt: an unreadable image ends the work, or is left out, counted and listed.
        discriminative: file of `sslk qscore discover` for this encoder; found on the images that train by default.
        options: settings of the method, such as --options.hidden_dim 512.
        training: settings of the training; lambda1, lambda2 and seed are those of each training instead.
    """
    from sslk.training import lambda_study, train_function

    if (train is None) == (method is None):
        raise ValueError("give either --method, to train as `sslk train finetune` does, or --train MODULE:FUNCTION.")
    start: TrainingStart | Train
    if method is not None:
        images = DataSource(data, split, root).load(on_corrupt)
        start = _start(method, ModelSource(model, checkpoint_format), images, discriminative, False, options)
    else:
        start = train_function(str(train))
    with output.progress() as update:
        run = lambda_study(start, out, training, search, validation_share=validation_share, progress=update)
    output.leave(run, out)


def arms(
    *,
    method: MethodName,
    out: str,
    model: str = "embedded",
    checkpoint_format: str | None = None,
    data: str = "sample",
    split: str = "train",
    test_data: str | None = None,
    test_split: str = "test",
    validation_data: str | None = None,
    validation_split: str = "val",
    root: str | None = None,
    on_corrupt: OnCorrupt = "raise",
    discriminative: str | None = None,
    options: Options | None = None,
    variants: list[Literal["paper", "open"]] = [],  # noqa: B006 (never written to)
    training: TrainingConfig = TrainingConfig(epochs=20),  # noqa: B008
    search: Annotated[ArmSearch, FLAT] = ArmSearch(),  # noqa: B008
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Compare baseline, lasso and Q-Score fairly: settings chosen by as many trials each, then trained with several seeds.

    Examples:
        $ sslk train arms --method simclr --training.view-size 20 --training.precision bf16-mixed --out runs/arms
        $ sslk train arms --method byol --model cifar:compact@byol.safetensors --variants paper open --out runs/byol

    Args:
        method: simclr, swav, moco, byol, dino, simsiam, vicreg or barlow-twins.
        out: folder; the same command goes on with the trials and trainings that it holds.
        model: the encoder, NAME or NAME@CHECKPOINT; the method's heads are taken from its checkpoint where they are in it.
        checkpoint_format: layout of the checkpoint, ema or LAYOUT+ema for averaged weights; detected by default.
        data: labelled training images; all of them train the final encoders.
        split: split of the training images.
        test_data: labelled images of the one evaluation of every final encoder; the same set by default.
        test_split: split of these images.
        validation_data: labelled images that judge the trials; a share of the training images by default.
        validation_split: split of these images.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        on_corrupt: an unreadable image ends the work, or is left out, counted and listed.
        discriminative: file of `sslk qscore discover` for the encoder that training starts from; found on the training
            images by default.
        options: settings of the method, such as --options.hidden_dim 512.
        variants: further arms: paper, the three at the paper's learning rate and lambdas; open, what the paper leaves open.
        training: settings of the final trainings; learning rate, lambdas and seed are those of each training instead.
    """
    from sslk.training import arms_study
    from sslk.training.settings import variants_by_name

    images = DataSource(data, split, root).load(on_corrupt)
    start = _start(method, ModelSource(model, checkpoint_format), images, discriminative, False, options)
    test = DataSource(test_data or data, test_split, root).load(on_corrupt)
    judge = None if validation_data is None else DataSource(validation_data, validation_split, root).load(on_corrupt)
    with output.progress() as update:
        run = arms_study(
            start, out, training, search, test=test, validation=judge, variants=variants_by_name(variants), progress=update
        )
    output.leave(_with_skipped(run, images, test, judge), out)


def gradients(
    *,
    method: MethodName,
    out: str,
    model: str = "embedded",
    checkpoint_format: str | None = None,
    data: str = "sample",
    split: str = "train",
    root: str | None = None,
    on_corrupt: OnCorrupt = "raise",
    discriminative: str | None = None,
    options: Options | None = None,
    training: TrainingConfig = TrainingConfig(),  # noqa: B008
    settings: Annotated[GradientSettings, FLAT] = GradientSettings(),  # noqa: B008
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Measure the penalties' gradients beside that of the SSL loss, for every lambda: which of them can do anything.

    Examples:
        $ sslk train gradients --method simclr --out runs/gradients

    Args:
        method: simclr, swav, moco, byol, dino, simsiam, vicreg or barlow-twins.
        out: folder of the run.
        model: the encoder, NAME or NAME@CHECKPOINT; the method's heads are taken from its checkpoint where they are in it.
        checkpoint_format: layout of the checkpoint, ema or LAYOUT+ema for averaged weights; detected by default.
        data: images the batches are drawn from.
        split: split of these images.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        on_corrupt: an unreadable image ends the work, or is left out, counted and listed.
        discriminative: file of `sslk qscore discover` for this encoder; found on the images by default.
        options: settings of the method, such as --options.hidden_dim 512.
        training: settings of the training whose first batches are taken; the shares are linear in its lambdas.
    """
    from sslk.training import gradients_study

    images = DataSource(data, split, root).load(on_corrupt)
    start = _start(method, ModelSource(model, checkpoint_format), images, discriminative, False, options)
    with output.progress() as update:
        run = gradients_study(start, training, settings, progress=update)
    output.leave(_with_skipped(run, images), out)


def _with_skipped(run: Run, *parts: Dataset | None) -> Run:
    """The run, with the names of the images that were left out, unreadable."""
    from sslk.features.unreadable import with_left_out

    given = [images for images in parts if images is not None]
    names = [name for images in given for name in images.skipped]
    return with_left_out(run, names, sum(map(len, given)) + len(names))


def _start(
    method: MethodName,
    model: ModelSource,
    images: Dataset,
    discriminative: str | None,
    further_trained: bool,
    options: Options | None,
) -> TrainingStart:
    from sslk.quality import load_set
    from sslk.training import load_start

    start = load_start(method, model, images, further_trained=further_trained, options=options)
    if discriminative is None:
        return start
    found = load_set(discriminative, start.backbone, further_trained=further_trained)
    return replace(start, discriminative=found)
