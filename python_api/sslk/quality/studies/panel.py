"""The label-free panel of several models, and which of its numbers ranks them as a linear probe does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import described
from sslk.progress import Progress, renamed
from sslk.quality.panel_ranking import FEWEST, Ranking, oriented, rank_encoders
from sslk.quality.panel_stores import Named
from sslk.quality.panel_values import CLAIMS, Panel, panel
from sslk.quality.settings import PanelSettings
from sslk.quality.studies.panel_figures import curves, leaderboard, scatter
from sslk.quality.views import NoViews, ViewSource
from sslk.results.figure import Picture, picture
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable, Value
from sslk.statistics.bootstrap import Interval, percentile_interval

TASK = "label-free panel"


@dataclass(frozen=True, eq=False)
class _Encoder:
    """One model on one data set."""

    name: str
    store: FeatureStore
    panel: Panel
    no_views: str
    outputs: ProbeOutputs | None


def panel_study(
    stores: Sequence[Named],
    settings: PanelSettings = PanelSettings(),  # noqa: B008 (frozen)
    *,
    probes: Sequence[ProbeOutputs] = (),
    views: ViewSource | None = ViewSource(),  # noqa: B008
    curve: bool = False,
    device: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Measure models without labels, and set their order by each number beside their order by a linear probe.

    Models are compared on the same data only. How the numbers, intervals and orders are computed: `sslk.quality.panel`,
    `sslk.quality.panel_ranking.rank_encoders`.

    Args:
        stores: name and store of each model; the same name on several data sets is one model.
        settings: sample, views, bootstrap.
        probes: answers of a linear probe on every model, found by its weights; a store without them takes no part in the order.
        views: where the images and models come from for LiDAR and alignment; None leaves both out.
        curve: the models stand in an order, such as epochs or layers: every number is drawn over them.
        device: where to compute.
        progress: called with what is done and to do.

    Raises:
        StoreError: a store is incomplete or damaged.
        ValueError: no stores, two of one name on the same data, or two probes of one model.
    """
    groups = _by_data(stores)
    measured = {}
    for key, members in groups.items():
        measured[key] = [_measured(name, store, settings, probes, views, device, progress) for name, store in members]
    tables: list[RunTable] = []
    figures: list[Picture] = []
    findings, measures = [], []
    summary: dict[str, Value] = {}
    for number, (data, encoders) in enumerate(measured.items()):
        where = "" if len(measured) == 1 else f"-{number + 1}"
        ranked = _ranked(encoders, settings)
        tables += _tables(data, encoders, ranked)
        figures += _figures(data, encoders, ranked, where, curve)
        findings += _findings(data, encoders, ranked)
        measures += [measure for encoder in encoders for measure in _measures(encoder)]
        suffix = "" if len(measured) == 1 else f" {data}"
        for encoder in encoders:
            named = "" if len(encoders) == 1 else f" {encoder.name}"
            summary |= {f"{metric}{named}{suffix}": value.value for metric, value in encoder.panel.values.items()}
        summary |= {f"tau {metric}{suffix}": ranking.tau.value for metric, ranking in ranked.items()}
    if len(measured) > 1:
        findings.append(f"Models are compared on the same data only; there are {len(measured)} data sets.")
    about = {f"{name} on {store.spec.dataset}": described(store) for name, store in stores}
    origin = {"command": "quality panel", **asdict(settings), "data": list(measured), "stores": about}
    return Run("panel", "Label-free panel", findings, provenance(origin), summary, tables, figures, measures)


def _by_data(stores: Sequence[Named]) -> dict[str, list[Named]]:
    """The stores of the same rows, by the name of their data set."""
    if not stores:
        raise ValueError("stores must name at least one store, got none.")
    groups: dict[tuple[str, int], list[Named]] = {}
    for name, store in stores:
        members = groups.setdefault((store.require().spec.data_hash, len(store)), [])
        if name in [other for other, _ in members]:
            raise ValueError(f"stores of the same data must have different names, got {name!r} twice: write NAME=FOLDER.")
        members.append((name, store))
    named: dict[str, list[Named]] = {}
    for members in groups.values():
        data = members[0][1].spec.dataset
        same = sum(key.startswith(data) for key in named)
        named[f"{data} ({same + 1})" if same else data] = members
    return named


def _measured(
    name: str,
    store: FeatureStore,
    settings: PanelSettings,
    probes: Sequence[ProbeOutputs],
    views: ViewSource | None,
    device: str | None,
    progress: Progress | None,
) -> _Encoder:
    own = [outputs for outputs in probes if outputs.source.get("weights_hash") == store.spec.weights_hash]
    if len(own) > 1:
        raise ValueError(f"probes must hold one set of answers for each model, got {len(own)} of {store.spec.model}.")
    encoded, missing = None, "views were not asked for."
    if views is not None and settings.images:
        try:
            said = renamed(progress, f"encoding views {name}")
            encoded, missing = views.of(store, settings.images, settings.views, settings.seed, said), ""
        except NoViews as error:
            missing = str(error)
    found = panel(store, settings, views=encoded, device=device, progress=renamed(progress, f"measuring {name}"))
    return _Encoder(name, store, found, missing, own[0] if own else None)


def _ranked(encoders: Sequence[_Encoder], settings: PanelSettings) -> dict[str, Ranking]:
    probed = [(e.panel, e.outputs) for e in encoders if e.outputs is not None]
    return rank_encoders([p for p, _ in probed], [o for _, o in probed], settings.resamples, settings.seed)


def _tables(data: str, encoders: Sequence[_Encoder], ranked: dict[str, Ranking]) -> list[RunTable]:
    shown = [name for name in CLAIMS if any(name in e.panel.values for e in encoders)]
    probed = any(e.outputs is not None for e in encoders)
    rows = []
    for e in encoders:
        values = [e.panel.values[name].value if name in e.panel.values else None for name in shown]
        top1 = [] if not probed else [None if e.outputs is None else 100 * e.outputs.accuracy]
        rows.append([e.name, e.panel.samples, e.panel.num_features, e.panel.rank, *values, *top1])
    top = ["linear probe top-1 [%]"] if probed else []
    tables = [RunTable(f"Label-free panel on {data}", ["model", "rows", "D", "rank", *shown, *top], rows)]
    long = [
        [name, CLAIMS[name], e.name, *_cells(e.panel.values[name]), e.panel.values[name].samples]
        for name in shown
        for e in encoders
        if name in e.panel.values
    ]
    columns = ["measure", "claimed better", "model", "value", "low", "high", "samples"]
    tables.append(RunTable(f"The same with 95 % intervals, on {data}", columns, long))
    if ranked:
        columns = ["measure", "claimed better", "Kendall's tau-b", "low", "high", "p (permutation)", "encoders"]
        orders = [[name, CLAIMS[name], *_cells(r.tau), r.p, r.encoders] for name, r in ranked.items()]
        orders.sort(key=lambda row: -math.inf if row[2] is None else row[2], reverse=True)
        tables.append(RunTable(f"Order of the models by each number and by the linear probe, {data}", columns, orders))
    return tables


def _figures(data: str, encoders: Sequence[_Encoder], ranked: dict[str, Ranking], where: str, curve: bool) -> list[Picture]:
    values = {e.name: e.panel.values for e in encoders}
    pairs = [(name, e.name, v[name]) for name in CLAIMS for e, v in zip(encoders, values.values(), strict=True) if name in v]
    columns: dict[str, list[str | float]] = {
        "measure": [name for name, _, _ in pairs],
        "model": [model for _, model, _ in pairs],
        "value": [interval.value for _, _, interval in pairs],
        "low": [interval.low for _, _, interval in pairs],
        "high": [interval.high for _, _, interval in pairs],
    }
    title = f"Label-free panel on {data}"
    alt = "Every label-free number of every model with its 95 % interval."
    drawn = [picture(f"panel{where}", title, alt, lambda: leaderboard(values), columns)]
    top1 = {e.name: 100 * e.outputs.accuracy for e in encoders if e.outputs is not None}
    if curve:
        alt = "Every label-free number over the models in the order given, with its 95 % interval; linear top-1 [%] dotted."
        behind = {**columns, "linear probe top-1 [%]": [top1.get(str(model), "") for model in columns["model"]]}
        drawn.append(picture(f"panel-curve{where}", f"{title}, in order", alt, lambda: curves(values, top1), behind))
    if len(top1) > 1:
        kept = {name: found for name, found in values.items() if name in top1}
        taus = {name: ranking.tau.value for name, ranking in ranked.items()}
        of = [i for i, (_, model, _) in enumerate(pairs) if model in top1]
        behind = {key: [column[i] for i in of] for key, column in columns.items()}
        behind["linear probe top-1 [%]"] = [top1[pairs[i][1]] for i in of]
        alt = "Every label-free number against the accuracy of a linear probe, one point a model."
        title = f"Label-free numbers against the linear probe, {data}"
        drawn.append(picture(f"panel-probe{where}", title, alt, lambda: scatter(kept, top1, taus), behind))
    return drawn


def _measures(encoder: _Encoder) -> list[Measure]:
    found = []
    for name, value in encoder.panel.values.items():
        number, low, high = _cells(value)
        found.append(Measure(encoder.store.spec.dataset, encoder.name, TASK, name, number, low, high, value.samples))
    return found


def _findings(data: str, encoders: Sequence[_Encoder], ranked: dict[str, Ranking]) -> list[str]:
    found = []
    for e in encoders:
        said = ", ".join(f"{name} {_text(v)}" for name, v in e.panel.values.items())
        found.append(f"{e.name} on {data} ({e.panel.samples} rows, D = {e.panel.num_features}, rank {e.panel.rank}): {said}.")
        if e.panel.nonfinite:
            rows = e.panel.samples + e.panel.nonfinite
            found.append(f"{e.name}: {e.panel.nonfinite} of {rows} rows are not finite (NaN or infinity) and left out.")
    found += _gaps(encoders) if len(encoders) > 1 else []
    found += _orders(data, encoders, ranked)
    missing: dict[str, list[str]] = {}
    for e in encoders:
        for name, why in e.panel.absent.items():
            why = e.no_views if name in ("LiDAR", "alignment") and e.no_views else why
            missing.setdefault(f"{name}: {why}", []).append(e.name)
    return found + [f"{', '.join(names)}: {text}" for text, names in missing.items()]


def _gaps(encoders: Sequence[_Encoder]) -> list[str]:
    """The best model by every number, and how far ahead of the second, in pairs."""
    said = []
    for name in CLAIMS:
        having = [e for e in encoders if name in e.panel.values and name in e.panel.draws]
        if len(having) < 2:
            continue
        having.sort(key=lambda e: oriented(name, e.panel.values[name].value), reverse=True)
        first, second = (oriented(name, e.panel.values[name].value + e.panel.draws[name]) for e in having[:2])
        ahead, behind = (oriented(name, e.panel.values[name].value) for e in having[:2])
        gap = percentile_interval(ahead - behind, first - second)
        sure = "" if gap.low > 0 else ", which other images might turn round"
        how_far = f"by {gap.value:.3g} [{gap.low:.3g}, {gap.high:.3g}]"
        closer = " (nearer to 1)" if CLAIMS[name] == "near 1" else ""
        said.append(f"By {name} {having[0].name} is ahead of {having[1].name} {how_far}{closer}{sure}.")
    return said


def _orders(data: str, encoders: Sequence[_Encoder], ranked: dict[str, Ranking]) -> list[str]:
    probed = [e for e in encoders if e.outputs is not None]
    if not probed:
        return []
    if len(probed) < FEWEST:
        return [f"No Kendall's tau on {data}: it needs at least {FEWEST} models with a probe, there are {len(probed)}."]
    known = {name: r for name, r in ranked.items() if not math.isnan(r.tau.value)}
    if not known:
        return [f"No Kendall's tau on {data}: no number, or not the accuracy, tells the models apart."]
    best = max(known, key=lambda name: known[name].tau.value)
    ranking = known[best]
    level = 0.05 / len(known)
    word = "is below" if ranking.p < level else "is not below"
    return [
        f"{best} orders {ranking.encoders} models on {data} most as the linear probe does: Kendall's tau {_text(ranking.tau)}, "
        f"permutation p = {ranking.p:.3g}, which {word} 0.05 / {len(known)}, as the best of {len(known)} numbers has to be."
    ]


def _text(interval: Interval) -> str:
    bounds = "" if math.isnan(interval.low) else f" [{interval.low:.4g}, {interval.high:.4g}]"
    return f"{interval.value:.4g}{bounds}"


def _cells(interval: Interval) -> list[float | None]:
    return [None if math.isnan(number) else number for number in (interval.value, interval.low, interval.high)]
