"""Parts of the pipeline, as the configuration wants them."""

from __future__ import annotations

from serd.config.schema import Config
from serd.inference.providers import CPU
from serd.segmenter import SegmenterOptions
from serd.sources.policy import Policy
from serd.types import frame_samples
from serd.vad.detector import Detector, make_detector
from serd.vad.silero import RESET_AFTER_SILENCE_MS, SILENCE_BELOW


def open_detector(config: Config, rate_hz: int, rows: int, provider: str = CPU) -> Detector:
    """The detector for `rows` rows at 8000 or 16000 Hz.

    Parameters
    ----------
    config
        Sections ``vad`` and ``segment`` are used.
    provider
        The one that the emotion model runs on; the detector goes there too if it may.

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
        provider=CPU if config.vad.device == "cpu" else provider,
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


def stream_policy(config: Config) -> Policy:
    """Who may be heard."""
    streams = config.streams
    return Policy(
        refuse_roles=frozenset(streams.refuse_roles),
        allow_mixed=streams.allow_mixed,
        require_consent=streams.require_consent,
        consenting_sources=frozenset(source.name for source in config.sources if source.consent),
    )
