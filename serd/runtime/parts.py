"""The detector and the segmenter of a row pool, as the configuration wants them."""

from __future__ import annotations

from serd.config.schema import Config
from serd.segmenter import SegmenterOptions
from serd.types import frame_samples
from serd.vad.detector import Detector, make_detector
from serd.vad.silero import RESET_AFTER_SILENCE_MS, SILENCE_BELOW


def open_detector(config: Config, rate_hz: int, rows: int) -> Detector:
    """The detector for `rows` rows at 8000 or 16000 Hz.

    Raises
    ------
    ModelError, DeviceError
        See `serd.vad.detector.make_detector`.
    """
    return make_detector(
        config.vad.detector,
        rate_hz,
        rows,
        threads=config.vad.threads,
        # Never inside an utterance, whatever the hangover and the thresholds are.
        reset_after_silence_ms=max(RESET_AFTER_SILENCE_MS, config.segment.hangover_ms + 100),
        silence_below=min(SILENCE_BELOW, config.vad.offset_threshold),
    )


def segmenter_options(config: Config, rate_hz: int) -> SegmenterOptions:
    """The segmenter's options at 8000 or 16000 Hz."""
    segment = config.segment
    return SegmenterOptions(
        sample_rate_hz=rate_hz,
        frame_samples=frame_samples(rate_hz),
        onset_threshold=config.vad.onset_threshold,
        offset_threshold=config.vad.offset_threshold,
        min_speech_ms=segment.min_speech_ms,
        hangover_ms=segment.hangover_ms,
        padding_ms=segment.padding_ms,
        window_s=segment.window_s,
        hop_s=segment.hop_s,
        max_utterance_s=segment.max_utterance_s,
    )
