"""`sslk quality`: label-free numbers of models."""

from __future__ import annotations

from typing import Annotated

from sslk.cli.console import FLAT, Output
from sslk.data.source import DataSource
from sslk.quality.settings import PanelSettings


def panel(
    stores: list[str] | None = None,
    *,
    out: str,
    model: list[str] | None = None,
    data: str | None = None,
    split: str = "train",
    root: str | None = None,
    test: list[str] | None = None,
    probe: list[str] | None = None,
    curve: bool = False,
    settings: Annotated[PanelSettings, FLAT] = PanelSettings(),  # noqa: B008 (frozen)
    device: str | None = None,
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Measure models without labels: RankMe, effective rank, alpha-ReQ, NESum, SelfCluster, LiDAR, uniformity, alignment, cluster
    learnability, mean Q-Score, dead features, all with intervals; and which of them orders the models as a linear probe does.

    LiDAR and alignment need views of the images, which are encoded anew: the model is loaded again, from the store's name where
    that says which weights it has, else from --model, and the images from the store's data set, else from --data.

    Examples:
        $ sslk quality panel runs/sample-train --out runs/panel
        $ sslk quality panel runs/sample-train --images 200 --views 5 --test runs/sample-test --out runs/panel
        $ sslk quality panel --model embedded cifar:compact@random --data sample --images 200 --views 5 --out runs/panel
        $ sslk quality panel a=runs/a b=runs/b --model timm:resnet50@a.pth hf:b@pretrained --probe runs/pa runs/pb --out runs/p

    Args:
        stores: feature stores, NAME=FOLDER or FOLDER; models are compared where they are of the same data.
        out: folder of the run.
        model: models of the stores with their checkpoints, for the views; without stores, the models to extract and measure.
        data: the images of the stores, for the views; without stores, a data set with a training and a test split.
        split: split of data that the stores are of.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        test: labelled stores of the same models, to train a linear probe on the first stores and test it on these.
        probe: runs of `sslk probe linear` on these models, in place of test.
        curve: the models stand in an order, such as epochs or layers: every number is drawn over them.
        device: where to compute; extraction takes a GPU where there is one.
    """
    from sslk.features import FeatureStore
    from sslk.models.source import ModelSource
    from sslk.probes import ProbeOutputs
    from sslk.quality import ViewSource, panel_study
    from sslk.quality.panel_stores import extracted_pairs, named_stores, probe_answers

    sources = tuple(ModelSource.several(model or []))
    if test and probe:
        raise ValueError("give either --test, labelled stores, or --probe, runs of `sslk probe linear`.")
    with output.progress() as update:
        if stores:
            named, tests = named_stores(stores), [FeatureStore(folder) for folder in test or []]
        elif sources and data:
            named, tests = extracted_pairs(sources, data, out, root=root, device=device, progress=update)
        else:
            raise ValueError("give feature stores, or --model and --data.")
        answers = [ProbeOutputs.load(run) for run in probe or []]
        answers = answers or probe_answers(named, tests, device=device, progress=update)
        images = None if data is None or not stores else DataSource(data, split, root)
        views = ViewSource(sources, images, device or "cpu", root)
        run = panel_study(named, settings, probes=answers, views=views, curve=curve, device=device, progress=update)
    output.leave(run, out)
