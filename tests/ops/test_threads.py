"""Ops that call BLAS or LAPACK come back whatever number of threads was set: each in a process of its own, with a limit."""

import os
import subprocess
import sys

import pytest

OPS = {
    "cca_matrix": "for n, d in 4 * [(128, 64)] + [(100, 64), (2000, 64), (60, 200)]: "
    "ssl_kernels.cca_matrix(torch.randn(2, n, d))",
    "cka_matrix": "x = torch.randn(3, 60, 200, requires_grad=True); ssl_kernels.cka_matrix(x).sum().backward()\n"
    "    x = torch.randn(3, 300, 20, requires_grad=True); ssl_kernels.cka_matrix(x).sum().backward()",
    "linear_cka": "x = torch.randn(9, 60, 200, requires_grad=True); ssl_kernels.linear_cka(x, x.detach() ** 2).sum().backward()\n"
    "    x = torch.randn(9, 300, 20, requires_grad=True); ssl_kernels.linear_cka(x, x.detach() ** 2).sum().backward()",
    "kmeans_assign": "x = torch.randn(5000, 64); ssl_kernels.kmeans_assign(x, x[:600]); "
    "ssl_kernels.kmeans_assign(x.double(), x[:600].double())",
}
QUIET = {"OMP_WAIT_POLICY": "PASSIVE"}  # more threads than processors wait asleep, or a busy machine takes minutes


# OMP_DYNAMIC=TRUE is not here: torch.geqrf itself never returns with it on a loaded machine.
@pytest.mark.parametrize("variables", [{}, {"MKL_DYNAMIC": "FALSE"}], ids=["plain", "not dynamic"])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_returns_after_the_number_of_threads_was_set(threads, variables):
    calls = "\n".join(f"for _ in range(5):\n    {call}\nprint({name!r}, flush=True)" for name, call in OPS.items())
    script = f"import torch, ssl_kernels\ntorch.set_num_threads({threads})\n{calls}"
    try:
        run = subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, **QUIET, **variables}, capture_output=True, text=True, timeout=300
        )
    except subprocess.TimeoutExpired as hang:
        pytest.fail(f"hangs with {threads} threads after {(hang.stdout or b'none').decode().split()}")
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == list(OPS)
