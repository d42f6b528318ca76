"""Speed and bytes of reading a checkpoint against `torch.load(mmap=True)`, in one run.

    python bench/checkpoints.py --gigabytes 1

A training checkpoint with optimizer state is written: a quarter of it is weights, as with Adam. Each repetition reads it
with both, in turn: the structure alone, and then with the weights copied into a network's. Medians over repetitions.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sslk.models import read_checkpoint
from sslk.models.checkpoint_files import read_content

WIDTH = 1024


def write(path: Path, gigabytes: float) -> None:
    """Blocks of a 4 MB matrix and the vectors around it, with the three tensors that Adam keeps for each."""
    blocks = round(gigabytes * 1e9 / 4 / (4 * WIDTH * WIDTH))
    state = {}
    for i in range(blocks):
        state[f"module.encoder_q.{i}.weight"] = torch.randn(WIDTH, WIDTH)
        state |= {f"module.encoder_q.{i}.{name}": torch.randn(WIDTH) for name in ("bias", "norm", "mean", "var")}
    moments = {n: {name: torch.randn_like(t) for name in ("exp_avg", "exp_avg_sq", "max")} for n, t in enumerate(state.values())}
    torch.save({"state_dict": state, "optimizer": {"state": moments}, "epoch": 100}, path)


def seconds(read: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    read()
    return time.perf_counter() - begin


def copy(tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """As loading into a network does."""
    return [tensor.clone() for tensor in tensors.values()]


READERS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "structure": (lambda path: torch.load(path, mmap=True, weights_only=True), read_content),
    "weights copied": (
        lambda path: copy(torch.load(path, mmap=True, weights_only=True)["state_dict"]),
        lambda path: copy(read_checkpoint(path).backbone),
    ),
}

GROWTH = """
import sys
from pathlib import Path
from sslk.models import read_checkpoint
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
before = resident()
checkpoint = read_checkpoint(Path(sys.argv[1]))
[tensor.sum() for tensor in checkpoint.backbone.values()]
print(resident() - before)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the numbers there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pth"
        write(path, options.gigabytes)
        results: dict[str, Any] = {"bytes": path.stat().st_size, "torch": torch.__version__}
        print(f"{path.stat().st_size / 1e9:.2f} GB, torch {torch.__version__}, {torch.get_num_threads()} threads")
        for what, readers in READERS.items():
            for read in readers:
                read(path)  # both from the page cache
            times = [[seconds(lambda read=read: read(path)) for read in readers] for _ in range(options.repetitions)]
            theirs, mine = (statistics.median(column) for column in zip(*times, strict=True))
            results[what] = {"torch.load": theirs, "sslk": mine, "ratio": mine / theirs}
            print(f"{what:15} torch.load(mmap=True) {theirs:.3f} s   sslk {mine:.3f} s   ratio {mine / theirs:.2f}")
        run = subprocess.run([sys.executable, "-c", GROWTH, str(path)], capture_output=True, text=True, check=True)
        results["grown"] = int(run.stdout) * 1024
        print(f"memory for the weights {results['grown'] / 1e6:.0f} MB, {results['grown'] / results['bytes']:.2f} of the file")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
