"""What a daemon must make of conversations, found beforehand with its own detector and segmenter.

The detector runs once over the conversations, however many streams play each: what a row hears
depends on nothing but that row. The segmenter then runs over the streams, which begin and end at
different times. Both take no account of what a network does to the messages, so positions agree
exactly only where nothing is lost and no silence suppressed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serd.segmenter import Instruction, Offset, Segment, Segmenter, SegmenterOptions
from serd.types import BoolArray, Float32Array, Int16Array, Int64Array
from serd.vad.detector import Detector


def speech_probability(audio: Int16Array, detector: Detector, frames: int) -> Float32Array:
    """Speech probability of every frame.

    Parameters
    ----------
    audio
        int16 ``[channels, samples]`` as the daemon hears it, played over and over.
    detector
        With as many rows as there are channels, fresh.
    frames
        How many of each channel.

    Returns
    -------
    float32 ``[frames, channels]``
    """
    rows = np.arange(len(audio))
    size = detector.frame_samples
    detector.reset(rows)
    heard = np.empty((frames, len(rows)), np.float32)
    for frame in range(frames):
        columns = np.arange(frame * size, (frame + 1) * size)
        heard[frame] = detector.step(rows, audio.take(columns, axis=1, mode="wrap"))
    return heard


@dataclass(frozen=True)
class Expected:
    """Segments of all streams; one entry each in every array.

    Attributes
    ----------
    stream
        int64: number of the stream.
    start, end
        int64: ``[start, end)`` in samples of the stream.
    decided
        int64: the segment is certain once the sample before this one has been heard.
    closing
        bool: cut at the end of its utterance, not while speech went on.
    utterances
        How many utterances all streams have together.
    """

    stream: Int64Array
    start: Int64Array
    end: Int64Array
    decided: Int64Array
    closing: BoolArray
    utterances: int


def expect(
    probability: Float32Array,
    options: SegmenterOptions,
    conversation: Int64Array,
    samples: Int64Array,
) -> Expected:
    """Segments of streams that play conversations from their beginning.

    Parameters
    ----------
    probability
        float32 ``[frames, channels]``, at least as long as the longest stream.
    conversation
        int64 ``[streams]``: channel that each stream plays.
    samples
        int64 ``[streams]``: how much of it.
    """
    rows = np.arange(len(conversation))
    segmenter = Segmenter(len(rows), options)
    segmenter.start(rows, np.zeros_like(rows))
    whole = samples // options.frame_samples
    found: list[tuple[int, int, int, int, bool]] = []
    utterances = 0

    def note(instructions: list[Instruction]) -> None:
        nonlocal utterances
        closed = {(i.row, i.utterance) for i in instructions if isinstance(i, Offset)}
        utterances += len(closed)
        for segment in instructions:
            if isinstance(segment, Segment):
                closing = (segment.row, segment.utterance) in closed
                found.append((segment.row, segment.start, segment.end, segment.decided, closing))

    for frame in range(int(whole.max(initial=0))):
        playing = np.flatnonzero(whole > frame)
        note(segmenter.step(playing, probability[frame, conversation[playing]]))
    note(segmenter.flush(rows, samples, "end"))
    table = np.array(found, np.int64).reshape(-1, 5)
    return Expected(
        table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4].astype(bool), utterances
    )
