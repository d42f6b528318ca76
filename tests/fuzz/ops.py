"""The op fuzzer: every op of the library on random input, each result compared with an oracle.

`python -m tests.fuzz.ops --minutes 60 --seed 1` runs for an hour and prints each failure with the seed and case that
reproduce it; `--seed 1 --case 17` runs that case alone. A case draws its threads and instruction set too.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable

import torch

import ssl_kernels
from tests.conftest import available_isas
from tests.fuzz.draw import Draw
from tests.fuzz.kmeans import fuzz_kmeans
from tests.fuzz.masking import fuzz_iou, fuzz_masking
from tests.fuzz.regression import fuzz_regression
from tests.fuzz.rows import fuzz_rows
from tests.fuzz.similarity import fuzz_cca, fuzz_cka

FAMILIES: tuple[Callable[[Draw], None], ...] = (
    fuzz_rows,
    fuzz_rows,
    fuzz_kmeans,
    fuzz_masking,
    fuzz_iou,
    fuzz_regression,
    fuzz_cka,
    fuzz_cca,
)
ISAS = available_isas()


def run_case(seed: int, case: int, isa: str | None = None) -> None:
    """AssertionError, with how to run it again, where an op was wrong."""
    draw = Draw(seed, case)
    family = FAMILIES[case % len(FAMILIES)]
    drawn, threads = draw.choice(ISAS), int(draw.rng.integers(1, 5))
    isa = isa or drawn
    before = ssl_kernels.cpu_isa(), torch.get_num_threads()
    ssl_kernels.set_cpu_isa(isa)
    torch.set_num_threads(threads)
    try:
        family(draw)
    except Exception as error:
        again = f"python -m tests.fuzz.ops --seed {seed} --case {case} --isa {isa}"
        raise AssertionError(f"{family.__name__} ({isa}, {threads} threads): {error}\nagain: {again}") from error
    finally:
        ssl_kernels.set_cpu_isa(before[0])
        torch.set_num_threads(before[1])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.ops", description="Fuzz every op against its oracle.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, help="stop after this many")
    parser.add_argument("--case", type=int, help="run this case alone")
    parser.add_argument("--isa", choices=ISAS, help="the instruction set of every case; drawn by default")
    options = parser.parse_args(arguments)
    if options.case is not None:
        run_case(options.seed, options.case, options.isa)
        print(f"seed {options.seed}, case {options.case}: no failure")
        return 0
    stop, case, failures = time.monotonic() + 60 * options.minutes, 0, 0
    while time.monotonic() < stop and case != options.cases:
        try:
            run_case(options.seed, case, options.isa)
        except AssertionError as error:
            failures += 1
            print(error, flush=True)
            if not isinstance(error.__cause__, AssertionError):
                traceback.print_exception(error.__cause__)
        case += 1
    print(f"seed {options.seed}: {case} cases, {failures} failures")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
