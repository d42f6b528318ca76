"""Tests of the ops against float64 oracles."""
