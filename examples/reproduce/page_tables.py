"""The tables of the results page, each number with its interval, from the runs in a study's folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from examples.reproduce.results import EncoderResults, Study, records, table
from examples.reproduce.verdict import Interval, paired
from sslk.probes.outputs import accuracy_interval

SHOWN_REDUCTIONS = (20.0, 40.0, 60.0, 80.0, 90.0)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def plain(value: float, low: float, high: float, digits: int = 3, factor: float = 1.0) -> str:
    """A value with its bounds.

    >>> plain(0.7, 0.65, 0.75, 1, 100)
    '70.0 [65.0, 75.0]'
    """
    return f"{factor * value:.{digits}f} [{factor * low:.{digits}f}, {factor * high:.{digits}f}]"


def with_bounds(found: EncoderResults, protocol: str, name: str, factor: float = 100, digits: int = 1) -> str:
    """A number of a run's summary with its bounds there; empty where the run is missing."""
    numbers = [found.number(protocol, key) for key in (name, f"{name}_low", f"{name}_high")]
    if None in numbers:
        return ""
    return plain(*(number for number in numbers if number is not None), digits, factor)


def encoders_table(study: Study) -> str:
    """Every encoder, how it was trained, and its probes."""
    rows = []
    for found in study.encoders:
        encoder = found.encoder
        how = encoder.training or (
            f"{study.config.supervised_epochs} epochs with labels on the {study.config.train_images:,} training images"
            if encoder.kind == "supervised"
            else "seeded initial values"
        )
        probes = [with_bounds(found, protocol, "top1") for protocol in ("linear", "knn")]
        rows.append([encoder.name, encoder.kind, encoder.features, how, *probes])
    return markdown(["encoder", "kind", "D", "training", "linear probe top-1 [%]", "k-NN top-1 [%]"], rows)


def failure_table(study: Study) -> str:
    """AUROC and AUPRC of Q-Score and what it is compared with, figures 4 and A.9."""
    rows: list[list[Any]] = []
    for found in _having(study, "failure"):
        run = found.runs["failure"]
        rows += [
            [
                found.encoder.name,
                row["score"],
                plain(row["AUROC"], row["AUROC low"], row["AUROC high"]),
                plain(row["AUPRC"], row["AUPRC low"], row["AUPRC high"]),
                f"{run.summary['accuracy']:.3f}",
            ]
            for row in records(table(run, "Predicting"))
            if row["AUROC low"] is not None
        ]
    return markdown(["encoder", "score", "AUROC", "AUPRC", "trivial AUPRC"], rows) if rows else ""


def sets_table(study: Study) -> str:
    """What the discriminative features of every encoder are."""
    images, rows = study.config.test_images, []
    for found in _having(study, "failure"):
        s = found.runs["failure"].summary
        share = s["empty_share"]
        empty = plain(share, *accuracy_interval(round(share * images), images), 1, 100)
        active = with_bounds(found, "failure", "mean_active", 1, 2)
        rows.append([found.encoder.name, f"{s['eps']:g}", s["discriminative"], active, empty])
    return markdown(["encoder", "eps", "\\|S\\|", "mean \\|L_i\\|", "empty sets [%]"], rows) if rows else ""


def compression_table(study: Study) -> str:
    """What the discriminative features gain over other selections, in pairs."""
    rows = []
    for found in _having(study, "compression"):
        run = found.runs["compression"]
        top1 = {row["left out [%]"]: row for row in records(table(run, "Top-1"))}
        gains: dict[float, dict[str, str]] = {}
        for row in records(table(run, "Discriminative features minus")):
            gains.setdefault(row["left out [%]"], {})[row["minus"]] = Interval(row["value"], row["low"], row["high"]).text(2)
        for at in (at for at in SHOWN_REDUCTIONS if at in gains):
            own = f"{top1[at]['discriminative top-1 [%]']:.2f}"
            rows.append([found.encoder.name, f"{at:g}", top1[at]["features"], own, *gains[at].values()])
    columns = ["encoder", "left out [%]", "features", "top-1 [%]", "minus all", "minus random", "minus lower tail"]
    return markdown([*columns, "minus upper tail", "minus PCA"], rows) if rows else ""


def reverse_table(study: Study) -> str:
    """NMI, AMI, top-1 and information, with Student's intervals over the clusterings."""
    rows = []
    for found in _having(study, "reverse"):
        groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
        for row in records(table(found.runs["reverse"], "NMI of every")):
            groups.setdefault((row["K"], row["concepts"]), []).append(row)
        sizes = {(row["K"], row["concepts"]): row["M"] for row in records(table(found.runs["reverse"], "Clusters"))}
        for (count, concepts), repeated in groups.items():
            shown = [
                plain(*paired([row[name] for row in repeated]), digits, factor)
                for name, digits, factor in (("NMI", 3, 1.0), ("AMI", 3, 1.0), ("top-1", 1, 100.0), ("I / H", 3, 1.0))
                if name in repeated[0]
            ]
            rows.append([found.encoder.name, count, concepts, sizes[count, concepts], *shown])
    return markdown(["encoder", "K", "concepts", "M", "NMI", "AMI", "top-1 [%]", "I / H"], rows) if rows else ""


def transfer_table(study: Study) -> str:
    """Linear probes on other data sets, table A.2."""
    sets: dict[str, None] = {}
    shown: list[tuple[str, dict[str, str]]] = []
    for found in _having(study, "transfer"):
        cells = {}
        for row in records(table(found.runs["transfer"], "Linear evaluation")):
            name = _short(row["dataset"])
            sets[f"{name} ({row['train']:,} + {row['test']:,})"] = None
            arm = next(key for key in row if key in ("baseline", "qscore"))
            cells[f"{name} ({row['train']:,} + {row['test']:,})"] = plain(row[arm], row["low"], row["high"], 1)
        shown.append((found.encoder.name, cells))
    rows = [[name, *(cells.get(known, "") for known in sets)] for name, cells in shown]
    return markdown(["encoder", *sets], rows) if rows else ""


def objects_table(study: Study) -> str:
    """mIoU of heatmaps with boxes, figure 7."""
    rows = []
    for found in _having(study, "agreement"):
        run = found.runs["agreement"]
        cells = {
            (row["mask"], row["map"], row["images of"]): plain(row["mean"], row["95 % low"], row["95 % high"])
            for row in records(table(run, "mIoU"))
        }
        own = [cells["core", "discriminative", side] for side in ("correct", "incorrect")]
        controls = [cells["core", which, "all"] for which in ("random features", "centre prior", "uniform")]
        known = next((value for key, value in run.provenance.items() if str(key).startswith("accuracy")), None)
        rows.append([found.encoder.name, "" if known is None else f"{100 * known:.1f}", *own, *controls])
    columns = ["encoder", "probe right [%]", "right: mIoU in the box", "wrong", "random features", "centre prior", "uniform heat"]
    return markdown(columns, rows) if rows else ""


def _having(study: Study, protocol: str) -> list[EncoderResults]:
    return [found for found in study.encoders if protocol in found.runs]


def _short(dataset: str) -> str:
    """`npz:.../tiny-imagenet-train.npz+npz:...` -> `tiny-imagenet`."""
    return dataset.partition("+")[0].rpartition("/")[2].removeprefix("npz:").removesuffix(".npz").removesuffix("-train")
