"""Processes in sessions of their own that end with this one, whether it ends, is interrupted or is told to."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

STOPPED = 124  # the exit code of a process that was stopped at its deadline
SECONDS_TO_END = 5.0  # between being asked to end and being killed: ninja ends its compilers, which have groups of their own


class Children:
    """Begins processes and remembers those that run."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock, self._closed = threading.Lock(), False

    def run(self, command: list[str], deadline: float, cwd: Path, environment: dict[str, str]) -> tuple[int, str]:
        """Exit code (`STOPPED` at the deadline, a time of `time.monotonic`) and output."""
        status, lines = STOPPED, []
        for said in self.lines(command, deadline, cwd, environment):
            if isinstance(said, int):
                status = said
            else:
                lines.append(said)
        return status, "".join(lines)

    def lines(self, command: list[str], deadline: float, cwd: Path, environment: dict[str, str]) -> Iterator[str | int]:
        """The output line by line as it comes, then the exit code."""
        seconds = deadline - time.monotonic()
        process = self._begin(command, cwd, environment) if seconds > 0 else None
        if process is None:
            yield "not begun\n"
            yield STOPPED
            return
        late = threading.Event()

        def stop() -> None:
            late.set()
            end(process)

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            assert process.stdout is not None
            yield from process.stdout
            status = process.wait()
            yield STOPPED if late.is_set() else status
        finally:
            timer.cancel()
            end(process)
            process.stdout.close()
            with self._lock:
                self._running.discard(process)

    def end(self) -> None:
        """Ends what runs; nothing begins any more."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for process in running:
            end(process)

    def _begin(self, command: list[str], cwd: Path, environment: dict[str, str]) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._closed:
                return None
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._running.add(process)
            return process


def end(process: subprocess.Popen[str]) -> None:
    """Asks a process and its group to end, and kills what is left of it."""
    if process.poll() is None:
        for number, seconds in ((signal.SIGTERM, SECONDS_TO_END), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(seconds)
