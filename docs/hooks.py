"""Fills the generated parts of the documentation while mkdocs builds it, so that no generated text is kept by hand.

A line `{{ ops }}`, `{{ commands }}`, `{{ benchmarks }}` or `{{ compiled }}` becomes the schemas in csrc/schemas.cpp, the
commands in sslk.cli with their options, the tables of bench/results/*.json, or what bench/compiled.py found. Equations
between `$$` or `$` become MathML, which browsers draw themselves.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import latex2mathml.converter

ROOT = Path(__file__).resolve().parents[1]
_CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.DOTALL | re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    for name, make in (("ops", ops), ("commands", commands), ("benchmarks", benchmarks), ("compiled", compiled)):
        marker = f"{{{{ {name} }}}}"
        if marker in markdown:
            markdown = markdown.replace(marker, make())
    parts = _CODE.split(markdown)  # code stays as it is
    return "".join(part if i % 2 else _equations(part) for i, part in enumerate(parts))


def _equations(text: str) -> str:
    text = re.sub(r"\$\$(.+?)\$\$", lambda found: _math(found[1], "block"), text, flags=re.DOTALL)
    return re.sub(r"(?<![\\\w])\$([^$\n]+?)\$", lambda found: _math(found[1], "inline"), text)


def _math(latex: str, display: str) -> str:
    mathml = latex2mathml.converter.convert(" ".join(latex.split()), display=display)
    # In a span: a line that began with the bare element would be taken for a block of HTML.
    return f'<div class="math">{mathml}</div>' if display == "block" else f"<span>{mathml}</span>"


def ops() -> str:
    """A table of every schema; backward ops are called by autograd, not by hand."""
    source = (ROOT / "csrc" / "schemas.cpp").read_text(encoding="utf-8")
    schemas = ["".join(re.findall(r'"([^"]*)"', call)) for call in re.findall(r"m\.def\((.*?)\);", source, re.DOTALL)]
    rows = []
    for schema in schemas:
        name = schema.partition("(")[0]
        kind = "gradient" if name.endswith("_backward") else f"[`{name}`](#ssl_kernels.{name})"
        rows.append(f"| {kind} | `{schema}` |")
    return "\n".join(["| op | schema in `torch.ops.sslk` |", "|---|---|", *rows])


def commands() -> str:
    """Every command with what its help says and its examples."""
    sys.path.insert(0, str(ROOT / "python_api"))
    from sslk.cli.app import COMMANDS, examples, find, make_app

    parts = []
    for name in COMMANDS:
        command = find(make_app(name.split()), name)
        text = command.generate_docs(heading_level=2, usage_name=f"sslk {name}")
        body = text.partition("\n\n")[2]
        code = "\n".join(["```", *examples(command), "```"])
        parts.append(f"## sslk {name}\n\n{code}\n\n{body}")
    return "\n\n".join(parts)


def benchmarks() -> str:
    """One section per file of bench/results, with what it was measured on."""
    return "\n\n".join(
        _benchmark(file, json.loads(file.read_text(encoding="utf-8")))
        for file in sorted((ROOT / "bench" / "results").glob("*.json"))
    )


_OPS = {
    "QScoreOp<false>": "qscore",
    "QScoreOp<true>": "qscore_counts",
    "CountsOp": "activation_counts",
    "MaskOp": "activating_mask",
    "MomentsOp": "row_moments",
    "ColumnsOp": "qscore_penalty",
    "GradientOp<true>": "qscore_penalty_backward",
    "GradientOp<false>": "qscore_backward",
    "PackOp": "kmeans_assign, packing",
}


def compiled() -> str:
    """What rows of every length can reach at most, from the machine code."""
    content = json.loads((ROOT / "bench" / "compiled" / "sm_90.json").read_text(encoding="utf-8"))
    rows: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row in content["expected"]:
        dtype = {"float": "float32", "__nv_bfloat16": "bfloat16"}[row["dtype"]]
        rows.setdefault((_OPS[row["op"]], dtype), {})[row["length"]] = row
    lengths = sorted({length for row in rows.values() for length in row})
    lines = ["| op | dtype | " + " | ".join(f"D = {n:,}" for n in lengths) + " |", "|" + "---|" * (len(lengths) + 2)]
    for (op, dtype), cells in sorted(rows.items(), key=lambda row: list(_OPS.values()).index(row[0][0])):
        shown = (f"{cells[n]['share']:.2f} ({cells[n]['flight']:.1f}, {cells[n]['issue']:.1f})" for n in lengths)
        lines.append(f"| `{op}` | {dtype} | " + " | ".join(shown) + " |")
    kernels = content["kernels"]
    spilled = sum(kernel["spills"] > 0 for kernel in kernels)
    registers = [kernel["registers"] for kernel in kernels]
    facts = (
        f"{len(kernels)} kernels for {content['arch']} by nvcc {content['nvcc']}: {spilled} with accesses to local memory, "
        f"{min(registers)} to {max(registers)} registers, at most {max(kernel['shared'] for kernel in kernels):,} bytes shared."
    )
    return facts + "\n\n" + "\n".join(lines)


def _benchmark(file: Path, content: dict[str, Any]) -> str:
    rows = content.get("rows", [])
    columns = list(dict.fromkeys(key for row in rows for key, value in row.items() if not isinstance(value, dict | list)))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = (row.get(column, "") for column in columns)
        lines.append("| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |")
    about = {key: value for key, value in (content.get("provenance") or content).items() if isinstance(value, str)}
    measured = "; ".join(f"{key} {value}" for key, value in about.items())
    return f"## {file.name}\n\n{measured}\n\n" + "\n".join(lines)
