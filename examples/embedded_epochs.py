"""Draws the training of the embedded encoder over its epochs: label-free numbers, a logistic regression, CKA with the last.

    python examples/pretrain_embedded.py --data DIR --out RUN --keep
    python examples/embedded_epochs.py --encoders RUN --data npz:train.npz+npz:test.npz --out OUT

Every `RUN/epoch-NN.safetensors` that `--epochs` names is one model. Their features are kept below `OUT/features`: killed, the
same command goes on. `OUT/panel` and `OUT/similarity` are runs for `sslk report page`.
"""

import argparse
from pathlib import Path

from sslk.cli.console import Output
from sslk.features.by_name import extract_pair
from sslk.models.source import ModelSource
from sslk.probes import logreg_probe
from sslk.quality import PanelSettings, ViewSource, panel_study
from sslk.similarity import SimilaritySettings, similarity_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", type=Path, required=True, help="the folder that pretrain_embedded.py --keep wrote")
    parser.add_argument("--data", required=True, help="labelled training and test images, A+B")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, nargs="+", default=[0, 1, 2, 3, 5, 8, 12, 16, 20, 25, 30])
    parser.add_argument("--images", type=int, default=500, help="of which views are made")
    parser.add_argument("--views", type=int, default=10)
    args = parser.parse_args()

    models = [ModelSource(f"cifar:compact@{args.encoders}/epoch-{epoch:02d}.safetensors") for epoch in args.epochs]
    output = Output()
    with output.progress() as update:
        pairs = {
            str(epoch): extract_pair(model, args.data, args.out / "features" / f"epoch-{epoch:02d}", progress=update)
            for epoch, model in zip(args.epochs, models, strict=True)
        }
        probes = [logreg_probe(train, test, progress=update).outputs for train, test in pairs.values()]
        stores = [(name, train) for name, (train, _) in pairs.items()]
        settings = PanelSettings(images=args.images, views=args.views)
        panel = panel_study(stores, settings, probes=probes, views=ViewSource(models), curve=True, progress=update)
        measures = SimilaritySettings(measures=("cka_debiased", "mutual_knn"), permutations=0)
        alike = similarity_study({name: test for name, (_, test) in pairs.items()}, measures, curve=True, progress=update)
    output.leave(panel, str(args.out / "panel"))
    output.leave(alike, str(args.out / "similarity"))


if __name__ == "__main__":
    main()
