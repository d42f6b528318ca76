"""Eight methods, three arms, several seeds: further training on few images, as a table with paired differences.

    python examples/finetune_all.py --out DIR [--checkpoints DIR] [--seeds 0 1] [--epochs 2] [--test-data npz:TEST.npz]

`--checkpoints` holds METHOD/model.safetensors as `examples/pretrain.py` leaves them: every method goes on from its own
encoder and heads. A method without one, or all without `--checkpoints`, start from the embedded SimCLR encoder, with
fresh heads that are trained first with the encoder frozen; the table says which. Writes `arms.csv` (every run),
`arms.md` (means over seeds) and `differences.csv` and `.md` (arms less baseline, by method and over all runs). Killed at
any moment, the same command goes on. `--precision` is bfloat16 where the GPU has it.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path

import torch
from pretrain import SETTINGS
from safetensors import safe_open

from sslk.data.source import DataSource
from sslk.models.source import ModelSource
from sslk.training import finetune_study, load_start
from sslk.training.config import ARMS, TrainingConfig
from sslk.training.differences import ArmDifference, arm_difference
from sslk.training.run import best_precision

MEASURES = ("probe top-1 [%]", "Q-Score AUROC", "mean Q", "mean |L_i|", "empty sets [%]", "column-L1 tail [%]", "final SSL loss")
# Quantity of a difference, its name in the table, and the factor to its unit.
DIFFERENCES = (
    ("top1", "probe top-1 [points]", 100),
    ("auroc", "Q-Score AUROC", 1),
    ("mean_q", "mean Q", 1),
    ("mean_active", "mean |L_i|", 1),
)


def start_of(method: str, checkpoints: Path | None) -> tuple[str | None, str]:
    """Checkpoint of a method and what the table calls it."""
    path = None if checkpoints is None else checkpoints / method / "model.safetensors"
    if path is None or not path.exists():
        heads = "its own head" if method == "simclr" else "heads warmed up"
        return None, f"embedded SimCLR, {heads}"
    with safe_open(path, "pt") as file:
        epochs = int(file.metadata()["epochs"])
        return str(path), f"own, {epochs} epoch{'s' if epochs > 1 else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--methods", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--data", default="sample", help="training images")
    parser.add_argument("--test-data", help="labelled images for the evaluation, the same data set by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed", "16-mixed"), default=best_precision())
    parser.add_argument("--compile", action="store_true", help="compile the encoder")
    parser.add_argument("--capture", action="store_true", help="on a GPU, run every step from a CUDA graph")
    args = parser.parse_args()

    rows = []
    for seed in args.seeds:
        for method in args.methods:
            weights, start = start_of(method, args.checkpoints)
            config = TrainingConfig(
                epochs=args.epochs,
                learning_rate=args.learning_rate,
                view_size=20,
                head_warmup_epochs=4,
                seed=seed,
                precision=args.precision,
                compile=args.compile,
                capture=args.capture,
                channels_last=True,
                checkpoint_every=100 if torch.cuda.is_available() else 2,
                log_every=2,
            )
            out = args.out / f"{method}-{seed}"
            options = {key: value for key, value in SETTINGS[method][1].items() if key != "frozen_steps"}
            model = ModelSource("embedded" if weights is None else f"cifar:compact@{weights}")
            begin = load_start(method, model, DataSource(args.data, "train").load(), options=options)
            result = finetune_study(begin, out, config, test=DataSource(args.test_data or args.data, "test").load())
            result.save(out)
            for arm, *values in result.tables[0].rows:
                named = dict(zip(MEASURES, values, strict=True))
                rows.append({"method": method, "start": start, "seed": seed, "arm": arm, **named})
            write_rows(rows, args.out / "arms.csv")
            (args.out / "arms.md").write_text(arms_table(rows))
            print(json.dumps({"method": method, "seed": seed, "commit": result.provenance.get("commit")}), flush=True)
    runs = {method: [args.out / f"{method}-{seed}" for seed in args.seeds] for method in args.methods}
    if len(runs) > 1:
        runs["all"] = [run for of_method in runs.values() for run in of_method]
    found = {(name, arm): arm_difference(folders, arm) for name, folders in runs.items() for arm in ARMS[1:]}
    write_rows([row for key, value in found.items() for row in difference_rows(*key, value)], args.out / "differences.csv")
    (args.out / "differences.md").write_text(differences_table(found))


def write_rows(rows: list[dict], file: Path) -> None:
    with open(file, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def escaped(name: str) -> str:
    """A name as a cell of a Markdown table."""
    return name.replace("|", "\\|")


def arms_table(rows: list[dict]) -> str:
    """Means over seeds and, in brackets, the difference of largest and smallest."""
    lines = ["| method | start | arm | " + " | ".join(map(escaped, MEASURES)) + " |", "|" + "---|" * (3 + len(MEASURES))]
    for method in dict.fromkeys(row["method"] for row in rows):
        for arm in ("before", *ARMS):
            mine = [row for row in rows if row["method"] == method and row["arm"] == arm]
            cells = []
            for measure in MEASURES:
                values = [row[measure] for row in mine if row[measure] is not None]
                spread = f" ({max(values) - min(values):.2g})" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.4g}{spread}" if values else "")
            lines.append(f"| {method} | {mine[0]['start']} | {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def difference_rows(method: str, arm: str, difference: ArmDifference) -> list[dict]:
    found = [(name, factor, getattr(difference, key)) for key, name, factor in DIFFERENCES]
    return [
        {
            "method": method,
            "arm": arm,
            "quantity": name,
            "difference": factor * i.value,
            "low": factor * i.low,
            "high": factor * i.high,
        }
        for name, factor, i in found
        if i is not None
    ]


def differences_table(found: dict[tuple[str, str], ArmDifference]) -> str:
    """Arm less baseline: mean over the runs, 95 % interval over the test samples, and each run's difference of top-1."""
    names = [escaped(name) for _, name, _ in DIFFERENCES]
    lines = ["| method | arm | " + " | ".join(names) + " | top-1 by run |", "|" + "---|" * (3 + len(names))]
    for (method, arm), difference in found.items():
        cells = [
            ""
            if (i := getattr(difference, key)) is None
            else f"{factor * i.value:+.3g} [{factor * i.low:+.3g}, {factor * i.high:+.3g}]"
            for key, _, factor in DIFFERENCES
        ]
        cells.append(", ".join(f"{100 * value:+.2f}" for value in difference.by_run))
        lines.append(f"| {method} | {arm} less baseline | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
