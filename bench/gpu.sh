#!/usr/bin/env bash
# The first minutes on a GPU in one go: builds for the card at hand, checks every op against float64, runs
# compute-sanitizer and times every op, in stages of which each leaves its file the moment it ends (bench/gpu.py says
# which). Offline; needs torch, numpy, pytest, ninja, pybind11, setuptools, nvcc and c++. Under eight minutes.
#
#   bench/gpu.sh OUT_DIR [--dry-run]
#
# Exit codes: 0 all passed; 1 something failed, was skipped or is missing (the other stages still run); 2 wrong use; 3 no
# CUDA device; 130 interrupted, with what ran ended. Where the card has not enough memory the stage says so.
exec "${PYTHON:-python3}" "$(dirname "$0")/gpu.py" "$@"
