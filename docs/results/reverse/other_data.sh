#!/usr/bin/env bash
# The experiments of docs/reverse_probing.md on other data: EfficientNet-Lite0 on Tiny-ImageNet and CamVid (validation).
# other_data.sh SUPERVISED IMAGES TINY CAMVID OUT: its feature stores of the CIFAR-10 images, these images as .npz, its stores
# of Tiny-ImageNet and CamVid. OUT is that of run.sh: its tables are used. SSLK_DATA holds the data sets.
set -euo pipefail
supervised=$1 images=$2 tiny=$3 camvid=$4 out=$5
kmeans="--kmeans.clusterings 3 --kmeans.restarts 2"
data=tiny-imagenet:$SSLK_DATA/tiny_imagenet_val.zip
sslk concepts classify "$tiny" --out "$out/tiny-objects.st"
sslk concepts build --data "$data" --split val --experts labels colour --out "$out/tiny-base.st" --quiet
sslk concepts merge "$out/tiny-base.st" "$out/tiny-objects.st" --out "$out/tiny.st"
sslk reverse study --experiment transfer "EfficientNet-Lite0=$tiny" --concepts "$out/tiny.st" --ks 100 200 $kmeans --out "$out/transfer"
# A shift needs the same columns on both sides: colour and objects.
sslk concepts build --data "npz:$images" --experts colour --out "$out/colour.st" --quiet
sslk concepts merge "$out/colour.st" "$out/objects.st" --out "$out/shared.st"
sslk concepts build --data "$data" --split val --experts colour --out "$out/tiny-colour.st" --quiet
sslk concepts merge "$out/tiny-colour.st" "$out/tiny-objects.st" --out "$out/tiny-shared.st"
sslk reverse study --experiment shifted "$supervised" --concepts "$out/shared.st" --shifted-store "$tiny" \
  --shifted-concepts "$out/tiny-shared.st" --title Tiny-ImageNet --kmeans.clusters 100 $kmeans --quiet --out "$out/shifted"
# An assignment that the encoder comes with: its own most probable ImageNet class.
python - "$out/objects.st" "$out/arg-max.csv" <<'P'
import csv, sys
from sslk.concepts import ConceptTable
table = ConceptTable.load(sys.argv[1])
with open(sys.argv[2], "w", newline="") as file:
    csv.writer(file).writerows([("sample", "cluster"), *zip(table.samples.tolist(), table.columns.tolist())])
P
sslk reverse study --experiment self-labels --assignments "$out/arg-max.csv" --concepts "$out/base.st" --title "Lite0's arg-max" --out "$out/self-labels"
sslk concepts build --data "camvid:$SSLK_DATA/camvid_val.zip" --split val --experts label-maps colour --threshold 0.02 \
  --out "$out/camvid.st" --quiet
sslk reverse study --experiment breakdown "EfficientNet-Lite0=$camvid" --concepts "$out/camvid.st" --label-group none --kmeans.clusters 5 \
  --kmeans.restarts 5 --kmeans.clusterings 5 --probe.learning_rate 0.5 --quiet --out "$out/camvid"
