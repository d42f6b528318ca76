"""Builds the native libraries with ninja: ssl_kernels._C (CPU, always) and libsslk_cuda.so (where nvcc is found).

Environment: SSLK_CUDA=0 leaves CUDA out, SSLK_CUDA=1 makes a missing nvcc an error; TORCH_CUDA_ARCH_LIST chooses the
architectures; MAX_JOBS bounds the parallelism; SSLK_SANITIZE=1 builds the CPU library under ASan and UBSan.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
TORCH_TARGET = "2.11"  # the oldest torch the binaries run with
DEFAULT_CUDA_ARCHS = "7.5;8.0;9.0;10.0;12.0+PTX"  # nvcc 12.8 or later
X86_FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"],
}


def find_nvcc() -> str | None:
    if os.environ.get("SSLK_CUDA") == "0":
        return None
    home = os.environ.get("CUDA_HOME")
    nvcc = str(Path(home) / "bin" / "nvcc") if home else shutil.which("nvcc")
    if nvcc and Path(nvcc).exists():
        return nvcc
    if os.environ.get("SSLK_CUDA") == "1":
        raise SystemExit("SSLK_CUDA=1 asks for the CUDA library, but nvcc was found neither in CUDA_HOME nor on PATH.")
    return None


def cuda_gencode(archs: str) -> list[str]:
    """`8.0;9.0+PTX` as nvcc flags."""
    flags = []
    for entry in re.split(r"[;\s]+", archs.strip()):
        number, _, ptx = entry.partition("+")
        code = number.replace(".", "")
        flags.append(f"-gencode=arch=compute_{code},code=sm_{code}")
        if ptx:
            flags.append(f"-gencode=arch=compute_{code.rstrip('a')},code=compute_{code.rstrip('a')}")
    return flags


def path_in_ninja(path: Path) -> str:
    """As it stands in a build line; ninja quotes `$in` and `$out` for the shell."""
    return re.sub(r"([$ :])", r"$\1", str(path))


def quoted(argument: str) -> str:
    """An argument of a command, for the shell and for ninja."""
    return shlex.quote(argument).replace("$", "$$")


def target_macro(version: str) -> str:
    major, minor = (int(part) for part in version.split("."))
    return f"0x{major:02x}{minor:02x}000000000000ULL"


class NinjaBuild(build_ext):
    """Writes one build.ninja for both libraries; ninja keeps it parallel and incremental."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11
        import torch
        from torch.utils import cpp_extension

        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        module = Path(self.get_ext_fullpath(ext.name)).resolve()
        module.parent.mkdir(parents=True, exist_ok=True)
        torch_lib = Path(torch.__file__).parent / "lib"
        cxx = os.environ.get("CXX", "c++")
        nvcc = find_nvcc()
        if nvcc is None:
            print("ssl-kernels: nvcc not found or SSLK_CUDA=0: building the CPU kernels only.", file=sys.stderr)

        multi_isa = platform.machine() in ("x86_64", "AMD64")
        isas = list(X86_FLAGS) if multi_isa else ["baseline"]
        archs = os.environ.get("TORCH_CUDA_ARCH_LIST", DEFAULT_CUDA_ARCHS) if nvcc else ""
        nvcc_version = re.search(r"release ([\d.]+)", subprocess.check_output([nvcc, "--version"], text=True)) if nvcc else None
        includes = [quoted(f"-I{CSRC}")]
        includes += [f"-isystem {quoted(path)}" for path in [*cpp_extension.include_paths(), sysconfig.get_path("include")]]
        target = f"-DTORCH_TARGET_VERSION={target_macro(TORCH_TARGET)}"
        sanitize = os.environ.get("SSLK_SANITIZE") == "1"
        optimise = (
            ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
            if sanitize
            else ["-O3", "-g0"]
        )
        cxx_flags = [
            *optimise,
            "-std=c++20",
            "-fPIC",
            "-fvisibility=hidden",
            "-Wall",
            "-Wextra",
            "-Wno-psabi",
            "-Wno-maybe-uninitialized",  # gcc 12 warns of the undefined registers in its own intrinsics
            target,
            *(["-DSSLK_MULTI_ISA"] if multi_isa else []),
            *includes,
        ]
        compiler = subprocess.check_output([cxx, "--version"], text=True).splitlines()[0]
        info = {
            "SSLK_TORCH_TARGET": TORCH_TARGET,
            "SSLK_TORCH_BUILT": torch.__version__,
            "SSLK_COMPILER": re.sub(r"[()]", "", compiler),
            "SSLK_CPU_ISAS": " ".join(isas),
            "SSLK_CUDA_VERSION": nvcc_version.group(1) if nvcc_version else "",
            "SSLK_CUDA_ARCHS": archs,
        }
        link = ["-shared", quoted(f"-L{torch_lib}"), *(["-fsanitize=address,undefined"] if sanitize else [])]
        if sys.platform == "darwin":
            link += ["-undefined", "dynamic_lookup"]

        lines = [
            "ninja_required_version = 1.5",
            f"cxx = {cxx}",
            f"cxx_flags = {' '.join(cxx_flags)}",
            "rule cxx\n  command = $cxx -MMD -MF $out.d $cxx_flags $extra -c $in -o $out\n  deps = gcc\n  depfile = $out.d"
            "\n  description = C++ $out",
            "rule link\n  command = $cxx $in -o $out $link\n  description = LINK $out",
        ]
        objects = []

        def compile_cxx(source: Path, suffix: str = "", extra: str = "") -> None:
            out = build / f"{source.relative_to(CSRC).as_posix().replace('/', '_')}{suffix}.o"
            lines.append(f"build {path_in_ninja(out)}: cxx {path_in_ninja(source)}\n  extra = {extra}")
            objects.append(out)

        for source in sorted(CSRC.rglob("*.cpp")):
            if source.name.endswith("kernels.cpp"):
                for isa in isas:
                    compile_cxx(source, f".{isa}", " ".join([f"-DSSLK_ISA={isa}", *(X86_FLAGS[isa] if multi_isa else [])]))
            elif source.name == "module.cpp":
                about = [quoted(f'-D{name}="{value}"') for name, value in info.items()]
                compile_cxx(source, extra=" ".join([quoted(f"-I{pybind11.get_include()}"), *about]))
            else:
                compile_cxx(source)
        linked = " ".join([*link, "-ltorch_cpu", "-ltorch", "-lc10"])
        lines.append(f"build {path_in_ninja(module)}: link {' '.join(map(path_in_ninja, objects))}\n  link = {linked}")
        targets = [module]

        if nvcc:
            cuda_library = module.parent / "libsslk_cuda.so"
            nvcc_flags = [
                "-O3",
                "-std=c++20",
                "-Xcompiler",
                "-fPIC,-fvisibility=hidden",
                "--expt-relaxed-constexpr",
                "--threads",
                "0",
                "-DUSE_CUDA",
                target,
                *includes,
                *cuda_gencode(archs),
            ]
            lines += [
                f"nvcc = {quoted(nvcc)}",
                f"nvcc_flags = {' '.join(nvcc_flags)}",
                "rule nvcc\n  command = $nvcc -MD -MF $out.d $nvcc_flags -c $in -o $out\n  deps = gcc\n  depfile = $out.d"
                "\n  description = NVCC $out",
                "rule nvlink\n  command = $nvcc $in -o $out $link\n  description = LINK $out",
            ]
            cuda_objects = []
            for source in sorted(CSRC.rglob("*.cu")):
                out = build / f"{source.relative_to(CSRC).as_posix().replace('/', '_')}.o"
                lines.append(f"build {path_in_ninja(out)}: nvcc {path_in_ninja(source)}")
                cuda_objects.append(out)
            if cuda_objects:
                cuda_link = f"-shared -cudart static {quoted(f'-L{torch_lib}')} -ltorch_cuda -ltorch_cpu -ltorch -lc10"
                inputs = " ".join(map(path_in_ninja, cuda_objects))
                lines.append(f"build {path_in_ninja(cuda_library)}: nvlink {inputs}\n  link = {cuda_link}")
                targets.append(cuda_library)
        lines.append(f"default {' '.join(map(path_in_ninja, targets))}\n")
        (build / "build.ninja").write_text("\n".join(lines))
        jobs = ["-j", os.environ["MAX_JOBS"]] if os.environ.get("MAX_JOBS") else []
        subprocess.run([shutil.which("ninja") or "ninja", "-C", str(build), *jobs], check=True)

    def copy_extensions_to_source(self) -> None:
        """Editable installs: setuptools copies the module, this the CUDA library beside it."""
        super().copy_extensions_to_source()
        built = Path(self.build_lib) / "ssl_kernels" / "libsslk_cuda.so"
        if built.exists():
            shutil.copy2(built, ROOT / "ssl_kernels" / built.name)

    def get_outputs(self) -> list[str]:
        outputs = super().get_outputs()
        return outputs + [
            str(Path(path).parent / "libsslk_cuda.so") for path in outputs if (Path(path).parent / "libsslk_cuda.so").exists()
        ]


setup(ext_modules=[Extension("ssl_kernels._C", [])], cmdclass={"build_ext": NinjaBuild})
