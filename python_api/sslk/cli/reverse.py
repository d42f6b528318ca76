"""`sslk reverse`: quantized reverse probing."""

from __future__ import annotations

from typing import Annotated

from sslk.cli.console import FLAT, Output
from sslk.reverse.settings import Experiment, ExperimentSettings, KMeansSettings, ProbeSettings


def study(
    stores: list[str] = [],  # noqa: B006 (never written to)
    *,
    out: str,
    experiment: Experiment = "ranking",
    concepts: str | None = None,
    settings: Annotated[ExperimentSettings, FLAT] = ExperimentSettings(),  # noqa: B008 (frozen)
    kmeans: KMeansSettings = KMeansSettings(),  # noqa: B008
    probe: ProbeSettings = ProbeSettings(),  # noqa: B008
    assignments: str | None = None,
    shifted_store: str | None = None,
    shifted_concepts: str | None = None,
    data: str | None = None,
    split: str = "test",
    root: str | None = None,
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Reverse-probe encoders, by one of the paper's experiments; finished clusterings are kept and used again.

    Examples:
        $ sslk reverse study simclr=runs/simclr random=runs/random --concepts runs/c.safetensors --out runs/ranking
        $ sslk reverse study simclr=runs/simclr --experiment vary-k --ks 50 100 --concepts runs/c.safetensors --out runs/k
        $ sslk reverse study runs/simclr --experiment pairs --group colour --data sample --concepts c.st --out runs/pairs
        $ sslk reverse study --experiment self-labels --assignments runs/sela.csv --concepts c.st --out runs/self

    Args:
        stores: feature stores of the same images, NAME=FOLDER or FOLDER; one for shifted, labels and pairs, none for
            self-labels and toy.
        out: folder of the run.
        experiment: ranking, breakdown (concepts group by group), gain (of each group over the labels), vary-k, transfer
            (another data set), shifted (test on shifted images), self-labels (a given assignment), labels (classes from
            concepts), pairs (cluster pairs that a group tells apart), toy (forward against reverse in the plane).
        concepts: concept table of these images.
        kmeans: settings of the quantiser.
        probe: settings of the predictor.
        assignments: assignment of self-labels: a CSV of sample number and cluster, or clusterings that another run left.
        shifted_store: store of the other data set of shifted, under the same encoder.
        shifted_concepts: concept table of the other data set of shifted, of the same columns.
        data: data set of the store, for the example images of pairs.
        split: split of that data set.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
    """
    from sslk.data import load_dataset
    from sslk.reverse import read_inputs, reverse_study

    shifted = (shifted_store, shifted_concepts) if shifted_store and shifted_concepts else None
    images = None if data is None else load_dataset(data, split, root=root)
    inputs = read_inputs(stores, concepts, assignments, shifted, images)
    with output.progress() as update:
        run = reverse_study(experiment, inputs, settings, kmeans, probe, out=out, progress=update)
    output.leave(run, out)
