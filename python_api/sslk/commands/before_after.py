"""What further training changed, from the command line: one encoder before and after, sample by sample."""

from __future__ import annotations

from pathlib import Path

from sslk.commands.console import print_fields
from sslk.commands.sources import described
from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.quality import study_figures
from sslk.quality.before_after import before_after
from sslk.quality.belonging import load_set
from sslk.results.figure import save_figure
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable
from sslk.statistics.bootstrap import Interval
from sslk.statistics.small_data import empty_sets, small_data


def before_after_study(
    before: str,
    after: str,
    before_outputs: str,
    after_outputs: str,
    discriminative: str,
    out: str,
    resamples: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Compare an encoder before and after further training: |L_i|, Q-Score and the probe's confidence per sample.

    Examples:
        $ sslk before-after --before runs/test-0 --after runs/test-1 --before-outputs runs/linear-0 --after-outputs runs/linear-1 --discriminative runs/set.safetensors --out runs/change

    Args:
        before: feature store of the test samples under the encoder before further training.
        after: the same samples under the encoder after it.
        before_outputs: run of a probe on the first store.
        after_outputs: run of a probe on the second.
        discriminative: file that `sslk discover` wrote for the encoder before further training.
        out: folder of the run.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        device: where the kernels run.
        json: print one JSON object.
    """  # noqa: E501 (one example is one line)
    folder = Path(out)
    stores = FeatureStore(before).require(), FeatureStore(after).require()
    found = load_set(discriminative, stores[0])
    answers = ProbeOutputs.load(before_outputs), ProbeOutputs.load(after_outputs)
    change = before_after(*stores, *answers, found, resamples=resamples, seed=seed, device=device)
    named: dict[str, Interval] = {
        "mean |L_i|": change.active, "mean Q-Score": change.qscore, "mean confidence": change.confidence,
        "accuracy": change.accuracy,
    }  # fmt: skip
    means = [
        [float(getattr(side, name).double().mean()) for name in ("active", "qscore", "confidence", "correct")]
        for side in (change.before, change.after)
    ]
    rows = [
        [name, first, second, interval.value, interval.low, interval.high]
        for (name, interval), first, second in zip(named.items(), *means, strict=True)
    ]
    findings = [
        f"{name} changes by {i.value:+.4g} [{i.low:+.4g}, {i.high:+.4g}]"
        + (", which may be nothing." if i.low <= 0 <= i.high else ".")
        for name, i in named.items()
    ]
    findings += empty_sets(found.empty_share, float((change.before.qscore == 0).double().mean()))
    findings += small_data(test=len(stores[0]), classes=len(answers[0].classes))
    findings.append(f"{change.repaired} samples became correct and {change.broken} wrong.")
    summary = {
        "active_change": change.active.value, "qscore_change": change.qscore.value,
        "confidence_change": change.confidence.value, "accuracy_change": change.accuracy.value,
        "repaired": change.repaired, "broken": change.broken,
    }  # fmt: skip
    sides_of = {"before": change.before, "after": change.after}
    picture = save_figure(
        study_figures.before_after_panels(change), folder, "before-after", "Before and after (figure A.10)",
        "Histograms of |L_i|, Q-Score and confidence before and after further training.",
        {f"{name} {when}": getattr(side, name).tolist() for name in ("active", "qscore", "confidence")
         for when, side in sides_of.items()},
    )  # fmt: skip
    run = {"command": "before-after", "seed": seed, "resamples": resamples, "before": described(stores[0]),
           "after": described(stores[1]), "eps": found.eps}  # fmt: skip
    columns = ["quantity", "before", "after", "change", "low", "high"]
    Run("qscore", "Before and after further training", findings, provenance(run), dict(summary),
        [RunTable("Means, and intervals of the change", columns, rows)], [picture]).save(folder)  # fmt: skip
    print_fields({**summary, "folder": out}, json)
