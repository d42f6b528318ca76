"""A small model and data set, importable by killed and spawned processes too."""

from multiprocessing import get_context

import pytest

from tests.features.small import SmallData, small_model


@pytest.fixture(scope="session")
def spawn():
    """Makes child processes: forked from a server that has imported torch once, so they start in milliseconds."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.features.small", "sslk.features"])
    return context.Process


@pytest.fixture
def model():
    return small_model()


@pytest.fixture
def data():
    return SmallData(100)
