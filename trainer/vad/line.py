"""What carries a mixture to the daemon: sample rate, G.711, lost packets, silence on the line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr
from scipy import signal

from serd.audio.g711 import decode_alaw, decode_mulaw, encode_alaw, encode_mulaw
from trainer.pcm import SAMPLE_RATE_HZ, Float32, Int16, to_int16
from trainer.vad.sounds import Rng

_POINT_S = 0.008
_PACKET_S = 0.02
_HANGOVER_POINTS = 25
_NARROW = signal.butter(4, (300.0, 3400.0), "bandpass", fs=8000, output="sos")


@dataclass(frozen=True, slots=True)
class Line:
    """Probability of each trait of a line.

    `law` is G.711, µ or A, at 8 kHz; `narrow` the 300 to 3400 Hz of an analogue line; `loss`
    lost packets; `comfort` discontinuous transmission, whose pauses are comfort noise or zeros;
    `mute` moments of digital silence; `upsampled` telephone audio that comes at 16 kHz.
    """

    law: float = 0.75
    narrow: float = 0.4
    loss: float = 0.2
    comfort: float = 0.15
    mute: float = 0.12
    upsampled: float = 0.2

    @classmethod
    def none(cls) -> Line:
        """A line that only changes the rate."""
        return cls(0, 0, 0, 0, 0, 0)


def through_line(
    mixed: Float32, active: npt.NDArray[np.bool_], rate_hz: int, line: Line, rng: Rng
) -> tuple[Int16, npt.NDArray[np.bool_]]:
    """Send audio at 16 kHz over a line.

    Parameters
    ----------
    active
        which points of 8 ms are speech.

    Returns
    -------
    int16 samples at `rate_hz`, and which points were muted.
    """
    muted = np.zeros(len(active), np.bool_)
    telephone = rate_hz == 8000 or rng.random() < line.upsampled
    at_hz = 8000 if telephone else rate_hz
    if telephone:
        mixed = soxr.resample(mixed, SAMPLE_RATE_HZ, 8000, quality="MQ")
        if rng.random() < line.narrow:
            mixed = signal.sosfilt(_NARROW, mixed)
    pcm = to_int16(mixed)
    if rng.random() < line.comfort:
        pcm = _comfort(pcm, active, at_hz, rng)
    if rng.random() < line.mute:
        for _ in range(int(rng.integers(1, 4))):
            start = int(rng.integers(len(active)))
            end = start + int(rng.uniform(0.1, 5) / _POINT_S)
            muted[start:end] = True
        pcm = np.where(_per_sample(muted, at_hz, len(pcm)), 0, pcm).astype(np.int16)
    if telephone and rng.random() < line.law:
        if rng.random() < 0.6:
            pcm = decode_mulaw(encode_mulaw(pcm))
        else:
            pcm = decode_alaw(encode_alaw(pcm))
    if rng.random() < line.loss:
        pcm = lose_packets(pcm, at_hz, rng.uniform(0.01, 0.12), rng, bool(rng.random() < 0.5))
    if at_hz != rate_hz:
        pcm = soxr.resample(pcm, at_hz, rate_hz, quality="MQ")
    wanted = round(len(active) * _POINT_S * rate_hz)
    fitted = np.zeros(wanted, np.int16)
    fitted[: len(pcm)] = pcm[:wanted]
    return fitted, muted


def lose_packets(pcm: Int16, rate_hz: int, share: float, rng: Rng, repeat: bool) -> Int16:
    """Lose packets of 20 ms in bursts of two on average (Gilbert's two-state model).

    A lost packet is silence, or with `repeat` the one before it, each time at half its level.
    """
    packet = round(_PACKET_S * rate_hz)
    kept = pcm.copy()
    lost = False
    for start in range(0, len(kept), packet):
        lost = bool(rng.random() < (0.5 if lost else 0.5 * share / max(1e-9, 1 - share)))
        if lost:
            piece = kept[start : start + packet]
            before = kept[max(0, start - packet) : max(0, start - packet) + len(piece)]
            piece[:] = before // 2 if repeat and start > 0 else 0
    return kept


def _per_sample(points: npt.NDArray[np.bool_], rate_hz: int, samples: int) -> npt.NDArray[np.bool_]:
    return np.resize(np.repeat(points, round(_POINT_S * rate_hz)), samples)


def _comfort(pcm: Int16, active: npt.NDArray[np.bool_], rate_hz: int, rng: Rng) -> Int16:
    sent = np.convolve(active, np.ones(_HANGOVER_POINTS), "full")[: len(active)] > 0
    sent = _per_sample(sent, rate_hz, len(pcm))
    noise = np.zeros(len(pcm))
    if rng.random() < 0.6:
        level = 10 ** rng.uniform(0.2, 2.3)
        pole = rng.uniform(0, 0.9)
        noise = signal.lfilter([1 - pole], [1, -pole], rng.normal(0, level, len(pcm)))
    return np.where(sent, pcm, np.rint(noise)).astype(np.int16)
