"""What is drawn for a training utterance, and the bank of copies made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trainer.audio import WINDOW_SAMPLES, Clips, Float32, load_clips, to_int16
from trainer.augment import (
    Augmenter,
    AugmentSettings,
    NoiseLibrary,
    available_codecs,
    load_noise,
    rms,
)
from trainer.augment import augmenter as module
from trainer.bank import render
from trainer.corpora import load
from trainer.errors import TrainerError


def _augmenter(made_up: Path, settings: AugmentSettings) -> Augmenter:
    clips = load_clips(load("emodb", made_up / "corpora").utterances)
    return Augmenter(settings, load_noise(made_up / "noise"), clips)


class _Voices(Clips):
    """Recordings of nobody in particular: only their sound counts here."""

    def __len__(self) -> int:
        return len(self.offsets) - 1


def _anonymous() -> _Voices:
    rng = np.random.default_rng(3)
    time = np.arange(60_000) / 16_000
    voices = []
    for hz in (110.0, 180.0, 240.0, 310.0):
        tone = np.sin(2 * np.pi * hz * time + rng.uniform(0, 6))
        voices.append(to_int16(0.2 * tone * (1.2 + np.sin(7 * time))))
    bounds = np.array([[4_000, 56_000]] * 4)
    return _Voices((), np.concatenate(voices), np.arange(5) * 60_000, bounds)


def _sounds() -> NoiseLibrary:
    rng = np.random.default_rng(4)

    def sound(samples: int) -> Float32:
        return rng.standard_normal(samples).astype(np.float32) * np.float32(0.1)

    noises, music = (sound(20_000), sound(80_000)), (sound(30_000),)
    room = sound(3_000) * np.exp(-np.arange(3_000) / 400).astype(np.float32)
    return NoiseLibrary(noises, music, (room,))


# Length, level, mean step and the next draw, as the first release of the trainer made them.
_FIRST_RELEASE = [
    (48000, 0.01791, 0.000609, 0.314678),
    (47999, 0.18811, 0.172681, 0.306425),
    (48000, 0.09192, 0.007833, 0.724727),
    (47999, 0.04949, 0.008618, 0.274272),
    (47999, 0.00138, 0.000711, 0.013493),
    (48000, 0.17858, 0.053782, 0.048964),
    (48000, 0.01400, 0.001002, 0.044938),
    (24284, 0.02246, 0.002160, 0.452438),
    (48000, 0.14588, 0.009337, 0.050837),
    (48000, 0.01596, 0.000902, 0.037214),
    (48000, 0.10201, 0.010548, 0.392362),
    (48000, 0.09319, 0.009728, 0.376760),
]


@pytest.mark.parametrize(("seed", "expected"), list(enumerate(_FIRST_RELEASE)))
def test_defaults_make_the_copies_they_always_made(
    seed: int, expected: tuple[int, float, float, float]
) -> None:
    augmenter = Augmenter(AugmentSettings(), _sounds(), _anonymous())
    rng = np.random.default_rng([seed, 1])
    samples = augmenter.segment(augmenter.babble, seed % 4, rng, vary=True)
    samples = augmenter.degrade(samples, rng)
    length, level, step, draw = expected
    assert len(samples) == pytest.approx(length, abs=1)
    assert rms(samples) == pytest.approx(level, rel=0.01)
    assert np.abs(np.diff(samples)).mean() == pytest.approx(step, rel=0.01)
    assert rng.random() == pytest.approx(draw, abs=1e-5)


def test_effects_are_no_rooms(made_up: Path) -> None:
    library = load_noise(made_up / "noise")
    assert (len(library.noises), len(library.music), len(library.rooms)) == (2, 1, 1)


def test_missing_noise_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="impulse_responses is missing"):
        load_noise(tmp_path)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_everything_at_once_stays_finite_and_short(made_up: Path, seed: int) -> None:
    certain = AugmentSettings(
        speed=1, stretch=1, pitch=1, time_shift=1, room=1, equaliser=1, noise=0.34, music=0.33,
        babble=0.33, clipping=1, gain=1, telephone=1, comfort_noise=0.5, packet_loss=1,
        concealment={"repeat": 1, "silence": 1, "pitch": 1},
        codecs=dict.fromkeys(available_codecs(), 1.0),
    )  # fmt: skip
    augmenter = _augmenter(made_up, certain)
    rng = np.random.default_rng(seed)
    samples = augmenter.degrade(augmenter.segment(augmenter.babble, 0, rng, vary=True), rng)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()
    assert 0 < len(samples) <= WINDOW_SAMPLES
    assert np.abs(to_int16(samples)).max() > 0


def test_what_is_switched_off_is_not_heard() -> None:
    off = AugmentSettings(
        speed=0, room=0, noise=0, music=0, babble=0, equaliser=0, clipping=0, level=0, telephone=0
    )
    augmenter = Augmenter(off, _sounds(), _anonymous())
    for seed in range(20):
        rng = np.random.default_rng(seed)
        samples = augmenter.segment(augmenter.babble, 1, rng, vary=True)
        assert np.array_equal(augmenter.degrade(samples, rng), samples)
        assert to_int16(samples).tobytes() in augmenter.babble.clip(1).tobytes()


@pytest.mark.parametrize(
    ("only", "lengthens"),
    [({"stretch": 1}, True), ({"pitch": 1}, False), ({"time_shift": 1}, False)],
)
def test_a_voice_is_varied_where_asked(only: dict[str, float], lengthens: bool) -> None:
    plain = Augmenter(AugmentSettings(speed=0, short=0), NoiseLibrary(), _anonymous())
    varied = Augmenter(
        AugmentSettings(speed=0, short=0, stretch_range=(1.5, 1.5), **only),
        NoiseLibrary(),
        _anonymous(),
    )
    before = plain.segment(plain.babble, 0, np.random.default_rng(2), vary=True)
    clean = varied.segment(plain.babble, 0, np.random.default_rng(2), vary=False)
    after = varied.segment(plain.babble, 0, np.random.default_rng(2), vary=True)
    assert np.array_equal(clean, before)
    assert (len(after) != len(before)) == lengthens
    assert not np.array_equal(after, before)


def test_babble_comes_from_the_utterances_own_group() -> None:
    settings = AugmentSettings(babble=1, noise=0, music=0, room=0, equaliser=0, clipping=0,
                               level=0, telephone=0, snr_db=(-30, -30))  # fmt: skip
    clips = _anonymous()
    group = np.array([0, 1, 0, 1])
    augmenter = Augmenter(settings, NoiseLibrary(), clips, group)
    voices_hz = (110, 180, 240, 310)
    silent = np.full(32_000, 1e-3, np.float32)
    for index in range(4):
        for seed in range(10):
            rng = np.random.default_rng(seed)
            heard = augmenter.degrade(silent, rng, index)
            power = np.abs(np.fft.rfft(heard)) ** 2
            level = [float(power[2 * hz - 8 : 2 * hz + 8].sum()) for hz in voices_hz]
            own = sum(level[i] for i in range(4) if group[i] == group[index])
            other = sum(level[i] for i in range(4) if group[i] != group[index])
            assert own > 1e4 * other
    with pytest.raises(ValueError, match="index"):
        augmenter.degrade(silent, np.random.default_rng(0))
    with pytest.raises(ValueError, match="3 groups for 4 utterances"):
        Augmenter(settings, NoiseLibrary(), clips, group[:3])


def test_a_missing_codec_is_left_out_and_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "available_codecs", lambda: ("mulaw",))
    module._tell_missing.cache_clear()
    weights = AugmentSettings(codecs={"mulaw": 1, "gsm": 2}).codecs
    assert module.usable_codecs(weights) == {"mulaw": 1}
    assert module.usable_codecs(weights) == {"mulaw": 1}
    assert capsys.readouterr().err.count("left out: gsm") == 1
    only = AugmentSettings(codecs={"gsm": 1})
    with pytest.raises(TrainerError, match="none of gsm"):
        Augmenter(only, NoiseLibrary(), _anonymous())
    # not asked for, not missed
    Augmenter(only.model_copy(update={"telephone": 0.0}), NoiseLibrary(), _anonymous())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("codecs", {"mp3": 1}),
        ("codecs", {"mulaw": 0}),
        ("codecs", {"mulaw": -1, "alaw": 2}),
        ("concealment", {"hope": 1}),
        ("noise", 0.95),
        ("pitch", 1.5),
        ("snr_db", (20, 3)),
        ("speed_range", (0.0, 1.0)),
        ("loss_rate", (0.1, 1.2)),
        ("sppeed", 0.5),
    ],
)
def test_wrong_settings_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key if key != "noise" else "exclude each other"):
        AugmentSettings.model_validate({key: value})


def test_sounds_are_needed_only_where_heard() -> None:
    assert AugmentSettings().needs_sounds
    assert not AugmentSettings(room=0, music=0, noise=0.5, gaussian=1).needs_sounds
    assert AugmentSettings(room=0, music=0, noise=0.5).needs_sounds


def test_the_bank_is_reproducible_and_its_first_copy_clean(made_up: Path, tmp_path: Path) -> None:
    clips = load_clips(load("emodb", made_up / "corpora").utterances[:5])
    settings = AugmentSettings(copies=3, stretch=0.5, pitch=0.5)
    library = load_noise(made_up / "noise")
    one = render(clips, settings, library, 7, tmp_path / "a")
    two = render(clips, settings, library, 7, tmp_path / "b", processes=2)
    other = render(clips, settings, library, 8, tmp_path / "a")
    assert np.array_equal(one.audio, two.audio)
    assert np.array_equal(one.length, two.length)
    assert not np.array_equal(one.audio, other.audio)
    assert one.key == two.key != other.key
    for row in range(5):
        length = int(one.length[0, row])
        segment = one.audio[0, row]
        assert not segment[length:].any()
        # a clean segment is a stretch of its recording
        recording = clips.clip(row).tobytes()
        assert segment[:length].tobytes() in recording


def test_the_bank_is_read_back_without_work(made_up: Path, tmp_path: Path) -> None:
    clips = load_clips(load("emodb", made_up / "corpora").utterances[:2])
    settings = AugmentSettings(copies=1)
    first = render(clips, settings, NoiseLibrary(), 0, tmp_path)
    stamp = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = render(clips, settings, NoiseLibrary(), 0, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamp
    assert np.array_equal(first.audio, again.audio)
