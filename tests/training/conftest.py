"""Child processes that start in milliseconds."""

from multiprocessing import get_context

import pytest


@pytest.fixture(scope="session")
def spawn():
    """Makes child processes, forked from a server that has imported torch and Lightning once."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.training.small"])
    return context.Process
