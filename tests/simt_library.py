"""Builds the CUDA kernels for the CPU emulator of tests/simt and passes tensors to them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
SIMT = Path(__file__).resolve().parent / "simt"
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]  # in the order of the enum Dtype


class Rows(ctypes.Structure):
    """`sslk::Rows` of csrc/rows/rows.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        ("d", ctypes.c_int64),
        ("stride", ctypes.c_int64),
        ("dtype", ctypes.c_int),
    ]


def emulated_kernels() -> ctypes.CDLL:
    """The emulated kernels as a shared library, compiled once per version of their sources."""
    headers = [*(ROOT / "csrc").rglob("*.cuh"), *(ROOT / "csrc").rglob("*.h"), *SIMT.glob("*.h")]
    objects = [_compiled(source, headers) for source in sorted(SIMT.glob("*.cpp"))]
    library = _cached("so", objects)
    if not library.exists():
        _run(["-shared", *map(str, objects)], library)
    return ctypes.CDLL(str(library))


def _compiled(source: Path, headers: list[Path]) -> Path:
    out = _cached("o", [source, *sorted(headers)])
    if not out.exists():
        flags = ["-O1", "-std=c++20", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-DSSLK_SIMT", "-U_FORTIFY_SOURCE"]
        _run([*flags, f"-I{SIMT}", f"-I{ROOT / 'csrc'}", "-c", str(source)], out)
    return out


def _cached(suffix: str, inputs: list[Path]) -> Path:
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"sslk_simt_{digest}.{suffix}"


def _run(arguments: list[str], out: Path) -> None:
    scratch = out.with_name(f"{out.name}.{os.getpid()}")  # two processes may build it at once
    subprocess.run(["g++", *arguments, "-o", str(scratch)], check=True)
    scratch.rename(out)


def rows(h: Tensor) -> ctypes.c_void_p:
    """A matrix as the kernels see it; it must stay alive during the call."""
    assert h.dim() == 2
    assert h.stride(1) == 1 or h.shape[1] == 1
    return ctypes.byref(Rows(h.data_ptr(), h.shape[0], h.shape[1], h.stride(0), DTYPES.index(h.dtype)))


def pointer(t: Tensor | None) -> ctypes.c_void_p:
    """The data of a tensor, which must stay alive during the call: no temporary."""
    return ctypes.c_void_p(None if t is None else t.data_ptr())
