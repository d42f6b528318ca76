#!/usr/bin/env bash
# Builds the CUDA library for the card at hand, runs the kernel tests and compute-sanitizer on it, times every op, and
# writes OUT_DIR/gpu.json with the card, driver, torch and commit. Offline; needs torch, nvcc, ninja, pybind11 and pytest.
#
#   bench/gpu.sh OUT_DIR
#
# Exit codes: 0 all passed; 1 a stage failed (the others still run); 2 wrong use or a missing tool; 3 no CUDA device.
set -uo pipefail

if [ $# -ne 1 ]; then
  echo "Usage: bench/gpu.sh OUT_DIR" >&2
  exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 2
python=${PYTHON:-python3}

for tool in nvcc "$python"; do
  if ! command -v "$tool" >/dev/null; then
    echo "gpu.sh: $tool was not found on PATH; it is needed to build the kernels." >&2
    exit 2
  fi
done
for module in torch ninja pybind11 pytest setuptools; do
  if ! "$python" -c "import $module" 2>/dev/null; then
    echo "gpu.sh: $python has no module $module; install it or name another interpreter with PYTHON=..." >&2
    exit 2
  fi
done
arch=$("$python" -c '
import torch
if torch.cuda.is_available():
    print("{}.{}".format(*torch.cuda.get_device_capability(0)))')
if [ -z "$arch" ]; then
  "$python" -c '
import torch
built = f"built with CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
print(f"gpu.sh: torch {torch.__version__} ({built}) sees no CUDA device here; nothing was built or measured.")' >&2
  exit 3
fi

readonly deadline=530 # seconds for everything: under nine minutes
failed=0
stages=()
# stage NAME SECONDS COMMAND...: runs it with a time limit, logs to OUT_DIR/NAME.log, notes how it went
stage() {
  local name=$1 limit=$2 log=$out/$1.log begin=$SECONDS left=$((deadline - SECONDS)) status
  shift 2
  limit=$((limit < left ? limit : left))
  if [ "$limit" -lt 5 ]; then
    stages+=(--stage "$name=skipped, no time left") failed=1
    return 1
  fi
  timeout "$limit" "$@" >"$log" 2>&1
  status=$?
  case $status in
    0) stages+=(--stage "$name=passed in $((SECONDS - begin)) s") ;;
    124) stages+=(--stage "$name=stopped after $limit s") failed=1 ;;
    *) stages+=(--stage "$name=failed with exit code $status") failed=1 ;;
  esac
  echo "== ${stages[-1]} (log: $log)"
  tail -n "${tail_lines:-4}" "$log"
  return $status
}

build=$root/build/gpu
if ! SSLK_CUDA=1 TORCH_CUDA_ARCH_LIST=$arch stage build 300 \
  "$python" setup.py -q build --build-lib "$build/lib" --build-temp "$build/temp"; then
  exit 1
fi
# The tests run beside the built package, not beside the sources, which have no library.
rm -rf "$build/tests"
cp -r tests pyproject.toml "$build/"
export PYTHONPATH=$build/lib PYTHONDONTWRITEBYTECODE=1
cd "$build" || exit 1

stage tests 150 "$python" -m pytest tests/ops -q -m "not slow" -k "cuda and not avx2 and not avx512"
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    stage "$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 --kernel-name kns=sslk \
      "$python" "$root/bench/gpu_bench.py" --once
  done
else
  echo "== compute-sanitizer was not found: memcheck and racecheck are skipped."
  stages+=(--stage "memcheck=skipped, no compute-sanitizer" --stage "racecheck=skipped, no compute-sanitizer")
fi
tail_lines=200 stage bench 180 "$python" "$root/bench/gpu_bench.py" --out "$out/gpu.json" "${stages[@]}"
exit $failed
