"""What a packet network does to speech: packets lost and hidden, silences not sent.

Sound here is int16 [samples] at 8 or 16 kHz, cut into packets of 20 ms; lengths are kept.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import linalg, signal

from trainer.audio import Float32, Int16, to_float, to_int16

Rng = np.random.Generator
Concealment = Literal["repeat", "silence", "pitch"]
Bool = npt.NDArray[np.bool_]

_PACKETS_A_SECOND = 50


def draw_losses(packets: int, rate: float, rng: Rng) -> Bool:
    """Which packets are lost: bool [packets], in bursts of 2 on average.

    Gilbert's two-state model; `rate` is the share lost in the long run.
    """
    losses = np.zeros(packets, bool)
    lost = False
    for i in range(packets):
        lost = rng.random() < (0.5 if lost else 0.5 * rate / max(1e-9, 1 - rate))
        losses[i] = lost
    return losses


def lose_packets(
    samples: Int16,
    rate: float,
    rng: Rng,
    concealment: Concealment = "silence",
    rate_hz: int = 8_000,
) -> Int16:
    """Lose a share of the packets and hide what is missing, as `conceal` does."""
    packet = rate_hz // _PACKETS_A_SECOND
    lost = draw_losses(-(-len(samples) // packet), rate, rng)
    return conceal(samples, lost, concealment, rate_hz)


def conceal(samples: Int16, lost: Bool, how: Concealment, rate_hz: int = 8_000) -> Int16:
    """Put something in place of lost packets.

    Parameters
    ----------
    lost
        bool [packets].
    how
        `silence`; `repeat`, the packet before once more at half level; `pitch`, the last pitch
        period repeated, fading within 60 ms, and faded over into what comes next (after
        ITU-T G.711 Appendix I).
    """
    packet = rate_hz // _PACKETS_A_SECOND
    heard = samples.copy()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], lost, [False]]).astype(np.int8)))
    for first, last in edges.reshape(-1, 2).tolist():
        start, end = first * packet, min(last * packet, len(heard))
        if how == "silence" or start == 0:
            heard[start:end] = 0
        elif how == "repeat":
            for i in range(start, end, packet):
                size = min(packet, end - i)
                heard[i : i + size] = heard[i - packet : i - packet + size] // 2
        else:
            _extend_pitch(heard, start, end, rate_hz)
    return heard


def _extend_pitch(heard: Int16, start: int, end: int, rate_hz: int) -> None:
    history = to_float(heard[max(0, start - 35 * rate_hz // 1000) : start])
    shortest, longest = 5 * rate_hz // 1000, 15 * rate_hz // 1000
    template = history[-longest:]
    best, period = -1.0, min(longest, len(history))
    for lag in range(shortest, len(history) - longest + 1):
        before = history[-longest - lag : -lag]
        power = float(np.sqrt((before @ before) * (template @ template)))
        likeness = float(before @ template) / power if power > 0 else 0.0
        # a longer lag must be clearly better: multiples of the period are as like as it is
        if likeness > best + 0.01:
            best, period = likeness, lag
    overlap = min(5 * rate_hz // 1000, len(heard) - end)
    filled = np.resize(history[-period:], end - start + overlap)
    elapsed_ms = np.arange(len(filled)) * 1000 / rate_hz
    # full for 10 ms, then a fifth less every 10 ms
    filled = filled * np.clip(1.2 - elapsed_ms / 50, 0.0, 1.0)
    heard[start:end] = to_int16(filled[: end - start])
    if overlap:
        fade = np.arange(1, overlap + 1) / (overlap + 1)
        after = to_float(heard[end : end + overlap])
        heard[end : end + overlap] = to_int16(filled[end - start :] * (1 - fade) + after * fade)


def comfort_noise(samples: Int16, floor_dbfs: float, rng: Rng, rate_hz: int = 8_000) -> Int16:
    """Replace silences by noise, as discontinuous transmission does.

    Every 160 ms of a silence become noise of their level and tenth-order spectrum, what a
    silence descriptor carries (RFC 3389; 3GPP TS 26.092), at `floor_dbfs` RMS or more. Silence
    is what lies 40 dB under the loudest packet, or within 6 dB of the quietest tenth but 10 dB
    under the loudest, from 100 ms after speech on.
    """
    packet = rate_hz // _PACKETS_A_SECOND
    whole = len(samples) // packet
    if not whole:
        return samples
    sound = to_float(samples[: whole * packet]).reshape(whole, packet)
    level_db = 10 * np.log10(np.mean(np.square(sound, dtype=np.float64), axis=1) + 1e-12)
    loudest = float(level_db.max())
    threshold = max(loudest - 40, min(float(np.quantile(level_db, 0.1)) + 6, loudest - 10))
    active = level_db >= threshold
    held = active.copy()
    for after in range(1, 6):
        held[after:] |= active[:-after]
    heard = samples.copy()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ~held, [False]]).astype(np.int8)))
    for first, last in edges.reshape(-1, 2).tolist():
        for i in range(first, last, 8):
            block = sound[i : min(i + 8, last)].reshape(-1)
            noise = _like(block, 10 ** (floor_dbfs / 20), rng)
            heard[i * packet : i * packet + len(block)] = to_int16(noise)
    return heard


def _like(block: Float32, floor: float, rng: Rng) -> Float32:
    order = 10
    noise = rng.standard_normal(len(block) + 200)
    spectrum = np.fft.rfft(block.astype(np.float64), 2 * len(block))
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[: order + 1]
    if correlation[0] > 1e-9:
        # a little white noise added keeps the filter stable
        correlation[0] *= 1.001
        taps = linalg.solve_toeplitz(correlation[:order], correlation[1:])
        noise = signal.lfilter([1.0], np.concatenate([[1.0], -taps]), noise)
    noise = noise[200:]
    level = max(float(np.sqrt(np.mean(np.square(block, dtype=np.float64)))), floor)
    return np.asarray(noise * (level / np.sqrt(np.mean(noise**2))), np.float32)
