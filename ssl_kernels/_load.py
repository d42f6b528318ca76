"""Loads the native libraries, and says what is wrong when they cannot be loaded."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import torch

_CUDA_LIBRARY = Path(__file__).parent / "libsslk_cuda.so"
_module: ModuleType | None = None
_cuda_loaded = False


def load_libraries() -> None:
    """Load `_C` (schemas and CPU kernels) and, where torch was built with CUDA, `libsslk_cuda.so`.

    Raises:
        ImportError: a library is missing or does not load; the message names the likely causes.
    """
    global _module, _cuda_loaded
    if _module is not None:
        return
    try:
        _module = importlib.import_module("ssl_kernels._C")
    except ImportError as error:
        raise ImportError(
            f"The native library ssl_kernels._C could not be loaded ({error}). Likely causes: the package was not built "
            "(run `python -m pip install --no-build-isolation .` in the source tree), Python was started inside the "
            "source tree without an editable install, the wheel is for another Python version, or torch "
            f"{torch.__version__} is older than the 2.11 the library needs."
        ) from error
    if torch.version.cuda is not None and _CUDA_LIBRARY.exists():
        try:
            torch.ops.load_library(str(_CUDA_LIBRARY))
        except OSError as error:
            raise ImportError(
                f"{_CUDA_LIBRARY.name} could not be loaded ({error}). It was built with CUDA {build_info()['cuda']} and "
                f"torch here has CUDA {torch.version.cuda}: rebuild with that CUDA, or with SSLK_CUDA=0 for CPU only."
            ) from error
        _cuda_loaded = True


def _native() -> ModuleType:
    if _module is None:
        load_libraries()
    assert _module is not None
    return _module


def build_info() -> dict[str, str]:
    """How the binary was built: torch_target, torch_built, compiler, cpu_isas, cuda, cuda_architectures."""
    return dict(_native().build_info())


def cpu_isa() -> str:
    """The CPU build in use: `"baseline"`, `"avx2"` or `"avx512"`."""
    return str(_native().cpu_isa())


def set_cpu_isa(name: str) -> None:
    """Use another CPU build from now on, as `SSLK_CPU_ISA` does at start; ValueError if it is not available."""
    _native().set_cpu_isa(name)


def cuda_library_loaded() -> bool:
    """Whether the CUDA kernels are registered in this process."""
    return _cuda_loaded
