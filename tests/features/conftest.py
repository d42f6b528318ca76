"""A small model and data set, importable by killed and spawned processes too."""

import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small import SmallData, small_model


@pytest.fixture(scope="session")
def spawn():
    """Makes child processes: forked from a server that has imported torch once, so they start in milliseconds."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["small", "sslk.features"])
    return context.Process


@pytest.fixture
def model():
    return small_model()


@pytest.fixture
def data():
    return SmallData(100)
