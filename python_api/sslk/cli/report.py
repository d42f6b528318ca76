"""`sslk report`: pages from runs."""

from __future__ import annotations

from pathlib import Path

from sslk.cli.console import Output, print_table


def page(
    runs: list[str], *, out: str = "report.html", title: str | None = None, max_megabytes: float = 8.0, quiet: bool = False
) -> None:
    """Put finished runs on one self-contained HTML page: findings, leaderboards, tables, figures, provenance.

    Beside the page stands every number as one line of JSON: data, model, task, metric, value, 95 % interval, samples, run.

    Examples:
        $ sslk report page runs/demo --out runs/demo.html
        $ sslk report page runs/simclr runs/swav runs/byol --out runs/three.html --title "Three encoders on CIFAR-10"

    Args:
        runs: folders that commands wrote with --out, or folders that hold such folders.
        out: file of the page; the numbers go to the same name with the suffix .jsonl.
        title: title of the page; that of the run where there is only one.
        max_megabytes: pictures and data that would make the page larger stay in their folders, and are named.
        quiet: print nothing.
    """
    from sslk.files.regular import require_file_name
    from sslk.report import find_runs, render_page, write_measures, write_page

    require_file_name(out)
    if Path(out).suffix == ".jsonl":
        raise ValueError(f"out must be the name of the page, such as report.html, got {out}: the numbers take the suffix .jsonl.")
    found, lines = find_runs(runs), Path(out).with_suffix(".jsonl")
    text = render_page(found, title, max_megabytes=max_megabytes)
    write_page(out, text)
    count = write_measures(lines, found)
    if not quiet:
        print(f"{out}: {len(text.encode()) / 1e6:.1f} MB; {lines}: {count} number{'' if count == 1 else 's'}")


def watch(runs: list[str], *, title: str | None = None, port: int = 8000, quiet: bool = False) -> None:
    """Serve the page of runs on this machine, and reload it as runs finish; Ctrl-C ends it.

    Examples:
        $ sslk report watch runs/evaluation --port 8001

    Args:
        runs: folders that commands write with --out, or folders that hold such folders.
        title: title of the page; that of the run where there is only one.
        port: port of the server; 0 picks a free one.
        quiet: print nothing.
    """
    from sslk.report import serve

    serve(runs, title, port, None if quiet else lambda address: print(f"{address}  (Ctrl-C ends it)", flush=True))


def compare(run: str, *, paper: str, json: bool = False) -> None:
    """Print a run's table beside a paper's, with the differences.

    Examples:
        $ sslk report compare runs/transfer --paper tableA2

    Args:
        run: folder of a run.
        paper: table1, tableA1, tableA2 (Q-Score), table2, table3, table4, table7 (reverse probing), or a full name such as
            masked_table1.
        json: print one JSON object.
    """
    from sslk.report import compare as beside
    from sslk.results import Run

    found = beside(Run.load(run), paper)
    if json:
        return Output(json).fields(found.described())
    print_table(found.table)
    if found.unmatched:
        print("not in the paper's table: " + "; ".join(found.unmatched))
