"""Conversations ready to be played, made of recordings of the user's or of the shipped one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from serd.audio.pcm import decode, encode
from serd.bench.conversations import Conversations, find_speech, make_conversations
from serd.bench.expected import Expected, expect, speech_probability
from serd.bench.tape import TICK_MS, Streams
from serd.config.schema import Config
from serd.errors import InputError
from serd.runtime.parts import open_detector, segmenter_options
from serd.segmenter import SegmenterOptions
from serd.types import Encoding, Float32Array, Int16Array, frame_samples

POOL = 32
"""Different channels of calls; more streams than that share them, beginning at other times."""
_LONGEST_S = 120.0

RATES_HZ = {Encoding.MULAW: 8000, Encoding.S16LE: 16000}
"""The encodings that are played, and the rate of each."""


@dataclass(frozen=True)
class Material:
    """Conversations ready to be played, and what the daemon must hear in them.

    Attributes
    ----------
    audio
        uint8 ``[POOL, blocks, bytes]``: payloads of 20 ms.
    probability
        float32 ``[frames, POOL]``, as long as the longest run.
    """

    conversations: Conversations
    encoding: Encoding
    audio: NDArray[np.uint8]
    probability: Float32Array
    options: SegmenterOptions

    @property
    def sample_rate_hz(self) -> int:
        """8000 or 16000."""
        return self.conversations.sample_rate_hz

    def expect(self, streams: Streams) -> Expected:
        """What must come of these streams when nothing is lost."""
        block = self.sample_rate_hz * TICK_MS // 1000
        return expect(self.probability, self.options, streams.conversation, streams.blocks * block)


def prepare(
    config: Config,
    encoding: Encoding,
    recordings: Sequence[Path],
    longest_s: float,
    seed: int,
) -> Material:
    """Make the conversations of a bench and hear them once.

    Raises
    ------
    InputError
        A recording cannot be read, or none of them has speech.
    """
    rate = RATES_HZ[encoding]
    block = rate * TICK_MS // 1000
    blocks = -(-round(min(longest_s, _LONGEST_S) * 1000) // TICK_MS)
    conversations = make_conversations(
        read_speech(recordings, rate), POOL, blocks * block, rate, seed, block
    )
    # As the daemon hears it: what companding does to the samples included.
    payload = encode(conversations.samples.reshape(-1, 1), encoding)
    heard = decode(payload, encoding, 1).reshape(POOL, -1)
    options = segmenter_options(config, rate)
    detector = open_detector(config, rate, POOL)
    frames = int(longest_s * rate) // frame_samples(rate) + 1
    return Material(
        conversations,
        encoding,
        np.frombuffer(payload, np.uint8).reshape(POOL, blocks, -1),
        speech_probability(heard, detector, frames),
        options,
    )


def read_speech(recordings: Sequence[Path], rate_hz: int) -> list[Int16Array]:
    """The spoken parts of recordings, of every channel; of the shipped one when there are none.

    Returns
    -------
    int16 ``[n]`` each
        At `rate_hz`.

    Raises
    ------
    InputError
        A recording cannot be read, or none of them has speech.
    """
    if recordings:
        pieces = [piece for path in recordings for piece in _read(path, rate_hz)]
    else:
        shipped = resources.files("serd.demo").joinpath("two-voices.flac")
        with resources.as_file(shipped) as path:
            pieces = _read(path, rate_hz)
    if not pieces:
        names = ", ".join(str(path) for path in recordings)
        raise InputError("no_speech", f"{names}: no speech was found to make conversations of")
    return pieces


def _read(path: Path, rate_hz: int) -> list[Int16Array]:
    try:
        samples, recorded_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        why = "no such file" if not path.exists() else "not audio that can be read"
        raise InputError("input_unreadable", f"{path}: {why}") from error
    pieces: list[Int16Array] = []
    for channel in samples.T:
        resampled = soxr.resample(channel, recorded_hz, rate_hz, quality="HQ")
        whole = np.clip(np.rint(resampled * 32767), -32768, 32767).astype(np.int16)
        pieces += find_speech(whole, rate_hz)
    return pieces
