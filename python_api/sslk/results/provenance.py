"""What a run needs to be repeated: versions, machine, source commit, time."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import torch

import ssl_kernels


def provenance(run: dict[str, Any]) -> dict[str, Any]:
    """`run` (command, seed, config) with versions, hardware, the git commit of the source tree if any, and the date."""
    info = {
        **run,
        "ssl_kernels": ssl_kernels.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": f"{_processor()}, {torch.get_num_threads()} threads, {ssl_kernels.cpu_isa()} kernels",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if torch.cuda.is_available():
        info["gpu"] = torch.cuda.get_device_name()
    if commit := _commit():
        info["commit"] = commit
    return info


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the package's own source tree; None where it was installed from a wheel or lies in another's tree."""
    tree = Path(__file__).resolve().parents[3]
    top = _git(tree, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != tree or not (tree / "csrc" / "schemas.cpp").is_file():
        return None
    sha, changed = _git(tree, "rev-parse", "--short=12", "HEAD"), _git(tree, "status", "--porcelain", "-uno")
    return sha and sha + (" with uncommitted changes" if changed else "")


def _git(tree: Path, *words: str) -> str | None:
    """What git prints, without taking a lock that the user's own git may wait for; None where it fails."""
    try:
        run = subprocess.run(["git", "--no-optional-locks", "-C", tree, *words], capture_output=True, text=True)
    except OSError:
        return None
    return run.stdout.strip() if run.returncode == 0 else None
