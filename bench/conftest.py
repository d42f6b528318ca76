"""Benchmarks: every op next to the machine's own rates, measured in the same run, round by round.

`beside` times an op with pytest-benchmark and, before each of its rounds, a reference (x.sum(), copy_, ...). The
closing table gives bytes moved, milliseconds, GB/s and the share of the reference's rate. Nothing here fails on time.
"""

import json
import os
import statistics
import time
from pathlib import Path

import pytest
import torch

ROWS: list[dict] = []
ROUNDS = int(os.environ.get("SSLK_BENCH_ROUNDS", "9"))


@pytest.fixture
def beside(benchmark, request):
    """`beside(op, nbytes, reference, reference_bytes, reference_name, versus={name: function})`."""

    def run(op, nbytes, reference, reference_bytes, reference_name, versus=None):
        times = []

        def time_reference():
            start = time.perf_counter()
            reference()
            times.append(time.perf_counter() - start)

        for function in (op, reference, op):
            function()
        benchmark.pedantic(op, setup=time_reference, rounds=ROUNDS)
        seconds = benchmark.stats.stats.median
        rate = nbytes / seconds
        row = {
            "name": request.node.name.removeprefix("test_"),
            "MB": nbytes / 1e6,
            "ms": seconds * 1e3,
            "GB/s": rate / 1e9,
            "share": rate / (reference_bytes / statistics.median(times)),
            "of": reference_name,
        }
        for name, function in (versus or {}).items():
            function()
            row[f"x {name}"] = _median(function, 3) / seconds
        ROWS.append(row)
        benchmark.extra_info.update(row)

    return run


def _median(function, rounds):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def pytest_terminal_summary(terminalreporter):
    if not ROWS:
        return
    names = list(dict.fromkeys(key for row in ROWS for key in row))
    cells = [[_format(row.get(name, "")) for name in names] for row in ROWS]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    write = terminalreporter.write_line
    terminalreporter.section("share of the machine's own rate; x: times faster than")
    for line in [names, *cells]:
        write("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))))
    if path := os.environ.get("SSLK_BENCH_JSON"):
        from sslk.results.provenance import provenance

        Path(path).write_text(json.dumps({"provenance": provenance({}), "rows": ROWS}, indent=1))


def _format(value) -> str:
    return value if isinstance(value, str) else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield
