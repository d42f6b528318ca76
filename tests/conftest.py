"""Shared parameters of the suite: devices, dtypes, and the CPU builds this machine can run."""

import pytest
import torch

import ssl_kernels

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() and ssl_kernels.cuda_library_loaded() else [])


def available_isas() -> list[str]:
    """CPU builds that are in the library and that this machine can run, the default one last."""
    default = ssl_kernels.cpu_isa()
    names = []
    for name in ssl_kernels.build_info()["cpu_isas"].split():
        try:
            ssl_kernels.set_cpu_isa(name)
        except ValueError:
            continue
        names.append(name)
    ssl_kernels.set_cpu_isa(default)
    return sorted(names, key=lambda name: name == default)


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.fixture(params=available_isas())
def isa(request):
    """Runs the test under every CPU build."""
    default = ssl_kernels.cpu_isa()
    ssl_kernels.set_cpu_isa(request.param)
    yield request.param
    ssl_kernels.set_cpu_isa(default)
