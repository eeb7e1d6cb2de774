"""Draws what happens to a training utterance, and does it."""

from __future__ import annotations

import sys
from functools import cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from trainer.audio import SAMPLE_RATE_HZ, WINDOW_SAMPLES, Clips, Float32, to_float
from trainer.augment.codecs import Codec, available_codecs, bit_rates
from trainer.augment.levels import change_gain, clip_peaks, equalise, set_level
from trainer.augment.library import NoiseLibrary
from trainer.augment.mixing import add_room, babble, excerpt, gaussian, mix_at_snr
from trainer.augment.settings import AugmentSettings
from trainer.augment.telephone import Line, send
from trainer.augment.voice import change_speed, shift_pitch, shift_time, stretch_time
from trainer.errors import TrainerError

Rng = np.random.Generator
_T = TypeVar("_T")


def _happens(probability: float, rng: Rng) -> bool:
    # Nothing is drawn for what cannot happen: a recipe that does not name a degradation makes
    # the same copies as before there was one.
    return probability > 0 and bool(rng.random() < probability)


def _choose(weights: dict[_T, float], rng: Rng) -> _T:
    total = sum(weights.values())
    drawn, reached = rng.random(), 0.0
    for choice, weight in weights.items():
        reached += weight / total
        if drawn < reached:
            return choice
    return choice


@cache
def _tell_missing(codec: Codec) -> None:
    tqdm.write(f"left out: {codec}, which the installed libraries cannot encode", file=sys.stderr)


def usable_codecs(weights: dict[Codec, float]) -> dict[Codec, float]:
    """Those of the codecs that can be run here; each of the others is told of once.

    Raises
    ------
    TrainerError
        None can.
    """
    found = set(available_codecs())
    for codec in weights.keys() - found:
        _tell_missing(codec)
    usable = {codec: weight for codec, weight in weights.items() if codec in found}
    if not sum(usable.values()):
        names = ", ".join(weights)
        raise TrainerError(f"augment.codecs: none of {names} can be encoded here; install `av`.")
    return usable


class Augmenter:
    """Makes what the daemon might see of a training utterance.

    Every draw comes from the generator given, so a copy is reproducible from its seed.

    Parameters
    ----------
    babble
        where the voices of the babble come from.
    babble_group
        int64 [utterances of `babble`]. An utterance then hears voices of its own group alone:
        one bank of copies can serve every fold when no fold's two sides share a group.

    Raises
    ------
    TrainerError
        Not one of the codecs can be run here.
    """

    def __init__(
        self,
        settings: AugmentSettings,
        library: NoiseLibrary,
        babble: Clips,
        babble_group: npt.NDArray[np.int64] | None = None,
    ) -> None:
        if babble_group is not None and len(babble_group) != len(babble):
            raise ValueError(f"{len(babble_group)} groups for {len(babble)} utterances")
        self.settings = settings
        self.library = library
        self.babble = babble
        self.babble_group = babble_group
        self._members = (
            {}
            if babble_group is None
            else {int(g): np.flatnonzero(babble_group == g) for g in np.unique(babble_group)}
        )
        self._codecs = usable_codecs(settings.codecs) if settings.telephone else {}

    def segment(self, clips: Clips, index: int, rng: Rng, vary: bool) -> Float32:
        """A random cut of at most 3 s: mostly speech with a little padding, as the daemon's
        voice activity leaves it, sometimes the recording as it stands. `vary` lets the voice
        be played or spoken faster or slower, higher or lower, earlier or later.
        """
        s = self.settings
        if rng.random() < 0.75:
            samples = clips.speech(index, int(rng.integers(0, 6400)))
        else:
            samples = clips.clip(index)
        longest = WINDOW_SAMPLES
        if rng.random() < s.short:
            longest = int(rng.integers(16_000, WINDOW_SAMPLES))
        speed = stretch = 1.0
        if vary and rng.random() < s.speed:
            speed = rng.uniform(*s.speed_range)
        if vary and _happens(s.stretch, rng):
            stretch = rng.uniform(*s.stretch_range)
        taken = int(longest * speed * stretch)
        start = int(rng.integers(0, max(1, len(samples) - taken + 1)))
        cut = to_float(samples[start : start + taken])
        if speed != 1.0:
            cut = change_speed(cut, speed)
        if stretch != 1.0:
            cut = stretch_time(cut, stretch)
        cut = cut[:WINDOW_SAMPLES]
        if vary and _happens(s.pitch, rng):
            cut = shift_pitch(cut, rng.uniform(*s.pitch_semitones))
        if vary and _happens(s.time_shift, rng):
            offset = int(rng.uniform(*s.time_shift_ms) * SAMPLE_RATE_HZ / 1000)
            most = len(cut) // 4
            cut = shift_time(cut, max(-most, min(most, offset)))
        return cut

    def degrade(self, samples: Float32, rng: Rng, index: int | None = None) -> Float32:
        """Each degradation by its probability, in the order sound meets them.

        Parameters
        ----------
        index
            the utterance's place in `babble`; needed where there are groups.
        """
        s = self.settings
        if self.library.rooms and rng.random() < s.room:
            rooms = self.library.rooms
            samples = add_room(samples, rooms[int(rng.integers(len(rooms)))])
        samples = self._add_noise(samples, rng, index)
        if rng.random() < s.equaliser:
            samples = equalise(samples, rng.uniform(-s.equaliser_db, s.equaliser_db, 6).tolist())
        if rng.random() < s.clipping:
            samples = clip_peaks(samples, rng.uniform(*s.clip_ratio))
        if s.level == 1 or _happens(s.level, rng):
            samples = set_level(samples, rng.uniform(*s.level_dbfs))
        if _happens(s.gain, rng):
            samples = change_gain(samples, rng.uniform(*s.gain_db))
        if rng.random() < s.telephone:
            samples = send(samples, self._draw_line(rng), rng)
        return samples

    def _draw_line(self, rng: Rng) -> Line:
        s = self.settings
        lossy = rng.random() < s.packet_loss
        codec = _choose(self._codecs, rng)
        rates = bit_rates(codec, *s.kbps)
        kbps = rates[int(rng.integers(len(rates)))] if rates else None
        narrow = bool(rng.random() < s.narrow)
        comfort = rng.uniform(*s.comfort_noise_dbfs) if _happens(s.comfort_noise, rng) else None
        if not lossy:
            return Line(codec, kbps, narrow, comfort_noise_dbfs=comfort)
        rate = rng.uniform(*s.loss_rate)
        return Line(codec, kbps, narrow, rate, _choose(s.concealment, rng), comfort)

    def _add_noise(self, samples: Float32, rng: Rng, index: int | None) -> Float32:
        s, snr_db = self.settings, rng.uniform(*self.settings.snr_db)
        kind = rng.random()
        if kind < s.noise:
            if not self.library.noises or rng.random() < s.gaussian:
                noise = gaussian(len(samples), rng)
            else:
                noises = self.library.noises
                noise = excerpt(noises[int(rng.integers(len(noises)))], len(samples), rng)
        elif kind < s.noise + s.music and self.library.music:
            music = self.library.music
            noise = excerpt(music[int(rng.integers(len(music)))], len(samples), rng)
        elif s.noise + s.music <= kind < s.noise + s.music + s.babble:
            voices = self._draw_voices(rng, index)
            noise = babble((to_float(self.babble.speech(v)) for v in voices), len(samples))
        else:
            return samples
        return mix_at_snr(samples, noise, snr_db)

    def _draw_voices(self, rng: Rng, index: int | None) -> list[int]:
        drawn = self.settings.babble_voices
        if self.babble_group is None:
            return [int(voice) for voice in rng.integers(len(self.babble), size=drawn)]
        if index is None:
            raise ValueError("with babble groups, an utterance's index says which is its own")
        members = self._members[int(self.babble_group[index])]
        return [int(voice) for voice in members[rng.integers(len(members), size=drawn)]]
