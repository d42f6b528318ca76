"""`sslk qscore signal`: when Q-Score tells anything, and what is left of it once other scores are known."""

from __future__ import annotations

from typing import Annotated

from sslk.cli.console import FLAT, Output
from sslk.quality.settings import BootstrapSettings, DiscoverSettings, SignalSettings


def signal(
    test: str,
    *,
    train: str,
    outputs: str,
    out: str,
    settings: Annotated[SignalSettings, FLAT] = SignalSettings(),  # noqa: B008 (frozen)
    discovery: Annotated[DiscoverSettings, FLAT] = DiscoverSettings(),  # noqa: B008
    bootstrap: Annotated[BootstrapSettings, FLAT] = BootstrapSettings(),  # noqa: B008
    scores: list[str] = [],  # noqa: B006 (never written to)
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Ask what Q-Score tells of a classifier's answers: over eps, over D, and beyond feature norm and confidence.

    Examples:
        $ sslk qscore signal runs/sample-test --train runs/sample-train --outputs runs/linear --out runs/signal

    Args:
        test: folder of the feature store whose samples are scored.
        train: feature store that sets are found on, and the training samples of the baselines.
        outputs: a probe's run, or its outputs.safetensors, for the test samples; of any classifier, supervised too.
        out: folder of the run.
        scores: CSV or .npz files with scores of others, joined by index or name; higher must mean correct.
    """
    from sslk.features import FeatureStore
    from sslk.probes import ProbeOutputs
    from sslk.quality import signal_study
    from sslk.quality.external_scores import read_all_scores

    stores, answers = (FeatureStore(train), FeatureStore(test)), ProbeOutputs.load(outputs)
    given = read_all_scores(scores, stores[1])
    with output.progress() as update:
        run = signal_study(*stores, answers, settings, discovery, bootstrap, scores=given, progress=update)
    output.leave(run, out)
