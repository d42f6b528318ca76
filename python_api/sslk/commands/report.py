"""One page from runs, from the command line."""

from __future__ import annotations


def report(
    runs: list[str],
    out: str = "report.html",
    title: str | None = None,
    max_megabytes: float = 8.0,
    watch: bool = False,
    port: int = 8000,
    quiet: bool = False,
) -> None:
    """Put finished runs on one self-contained HTML page: findings, models side by side, tables, figures, provenance.

    Examples:
        $ sslk report runs/demo --out runs/demo.html
        $ sslk report runs/simclr runs/swav runs/byol --out runs/three.html --title "Three encoders on CIFAR-10"
        $ sslk report runs/evaluation --watch --port 8001

    Args:
        runs: folders that commands wrote with --out, or folders that hold such folders.
        out: the page.
        title: of the page; that of the run where there is only one.
        max_megabytes: pictures and data that would make the page larger stay in their folders, and are named.
        watch: serve the page on this machine instead, and reload it as runs finish; Ctrl-C ends it.
        port: of the server; 0 picks a free one.
        quiet: print nothing.
    """
    from sslk.files.regular import require_file_name
    from sslk.report.collect import find_runs
    from sslk.report.page import render_page, write_page
    from sslk.report.watch import serve

    if watch:
        serve(runs, title, port, None if quiet else lambda address: print(f"{address}  (Ctrl-C ends it)", flush=True))
        return
    require_file_name(out)
    page = render_page(find_runs(runs), title, max_megabytes=max_megabytes)
    write_page(out, page)
    if not quiet:
        print(f"{out}: {len(page.encode()) / 1e6:.1f} MB")
