"""The tables of bad inputs in tests/ops/test_checks.py are whole: every sentence of the kernels' checks is met, every op is
there. Apart from them because it reads the sources, which a wheel does not carry."""

import re
from pathlib import Path

from tests.ops.test_checks import ELSEWHERE, OPS, ROWS, good, kernel_sentence

SOURCES = Path(__file__).parents[1] / "csrc"


def sentences():
    """Every SSLK_CHECK of csrc/*/args.h as a pattern: what is not a literal may be anything."""
    for source in sorted(SOURCES.glob("*/args.h")):
        text = source.read_text()
        for start in (m.end() for m in re.finditer(r"SSLK_CHECK\(", text)):
            depth, end = 1, start
            while depth:
                end += 1
                depth += {"(": 1, ")": -1}.get(text[end], 0) if text[end] in "()" and not in_string(text, start, end) else 0
            call = re.sub(r'\? "[^"]*" : "[^"]*"', "", text[start:end])  # one of two words
            literals = re.findall(r'"((?:[^"\\]|\\.)*)"', call)
            literals = literals[literals.index(next(part for part in literals if part.startswith(": "))) :]
            yield f"{source.parent.name}: {' .. '.join(literals)}", ".*".join(map(re.escape, literals))


def in_string(text, start, end):
    return text.count('"', start, end) % 2 == 1


def test_every_check_of_the_kernels_has_a_row():
    said = [kernel_sentence(name, good(name) | bad) for name, bad in ROWS + ELSEWHERE]
    missing = [title for title, pattern in sentences() if not any(re.search(pattern, s) for s in said)]
    assert len(list(sentences())) > 50 and missing == []
    assert {name for name, _ in ROWS} == set(OPS)


def test_checks_exist_for_every_op():
    schemas = (SOURCES / "schemas.cpp").read_text()
    assert set(re.findall(r'"(\w+)\(', schemas)) == set(OPS)
