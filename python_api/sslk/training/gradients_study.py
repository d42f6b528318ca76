"""The penalties' gradients over decades of lambda, as a run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sslk.progress import Progress
from sslk.results.figure import picture
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable
from sslk.results.style import BLUE, GREY, ORANGE, RED, new_axes
from sslk.statistics.bootstrap import Interval, mean_interval
from sslk.training.config import TrainingConfig
from sslk.training.gradients import PENALTIES, SIDES, TERMS, PenaltyGradients, penalty_gradients
from sslk.training.settings import GradientSettings
from sslk.training.start import TrainingStart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WEIGHTS = ("lambda1", "lambda2", "lasso")  # the setting of each of `PENALTIES`


def gradients_study(
    start: TrainingStart,
    config: TrainingConfig = TrainingConfig(),  # noqa: B008 (frozen)
    settings: GradientSettings = GradientSettings(),  # noqa: B008
    *,
    progress: Progress | None = None,
) -> Run:
    """The size of every penalty's gradient beside that of the SSL loss, at the lambdas of `config` and over decades.

    Args:
        start: encoder with its heads, method and images.
        config: settings of the training whose first batches are taken.
        settings: how many batches, and which lambdas.
        progress: called with the batches done and to do.

    Raises:
        ValueError: as for `penalty_gradients`.
    """
    found = penalty_gradients(start, config, batches=settings.batches, progress=progress)
    unit = found.ratios()
    ratio = [[_interval(unit[side, term]) for term in range(3)] for side in range(2)]
    sizes: list[list[Any]] = [
        [term, side, *_interval(found.norms[s, t])[:3], *_interval(found.cosines[s, t])[:3]]
        for s, side in enumerate(SIDES)
        for t, term in enumerate(TERMS)
    ]
    shares = [
        [weight, term, *(100 * weight * number for side in range(2) for number in ratio[side][t][:3])]
        for t, term in enumerate(PENALTIES)
        for weight in settings.lambdas
    ]
    bounds = ["encoder", "encoder low", "encoder high", "h", "h low", "h high"]
    share_columns = ["lambda", "term", *(f"{name} [%]" for name in bounds)]
    task = f"gradients with {start.method}"
    about = {
        "method": start.method,
        "model": start.backbone.name,
        "weights_hash": start.backbone.weights_hash,
        "data": start.images.name,
        "training": asdict(config),
        **asdict(settings),
    }
    return Run(
        "finetune",
        f"Gradients of the penalties for {start.backbone.name} with {start.method}",
        _findings(ratio, found, config, settings),
        provenance({"command": "sslk train gradients", "seed": config.seed, "config": about}),
        {f"{name}_ratio": ratio[0][t].value for t, name in enumerate(_WEIGHTS)}
        | {f"{name}_cosine": _interval(found.cosines[0, t + 1]).value for t, name in enumerate(_WEIGHTS)},
        [
            RunTable("Gradient over that of the SSL loss, by lambda", share_columns, shares),
            RunTable(
                "Gradients at weight 1, mean over batches",
                ["term", "with respect to", "norm", "norm low", "norm high", "cosine", "cosine low", "cosine high"],
                sizes,
            ),
        ],
        [
            picture(
                "gradients",
                "Gradient of each penalty over that of the SSL loss",
                "Share of the SSL loss's gradient over lambda, one line for each penalty; the dotted line is equal size.",
                lambda: share_curves(shares),
                {column: [row[c] for row in shares] for c, column in enumerate(share_columns)},
            )
        ],
        [
            Measure(start.images.name, start.backbone.name, task, f"{term} at 1e-4 [% of the SSL loss's gradient]", *share)
            for t, term in enumerate(PENALTIES)
            for share in [(1e-2 * ratio[0][t].value, 1e-2 * ratio[0][t].low, 1e-2 * ratio[0][t].high)]
        ],
    )


def _interval(values: Tensor) -> Interval:
    """Over the batches; NaN where a gradient is zero in one of them."""
    if not bool(values.isfinite().all()):
        return Interval(torch.nan, torch.nan, torch.nan)
    return mean_interval(values, resamples=2000)


def _findings(
    ratio: list[list[Interval]], found: PenaltyGradients, config: TrainingConfig, settings: GradientSettings
) -> list[str]:
    said = [
        f"Mean over {settings.batches} batches of {config.batch_size} images, two views each; {found.discriminative.summary()}."
    ]
    for t, (term, name) in enumerate(zip(PENALTIES, _WEIGHTS, strict=True)):
        weight = getattr(config, name)
        share, cosine = ratio[0][t], _interval(found.cosines[0, t + 1])
        if not share.value > 0:
            said.append(f"The {term} has no gradient here: no score lies below alpha, or none is above 0.")
            continue
        low, high = (100 * weight * number for number in share[1:3])
        said.append(
            f"At {name} = {weight:g} the {term}'s gradient is {100 * weight * share.value:.2g} % [{low:.2g}, {high:.2g}] of the "
            "SSL loss's in the encoder's parameters, with cosine "
            f"{cosine.value:+.2f} [{cosine.low:+.2f}, {cosine.high:+.2f}]; it is as large at {name} = {1 / share.value:.1g}."
        )
    first, second = ratio[0][0].value, ratio[0][1].value
    if first > 0:
        said.append(
            f"At equal lambdas the lambda2 term's gradient is {second / first:,.0f} times the lambda1 term's: a sum over "
            f"{2 * config.batch_size} rows against a mean."
        )
    return said


def share_curves(rows: list[list[Any]]) -> Figure:
    """Share of the SSL loss's gradient over lambda, from the rows of the table."""
    figure, (axes,) = new_axes(6.4, 4.0)
    for term, color in zip(PENALTIES, (BLUE, ORANGE, RED), strict=True):
        mine = [row for row in rows if row[1] == term]
        axes.plot([row[0] for row in mine], [row[2] for row in mine], color=color, marker="o", ms=3, label=term)
    axes.axhline(100, color=GREY, lw=0.8, ls=":")
    axes.set(xscale="log", yscale="log", xlabel="lambda", ylabel="share of the SSL loss's gradient [%]")
    axes.set_title("Gradients in the encoder's parameters")
    axes.legend(frameon=False)
    return figure
