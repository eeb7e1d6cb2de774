"""Conversations made of clean voices, degraded, with their exact labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import soxr
from scipy import signal

from trainer.augment import ROOMS
from trainer.corpora.base import audio_files
from trainer.errors import TrainerError
from trainer.pcm import SAMPLE_RATE_HZ, Float32, Int16, decode, to_float
from trainer.vad import sounds
from trainer.vad.line import Line, through_line
from trainer.vad.settings import NoiseSettings
from trainer.vad.sounds import Rng, unit_rms
from trainer.vad.voices import GRID_SAMPLES, Grid, Voices

FRAME_POINTS = 4
BRIDGED_POINTS = 37
"""Pauses up to 300 ms within speech count as speech, as in transcribed turns."""


_ANY_LINE = Line()


@dataclass(frozen=True, slots=True)
class Style:
    """How mixtures of a kind are drawn: probabilities, and ranges that are drawn from evenly.

    `rate_hz` None is either rate. `snr_db` is the level of speech over that of the background;
    `level_dbfs` that of speech in the end. `hold` is music that fills the long pauses alone,
    `filled` an environmental sound.
    """

    rate_hz: Literal[8000, 16000] | None = None
    speechless: float = 0.1
    room: float = 0.6
    recorded_room: float = 0.25
    coloured: float = 0.65
    recorded: float = 0.45
    music: float = 0.15
    hold: float = 0.12
    filled: float = 0.0
    tones: float = 0.06
    knocks: float = 0.2
    babble: float = 0.05
    snr_db: tuple[float, float] = (-2.0, 35.0)
    level_dbfs: tuple[float, float] = (-54.0, -14.0)
    clipping: float = 0.04
    equaliser: float = 0.5
    line: Line = _ANY_LINE


_QUIET = Style(
    speechless=0, room=0, coloured=1, recorded=0, music=0, hold=0, tones=0, knocks=0, babble=0,
    clipping=0, equaliser=0, snr_db=(25, 40), level_dbfs=(-35, -20), line=Line.none(),
)  # fmt: skip
_TELEPHONE = replace(Line.none(), law=1.0, narrow=0.5)
_FAR = replace(_QUIET, room=1, recorded_room=0.3, knocks=0.4, snr_db=(3, 20), level_dbfs=(-50, -25))

HARD = Style(
    speechless=0.2, room=0.4, recorded=0.6, music=0.3, hold=0.45, tones=0.15, knocks=0.3,
    snr_db=(-5, 15),
)  # fmt: skip
"""Little but music, tones and noise as loud as speech."""

ALONE = Style(
    speechless=1.0, room=0.5, coloured=0.4, recorded=0.6, music=0.35, tones=0.12, knocks=0.3,
    babble=0.0, hold=0.0, snr_db=(0.0, 0.0),
)  # fmt: skip
"""Sounds without any speech, to be laid into pauses at training time."""

CONDITIONS: dict[str, Style] = {
    "near-16k": replace(_QUIET, rate_hz=16000),
    "far-16k": replace(_FAR, rate_hz=16000),
    "far-8k": replace(_FAR, rate_hz=8000),
    "far-mulaw-8k": replace(_FAR, rate_hz=8000, line=_TELEPHONE),
    "noise-16k": replace(_QUIET, rate_hz=16000, coloured=0.2, recorded=1, snr_db=(0, 10)),
    "noise-mulaw-8k": replace(
        _QUIET, rate_hz=8000, coloured=0.2, recorded=1, snr_db=(0, 10), line=_TELEPHONE
    ),
    "hold-mulaw-8k": replace(_QUIET, rate_hz=8000, hold=1, tones=0.3, line=_TELEPHONE),
    "loss-mulaw-8k": replace(
        _QUIET, rate_hz=8000, snr_db=(10, 30), line=replace(_TELEPHONE, loss=1, comfort=0.3)
    ),
    "filled-16k": replace(_QUIET, rate_hz=16000, filled=1),
    "filled-mulaw-8k": replace(_QUIET, rate_hz=8000, filled=1, line=_TELEPHONE),
}
"""What models are compared on, with voices and sounds that trained nothing."""


@dataclass(frozen=True, slots=True)
class Sounds:
    """Recorded material, float32 at 16 kHz, RMS near 1; `rooms` are impulse responses."""

    noises: tuple[Float32, ...]
    music: tuple[Float32, ...]
    rooms: tuple[Float32, ...]


def load_sounds(settings: NoiseSettings, folder: Path) -> tuple[Sounds, Sounds]:
    """The training and the validation sounds under `folder`.

    Raises
    ------
    TrainerError
        a folder is missing or what is held out is not there.
    """
    found: dict[str, dict[str, Float32]] = {}
    for name in ("esc10", "hold_music", "impulse_responses"):
        if not (folder / name).is_dir():
            raise TrainerError(f"{folder / name} is missing: mixtures take their sounds there.")
        paths = [
            p for p in audio_files(folder / name) if name != "impulse_responses" or p.stem in ROOMS
        ]
        found[name] = {path.stem: to_float(decode(path)) for path in paths}
    for key, wanted, there in (
        ("held_out_music", settings.held_out_music, found["hold_music"]),
        ("held_out_rooms", settings.held_out_rooms, found["impulse_responses"]),
    ):
        missing = [name for name in wanted if name not in there]
        if missing:
            raise TrainerError(
                f"noise.{key}: {', '.join(missing)}: not in {folder} ({', '.join(there)})."
            )
    noises = [unit_rms(noise) for noise in found["esc10"].values() if np.abs(noise).max() > 1e-3]
    music = {name: unit_rms(track) for name, track in found["hold_music"].items()}
    rooms = found["impulse_responses"]
    every = settings.held_out_every
    train = Sounds(
        tuple(noise for k, noise in enumerate(noises) if k % every),
        tuple(track for name, track in music.items() if name not in settings.held_out_music),
        tuple(room for name, room in rooms.items() if name not in settings.held_out_rooms),
    )
    held = Sounds(
        tuple(noise for k, noise in enumerate(noises) if k % every == 0),
        tuple(music[name] for name in settings.held_out_music),
        tuple(rooms[name] for name in settings.held_out_rooms),
    )
    return train, held


@dataclass(frozen=True, slots=True)
class Mixture:
    """A finished mixture: int16 samples at `rate_hz`, and per frame how much of it is speech
    (`label`) and what the teacher made of the voices alone (`clean`), both float32 [frames].
    """

    samples: Int16
    rate_hz: int
    label: Float32
    clean: Float32


def bridge(active: npt.NDArray[np.bool_], points: int) -> npt.NDArray[np.bool_]:
    """Fill gaps of at most `points` between active points."""
    filled = active.copy()
    edges = np.flatnonzero(np.diff(np.concatenate([[1], active.astype(np.int8), [1]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if start > 0 and end < len(active) and end - start <= points:
            filled[start:end] = True
    return filled


class Mixer:
    """Draws mixtures of `seconds` from voices and sounds."""

    def __init__(self, voices: Voices, sounds: Sounds, seconds: float) -> None:
        self.voices = voices
        self.sounds = sounds
        frames = max(1, round(seconds / 0.032))
        self.points = frames * FRAME_POINTS
        self.samples = self.points * GRID_SAMPLES
        self._names = sorted(voices.by_speaker)

    def draw(self, style: Style, rng: Rng) -> Mixture:
        """A mixture; the same generator state gives the same one."""
        grid = np.zeros((2, self.points), np.float32)
        speech = np.zeros(self.samples, np.float32)
        if rng.random() >= style.speechless:
            speech, grid = self._conversation(style, rng)
        active = bridge(grid[0] > 0, BRIDGED_POINTS)
        level = np.float32(10 ** (-rng.uniform(*style.snr_db) / 20))
        mixed = speech + level * self._background(style, rng)
        if rng.random() < style.hold:
            mixed += np.float32(10 ** (-rng.uniform(0, 12) / 20)) * self._hold(active, rng)
        if style.filled and rng.random() < style.filled:
            mixed += np.float32(10 ** (-rng.uniform(0, 12) / 20)) * self._filling(active, rng)
        if rng.random() < style.equaliser:
            mixed = _coloured(mixed, rng)
        mixed *= np.float32(10 ** (rng.uniform(*style.level_dbfs) / 20))
        if rng.random() < style.clipping:
            limit = np.float32(rng.uniform(0.1, 0.7)) * np.abs(mixed).max()
            mixed = np.clip(mixed, -limit, limit)
        rate_hz = style.rate_hz or (16000 if rng.random() < 0.5 else 8000)
        samples, muted = through_line(mixed, active, rate_hz, style.line, rng)
        active &= ~muted
        framed = active.reshape(-1, FRAME_POINTS).mean(axis=1).astype(np.float32)
        clean = np.where(muted, 0, grid[1]).reshape(-1, FRAME_POINTS).mean(axis=1)
        return Mixture(samples, rate_hz, framed, clean.astype(np.float32))

    def _voice(self, name: str, rng: Rng) -> tuple[Float32, Grid]:
        samples, grid = self.voices.clip(int(rng.choice(self.voices.by_speaker[name])))
        if not len(samples):
            return np.zeros(0, np.float32), grid
        voice = to_float(samples)
        if rng.random() < 0.5:
            factor = rng.uniform(0.86, 1.16)
            voice = soxr.resample(voice, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ, quality="QQ")
            points = len(voice) // GRID_SAMPLES
            place = np.minimum((np.arange(points) * factor).astype(int), grid.shape[1] - 1)
            grid = grid[:, place]
        points = min(len(voice) // GRID_SAMPLES, grid.shape[1])
        voice, grid = voice[: points * GRID_SAMPLES], grid[:, :points]
        sounding = voice.reshape(points, GRID_SAMPLES)[grid[0] > 0]
        return voice / np.float32(np.sqrt(np.mean(sounding**2)) + 1e-6), grid

    def _conversation(self, style: Style, rng: Rng) -> tuple[Float32, Grid]:
        speakers = rng.choice(self._names, size=int(rng.integers(1, 5)))
        tracks = np.zeros((len(speakers), self.samples), np.float32)
        grid = np.zeros((2, self.points), np.float32)
        gains_db = rng.uniform(-12, 0, len(speakers))
        gains_db -= gains_db.max()
        talkative = rng.random()
        speaker = 0
        place = int(rng.choice([0, rng.uniform(0, 1), rng.uniform(0, 6)]) * 125)
        while place < self.points:
            if rng.random() < 0.4:
                speaker = int(rng.integers(len(speakers)))
            voice, heard = self._voice(str(speakers[speaker]), rng)
            fits = min(heard.shape[1], self.points - place)
            gain = np.float32(10 ** ((gains_db[speaker] + rng.uniform(-4, 2)) / 20))
            start, end = place * GRID_SAMPLES, (place + fits) * GRID_SAMPLES
            tracks[speaker, start:end] += gain * voice[: end - start]
            np.maximum(
                grid[:, place : place + fits], heard[:, :fits], out=grid[:, place : place + fits]
            )
            place = max(0, place + fits + int(self._pause_s(talkative, rng) * 125))
        if rng.random() < style.room:
            recorded = len(self.sounds.rooms) > 0 and rng.random() < style.recorded_room
            response = self._response(recorded, rng)
            for k in range(len(speakers)):
                # Everybody sits elsewhere in the same room.
                tracks[k] = _in_room(tracks[k], response)
                if not recorded:
                    response = response.copy()
                    response[0] = rng.uniform(0.3, 1.5)
        return tracks.sum(axis=0), grid

    @staticmethod
    def _pause_s(talkative: float, rng: Rng) -> float:
        kind = rng.random()
        if kind < 0.08:
            return rng.uniform(-0.8, 0.0)
        if kind < 0.08 + 0.5 * talkative:
            return rng.uniform(0.03, 0.4)
        if kind < 0.6 + 0.2 * talkative:
            return rng.uniform(0.4, 1.5)
        return rng.uniform(1.5, 7.0)

    def _response(self, recorded: bool, rng: Rng) -> Float32:
        if recorded:
            response = self.sounds.rooms[int(rng.integers(len(self.sounds.rooms)))]
            return response[int(np.argmax(np.abs(response))) :]
        return sounds.room_response(rng)

    def _background(self, style: Style, rng: Rng) -> Float32:
        bed = np.zeros(self.samples, np.float32)

        def add(sound: Float32, lowest_db: float = -15.0) -> None:
            nonlocal bed
            bed += np.float32(10 ** (rng.uniform(lowest_db, 0) / 20)) * sound

        if rng.random() < style.coloured:
            add(sounds.coloured_noise(self.samples, rng))
        if rng.random() < style.recorded:
            for _ in range(int(rng.integers(1, 3))):
                add(self._recorded(rng))
        if rng.random() < style.music:
            add(self._music(rng))
        if rng.random() < style.tones:
            add(sounds.tones(self.samples, rng))
        if rng.random() < style.knocks:
            add(sounds.knocks(self.samples, rng), -6.0)
        if rng.random() < style.babble:
            add(self._babble(rng))
        if rng.random() < 0.3 * style.room:
            bed = _in_room(bed, sounds.room_response(rng))
        return unit_rms(bed)

    def _recorded(self, rng: Rng) -> Float32:
        noise = self.sounds.noises[int(rng.integers(len(self.sounds.noises)))]
        if rng.random() < 0.5:
            start = int(rng.integers(len(noise)))
            return np.resize(np.roll(noise, -start), self.samples)
        track = np.zeros(self.samples, np.float32)
        for _ in range(int(rng.integers(1, 5))):
            start = int(rng.integers(self.samples))
            piece = noise[: self.samples - start]
            track[start : start + len(piece)] += np.float32(rng.uniform(0.3, 1)) * piece
        return track

    def _music(self, rng: Rng) -> Float32:
        if not self.sounds.music or rng.random() < 0.5:
            return sounds.music(self.samples, rng)
        track = self.sounds.music[int(rng.integers(len(self.sounds.music)))]
        start = int(rng.integers(max(1, len(track) - self.samples)))
        piece = np.resize(track[start : start + self.samples], self.samples)
        if rng.random() < 0.5:
            factor = rng.uniform(0.8, 1.25)
            piece = np.resize(soxr.resample(piece, factor, 1.0, quality="QQ"), self.samples)
        return unit_rms(piece)

    def _babble(self, rng: Rng) -> Float32:
        track = np.zeros(self.samples, np.float32)
        for name in rng.choice(self._names, size=int(rng.integers(6, 10))):
            place = 0
            while place < self.samples:
                voice, _ = self._voice(str(name), rng)
                piece = voice[: self.samples - place]
                track[place : place + len(piece)] += piece
                place += len(piece) + 800
        return unit_rms(_in_room(track, sounds.room_response(rng)))

    def _hold(self, active: npt.NDArray[np.bool_], rng: Rng) -> Float32:
        sound = sounds.tones(self.samples, rng) if rng.random() < 0.15 else self._music(rng)
        return sound * _long_pauses(active)

    def _filling(self, active: npt.NDArray[np.bool_], rng: Rng) -> Float32:
        return self._recorded(rng) * _long_pauses(active)


def _long_pauses(active: npt.NDArray[np.bool_]) -> Float32:
    """1 in pauses above a second, with soft edges, else 0: float32 [samples]."""
    gate = (~bridge(active, 125)).astype(np.float32)
    smooth = np.convolve(gate, np.full(9, 1 / 9), "same") * gate
    return np.repeat(smooth.astype(np.float32), GRID_SAMPLES)


def _in_room(samples: Float32, response: Float32) -> Float32:
    wet = signal.oaconvolve(samples, response)[: len(samples)]
    return np.asarray(wet / np.sqrt(np.sum(np.square(response)) + 1e-9), np.float32)


def _coloured(samples: Float32, rng: Rng) -> Float32:
    taps = signal.firwin2(
        129,
        [0, 0.01, 0.03, 0.07, 0.15, 0.3, 0.5, 0.75, 1],
        10 ** (np.concatenate([rng.uniform(-14, 6, 1), rng.uniform(-8, 8, 8)]) / 20),
    )
    return np.asarray(signal.oaconvolve(samples, taps, "same"), np.float32)
