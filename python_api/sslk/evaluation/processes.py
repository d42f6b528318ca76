"""Where the steps of an evaluation run: in this process, or in several, each with its share of the processors."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any

from sslk.evaluation.plan import Step
from sslk.progress import Progress


@dataclass(frozen=True)
class Ended:
    """How a call ended: seconds, and of a failed one the error and its traceback."""

    seconds: float
    error: str | None = None
    traceback: str = ""


class Here(Executor):
    """Runs what is submitted at once, in this process."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def runner(workers: int) -> Iterator[Executor]:
    """This process, or so many others, which share the processors and end with the context.

    Raises:
        ValueError: workers is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}.")
    if workers == 1:
        yield Here()
        return
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    # A process counts its threads before any code of ours runs: what libraries read is set before it begins.
    before, os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS"), str(threads)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(threads,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def begin(pool: Executor, step: Step, progress: Progress | None) -> Future[Ended]:
    """Hand a step to a process; where one was killed before, there is none left, and the step fails."""
    try:
        return pool.submit(call, step, progress)
    except BrokenProcessPool as error:
        future: Future[Ended] = Future()
        future.set_exception(error)
        return future


def call(step: Step, progress: Progress | None) -> Ended:
    """Carry a step out; only an interruption is raised."""
    started = time.monotonic()
    try:
        step.call(**step.arguments, progress=progress)
    except Exception as error:
        seconds = round(time.monotonic() - started, 2)
        return Ended(seconds, f"{type(error).__name__}: {error}", traceback.format_exc())
    return Ended(round(time.monotonic() - started, 2))


def ended(future: Future[Ended]) -> Ended:
    """How it ended; a process that was killed is an error of the step that it carried out."""
    try:
        return future.result()
    except BrokenProcessPool as error:
        return Ended(0.0, "a process that carries out steps was ended from outside (for want of memory?)", str(error))


def _begin(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that was killed closes nothing: its processes would finish their steps and wait for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
