"""What a study leaves: its `Run`, figures with their numbers, provenance, and files that are whole or absent."""

from sslk.results.figure import save_figure
from sslk.results.run import RESULTS, Run, RunError, RunFigure, RunTable

__all__ = ["RESULTS", "Run", "RunError", "RunFigure", "RunTable", "save_figure"]
