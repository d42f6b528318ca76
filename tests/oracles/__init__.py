"""Slow float64 measures written from the papers alone, and tests that hold the package to them."""
