"""Studies made up of runs with chosen numbers, in the layout that the commands leave."""

from pathlib import Path

from examples.reproduce.encoders import StudyEncoder
from examples.reproduce.results import EncoderResults, Study
from examples.reproduce.steps import StudyConfig
from sslk.results.run import Run, RunTable

VARIANTS = ("original", "foreground", "background", "center", "border")
PAIRS = [(a, b) for i, a in enumerate(VARIANTS) for b in VARIANTS[i + 1 :]]


def encoder(kind="self-supervised", name=None):
    method = "simclr" if kind == "self-supervised" else ""
    return StudyEncoder(name or kind, "cifar:compact", None, kind, method)


def probe(top1=0.7):
    numbers = {"top1": top1, "top1_low": top1 - 0.02, "top1_high": top1 + 0.02}
    return Run("probe", "Linear probe", [], PROVENANCE, numbers)


def failure(auroc=0.6, half=0.02, auprc=0.8, accuracy=0.7):
    numbers = {
        "auroc": auroc,
        "auroc_low": auroc - half,
        "auroc_high": auroc + half,
        "auprc": auprc,
        "auprc_low": auprc - half,
        "auprc_high": auprc + half,
        "accuracy": accuracy,
        "eps": 2.5,
        "discriminative": 100,
        "mean_active": 5.0,
        "empty_share": 0.03,
    }
    columns = ["score", "AUROC", "AUROC low", "AUROC high", "AUPRC", "AUPRC low", "AUPRC high"]
    rows = [
        ["Q-Score", auroc, auroc - half, auroc + half, auprc, auprc - half, auprc + half],
        ["random (trivial)", 0.5, None, None, accuracy, None, None],
    ]
    return Run("qscore", "Failure", [], PROVENANCE, numbers, [RunTable("Predicting which", columns, rows)])


def compression(full=70.0, **at_40):
    """Top-1 of every selection with all features, and with 40 % left out."""
    names = ("discriminative", "random", "lower tail", "upper tail", "pca")
    columns = ["left out [%]", "features", *(text for name in names for text in (f"{name} top-1 [%]", f"{name} std"))]
    kept = [at_40.get(name.replace(" ", "_"), full) for name in names]
    rows = [[0.0, 256, *(v for _ in names for v in (full, 0.1))], [40.0, 154, *(v for top1 in kept for v in (top1, 0.1))]]
    return Run("compression", "Compression", [], PROVENANCE, {}, [RunTable("Top-1 on feature subsets", columns, rows)])


def arms(baseline, lasso, qscore, mean_q=(0.15, 0.12, 0.16), auroc=(0.57, 0.56, 0.52)):
    columns = ["arm", "probe top-1 [%]", "Q-Score AUROC", "mean Q", "mean |L_i|", "empty sets [%]", "final SSL loss"]
    names = ("baseline", "lasso", "qscore")
    rows = [
        [name, top1, area, q, 5.0, 2.0, 1.0]
        for name, top1, area, q in zip(names, (baseline, lasso, qscore), auroc, mean_q, strict=True)
    ]
    return Run("finetune", "Arms", [], PROVENANCE, {}, [RunTable("Arms from the same start", columns, rows)])


def reverse(**nmi):
    """NMI of every clustering by set of concepts; `labels__objects` is "labels + objects", `all_100` all at K = 100."""
    rows, means = [], []
    for key, values in nmi.items():
        count = 100 if key.endswith("_100") else 50
        name = key.removesuffix("_100").replace("__", " + ")
        rows += [[count, name, r, value] for r, value in enumerate(values)]
        means.append([count, name, 10, sum(values) / len(values), 0.01, 0.2, 0.3, 0.2, 0.4])
    columns = ["K", "concepts", "M", "NMI", "NMI std", "AMI", "top-1", "mAP", "I / H"]
    return Run(
        "reverse",
        "Reverse",
        [],
        PROVENANCE,
        {},
        [
            RunTable("Clusters from concepts", columns, means),
            RunTable("NMI of every clustering", ["K", "concepts", "clustering", "NMI"], rows),
        ],
    )


def masked(cka=None, accuracy=None, same=0.4, half=0.01, std=0.01):
    """Debiased CKA by pair (0.5 where it is not given), balanced accuracy by variant, share of same-variant neighbours."""
    values = {pair: 0.5 for pair in PAIRS} | (cka or {})
    similar = [["m", *pair, value, value - half, value + half] for pair, value in values.items()]
    accuracies = {variant: 0.5 for variant in VARIANTS} | (accuracy or {})
    return Run(
        "masked",
        "Masked",
        [],
        PROVENANCE,
        {},
        [
            RunTable(
                "Linear evaluation of the variants",
                ["dataset", "model", "variant", "balanced_accuracy", "std"],
                [["d", "m", variant, value, std] for variant, value in accuracies.items()],
            ),
            RunTable("linear CKA, debiased", ["model", "variant", "with", "value", "low", "high"], similar),
            RunTable(
                "Share of the 10 nearest neighbours by variant",
                ["model", "variant", "with", "value"],
                [["m", a, b, same if a == b else (1 - same) / 4] for a in VARIANTS for b in VARIANTS],
            ),
        ],
    )


PROVENANCE = {"machine": "a machine", "torch": "2", "commit": "0"}


def study(*found, **config):
    return Study([item if isinstance(item, EncoderResults) else results(*item) for item in found], StudyConfig(**config))


def results(which, runs=None, seeds=None):
    return EncoderResults(which, runs or {}, seeds or {})


def save(made, folder: Path):
    """Write a study as the commands would have left it."""
    import json

    from examples.reproduce.results import STUDY, describe

    folder.mkdir(parents=True, exist_ok=True)
    (folder / STUDY).write_text(json.dumps(describe([item.encoder for item in made.encoders], made.config)))
    for item in made.encoders:
        for name, run in item.runs.items():
            run.save(folder / item.encoder.name / name)
        for seed, run in item.arms.items():
            run.save(folder / "arms" / f"{item.encoder.name}-{seed}")
