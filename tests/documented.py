"""The command lines that README and docs show."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def documented_commands() -> list[tuple[str, str]]:
    """Every `sslk ...` line of the code blocks of README and docs, in order, continued lines joined, with its file."""
    found = []
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for language, block in _FENCED.findall(file.read_text(encoding="utf-8")):
            if language not in ("", "bash", "sh", "console"):
                continue
            for line in block.replace("\\\n", " ").splitlines():
                words = re.split(r" [#>|] ?", line.strip().removeprefix("$ "))[0]
                if words.startswith("sslk "):
                    found.append((file.relative_to(ROOT).as_posix(), words.strip()))
    return found
