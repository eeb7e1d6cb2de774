"""The shipped voice-activity network: exactness, independence of rows, memory, quality."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from serd.errors import ModelError
from serd.inference.manifest import load_vad_manifest, resolve_model
from serd.types import Float32Array, Int16Array, frame_samples
from serd.vad.detector import Detector, make_detector
from serd.vad.network import NetworkDetector
from tests.speech import demo_speech
from tests.vad.material import (
    auc,
    babble,
    conversations,
    listen,
    listen_in_any_company,
    load,
    long_stream,
    through_mulaw,
)

pytestmark = pytest.mark.skipif(
    find_spec("onnxruntime") is None, reason="onnxruntime is not installed"
)

RATES = (8000, 16000)

# The full hour takes a minute; SERD_LONG=1 asks for it.
LONG_MINUTES = 60.0 if os.environ.get("SERD_LONG") else 4.0


def detector(rate_hz: int, rows: int, threads: int = 1) -> Detector:
    return make_detector("serd-vad", rate_hz, rows, threads)


GOLDEN = {
    8000: [
        0.163,
        0.016,
        0.976,
        0.987,
        0.976,
        0.988,
        0.803,
        0.991,
        0.229,
        0.044,
        0.825,
        0.994,
        0.994,
        0.993,
        0.998,
        0.994,
        0.435,
        0.998,
        0.936,
        0.998,
    ],
    16000: [
        0.112,
        0.012,
        0.977,
        0.988,
        0.98,
        0.987,
        0.79,
        0.993,
        0.153,
        0.024,
        0.859,
        0.995,
        0.994,
        0.993,
        0.998,
        0.994,
        0.382,
        0.998,
        0.926,
        0.998,
    ],
}
"""Probabilities of every twentieth frame of the demo's recording."""


@pytest.mark.parametrize("rate_hz", RATES)
def test_known_answers(rate_hz: int) -> None:
    (got,) = listen(detector(rate_hz, 1), [demo_speech(rate_hz)])
    assert np.allclose(got[:400:20], GOLDEN[rate_hz], atol=0.005)


@pytest.mark.parametrize("rate_hz", RATES)
def test_rows_do_not_depend_on_their_company(rate_hz: int) -> None:
    rng = np.random.default_rng(3)
    recordings = babble(rate_hz, 33, seconds=1.5)
    frame = frame_samples(rate_hz)
    together = np.stack(listen(detector(rate_hz, 33), list(recordings)))
    assert np.ptp(together) > 0.2
    apart = listen_in_any_company(detector(rate_hz, 40), recordings, frame, rng)
    assert np.array_equal(apart, together)


@pytest.mark.parametrize("rate_hz", RATES)
def test_the_state_is_handed_on_from_call_to_call(rate_hz: int) -> None:
    (samples,) = babble(rate_hz, 1)
    frame = frame_samples(rate_hz)
    heard = detector(rate_hz, 1)
    (whole,) = listen(heard, [samples])
    row = np.zeros(1, np.int64)
    frames = samples[: len(whole) * frame].reshape(-1, 1, frame)
    heard.reset(row)
    first = [heard.step(row, piece)[0] for piece in frames[:40]]
    second = [heard.step(row, piece)[0] for piece in frames[40:]]
    assert np.array_equal(first + second, whole)
    heard.reset(row)
    fresh = [heard.step(row, piece)[0] for piece in frames[40:]]
    assert not np.allclose(fresh[:10], whole[40:50], atol=1e-3)


def test_threads_change_nothing() -> None:
    recordings = list(babble(8000, 40, seconds=1.0))
    one, two = (listen(detector(8000, 40, threads), recordings) for threads in (1, 2))
    assert np.array_equal(one, two)


def test_reset_forgets_only_its_rows() -> None:
    recordings = babble(16000, 2, seconds=1.0)
    heard = detector(16000, 2)
    first = listen(heard, list(recordings))
    rows = np.arange(2)
    expected = heard.step(rows, recordings[:, :512])[1]
    listen(heard, list(recordings))
    heard.reset(np.array([0]))
    again = heard.step(rows, recordings[:, :512])
    assert again[0] == first[0][0]
    assert again[1] == expected


def test_an_empty_step() -> None:
    got = detector(8000, 1).step(np.empty(0, np.int64), np.empty((0, 256), np.int16))
    assert got.shape == (0,)
    assert got.dtype == np.float32


def test_a_state_with_the_batch_elsewhere_is_refused() -> None:
    manifest = load_vad_manifest(resolve_model("serd-vad"))
    turned = manifest.model_copy(update={"state_shape": ("batch", 1, 64)})
    with pytest.raises(ModelError, match="state_shape") as caught:
        NetworkDetector(None, turned, 8000, 1)
    assert caught.value.code == "manifest_value"


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("empty", [0, 8, -8], ids=["zeros", "alaw +8", "alaw -8"])
def test_digital_silence_is_silence_for_a_quarter_of_an_hour(rate_hz: int, empty: int) -> None:
    frame = np.full((1, frame_samples(rate_hz)), empty, np.int16)
    heard, row = detector(rate_hz, 1), np.zeros(1, np.int64)
    speech = demo_speech(rate_hz)[32 * frame.size : 60 * frame.size]
    listen(heard, [speech])
    got = np.array([heard.step(row, frame)[0] for _ in range(28_000)])
    assert got[30:].max() < 0.2
    # The state has come to rest.
    assert np.ptp(got[-1000:]) < 1e-3


@pytest.mark.parametrize("empty", [0, 8, -8], ids=["zeros", "alaw +8", "alaw -8"])
@pytest.mark.parametrize("frames", [9, 30, 62, 126, 400])
def test_noise_behind_digital_silence_is_not_speech(empty: int, frames: int) -> None:
    noise = demo_speech(8000)[: 30 * 256]
    silence = np.full(frames * 256, empty, np.int16)
    [probability] = listen(detector(8000, 1), [np.concatenate([silence, noise])])
    assert probability[frames:].max() < 0.3


def test_speech_behind_digital_silence_is_heard_at_once() -> None:
    speech = demo_speech(8000)[32 * 256 : 60 * 256]
    silence = np.zeros(300 * 256, np.int16)
    [probability] = listen(detector(8000, 1), [np.concatenate([silence, speech])])
    assert (probability[302:] > 0.5).mean() > 0.9


def one_row(heard: Detector, stream: Int16Array) -> Float32Array:
    row = np.zeros(1, np.int64)
    frames = stream[: len(stream) // 256 * 256].reshape(-1, 1, 256)
    return np.array([heard.step(row, frame)[0] for frame in frames])


@pytest.mark.parametrize("telephone", [False, True], ids=["clean", "mulaw"])
def test_confidence_holds_on_a_long_stream(shared: Path, telephone: bool) -> None:
    stream, spans = long_stream(shared, 8000, LONG_MINUTES)
    if telephone:
        stream = through_mulaw(stream)
    count = len(stream) // 256
    # What a fresh state makes of each recording, with a little of the pause before it.
    fresh = np.zeros(count, np.float32)
    pieces = [(max(start // 256 - 12, 0), end // 256) for start, end in spans]
    heard = listen(detector(8000, len(pieces)), [stream[a * 256 : b * 256] for a, b in pieces])
    for (a, b), probability in zip(pieces, heard, strict=True):
        fresh[a:b] = probability
    sure = fresh > 0.7
    kept = one_row(detector(8000, 1), stream)
    halves = np.arange(count) * 2 // count
    first, second = ((kept > 0.5)[sure & (halves == half)].mean() for half in (0, 1))
    assert min(first, second) > 0.95
    recorded = np.zeros(count, np.bool_)
    for a, b in pieces:
        recorded[a : b + 16] = True
    for half in (0, 1):
        assert (kept > 0.5)[~recorded & (halves == half)].mean() < 0.02


@pytest.mark.parametrize(
    ("rate_hz", "telephone", "floor"),
    [(16000, False, 0.89), (8000, False, 0.89), (8000, True, 0.89)],
)
def test_meetings(shared: Path, rate_hz: int, telephone: bool, floor: float) -> None:
    recordings, truth = conversations(shared, rate_hz)
    if telephone:
        recordings = [through_mulaw(samples) for samples in recordings]
    got = listen(detector(rate_hz, len(recordings)), recordings)
    assert auc(np.concatenate(truth), np.concatenate(got)) > floor


@pytest.mark.parametrize("rate_hz", RATES)
def test_noise_is_not_speech(shared: Path, rate_hz: int) -> None:
    # Every fifth sound, and this tune, trained nothing.
    paths = sorted((shared / "noise" / "esc10").rglob("*.opus"))[::10]
    paths += sorted((shared / "noise" / "hold_music").glob("macroform-cold_day.opus"))
    recordings = [load(path, rate_hz)[: 30 * rate_hz] for path in paths]
    got = np.concatenate(listen(detector(rate_hz, len(recordings)), recordings))
    assert len(got) > 5000
    assert (got > 0.5).mean() < 0.1
