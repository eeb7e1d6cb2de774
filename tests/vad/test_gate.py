"""What silero is spared: digital silence, and no decision with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from serd.segmenter import Instruction, Segmenter, SegmenterOptions
from serd.types import BoolArray, Float32Array, Int16Array, frame_samples
from serd.vad.silero import SILENCE_BELOW, SileroDetector
from tests.speech import demo_speech
from tests.vad.material import (
    babble,
    conversations,
    listen,
    listen_in_any_company,
    long_stream,
    through_mulaw,
)

Load = Callable[..., SileroDetector]
RATES = (8000, 16000)
# Frames of digital silence that are heard before any is spared.
HEARD = 8


def switched_off(recording: Int16Array, frame: int, seed: int) -> Int16Array:
    """The recording with pieces of 1 to 60 frames digitally silent, in any of the codecs' ways."""
    rng = np.random.default_rng(seed)
    muted = recording.copy()
    at = 0
    while at < len(muted):
        at += int(rng.integers(1, 90) * frame + rng.integers(0, frame))
        until = at + int(rng.integers(1, 60) * frame)
        piece = muted[at:until]
        piece[:] = rng.choice(np.array([[0, 0], [8, 8], [-8, -8], [0, 8], [-8, 8]]))[
            rng.integers(0, 2, len(piece))
        ]
        at = until
    return muted


def spared(recording: Int16Array, frame: int) -> BoolArray:
    """Which frames have at least eight empty ones right before them and are empty."""
    frames = recording[: len(recording) // frame * frame].reshape(-1, frame)
    out = np.zeros(len(frames), np.bool_)
    run = 0
    for k, samples in enumerate(frames):
        empty = samples.max() <= 8 and samples.min() >= -8
        run = run + 1 if empty else 0
        out[k] = run > HEARD
    return out


def decisions(probability: Float32Array, rate_hz: int) -> list[Instruction]:
    frame = frame_samples(rate_hz)
    segmenter = Segmenter(1, SegmenterOptions(rate_hz, frame))
    row = np.zeros(1, np.int64)
    segmenter.start(row, row)
    said = [item for value in probability for item in segmenter.step(row, value[None])]
    return said + segmenter.flush(row, row + len(probability) * frame, "closed")


def assert_the_same(silero: Load, rate_hz: int, recordings: list[Int16Array]) -> int:
    """That the gate changes no decision and what it changes; returns how many frames it spared."""
    detectors = [silero(rate_hz, len(recordings), gate=gate) for gate in (True, False)]
    gated, plain = (listen(detector, recordings) for detector in detectors)
    assert detectors[1].gated == 0
    for with_gate, without, recording in zip(gated, plain, recordings, strict=True):
        off = spared(recording, detectors[0].frame_samples)
        assert np.array_equal(with_gate[~off], without[~off])
        assert not with_gate[off].any()
        assert (without[off] < SILENCE_BELOW / 2).all()
        assert decisions(with_gate, rate_hz) == decisions(without, rate_hz)
    total = sum(int(spared(r, detectors[0].frame_samples).sum()) for r in recordings)
    assert detectors[0].gated == total
    return total


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("telephone", [False, True], ids=["clean", "mulaw"])
def test_switched_off_lines(silero: Load, rate_hz: int, telephone: bool) -> None:
    speech = demo_speech(rate_hz)
    recordings = [switched_off(speech, frame_samples(rate_hz), seed) for seed in range(8)]
    if telephone:
        recordings = [through_mulaw(recording) for recording in recordings]
    assert assert_the_same(silero, rate_hz, recordings) > 500


@pytest.mark.parametrize("rate_hz", RATES)
def test_without_digital_silence_nothing_is_spared(silero: Load, rate_hz: int) -> None:
    assert assert_the_same(silero, rate_hz, [demo_speech(rate_hz), *babble(rate_hz, 4)]) == 0


def test_recordings(silero: Load, shared: Path) -> None:
    recordings, _ = conversations(shared, 8000)
    stream, _ = long_stream(shared, 8000, 2.0)
    recordings = [through_mulaw(recording) for recording in (*recordings, stream)]
    recordings += [switched_off(recording, 256, k) for k, recording in enumerate(recordings)]
    assert assert_the_same(silero, 8000, recordings) > 1000


def test_rows_do_not_depend_on_their_company(silero: Load, rng: np.random.Generator) -> None:
    speech = demo_speech(8000)[: 256 * 150]
    recordings = np.stack([switched_off(np.roll(speech, 3000 * k), 256, k) for k in range(12)])
    together = np.stack(listen(silero(8000, 12), list(recordings)))
    apart = listen_in_any_company(silero(8000, 19), recordings, 256, rng)
    assert np.array_equal(apart, together)
    assert (together == 0).sum() > 200


def test_reset_makes_silence_count_anew(silero: Load) -> None:
    detector = silero(8000, 2)
    rows, silence = np.arange(2), np.zeros((2, 256), np.int16)
    for _ in range(HEARD):
        detector.step(rows, silence)
    detector.reset(np.array([1]))
    assert detector.gated == 0
    heard = detector.step(rows, silence)
    assert heard[0] == 0 < heard[1]
    assert detector.gated == 1


def test_what_the_network_says_of_an_empty_frame(silero: Load, rng: np.random.Generator) -> None:
    # The gate rests on this: whatever is in it, from a state of zero it is no speech.
    count = 256
    detector = silero(8000, count, gate=False)
    tones = 8 * np.sign(np.sin(np.outer(rng.uniform(0.05, 2.8, count), np.arange(512))))
    for frames in (rng.integers(-8, 9, (count, 512)), rng.choice([-8, 0, 8], (count, 512)), tones):
        detector.reset(np.arange(count))
        pair = np.asarray(frames, np.int16)
        detector._context[:] = pair[:, :32]
        assert detector.step(np.arange(count), pair[:, 32:288]).max() < SILENCE_BELOW / 2


def test_steps_of_more_rows_than_a_call_takes(silero: Load) -> None:
    recordings = babble(8000, 40, seconds=0.5)
    few = np.stack(listen(silero(8000, 40), list(recordings)))
    many = np.stack(listen(silero(8000, 600), [recordings[k % 40] for k in range(600)]))
    assert np.array_equal(many, few[np.arange(600) % 40])
