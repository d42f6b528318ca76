"""One self-contained HTML page from sections of text, tables and figures."""

from __future__ import annotations

import base64
import io
import os
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader
from matplotlib import pyplot as plt
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """Column names and rows; numbers should come formatted."""

    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, eq=False)
class Section:
    """A heading with text, an optional table and figures with their alternative texts."""

    title: str
    text: str
    table: Table | None = None
    figures: list[tuple[Figure, str]] = field(default_factory=list)


def write_page(path: Path, title: str, summary: list[str], sections: list[Section], provenance: dict[str, str]) -> None:
    """Write the page atomically; figures are embedded as PNG and also saved beside it as `figure-<n>.png`."""
    environment = Environment(loader=PackageLoader("sslk.report"), autoescape=True)
    rendered = []
    number = 0
    for section in sections:
        images = []
        for figure, alt in section.figures:
            number += 1
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=110)
            plt.close(figure)
            (path.parent / f"figure-{number}.png").write_bytes(buffer.getvalue())
            images.append({"data": base64.b64encode(buffer.getvalue()).decode(), "alt": alt})
        rendered.append({"title": section.title, "text": section.text, "table": section.table, "images": images})
    html = environment.get_template("page.html").render(
        title=title, summary=summary, sections=rendered, provenance=provenance
    )
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(html, encoding="utf-8")
    os.replace(temporary, path)
