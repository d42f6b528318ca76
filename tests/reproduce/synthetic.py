"""Studies made up of runs with chosen numbers, in the layout that the commands leave."""

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from examples.reproduce.arms_results import AUROC, MEAN_Q, TOP1
from examples.reproduce.config import StudyConfig
from examples.reproduce.encoders import StudyEncoder
from examples.reproduce.results import EncoderResults, Study
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
        "mean_active_low": 4.9,
        "mean_active_high": 5.1,
        "empty_share": 0.03,
    }
    columns = ["score", "AUROC", "AUROC low", "AUROC high", "AUPRC", "AUPRC low", "AUPRC high"]
    rows = [
        ["Q-Score", auroc, auroc - half, auroc + half, auprc, auprc - half, auprc + half],
        ["random (trivial)", 0.5, None, None, accuracy, None, None],
    ]
    return Run("qscore", "Failure", [], PROVENANCE, numbers, [RunTable("Predicting which", columns, rows)])


def compression(full=70.0, half=0.5, **at_40):
    """Top-1 of every selection with all features, and with 40 % left out; differences are known to `half` points."""
    names = ("discriminative", "random", "lower tail", "upper tail", "pca")
    columns = ["left out [%]", "features", *(text for name in names for text in (f"{name} top-1 [%]", f"{name} std"))]
    kept = [at_40.get(name.replace(" ", "_"), full) for name in names]
    rows = [[0.0, 256, *(v for _ in names for v in (full, 0.1))], [40.0, 154, *(v for top1 in kept for v in (top1, 0.1))]]
    others = {"all features": full, **dict(zip(names[1:], kept[1:], strict=True))}
    differences = [[40.0, name, kept[0] - top1, kept[0] - top1 - half, kept[0] - top1 + half] for name, top1 in others.items()]
    return Run(
        "compression",
        "Compression",
        [],
        PROVENANCE,
        {},
        [
            RunTable("Top-1 on feature subsets", columns, rows),
            RunTable(
                "Discriminative features minus others, in pairs [points]",
                ["left out [%]", "minus", "value", "low", "high"],
                differences,
            ),
        ],
    )


def agreement(correct=0.05, core=0.1, half=0.01):
    """Differences of mIoU between right and wrong images, and between inside and outside, beyond uniform heat too."""
    bounds = ["mean", "95 % low", "95 % high", "images"]

    def interval(value):
        return [value, value - half, value + half, 100]

    named = {"core: correct - incorrect": correct, "core: correct - incorrect beyond uniform heat": -correct}
    named["core - spurious beyond uniform heat"] = core
    shown = [("discriminative", side) for side in ("all", "correct", "incorrect")]
    shown += [(which, "all") for which in ("random features", "centre prior", "uniform")]
    return Run(
        "interpret",
        "Heatmaps",
        [],
        {**PROVENANCE, "accuracy m": 0.25},
        {},
        [
            RunTable(
                "mIoU of heatmaps",
                ["model", "mask", "map", "images of", *bounds],
                [["m", "core", *key, *interval(0.5)] for key in shown],
            ),
            RunTable(
                "Differences of mIoU", ["model", "difference", *bounds], [["m", name, *interval(v)] for name, v in named.items()]
            ),
        ],
    )


def transfer(top1=30.0):
    columns = ["model", "dataset", "baseline", "low", "high", "balanced accuracy [%]", "train", "test"]
    rows = [
        ["m", f"npz:{name}-train.npz+npz:{name}-test.npz", top1, top1 - 1, top1 + 1, top1, 8000, 2000]
        for name in ("tiny", "camvid")
    ]
    return Run("transfer", "Transfer", [], PROVENANCE, {}, [RunTable("Linear evaluation, top-1 [%]", columns, rows)])


def arms(**differences):
    """The Q-Score arm less another: `top1_lasso=(value, low, high)` and the like."""
    quantities = {"top1": TOP1, "auroc": AUROC, "mean_q": MEAN_Q}
    rows = []
    for key, interval in differences.items():
        quantity, _, reference = key.rpartition("_")
        rows.append(["qscore", reference, quantities[quantity], *interval, 5])
    columns = ["arm", "reference", "quantity", "difference", "low", "high", "seeds"]
    return Run("finetune", "Arms", [], PROVENANCE, {}, [RunTable("Differences in pairs", columns, rows)])


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


# Options of the parts that colleagues' steps bring.
SMALL_PARTS = {"--arms.seeds": 0, "--arms.batches": 0, "--signal.views": 0, "--signal.draws": 1}


def write_zips(folder: Path):
    """Two small zips in the layout of Tiny-ImageNet and CamVid; the first pixel of a street scene is its place in time."""
    rng = np.random.default_rng(0)

    def png(pixels):
        file = BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
        return file.getvalue()

    with zipfile.ZipFile(folder / "tiny_imagenet_val.zip", "w") as archive:
        archive.writestr("tiny/wnids.txt", "n2\nn1\n")
        archive.writestr("tiny/words.txt", "n1\tcat\nn2\tdog\n")
        lines = [f"val_{k}.JPEG\tn{k % 2 + 1}\t8\t8\t40\t40" for k in range(20)]
        archive.writestr("tiny/val/val_annotations.txt", "\n".join(lines) + "\n")
        for k in range(20):
            archive.writestr(f"tiny/val/images/val_{k}.JPEG", png(rng.integers(0, 256, (64, 64, 3))))
    with zipfile.ZipFile(folder / "camvid_val.zip", "w") as archive:
        mask = np.zeros((360, 480))
        mask[180:] = 3  # a road below the sky
        for k in range(6):
            archive.writestr(f"CamVid/val/{k:04d}.png", png(np.full((360, 480, 3), k)))
            archive.writestr(f"CamVid/valannot/{k:04d}.png", png(mask))


PROVENANCE = {"machine": "a machine", "torch": "2", "commit": "0"}


def study(*found, **config):
    settings = StudyConfig(**{"clusters": (50, 100), **config})
    return Study([item if isinstance(item, EncoderResults) else results(*item) for item in found], settings)


def results(which, runs=None):
    return EncoderResults(which, runs or {})


def save(made, folder: Path):
    """Write a study as the commands would have left it."""
    import json

    from examples.reproduce.results import STUDY, describe

    folder.mkdir(parents=True, exist_ok=True)
    (folder / STUDY).write_text(json.dumps(describe([item.encoder for item in made.encoders], made.config)))
    for item in made.encoders:
        for name, run in item.runs.items():
            run.save(folder / item.encoder.name / name)
