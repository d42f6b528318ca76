"""The walkthrough runs from beginning to end, and what is committed is what it gives."""

import importlib.util
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
EXAMPLES = Path(__file__).parents[1] / "examples"


def printed(notebook) -> str:
    return "".join(output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)


def test_the_walkthrough_runs():
    spec = importlib.util.spec_from_file_location("run_notebook", EXAMPLES / "run_notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fresh = printed(module.run(str(EXAMPLES / "walkthrough.ipynb")))
    committed = printed(nbformat.read(EXAMPLES / "walkthrough.ipynb", as_version=4))
    one, other = ([float(x) for x in re.findall(r"AUROC (0\.\d+)", text)] for text in (fresh, committed))
    assert len(one) == 7 and one == pytest.approx(other, abs=0.03)
    assert "share of images with an empty set" in fresh and "penalty" in fresh
