"""Degradations of training audio: rooms, noise, music, level, and the telephone.

Applied after the split, to training utterances only. Each function takes and returns float32
[samples] at 16 kHz and keeps the length unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from pydantic import BaseModel, ConfigDict, Field
from scipy import signal

from serd.audio.g711 import decode_alaw, decode_mulaw, encode_alaw, encode_mulaw
from trainer.audio import (
    SAMPLE_RATE_HZ,
    WINDOW_SAMPLES,
    Clips,
    Float32,
    Int16,
    decode,
    to_float,
    to_int16,
)
from trainer.corpora.base import audio_files
from trainer.errors import TrainerError

# Of the Web Audio set, those that are rooms or a microphone in one; the rest are effects.
ROOMS = (
    "ambisonic-1o-ir",
    "binaural-s3_r4_bd",
    "cardiod-35-10-spread",
    "cardiod-rear-35-10",
    "cardiod-true-stereo-15-8",
    "diffusor3",
    "echo-chamber",
    "kitchen-true-stereo",
    "matrix-reverb2",
    "omni-35-10",
    "spatialized1",
    "spatialized4",
    "spatialized7",
    "super-ceiling-35-10",
    "tim-warehouse-stretch1",
)

Rng = np.random.Generator


class AugmentSettings(BaseModel):
    """Probability of each degradation, and the range it is drawn from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    copies: int = Field(6, ge=1, description="copies of each utterance; the first is clean")
    speed: float = Field(0.6, ge=0, le=1)
    speed_range: tuple[float, float] = (0.85, 1.18)
    room: float = Field(0.25, ge=0, le=1)
    equaliser: float = Field(0.4, ge=0, le=1)
    equaliser_db: float = Field(8.0, ge=0)
    noise: float = Field(0.45, ge=0, le=1)
    music: float = Field(0.1, ge=0, le=1)
    babble: float = Field(0.1, ge=0, le=1)
    snr_db: tuple[float, float] = (3.0, 25.0)
    clipping: float = Field(0.05, ge=0, le=1)
    level_dbfs: tuple[float, float] = (-38.0, -14.0)
    telephone: float = Field(0.4, ge=0, le=1)
    packet_loss: float = Field(0.3, ge=0, le=1)
    short: float = Field(0.2, ge=0, le=1)


def rms(samples: Float32) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def change_speed(samples: Float32, factor: float) -> Float32:
    """Play faster by `factor`, pitch and duration together: [samples / factor]."""
    changed = soxr.resample(samples, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ, quality="MQ")
    return np.asarray(changed, np.float32)


def mix_at_snr(speech: Float32, noise: Float32, snr_db: float) -> Float32:
    """Add noise, repeated or cut to the speech's length, at a ratio of mean powers."""
    repeated = np.resize(noise, len(speech))
    speech_rms, noise_rms = rms(speech), rms(repeated)
    if speech_rms == 0 or noise_rms == 0:
        return speech
    gain = speech_rms / noise_rms * 10 ** (-snr_db / 20)
    return (speech + np.float32(gain) * repeated).astype(np.float32)


def add_room(samples: Float32, response: Float32) -> Float32:
    """Convolve with an impulse response, direct sound in its place, power unchanged."""
    wet = signal.fftconvolve(samples, response)
    start = int(np.argmax(np.abs(response)))
    wet = wet[start : start + len(samples)].astype(np.float32)
    wet_rms = rms(wet)
    return wet * np.float32(rms(samples) / wet_rms) if wet_rms > 0 else samples


def equalise(samples: Float32, gains_db: Sequence[float]) -> Float32:
    """Gains at frequencies spaced evenly in octaves from 60 Hz to 8 kHz, linear between."""
    spectrum = np.fft.rfft(samples)
    octave = np.log2(np.maximum(np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE_HZ), 1.0))
    knots = np.linspace(np.log2(60.0), np.log2(8000.0), len(gains_db))
    curve = 10 ** (np.interp(octave, knots, gains_db) / 20)
    return np.fft.irfft(spectrum * curve, len(samples)).astype(np.float32)


def set_level(samples: Float32, dbfs: float) -> Float32:
    """Scale to an RMS level; peaks beyond full scale are left for `to_int16` to clip."""
    level = rms(samples)
    return samples * np.float32(10 ** (dbfs / 20) / level) if level > 0 else samples


def clip_peaks(samples: Float32, ratio: float) -> Float32:
    """Limit at `ratio` of the peak."""
    limit = np.float32(ratio * float(np.max(np.abs(samples), initial=0.0)))
    return np.clip(samples, -limit, limit) if limit > 0 else samples


def lose_packets(samples_8k: Int16, rate: float, rng: Rng, repeat: bool) -> Int16:
    """Lose 20 ms packets in bursts (Gilbert's two-state model, mean burst of 2 packets).

    A lost packet becomes silence, or the packet before it once more at half level.
    """
    packet = 160
    kept = samples_8k.copy()
    lost = False
    for start in range(0, len(kept), packet):
        lost = rng.random() < (0.5 if lost else 0.5 * rate / max(1e-9, 1 - rate))
        if lost:
            end = min(start + packet, len(kept))
            if repeat and start >= packet:
                before = kept[start - packet : start - packet + end - start]
                kept[start:end] = before // 2
            else:
                kept[start:end] = 0
    return kept


_TELEPHONE_BAND = signal.butter(4, (300.0, 3400.0), "bandpass", fs=8000, output="sos")


def telephone(
    samples: Float32,
    law: str = "mulaw",
    narrow: bool = False,
    loss: float = 0.0,
    rng: Rng | None = None,
) -> Float32:
    """16 kHz audio after an 8 kHz G.711 channel.

    Parameters
    ----------
    law
        `mulaw` or `alaw`.
    narrow
        also the 300 to 3400 Hz of an analogue line.
    loss
        share of 20 ms packets lost, in bursts; needs `rng`.
    """
    low = soxr.resample(samples, SAMPLE_RATE_HZ, 8000, quality="MQ")
    if narrow:
        low = signal.sosfilt(_TELEPHONE_BAND, low)
    pcm = to_int16(low)
    if law == "mulaw":
        pcm = decode_mulaw(encode_mulaw(pcm))
    else:
        pcm = decode_alaw(encode_alaw(pcm))
    if loss > 0 and rng is not None:
        pcm = lose_packets(pcm, loss, rng, repeat=bool(rng.random() < 0.5))
    wide = soxr.resample(to_float(pcm), 8000, SAMPLE_RATE_HZ, quality="MQ")
    fitted = np.zeros(len(samples), np.float32)
    fitted[: len(wide)] = wide[: len(samples)]
    return fitted


@dataclass(frozen=True, slots=True)
class NoiseLibrary:
    """Decoded material to degrade with: float32 arrays at 16 kHz; any list may be empty."""

    noises: tuple[Float32, ...] = ()
    music: tuple[Float32, ...] = ()
    rooms: tuple[Float32, ...] = ()


def load_noise(folder: Path) -> NoiseLibrary:
    """Read `esc10`, `hold_music` and `impulse_responses` under `folder`.

    Raises
    ------
    TrainerError
        the folder or one of the three is missing.
    """

    def read(name: str) -> dict[str, Float32]:
        if not (folder / name).is_dir():
            raise TrainerError(f"{folder / name} is missing: augmentation takes its sounds there.")
        return {path.stem: to_float(decode(path)) for path in audio_files(folder / name)}

    responses = read("impulse_responses")
    return NoiseLibrary(
        noises=tuple(sound for sound in read("esc10").values() if rms(sound) > 1e-4),
        music=tuple(read("hold_music").values()),
        rooms=tuple(responses[name] for name in ROOMS if name in responses),
    )


def _excerpt(sound: Float32, length: int, rng: Rng) -> Float32:
    start = int(rng.integers(0, max(1, len(sound) - length)))
    return sound[start : start + length]


class Augmenter:
    """Makes what the daemon might see of a training utterance.

    Every draw comes from the generator given, so a copy is reproducible from its seed.
    """

    def __init__(self, settings: AugmentSettings, library: NoiseLibrary, babble: Clips) -> None:
        self.settings = settings
        self.library = library
        self.babble = babble

    def segment(self, clips: Clips, index: int, rng: Rng, vary: bool) -> Float32:
        """A random cut of at most 3 s: mostly speech with a little padding, as the daemon's
        voice activity leaves it, sometimes the recording as it stands. `vary` lets the voice
        be played faster or slower.
        """
        if rng.random() < 0.75:
            samples = clips.speech(index, int(rng.integers(0, 6400)))
        else:
            samples = clips.clip(index)
        longest = WINDOW_SAMPLES
        if rng.random() < self.settings.short:
            longest = int(rng.integers(16_000, WINDOW_SAMPLES))
        factor = 1.0
        if vary and rng.random() < self.settings.speed:
            factor = rng.uniform(*self.settings.speed_range)
        taken = int(longest * factor)
        start = int(rng.integers(0, max(1, len(samples) - taken + 1)))
        cut = to_float(samples[start : start + taken])
        return change_speed(cut, factor)[:WINDOW_SAMPLES] if factor != 1.0 else cut

    def degrade(self, samples: Float32, rng: Rng) -> Float32:
        """Each degradation by its probability, in the order sound meets them."""
        s = self.settings
        if self.library.rooms and rng.random() < s.room:
            rooms = self.library.rooms
            samples = add_room(samples, rooms[int(rng.integers(len(rooms)))])
        samples = self._add_noise(samples, rng)
        if rng.random() < s.equaliser:
            samples = equalise(samples, rng.uniform(-s.equaliser_db, s.equaliser_db, 6).tolist())
        if rng.random() < s.clipping:
            samples = clip_peaks(samples, rng.uniform(0.2, 0.7))
        samples = set_level(samples, rng.uniform(*s.level_dbfs))
        if rng.random() < s.telephone:
            lossy = rng.random() < s.packet_loss
            samples = telephone(
                samples,
                law="mulaw" if rng.random() < 0.6 else "alaw",
                narrow=bool(rng.random() < 0.5),
                loss=rng.uniform(0.01, 0.1) if lossy else 0.0,
                rng=rng,
            )
        return samples

    def _add_noise(self, samples: Float32, rng: Rng) -> Float32:
        s, snr_db = self.settings, rng.uniform(*self.settings.snr_db)
        kind = rng.random()
        if kind < s.noise:
            if not self.library.noises or rng.random() < 0.3:
                noise = rng.standard_normal(len(samples)).astype(np.float32)
            else:
                noises = self.library.noises
                noise = _excerpt(noises[int(rng.integers(len(noises)))], len(samples), rng)
        elif kind < s.noise + s.music and self.library.music:
            music = self.library.music
            noise = _excerpt(music[int(rng.integers(len(music)))], len(samples), rng)
        elif s.noise + s.music <= kind < s.noise + s.music + s.babble:
            noise = np.zeros(len(samples), np.float32)
            for voice in rng.integers(len(self.babble), size=4):
                speech = to_float(self.babble.speech(int(voice)))
                noise += np.resize(speech, len(samples)) / max(rms(speech), 1e-4)
        else:
            return samples
        return mix_at_snr(samples, noise, snr_db)
