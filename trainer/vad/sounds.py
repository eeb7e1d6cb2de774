"""Sounds that are not speech, made rather than recorded: rooms, noises, signalling tones, music.

Every function draws from the generator given and returns float32 [samples] at 16 kHz. Noise,
tones and music have an RMS near 1; levels are the caller's.
"""

from __future__ import annotations

import numpy as np
from scipy import signal

from trainer.pcm import SAMPLE_RATE_HZ, Float32

Rng = np.random.Generator


def unit_rms(samples: Float32) -> Float32:
    """Scaled to an RMS of 1; silence stays silent."""
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    return samples / np.float32(level) if level > 0 else samples


def room_response(rng: Rng) -> Float32:
    """Impulse response of a room as a decaying noise behind a direct sound.

    Polack's statistical model: Gaussian noise under an exponential decay, faster for high
    frequencies, some early reflections, and a ratio of direct to reverberant energy as near and
    far microphones have it. The direct sound is sample 0.
    """
    decay_s = rng.uniform(0.15, 0.9)
    length = int(decay_s * SAMPLE_RATE_HZ)
    time = np.arange(length) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(length)
    dull = signal.lfilter([0.35], [1, -0.65], rng.standard_normal(length))
    tail = tail * 10 ** (-3 * time / (0.5 * decay_s)) + dull * 10 ** (-3 * time / decay_s)
    tail[: int(rng.uniform(0.001, 0.01) * SAMPLE_RATE_HZ)] = 0
    for _ in range(int(rng.integers(3, 9))):
        tail[int(rng.uniform(0.001, 0.03) * SAMPLE_RATE_HZ)] += rng.choice([-1, 1]) * rng.uniform(
            1, 5
        )
    energy = np.sum(tail**2)
    direct_to_reverberant = 10 ** (rng.uniform(-8, 12) / 10)
    response = tail * np.sqrt(1 / (direct_to_reverberant * energy))
    response[0] = 1.0
    return np.asarray(response, np.float32)


def coloured_noise(samples: int, rng: Rng) -> Float32:
    """Steady noise of a random spectral slope (0 to -9 dB an octave) and a few broad humps,
    half the time with mains hum, half the time with a slowly changing level.
    """
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE_HZ)
    octave = np.log2(np.maximum(frequency, 20.0) / 1000)
    shape_db = rng.uniform(-9, 0) * octave
    for _ in range(int(rng.integers(0, 4))):
        shape_db += rng.uniform(-12, 12) * np.exp(-(((octave - rng.uniform(-4, 3)) / 0.7) ** 2))
    spectrum = np.fft.rfft(rng.standard_normal(samples)) * 10 ** (shape_db / 20)
    spectrum[frequency < rng.uniform(20, 120)] = 0
    noise = unit_rms(np.fft.irfft(spectrum, samples).astype(np.float32))
    time = np.arange(samples) / SAMPLE_RATE_HZ
    if rng.random() < 0.5:
        base_hz = rng.choice([50.0, 60.0, 100.0, 120.0, rng.uniform(30, 400)])
        hum = np.zeros(samples)
        for k in range(1, int(rng.integers(2, 14))):
            hum += np.sin(2 * np.pi * k * base_hz * time + rng.uniform(0, 7)) / k ** rng.uniform(
                0, 1.5
            )
        noise = noise + unit_rms(hum.astype(np.float32)) * np.float32(10 ** rng.uniform(-1.0, 0.3))
    if rng.random() < 0.5:
        wander = np.interp(time, np.linspace(0, time[-1], 8), rng.uniform(-6, 6, 8)) + rng.uniform(
            0, 4
        ) * np.sin(2 * np.pi * rng.uniform(0.05, 6) * time)
        noise = noise * (10 ** (wander / 20)).astype(np.float32)
    return unit_rms(noise)


def knocks(samples: int, rng: Rng) -> Float32:
    """Keys, cups, paper, doors: short damped resonances and bursts of noise at random times."""
    track = np.zeros(samples + SAMPLE_RATE_HZ)
    place = 0.0
    gap_s = 10 ** rng.uniform(-1.2, 0.5)
    while place < samples:
        length = int(rng.uniform(0.01, 0.25) * SAMPLE_RATE_HZ)
        time = np.arange(length) / SAMPLE_RATE_HZ
        burst = rng.standard_normal(length) * rng.uniform(0, 1)
        for _ in range(int(rng.integers(1, 5))):
            burst += np.sin(2 * np.pi * 10 ** rng.uniform(1.9, 3.7) * time) * rng.uniform(0, 1)
        burst *= np.exp(-time * 10 ** rng.uniform(1.2, 2.6)) * 10 ** rng.uniform(-1, 0)
        track[int(place) : int(place) + length] += burst
        place += rng.exponential(gap_s) * SAMPLE_RATE_HZ + 400
    return unit_rms(track[:samples].astype(np.float32))


_DTMF_HZ = ((697, 770, 852, 941), (1209, 1336, 1477, 1633))
# Dial, ringing, busy and information tones of North America and Europe: (pitches, on s, off s).
_SIGNALS = (
    ((350, 440), 3.0, 0.0),
    ((425,), 3.0, 0.0),
    ((440, 480), 2.0, 4.0),
    ((425,), 1.0, 4.0),
    ((480, 620), 0.5, 0.5),
    ((425,), 0.48, 0.48),
    ((480, 620), 0.25, 0.25),
    ((950,), 0.33, 0.1),
    ((1400,), 0.33, 0.1),
    ((1800,), 0.33, 1.0),
    ((1000,), 0.5, 2.5),
    ((2100,), 2.0, 1.0),
    ((1100,), 0.5, 3.0),
)


def tones(samples: int, rng: Rng) -> Float32:
    """Call progress tones, or keys pressed."""
    track = np.zeros(samples)
    place = int(rng.uniform(0, 1) * SAMPLE_RATE_HZ)
    keys = rng.random() < 0.4
    pitches, on_s, off_s = _SIGNALS[int(rng.integers(len(_SIGNALS)))]
    on_s, off_s = on_s * rng.uniform(0.8, 1.25), off_s * rng.uniform(0.8, 1.25)
    while place < samples:
        if keys:
            pitches = (int(rng.choice(_DTMF_HZ[0])), int(rng.choice(_DTMF_HZ[1])))
            on_s, off_s = rng.uniform(0.06, 0.3), rng.uniform(0.05, 1.0)
        length = min(int(on_s * SAMPLE_RATE_HZ), samples - place)
        time = np.arange(length) / SAMPLE_RATE_HZ
        track[place : place + length] = sum(np.sin(2 * np.pi * hz * time) for hz in pitches)
        place += length + int(off_s * SAMPLE_RATE_HZ)
    return unit_rms(track.astype(np.float32))


_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 3, 5, 7, 10))


def _note(pitch_hz: float, length: int, timbre: Float32, rng: Rng, attack_s: float) -> Float32:
    time = np.arange(length) / SAMPLE_RATE_HZ
    vibrato = 1 + rng.uniform(0, 0.006) * np.sin(2 * np.pi * rng.uniform(4, 7) * time)
    phase = 2 * np.pi * np.cumsum(pitch_hz * vibrato) / SAMPLE_RATE_HZ
    note = np.zeros(length)
    for k, weight in enumerate(timbre, start=1):
        if k * pitch_hz < SAMPLE_RATE_HZ / 2.2:
            note += weight * np.sin(k * phase)
    fade = np.minimum(1, time / attack_s) * np.minimum(1, (time[-1] - time + 0.005) / 0.03)
    return np.asarray(note * fade * np.exp(-time * rng.uniform(0, 5)), np.float32)


def music(samples: int, rng: Rng) -> Float32:
    """A tune over chords with bass and drums, any of them left out, by additive synthesis."""
    track = np.zeros(samples + 4 * SAMPLE_RATE_HZ, np.float32)
    beat = int(60 / rng.uniform(60, 160) * SAMPLE_RATE_HZ)
    scale = _SCALES[int(rng.integers(len(_SCALES)))]
    root_hz = 110 * 2 ** rng.uniform(0, 1)

    def pitch(step: int) -> float:
        octave, degree = divmod(step, len(scale))
        return float(root_hz * 2 ** (octave + scale[degree] / 12))

    def timbre() -> Float32:
        decay = rng.uniform(0.5, 2.5)
        weights = rng.uniform(0.2, 1, 14) / np.arange(1, 15) ** decay
        if rng.random() < 0.3:
            weights[1::2] *= 0.1
        return weights.astype(np.float32)

    parts = [part for part in ("tune", "chords", "bass", "drums") if rng.random() < 0.65]
    for part in parts or ["tune"]:
        sound, attack_s = timbre(), 10 ** rng.uniform(-2.5, -0.8)
        gain = 10 ** rng.uniform(-0.7, 0)
        place, step = 0, int(rng.integers(5, 14))
        while place < samples:
            length = int(beat * rng.choice([0.5, 1, 1, 2] if part == "tune" else [1, 2]))
            end = place + length
            if part == "tune":
                step = int(np.clip(step + rng.integers(-3, 4), 4, 20))
                if rng.random() < 0.85:
                    track[place:end] += gain * _note(pitch(step), length, sound, rng, attack_s)
            elif part == "chords":
                first = int(rng.integers(0, 7))
                for k in (0, 2, 4):
                    track[place:end] += (
                        0.5 * gain * _note(pitch(first + k), length, sound, rng, attack_s)
                    )
            elif part == "bass":
                low = pitch(int(rng.integers(0, 7))) / 2
                track[place:end] += gain * _note(low, length, sound, rng, attack_s)
            else:
                hit = rng.standard_normal(length) * np.exp(
                    -np.arange(length) / rng.uniform(300, 3000)
                )
                if rng.random() < 0.4:
                    hit = np.sin(np.arange(length) * 0.025) * np.exp(-np.arange(length) / 1500) * 3
                track[place:end] += np.float32(gain) * hit.astype(np.float32)
            place = end
    return unit_rms(track[:samples])
