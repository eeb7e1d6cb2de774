"""What is heard beside the voice: noise, music, other voices, the room."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import signal

from trainer.audio import Float32
from trainer.augment.levels import rms

Rng = np.random.Generator


def mix_at_snr(speech: Float32, noise: Float32, snr_db: float) -> Float32:
    """Add noise, repeated or cut to the speech's length, at a ratio of mean powers."""
    repeated = np.resize(noise, len(speech))
    speech_rms, noise_rms = rms(speech), rms(repeated)
    if speech_rms == 0 or noise_rms == 0:
        return speech
    gain = speech_rms / noise_rms * 10 ** (-snr_db / 20)
    return (speech + np.float32(gain) * repeated).astype(np.float32)


def gaussian(length: int, rng: Rng) -> Float32:
    """White noise: float32 [length], deviation 1."""
    return rng.standard_normal(length).astype(np.float32)


def excerpt(sound: Float32, length: int, rng: Rng) -> Float32:
    """A random stretch of at most `length` samples."""
    start = int(rng.integers(0, max(1, len(sound) - length)))
    return sound[start : start + length]


def babble(voices: Iterable[Float32], length: int) -> Float32:
    """Voices at once, equally loud, each repeated or cut to `length`: float32 [length]."""
    mixed = np.zeros(length, np.float32)
    for voice in voices:
        mixed += np.resize(voice, length) / max(rms(voice), 1e-4)
    return mixed


def add_room(samples: Float32, response: Float32) -> Float32:
    """Convolve with an impulse response, direct sound in its place, power unchanged."""
    wet = signal.fftconvolve(samples, response)
    start = int(np.argmax(np.abs(response)))
    wet = wet[start : start + len(samples)].astype(np.float32)
    wet_rms = rms(wet)
    return wet * np.float32(rms(samples) / wet_rms) if wet_rms > 0 else samples
