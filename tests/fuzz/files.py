"""The file fuzzer: every kind of file the package reads, damaged at random, read in a process with limits.

A reader returns, or raises an error of the package: a ValueError, OSError or RuntimeError of one line that names the file.
It does not hang, crash, fill the memory or fail in the words of a decoder.

`python -m tests.fuzz.files --minutes 60 --seed 1` runs for an hour; `--seed 1 --case 17` runs that case alone.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.fuzz.file_kinds import KINDS, Kind
from tests.fuzz.mutate import mutations

SECONDS = 10.0  # of the processor that a reader may take
PATIENCE = 120.0  # seconds until it counts as hanging; the worker's start and what else the machine does are among them
MEMORY = 2 << 30  # bytes of addresses beyond what the worker has at its start
PAIRS = tuple((kind, file) for kind in KINDS for file in kind.files)
OURS = (ValueError, OSError, RuntimeError)
# Of those, what Python and its libraries raise where nobody has thought of it.
NOBODYS = (UnicodeError, RecursionError, NotImplementedError, zipfile.BadZipFile, struct.error)


def run_case(seed: int, case: int, home: Path, undamaged: dict[str, Any]) -> str:
    """What a reader did wrong; empty where it kept the promise. Valid files are written below `home` once."""
    rng = np.random.default_rng((seed, case))
    kind, file = PAIRS[case % len(PAIRS)]
    whole, folder = home / "whole" / kind.name, home / "case"
    if kind.name not in undamaged:
        whole.mkdir(parents=True)
        kind.write(whole)
        undamaged[kind.name] = kind.read(whole)
    ways = mutations(Path(file))
    way = ways[(case // len(PAIRS)) % len(ways)]  # every way in turn
    shutil.copytree(whole, folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            way(folder / file, rng)
            started = time.process_time()
            failure = failure_of(kind, folder, file, undamaged[kind.name])
            if (seconds := time.process_time() - started) > SECONDS:
                failure = f"took {seconds:.0f} s {failure}"
    finally:
        shutil.rmtree(folder)
    return failure and f"{way.__name__}: {failure}"


def failure_of(kind: Kind, folder: Path, file: str, undamaged: Any) -> str:
    """What the reader of a damaged folder did wrong; empty where it kept the promise."""
    try:
        found = kind.read(folder)
    except OURS as error:
        said = str(error)
        if isinstance(error, NOBODYS) or type(error).__module__.startswith(("json", "pydantic", "safetensors", "yaml")):
            return "".join(traceback.format_exception(error)[-3:])
        named = any(part in said for part in (Path(file).name, str(folder)))
        if not said.strip() or "\n" in said or not named:
            return f"not one line that names the file: {type(error).__name__}: {said[:300]}"
        if len(said) > 1000:
            return f"a line of {len(said)} characters: {said[:300]}"
        return ""
    except BaseException as error:
        return "".join(traceback.format_exception(error)[-3:])
    if kind.exact and found != undamaged:
        return "another value was read in silence"
    return ""


def work(connection: Any) -> None:
    """Runs the cases it is sent, under the limits, until it is told to end."""
    torch.set_num_threads(1)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    undamaged: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        while (job := connection.recv()) is not None:
            connection.send(run_case(*job, Path(home), undamaged))


class Worker:
    """A process that runs cases; a new one where the last one hung or died."""

    def __init__(self, target: Callable[[Any], None] = work) -> None:
        self._target = target
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["tests.fuzz.file_kinds"])
        self._process: Any = None

    def run(self, seed: int, case: int) -> str:
        if self._process is None:
            self._connection, theirs = self._context.Pipe()
            self._process = self._context.Process(target=self._target, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
        self._connection.send((seed, case))
        if not self._connection.poll(PATIENCE):
            return self._died(f"still running after {PATIENCE:g} s")
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            return self._died(f"died with status {self._process.exitcode}")

    def _died(self, how: str) -> str:
        self._process.kill()
        self._process.join()
        self._process = None
        return how

    def close(self) -> None:
        if self._process is not None:
            with suppress(OSError):  # it is dead
                self._connection.send(None)
            self._process.join(5)
            self._process.kill()
            self._process.join()
            self._process = None


def failures(seed: int, cases: Iterator[int]) -> Iterator[tuple[int, str]]:
    """Every case, and what was wrong in it."""
    worker = Worker()
    try:
        for case in cases:
            said = worker.run(seed, case)
            again = f"\nagain: python -m tests.fuzz.files --seed {seed} --case {case}"
            kind, file = PAIRS[case % len(PAIRS)]
            yield case, said and f"{kind.name}, {file}: {said}{again}"
    finally:
        worker.close()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.files", description="Read damaged files of every kind.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, help="stop after this many")
    parser.add_argument("--case", type=int, help="run this case alone")
    options = parser.parse_args(arguments)
    stop, wrong, count = time.monotonic() + 60 * options.minutes, 0, 0
    cases = iter([options.case]) if options.case is not None else iter(range(options.cases or sys.maxsize))
    for case, said in failures(options.seed, cases):
        count += 1
        wrong += bool(said)
        if said:
            print(f"case {case}: {said}", flush=True)
        if time.monotonic() > stop:
            break
    print(f"seed {options.seed}: {count} cases, {wrong} failures")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
