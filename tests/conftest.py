"""Fixtures that every test package may use."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import zmq

from tests.fakes import FakeClock

if threading.current_thread() is threading.main_thread():
    # A shell gives what it runs in the background, which may be these tests, a SIGINT ignored, and
    # whatever is started here would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent

# Slow or loaded machines must not turn a property test into a timed assertion.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default")
)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of recordings that cannot be in the repository; skips the test where it is absent."""
    path = Path(os.environ.get("SERD_SHARED", REPOSITORY.parent / "shared"))
    if not (path / "corpora").is_dir():
        pytest.skip(f"no recordings at {path} (set SERD_SHARED)")
    return path


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test drives."""
    return FakeClock()


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20260101)


@pytest.fixture
def zmq_context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """A ZeroMQ context of the test's own; its sockets are closed without lingering."""
    context = zmq.Context()
    yield context
    context.destroy(linger=0)
