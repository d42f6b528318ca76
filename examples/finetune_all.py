"""Eight methods, three arms, several seeds: further training of one encoder on the embedded CIFAR-10 images, as a table.

    python examples/finetune_all.py --out DIR [--checkpoints DIR] [--seeds 0 1] [--epochs 2]

`--checkpoints` holds METHOD/model.safetensors as `examples/pretrain.py` leaves them. A method without one starts from
the embedded SimCLR encoder with fresh heads, which are trained first with the encoder frozen; the table says which.
Writes `arms.csv` (every run) and `arms.md` (means over seeds). Killed at any moment, the same command goes on.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path

from pretrain import SETTINGS
from safetensors import safe_open

from sslk.commands.finetune import run
from sslk.report.run import Run
from sslk.training.config import ARMS, TrainingConfig

MEASURES = ("probe top-1 [%]", "Q-Score AUROC", "mean Q", "mean |L_i|", "empty sets [%]", "final SSL loss")


def start_of(method: str, checkpoints: Path | None) -> tuple[str | None, str]:
    """Checkpoint of a method and what the table calls it."""
    path = None if checkpoints is None else checkpoints / method / "model.safetensors"
    if path is None or not path.exists():
        heads = "its own head" if method == "simclr" else "heads warmed up"
        return None, f"embedded SimCLR, {heads}"
    with safe_open(path, "pt") as file:
        return str(path), f"own, {file.metadata()['epochs']} epochs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--methods", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    args = parser.parse_args()

    rows = []
    for seed in args.seeds:
        for method in args.methods:
            weights, start = start_of(method, args.checkpoints)
            config = TrainingConfig(
                epochs=args.epochs, learning_rate=args.learning_rate, view_size=20, head_warmup_epochs=4, seed=seed,
                channels_last=True, checkpoint_every=10,
            )  # fmt: skip
            out = args.out / f"{method}-{seed}"
            options = {key: value for key, value in SETTINGS[method][1].items() if key != "frozen_steps"}
            model = "embedded" if weights is None else "cifar:compact"
            run(method, str(out), model=model, weights=weights, options=options, training=config, quiet=True)
            result = Run.load(out)
            for arm, *values in result.tables[0].rows:
                named = dict(zip(MEASURES, values, strict=True))
                rows.append({"method": method, "start": start, "seed": seed, "arm": arm, **named})
            write(rows, args.out)
            print(json.dumps({"method": method, "seed": seed, "commit": result.provenance.get("commit")}), flush=True)


def write(rows: list[dict], out: Path) -> None:
    with open(out / "arms.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (out / "arms.md").write_text(markdown(rows))


def markdown(rows: list[dict]) -> str:
    """Means over seeds and, in brackets, the difference of largest and smallest."""
    lines = ["| method | start | arm | " + " | ".join(MEASURES) + " |", "|" + "---|" * (3 + len(MEASURES))]
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


if __name__ == "__main__":
    main()
