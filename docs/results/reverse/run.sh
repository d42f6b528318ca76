#!/usr/bin/env bash
# The real run of docs/reverse_probing.md: encoders and concepts on 10,000 images of CIFAR-10, every experiment.
# run.sh STORES IMAGES OUT: feature stores simclr, untrained, supervised (efficientnet-lite0 at 128 px); the images as .npz.
# ACCURACY: CSV of the encoders' linear-probe accuracy. RESTARTS, CLUSTERINGS: 5 in the paper.
set -euo pipefail
stores=$1 images=$2 out=$3
here=$(dirname "$(realpath "$0")")
kmeans="--kmeans.clusters 100 --kmeans.restarts ${RESTARTS:-5} --kmeans.clusterings ${CLUSTERINGS:-5} --quiet"
encoders="SimCLR=$stores/simclr untrained=$stores/untrained supervised=$stores/supervised"
accuracy=(${ACCURACY:+--accuracy "$ACCURACY"})
mkdir -p "$out"
sslk concepts build --data "npz:$images" --experts labels "attributes:$here/cifar10_attributes.csv" colour --out "$out/base.st" --quiet
sslk concepts classify "$stores/supervised" --out "$out/objects.st"
sslk concepts merge "$out/base.st" "$out/objects.st" --out "$out/concepts.st"
sslk reverse study $encoders --concepts "$out/concepts.st" $kmeans --out "$out/ranking" "${accuracy[@]}"
for name in ranking-base ranking-slow ranking-lbfgs breakdown breakdown-slow gain; do
  mkdir -p "$out/$name"
  cp -r "$out/ranking/clusterings" "$out/$name/"  # the same k-means, not run again
done
sslk reverse study $encoders --concepts "$out/base.st" $kmeans --out "$out/ranking-base" "${accuracy[@]}"
sslk reverse study --experiment breakdown $encoders --concepts "$out/concepts.st" $kmeans --out "$out/breakdown"
sslk reverse study --experiment gain $encoders --concepts "$out/concepts.st" $kmeans --out "$out/gain"
# The paper's learning rate is one for 1.28 M images: the same with a tenth of it, and to convergence.
slow="--probe.learning_rate 0.35"
sslk reverse study $encoders --concepts "$out/concepts.st" $kmeans $slow --out "$out/ranking-slow"
sslk reverse study --experiment breakdown $encoders --concepts "$out/concepts.st" $kmeans $slow --out "$out/breakdown-slow"
sslk reverse study $encoders --concepts "$out/base.st" $kmeans --probe.solver lbfgs --probe.iterations 3000 \
  --out "$out/ranking-lbfgs"
sslk reverse study --experiment labels "$stores/supervised" --concepts "$out/concepts.st" --out "$out/labels"
sslk reverse study --experiment vary-k "SimCLR=$stores/simclr" "untrained=$stores/untrained" --concepts "$out/concepts.st" \
  --ks 20 50 100 200 --kmeans.clusterings 3 --kmeans.restarts 2 --quiet --out "$out/vary-k"
sslk reverse study --experiment pairs "$stores/simclr" --concepts "$out/concepts.st" --group colour --data "npz:$images" \
  --kmeans.clusters 100 --kmeans.clusterings 1 --kmeans.restarts 2 --quiet --out "$out/pairs"
sslk reverse study --experiment toy --out "$out/toy"
