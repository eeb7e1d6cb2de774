"""Telephone calls of any length, made of a little recorded speech: turns, pauses, line noise.

A channel of a call alternates between talkspurts and silence. Talkspurts last 0.2 s and an
exponentially distributed rest, 1 s in the mean; silences are exponential: the shapes that Lee and
Un found in telephone speech once gaps up to 200 ms are bridged ("A study of on-off characteristics
of conversational speech", IEEE Trans. Commun. 34(6), 1986), and the mean of ITU-T
Recommendation P.59 (1993), table 1. The two parties take turns of four talkspurts in the mean, one
after the other, each for 40 to 45 % of the time; both are silent in what is left.

Pure functions of their arguments and a seed; nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from serd.types import BoolArray, Int16Array, Int64Array

SPEECH_SHARE = (0.40, 0.45)
"""Share of the time in which one channel of a call speaks: least and most."""

_SPURT_LEAST_S = 0.2
_SPURT_MORE_S = 0.8
_SPURTS_A_TURN = 4

# Speech against silence, for cutting recordings: 20 ms frames within 30 dB of the loud ones.
_RULE_MS = 20
_BELOW_LOUD_DB = 30.0
_LEAST_DBFS = -60.0
_BRIDGE_MS = 200
_LEAST_MS = 200

# No two channels sound alike: how fast and how loud each speaks, how noisy its line is.
_SPEED = (0.9, 1.1)
_GAIN_DB = (-12.0, 0.0)
_NOISE_DBFS = (-70.0, -50.0)
_DIGITAL_SILENCE = 0.25

# What a tap that suppresses silence still sends after the last word.
_TAP_HANGOVER_S = 0.2


def draw_turns(
    samples: int, sample_rate_hz: int, rng: np.random.Generator
) -> tuple[Int64Array, Int64Array]:
    """Who speaks when in a call.

    Parameters
    ----------
    samples
        Length of the call.

    Returns
    -------
    int64 ``[n, 2]`` for each of the two channels
        Talkspurts as ``[start, end)`` in samples, ascending. Talkspurts of the call never overlap,
        and those of a channel add up to a share of `SPEECH_SHARE` (to the sample).
    """
    goals = [round(share * samples) for share in rng.uniform(*SPEECH_SHARE, 2)]
    channels: list[int] = []
    lengths: list[int] = []
    speaking = int(rng.integers(2))
    while any(goals):
        for _ in range(int(rng.geometric(1 / _SPURTS_A_TURN))):
            seconds = _SPURT_LEAST_S + rng.exponential(_SPURT_MORE_S)
            length = min(max(round(seconds * sample_rate_hz), 1), goals[speaking])
            if length:
                channels.append(speaking)
                lengths.append(length)
                goals[speaking] -= length
        speaking = 1 - speaking
    silence = samples - sum(lengths)
    shares = rng.exponential(1.0, len(lengths) + 1)
    # Cut at the rounded sums, so that the silences add up to the sample.
    cuts = np.rint(np.cumsum(shares) / shares.sum() * silence).astype(np.int64)
    spoken = np.array(lengths, np.int64)
    starts = cuts[:-1] + np.cumsum(spoken) - spoken
    spans = np.stack([starts, starts + spoken], axis=1)
    who = np.array(channels)
    return spans[who == 0], spans[who == 1]


def find_speech(samples: Int16Array, sample_rate_hz: int) -> list[Int16Array]:
    """The spoken parts of a recording, int16 ``[n]`` each; may be none.

    Frames of 20 ms are speech when they are within 30 dB of the recording's loud frames (the 95th
    percentile) and above -60 dBFS. Gaps up to 200 ms belong to the speech around them; what is
    shorter than that is left out.
    """
    frame = sample_rate_hz * _RULE_MS // 1000
    count = len(samples) // frame
    if not count:
        return []
    frames = samples[: count * frame].reshape(count, frame) / 32768.0
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    loud = level > max(float(np.percentile(level, 95)) - _BELOW_LOUD_DB, _LEAST_DBFS)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]]).astype(np.int8)))
    spans: list[list[int]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if spans and (start - spans[-1][1]) * _RULE_MS <= _BRIDGE_MS:
            spans[-1][1] = end
        else:
            spans.append([start, end])
    return [
        samples[start * frame : end * frame]
        for start, end in spans
        if (end - start) * _RULE_MS >= _LEAST_MS
    ]


@dataclass(frozen=True)
class Conversations:
    """Channels of calls, two of each.

    Attributes
    ----------
    samples
        int16 ``[channels, samples]``.
    silent
        bool ``[channels, samples // block]``: blocks that a tap with silence suppression leaves
        out, for blocks of 20 ms.
    sample_rate_hz
        8000 or 16000.
    speech_share
        Of all samples, those in talkspurts.
    """

    samples: Int16Array
    silent: BoolArray
    sample_rate_hz: int
    speech_share: float


def make_conversations(
    speech: Sequence[Int16Array],
    channels: int,
    samples: int,
    sample_rate_hz: int,
    seed: int,
    block: int,
) -> Conversations:
    """Calls from pieces of speech.

    Parameters
    ----------
    speech
        int16 ``[n]`` each, at `sample_rate_hz`; every channel speaks them in an order, at a speed
        and at a loudness of its own, over and over.
    channels
        How many; a call has two, an odd one is one party of a call.
    block
        Samples of a message, for `Conversations.silent`.
    """
    rng = np.random.default_rng(seed)
    made = np.empty((channels, samples), np.int16)
    silent = np.ones((channels, samples // block), np.bool_)
    hangover = round(_TAP_HANGOVER_S * sample_rate_hz)
    spoken = 0
    turns: list[Int64Array] = []
    for channel in range(channels):
        if channel % 2 == 0:
            turns = list(draw_turns(samples, sample_rate_hz, rng))
        spans = turns[channel % 2]
        made[channel] = _channel(speech, spans, samples, rng)
        for start, end in spans.tolist():
            spoken += end - start
            silent[channel, start // block : -(-(end + hangover) // block)] = False
    return Conversations(made, silent, sample_rate_hz, spoken / (channels * samples))


def _channel(
    speech: Sequence[Int16Array], spans: Int64Array, samples: int, rng: np.random.Generator
) -> Int16Array:
    order = rng.permutation(len(speech))
    reel = np.concatenate([speech[number] for number in order]).astype(np.float32)
    reel = soxr.resample(reel, 1000.0 * rng.uniform(*_SPEED), 1000.0)
    reel *= 10 ** (rng.uniform(*_GAIN_DB) / 20)
    audio = np.zeros(samples, np.float32)
    at = 0
    for start, end in spans.tolist():
        audio[start:end] = reel.take(np.arange(at, at + end - start), mode="wrap")
        at += end - start
    if rng.random() >= _DIGITAL_SILENCE:
        rms = 32768 * 10 ** (rng.uniform(*_NOISE_DBFS) / 20)
        audio += rng.normal(0.0, rms, samples).astype(np.float32)
    return np.clip(np.rint(audio), -32768, 32767).astype(np.int16)
