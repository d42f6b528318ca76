"""Runs a notebook in place: `python examples/run_notebook.py examples/walkthrough.ipynb`."""

from __future__ import annotations

import sys

import nbformat
from nbclient import NotebookClient


def run(path: str, timeout: int = 300) -> nbformat.NotebookNode:
    """The notebook with fresh outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", record_timing=False).execute()
    for cell in notebook.cells:  # what libraries say about this machine is not part of the walkthrough
        cell["outputs"] = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
        if cell.cell_type != "code":
            del cell["outputs"]
    return notebook


if __name__ == "__main__":
    nbformat.write(run(sys.argv[1]), sys.argv[1])
