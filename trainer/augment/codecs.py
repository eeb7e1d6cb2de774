"""Speech codecs, there and back: what the far end hears of what was said.

G.711 is `serd`'s own, GSM full rate (06.10) libsndfile's; AMR, G.722 and Opus are FFmpeg's
through PyAV, where its build has the encoder. A codec that is not there is found by
`available_codecs` before anything is asked of it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from typing import Literal, get_args

import numpy as np
import soundfile as sf
import soxr

from serd.audio.g711 import decode_alaw, decode_mulaw, encode_alaw, encode_mulaw
from trainer.audio import Int16, to_float, to_int16

Codec = Literal["mulaw", "alaw", "gsm", "amr-nb", "amr-wb", "g722", "opus-8k", "opus-16k"]
CODECS: tuple[Codec, ...] = get_args(Codec)


@dataclass(frozen=True, slots=True)
class _Ffmpeg:
    """A codec of FFmpeg's.

    Attributes
    ----------
    kbps
        rates worth hearing; the first is the lowest. Empty: there is but one.
    delay
        samples that the decoded sound comes late and FFmpeg does not take away.
    """

    encoder: str
    decoder: str
    rate_hz: int
    kbps: tuple[float, ...] = ()
    delay: int = 0
    options: tuple[tuple[str, str], ...] = ()


# Of ten levels of effort, what a telephone rather than an archive spends.
_VOIP = (("application", "voip"), ("compression_level", "5"))
_FFMPEG: dict[str, _Ffmpeg] = {
    "amr-nb": _Ffmpeg(
        "libopencore_amrnb",
        "amrnb",
        8_000,
        (4.75, 5.15, 5.9, 6.7, 7.4, 7.95, 10.2, 12.2),
        delay=40,
    ),
    "amr-wb": _Ffmpeg(
        "libvo_amrwbenc",
        "amrwb",
        16_000,
        (6.6, 8.85, 12.65, 14.25, 15.85, 18.25, 19.85, 23.05, 23.85),
        # 5 ms of looking ahead (3GPP TS 26.190)
        delay=80,
    ),
    "g722": _Ffmpeg("g722", "g722", 16_000, delay=22),
    "opus-8k": _Ffmpeg("libopus", "libopus", 8_000, (6.0, 8.0, 12.0, 16.0), options=_VOIP),
    "opus-16k": _Ffmpeg("libopus", "libopus", 16_000, (9.0, 12.0, 16.0, 24.0), options=_VOIP),
}


def codec_rate_hz(codec: Codec) -> int:
    """Sample rate of what the codec takes and gives: 8000 or 16000."""
    return _FFMPEG[codec].rate_hz if codec in _FFMPEG else 8_000


def bit_rates(codec: Codec, lowest: float = 0.0, highest: float = np.inf) -> tuple[float, ...]:
    """The codec's rates in kbit/s from `lowest` to `highest`, or the nearest one to them.

    Empty where the codec has one rate only.
    """
    rates = _FFMPEG[codec].kbps if codec in _FFMPEG else ()
    inside = tuple(rate for rate in rates if lowest <= rate <= highest)
    if inside or not rates:
        return inside
    return (min(rates, key=lambda rate: min(abs(rate - lowest), abs(rate - highest))),)


@cache
def available_codecs() -> tuple[Codec, ...]:
    """Those that can be run here."""
    return tuple(codec for codec in CODECS if _is_available(codec))


def _is_available(codec: Codec) -> bool:
    if codec == "gsm":
        return "GSM610" in sf.available_subtypes("WAV")
    if codec not in _FFMPEG:
        return True
    if find_spec("av") is None:
        return False
    import av

    entry = _FFMPEG[codec]
    try:
        av.Codec(entry.encoder, "w")
        av.Codec(entry.decoder, "r")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def round_trip(codec: Codec, samples: Int16, kbps: float | None = None) -> Int16:
    """Encode and decode.

    Parameters
    ----------
    samples
        int16 [samples] at the codec's rate.
    kbps
        for a codec that has several; its highest where not given.

    Returns
    -------
    int16 [samples], the codec's delay taken away.
    """
    if codec == "mulaw":
        return decode_mulaw(encode_mulaw(samples))
    if codec == "alaw":
        return decode_alaw(encode_alaw(samples))
    heard = _gsm(samples) if codec == "gsm" else _ffmpeg(_FFMPEG[codec], samples, kbps)
    fitted = np.zeros(len(samples), np.int16)
    fitted[: len(heard)] = heard[: len(samples)]
    return fitted


def _gsm(samples: Int16) -> Int16:
    file = io.BytesIO()
    sf.write(file, samples, 8_000, format="WAV", subtype="GSM610")
    file.seek(0)
    return np.asarray(sf.read(file, dtype="int16")[0], np.int16)


def _ffmpeg(entry: _Ffmpeg, samples: Int16, kbps: float | None) -> Int16:
    import av

    encoder = av.CodecContext.create(entry.encoder, "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate = entry.rate_hz
    encoder.layout = "mono"
    encoder.format = av.AudioFormat("s16")
    encoder.time_base = Fraction(1, entry.rate_hz)
    encoder.options = dict(entry.options)
    if entry.kbps:
        encoder.bit_rate = round(1000 * (kbps if kbps is not None else entry.kbps[-1]))
    encoder.open()
    decoder = av.CodecContext.create(entry.decoder, "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate = entry.rate_hz
    decoder.layout = "mono"
    decoder.extradata = encoder.extradata

    size = encoder.frame_size or entry.rate_hz // 50
    # one frame more than the sound, for the delay
    padded = np.zeros((-(-(len(samples) + entry.delay) // size)) * size, np.int16)
    padded[: len(samples)] = samples
    packets = []
    for start in range(0, len(padded), size):
        frame = av.AudioFrame.from_ndarray(
            padded[None, start : start + size], format="s16", layout="mono"
        )
        frame.sample_rate = entry.rate_hz
        frame.pts = start
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    # Copies of the packets: FFmpeg's own still say how much of the sound is padding.
    frames = [frame for packet in packets for frame in decoder.decode(av.Packet(bytes(packet)))]
    frames += decoder.decode(None)
    heard = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    pcm = heard if heard.dtype == np.int16 else to_int16(heard)
    if frames[0].sample_rate != entry.rate_hz:
        wide = soxr.resample(to_float(pcm), frames[0].sample_rate, entry.rate_hz, quality="MQ")
        pcm = to_int16(wide)
    return np.asarray(pcm[entry.delay :], np.int16)
