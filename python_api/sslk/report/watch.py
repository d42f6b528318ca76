"""The report served on this machine while runs go on: the page reloads when a result appears or changes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sslk.report.collect import find_runs
from sslk.report.page import render_page
from sslk.results.run import RESULTS

_HOSTS = ("127.0.0.1", "localhost")
_MOST_CLIENTS = 32  # served at a time; who comes while they are is turned away
_SECONDS = 5.0  # that a client may take to say what it wants


def unfinished(folders: Sequence[str | os.PathLike[str]]) -> list[str]:
    """A sentence for every folder in which no run has finished yet, with the file last written there."""
    sentences = []
    for folder in map(Path, folders):
        if folder.is_dir() and find_runs([folder]):
            continue
        newest = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime, default=None)
        if newest is None:
            sentences.append(f"{folder}: nothing written yet.")
        else:
            age = max(0, round(time.time() - newest.stat().st_mtime))
            sentences.append(f"{folder}: not finished; {newest.relative_to(folder)} was written {age} s ago.")
    return sentences


def serve(
    folders: Sequence[str | os.PathLike[str]],
    title: str | None = None,
    port: int = 8000,
    on_start: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serve the report of `folders` at 127.0.0.1 until interrupted, or until `stop` is set. Nothing else is served.

    Args:
        folders: run folders, finished or not, which may not exist yet.
        title: of the page.
        port: 0 picks a free one.
        on_start: called with the address.
        stop: ends the server.

    Raises:
        ValueError: there is no such port.
        OSError: the port is taken, or not to be had without more rights.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port must lie between 0 and 65535, got {port}.")

    class Handler(BaseHTTPRequestHandler):
        timeout = _SECONDS

        def do_GET(self) -> None:
            if self.headers.get("Host", "").rpartition(":")[0] not in _HOSTS:  # a page of another site asks
                self.send_error(403)
            elif self.path == "/version":
                self._send(_version(folders), "text/plain")
            elif self.path == "/":
                present = [folder for folder in folders if Path(folder).is_dir()]
                self._send(render_page(find_runs(present), title, unfinished(folders), watch=True), "text/html; charset=utf-8")
            else:
                self.send_error(404)

        def _send(self, text: str, kind: str) -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """No line per request."""

    with _Server(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            if on_start:
                on_start(f"http://127.0.0.1:{server.server_port}/")
            (stop or threading.Event()).wait()
        finally:
            server.shutdown()


class _Server(ThreadingHTTPServer):
    """A thread for each client, but never more than `_MOST_CLIENTS`."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._places = threading.BoundedSemaphore(_MOST_CLIENTS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()


def _version(folders: Sequence[str | os.PathLike[str]]) -> str:
    """Changes when a result appears, changes or goes."""
    present = [folder for folder in folders if Path(folder).is_dir()]
    times = []
    for run in find_runs(present):
        try:
            times.append(f"{run}:{(run / RESULTS).stat().st_mtime_ns}")
        except OSError:  # replaced at this moment
            continue
    return "|".join(times)
