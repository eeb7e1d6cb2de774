"""A telephone line: band, codec, discontinuous transmission, lost packets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import soxr
from scipy import signal

from trainer.audio import SAMPLE_RATE_HZ, Float32, to_float, to_int16
from trainer.augment.codecs import Codec, codec_rate_hz, round_trip
from trainer.augment.packets import Concealment, comfort_noise, lose_packets

Rng = np.random.Generator

_BAND = (300.0, 3400.0)
_TELEPHONE_BAND = {
    rate_hz: signal.butter(4, _BAND, "bandpass", fs=rate_hz, output="sos")
    for rate_hz in (8_000, 16_000)
}


@dataclass(frozen=True, slots=True)
class Line:
    """What lies between two telephones.

    Attributes
    ----------
    kbps
        for a codec with several rates; its highest where None.
    narrow
        also the 300 to 3400 Hz of an analogue line.
    loss
        share of 20 ms packets lost, in bursts.
    comfort_noise_dbfs
        silences are not sent but replaced by noise of this level at least; None: all is sent.
    """

    codec: Codec = "mulaw"
    kbps: float | None = None
    narrow: bool = False
    loss: float = 0.0
    concealment: Concealment = "silence"
    comfort_noise_dbfs: float | None = None


def send(samples: Float32, line: Line, rng: Rng) -> Float32:
    """What comes out at the other end: float32 [samples] at 16 kHz in and out."""
    rate_hz = codec_rate_hz(line.codec)
    sound = samples
    if rate_hz != SAMPLE_RATE_HZ:
        sound = soxr.resample(samples, SAMPLE_RATE_HZ, rate_hz, quality="MQ")
    if line.narrow:
        sound = signal.sosfilt(_TELEPHONE_BAND[rate_hz], sound)
    pcm = round_trip(line.codec, to_int16(sound), line.kbps)
    if line.comfort_noise_dbfs is not None:
        pcm = comfort_noise(pcm, line.comfort_noise_dbfs, rng, rate_hz)
    if line.loss > 0:
        pcm = lose_packets(pcm, line.loss, rng, line.concealment, rate_hz)
    heard = to_float(pcm)
    if rate_hz != SAMPLE_RATE_HZ:
        heard = soxr.resample(heard, rate_hz, SAMPLE_RATE_HZ, quality="MQ")
    fitted = np.zeros(len(samples), np.float32)
    fitted[: len(heard)] = heard[: len(samples)]
    return fitted


def telephone(
    samples: Float32, law: Literal["mulaw", "alaw"] = "mulaw", narrow: bool = False
) -> Float32:
    """The line that figures are measured through: 8 kHz, G.711, nothing lost, nothing drawn."""
    return send(samples, Line(law, narrow=narrow), np.random.default_rng(0))
