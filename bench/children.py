"""Processes in sessions of their own that end with this one, whether it ends, is interrupted or is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

STOPPED = 124  # the exit code of a process that was stopped at its deadline
SECONDS_TO_END = 5.0  # from being asked to end to being killed: ninja ends its compilers, which have groups of their own


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
            end([process])

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            assert process.stdout is not None
            yield from process.stdout
            status = process.wait()
            yield STOPPED if late.is_set() else status
        finally:
            timer.cancel()
            end([process])  # and what it left behind
            process.stdout.close()
            with self._lock:
                self._running.discard(process)

    def stop(self) -> None:
        """Ends what runs."""
        with self._lock:
            running = list(self._running)
        end(running)

    def end(self) -> None:
        """Ends what runs; nothing begins any more."""
        with self._lock:
            self._closed = True
        self.stop()

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


def end(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Asks processes and their groups to end, and after a while kills what is left of them."""
    until = time.monotonic() + SECONDS_TO_END
    left = [process for process in processes if signalled(process, signal.SIGTERM)]
    while left and time.monotonic() < until:
        time.sleep(0.02)
        left = [process for process in left if signalled(process, 0)]
    for process in left:
        signalled(process, signal.SIGKILL)
        process.wait()


def signalled(process: subprocess.Popen[str], number: int) -> bool:
    """Whether the group still has a process, which gets the signal."""
    process.poll()  # one that nobody waits for stays in its group
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
