"""The installed package: loading, build information, symbols, the cost of importing."""

import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ssl_kernels


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, cwd="/"
    )


def library() -> Path:
    import ssl_kernels._C as native

    return Path(native.__file__)


def test_missing_native_library_names_the_likely_causes(tmp_path):
    package = tmp_path / "ssl_kernels"
    shutil.copytree(Path(ssl_kernels.__file__).parent, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    result = run(
        "import sys; "  # without the finder of an editable install, which would find the library elsewhere
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in getattr(f, '__module__', '')]; "
        f"sys.path.insert(0, {str(tmp_path)!r}); import ssl_kernels"
    )
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1 and last.startswith("ImportError: The native library ssl_kernels._C")
    assert "not built" in last and "2.11" in last


def test_forced_cpu_build():
    result = run("import ssl_kernels; print(ssl_kernels.cpu_isa())", SSLK_CPU_ISA="baseline")
    assert result.stdout.strip() == "baseline"
    result = run("import ssl_kernels, torch; torch.ops.sslk.row_moments(torch.rand(2, 2))", SSLK_CPU_ISA="mmx")
    assert "SSLK_CPU_ISA must be baseline, avx2 or avx512" in result.stderr


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_no_unstable_symbol_is_needed():
    """Only the C shims of the stable ABI: nothing of at:: or c10::, which change between torch releases."""
    libraries = [library(), *library().parent.glob("libsslk_cuda.so")]
    for path in libraries:
        output = subprocess.run(["nm", "-D", "-C", "--undefined-only", path], capture_output=True, text=True, check=True)
        unstable = re.findall(r"U ((?:at|c10|torch)::.*)", output.stdout)
        assert not unstable, f"{path.name} needs {unstable[:3]}"
        assert "aoti_torch" in output.stdout


def test_build_information():
    info = ssl_kernels.build_info()
    assert info["torch_target"] == "2.11" and info["cpu_isas"].split()[0] == "baseline"
    assert ssl_kernels.cpu_isa() in info["cpu_isas"].split()


def test_importing_the_kernels_needs_torch_and_numpy_alone():
    """None of the protocol libraries is imported by ssl_kernels."""
    result = run(
        "import sys, ssl_kernels; "
        "print([m for m in ('lightly', 'torchvision', 'sklearn', 'matplotlib', 'timm', 'sslk') if m in sys.modules])"
    )
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("family", ["rows", "masking", "similarity", "kmeans"])
def test_doctests_of_the_kernels(family):
    result = doctest.testmod(importlib.import_module(f"ssl_kernels.{family}"))
    assert result.attempted > 0 and result.failed == 0


def modules_with_examples() -> list[str]:
    """Every module of `sslk` whose docstrings hold an example."""
    root = Path(importlib.import_module("sslk").__file__).parent
    files = sorted(file for file in root.rglob("*.py") if ">>> " in file.read_text())
    return [".".join(("sslk", *file.relative_to(root).with_suffix("").parts)) for file in files]


@pytest.mark.parametrize("module", modules_with_examples())
def test_doctests_of_the_protocols(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0 and result.failed == 0


def test_self_test_passes():
    from ssl_kernels.__main__ import main

    assert main() == 0
