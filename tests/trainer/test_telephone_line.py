"""The telephone: bands, codecs, lost packets, silences that are not sent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.audio import Float32, to_float, to_int16
from trainer.augment import (
    CODECS,
    Codec,
    Concealment,
    Line,
    available_codecs,
    codec_rate_hz,
    comfort_noise,
    conceal,
    lose_packets,
    rms,
    round_trip,
    send,
    telephone,
)
from trainer.augment.codecs import bit_rates
from trainer.augment.packets import draw_losses

_RNG_SEED = 11


def _voice(samples: int, rate_hz: int = 16_000) -> Float32:
    """A glottal buzz through two resonances, in syllables: what speech codecs are made for."""
    time = np.arange(samples) / rate_hz
    phase = 2 * np.pi * np.cumsum(120 + 15 * np.sin(2 * np.pi * 1.5 * time)) / rate_hz
    wave = np.zeros(samples)
    for k in range(1, 26):
        hz = 120.0 * k
        gain = 1 / (1 + ((hz - 600) / 250) ** 2) + 0.5 / (1 + ((hz - 1_500) / 300) ** 2)
        wave += gain * np.sin(k * phase)
    envelope = np.clip(np.sin(2 * np.pi * 2.5 * time), 0.0, 1.0) ** 0.5
    return np.asarray(0.15 * wave * envelope, np.float32)


def _band_level(samples: Float32, low_hz: float, high_hz: float) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequency = np.fft.rfftfreq(len(samples), 1 / 16_000)
    return float(power[(frequency >= low_hz) & (frequency < high_hz)].sum())


def _require(codec: Codec) -> None:
    if codec not in available_codecs():
        pytest.skip(f"no encoder for {codec} here")


@given(samples=st.integers(1, 5_000), law=st.sampled_from(["mulaw", "alaw"]))
def test_the_telephone_keeps_the_length(samples: int, law: str) -> None:
    assert len(telephone(_voice(samples), law=law)) == samples  # type: ignore[arg-type]


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_the_telephone_cuts_the_band_and_keeps_what_is_in_it(law: Codec) -> None:
    noise = 0.1 * np.random.default_rng(2).standard_normal(32_000).astype(np.float32)
    heard = send(noise, Line(law), np.random.default_rng(0))
    kept = _band_level(heard, 300, 3_400) / _band_level(noise, 300, 3_400)
    lost = _band_level(heard, 4_300, 8_000) / _band_level(noise, 4_300, 8_000)
    assert 10 * np.log10(kept) == pytest.approx(0.0, abs=0.5)
    assert 10 * np.log10(lost) < -35
    narrow = send(noise, Line(law, narrow=True), np.random.default_rng(0))
    bottom = _band_level(narrow, 20, 120) / _band_level(noise, 20, 120)
    assert 10 * np.log10(bottom) < -12


def test_the_fixed_line_is_plain_g711() -> None:
    voice = _voice(16_000)
    plain = send(voice, Line("mulaw"), np.random.default_rng(5))
    assert np.array_equal(telephone(voice), plain)
    assert not np.array_equal(telephone(voice, law="alaw"), plain)


# What a codec leaves of the waveform, measured on the voice above, less a margin.
_LEAST_SNR_DB: dict[str, float] = {
    "mulaw": 30, "alaw": 30, "gsm": 5, "amr-nb": 5, "amr-wb": 5, "g722": 15,
    "opus-8k": 4, "opus-16k": 4,
}  # fmt: skip


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_gives_the_voice_back_in_its_place(codec: Codec) -> None:
    _require(codec)
    rate_hz = codec_rate_hz(codec)
    pcm = to_int16(_voice(2 * rate_hz, rate_hz))
    heard = round_trip(codec, pcm)
    assert heard.dtype == np.int16
    assert len(heard) == len(pcm)
    assert not np.array_equal(heard, pcm)
    spoken, back = to_float(pcm).astype(np.float64), to_float(heard).astype(np.float64)
    correlation = np.fft.irfft(np.conj(np.fft.rfft(spoken)) * np.fft.rfft(back))
    lag = int(np.argmax(correlation))
    lag -= len(spoken) if lag > len(spoken) // 2 else 0
    # within half a millisecond
    assert abs(lag) <= rate_hz // 2_000
    error = back - spoken
    assert 10 * np.log10(np.sum(spoken**2) / np.sum(error**2)) > _LEAST_SNR_DB[codec]


@pytest.mark.parametrize("codec", CODECS)
def test_a_line_has_its_codecs_band(codec: Codec) -> None:
    _require(codec)
    noise = 0.1 * np.random.default_rng(2).standard_normal(32_000).astype(np.float32)
    heard = send(noise, Line(codec), np.random.default_rng(0))
    assert len(heard) == len(noise)
    upper = _band_level(heard, 4_500, 6_500) / _band_level(noise, 4_500, 6_500)
    if codec_rate_hz(codec) == 8_000:
        assert 10 * np.log10(upper) < -30
    else:
        assert 10 * np.log10(upper) > -15


@pytest.mark.parametrize("codec", ["amr-nb", "opus-8k", "opus-16k"])
def test_fewer_bits_keep_less(codec: Codec) -> None:
    _require(codec)
    noise = np.random.default_rng(0).standard_normal(2 * codec_rate_hz(codec))
    pcm = to_int16(0.05 * noise)
    rates = bit_rates(codec)

    def error(kbps: float) -> float:
        return rms(to_float(round_trip(codec, pcm, kbps)) - to_float(pcm))

    assert error(rates[0]) > 1.2 * error(rates[-1])


def test_bit_rates_lie_in_the_range_or_next_to_it() -> None:
    assert bit_rates("mulaw") == bit_rates("gsm", 1, 2) == ()
    assert bit_rates("amr-nb", 5, 6) == (5.15, 5.9)
    assert bit_rates("opus-16k", 1, 2) == (9.0,)
    assert bit_rates("amr-nb", 20, 30) == (12.2,)


@settings(max_examples=15)
@given(samples=st.integers(1, 3_000), codec=st.sampled_from(available_codecs()))
def test_codecs_take_any_length_and_repeat_themselves(samples: int, codec: Codec) -> None:
    voice = _voice(samples)
    heard = send(voice, Line(codec), np.random.default_rng(0))
    assert len(heard) == samples
    assert np.isfinite(heard).all()
    assert np.array_equal(heard, send(voice, Line(codec), np.random.default_rng(0)))


@given(rate=st.floats(0.02, 0.4), seed=st.integers(0, 99), rate_hz=st.sampled_from([8000, 16000]))
def test_lost_packets_are_whole(rate: float, seed: int, rate_hz: int) -> None:
    packet = rate_hz // 50
    samples = np.full(packet * 200 + 37, 1_000, np.int16)
    heard = lose_packets(samples, rate, np.random.default_rng(seed), "silence", rate_hz)
    assert len(heard) == len(samples)
    packets = heard[: packet * 200].reshape(200, packet)
    lost = (packets == 0).all(axis=1)
    assert ((packets == 1_000).all(axis=1) | lost).all()


def test_the_loss_rate_and_the_bursts_are_reached() -> None:
    lost = draw_losses(40_000, 0.1, np.random.default_rng(0))
    assert np.mean(lost) == pytest.approx(0.1, abs=0.01)
    bursts = np.count_nonzero(np.diff(lost.astype(np.int8)) == 1)
    assert np.count_nonzero(lost) / bursts == pytest.approx(2.0, abs=0.15)


def test_a_repeated_packet_fades_by_half() -> None:
    samples = np.full(160 * 4, 1_000, np.int16)
    heard = conceal(samples, np.array([False, True, True, False]), "repeat")
    assert heard.reshape(4, 160)[:, 0].tolist() == [1_000, 500, 250, 1_000]


@pytest.mark.parametrize("rate_hz", [8_000, 16_000])
def test_the_pitch_goes_on_through_a_loss(rate_hz: int) -> None:
    time = np.arange(rate_hz // 2) / rate_hz
    tones = [0.3 * np.sin(2 * np.pi * 143 * k * time) / k for k in range(1, 8)]
    samples = to_int16(np.sum(tones, axis=0))
    packet = rate_hz // 50
    lost = np.zeros(25, bool)
    lost[12] = True
    span = slice(12 * packet, 13 * packet)

    def error(how: Concealment) -> float:
        return rms(to_float(conceal(samples, lost, how, rate_hz)[span]) - to_float(samples[span]))

    assert error("pitch") < 0.4 * error("silence")
    assert error("pitch") < 0.4 * error("repeat")
    heard = conceal(samples, lost, "pitch", rate_hz)
    after = 13 * packet + 5 * rate_hz // 1000
    assert np.array_equal(heard[: 12 * packet], samples[: 12 * packet])
    assert np.array_equal(heard[after:], samples[after:])
    # a long loss has faded within 60 ms
    lost[12:18] = True
    long = conceal(samples, lost, "pitch", rate_hz)
    assert not long[15 * packet : 18 * packet].any()


@given(
    samples=st.integers(1, 2_500),
    seed=st.integers(0, 500),
    how=st.sampled_from(["repeat", "silence", "pitch"]),
)
def test_concealing_never_overshoots(samples: int, seed: int, how: Concealment) -> None:
    rng = np.random.default_rng(seed)
    sound = rng.integers(-20_000, 20_000, samples).astype(np.int16)
    heard = lose_packets(sound, 0.4, rng, how)
    assert len(heard) == samples
    assert np.abs(heard.astype(np.int32)).max() <= np.abs(sound.astype(np.int32)).max() + 1


def _pause(level: float, rate_hz: int = 8_000) -> Float32:
    """Half a second of voice, a second of quiet noise, half a second of voice."""
    noise = level * np.random.default_rng(4).standard_normal(2 * rate_hz)
    time = np.arange(2 * rate_hz) / rate_hz
    voice = 0.3 * np.sin(2 * np.pi * 200 * time)
    voice[rate_hz // 2 : 3 * rate_hz // 2] = 0
    return np.asarray(voice + noise, np.float32)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000])
def test_silence_becomes_noise_of_its_level(rate_hz: int) -> None:
    samples = to_int16(_pause(0.003, rate_hz))
    heard = comfort_noise(samples, -75.0, np.random.default_rng(_RNG_SEED), rate_hz)
    assert len(heard) == len(samples)
    voiced = slice(0, rate_hz // 2)
    assert np.array_equal(heard[voiced], samples[voiced])
    quiet = slice(int(0.7 * rate_hz), int(1.4 * rate_hz))
    assert not np.array_equal(heard[quiet], samples[quiet])
    assert rms(to_float(heard[quiet])) == pytest.approx(rms(to_float(samples[quiet])), rel=0.1)
    likeness = np.corrcoef(heard[quiet], samples[quiet])[0, 1]
    assert abs(likeness) < 0.1


def test_digital_silence_becomes_noise_of_the_floor() -> None:
    heard = comfort_noise(to_int16(_pause(0.0)), -60.0, np.random.default_rng(_RNG_SEED))
    level = rms(to_float(heard[5_600:11_200]))
    assert 20 * np.log10(level) == pytest.approx(-60.0, abs=0.5)


def test_comfort_noise_sounds_like_what_it_replaces() -> None:
    rng = np.random.default_rng(6)
    hum = np.convolve(rng.standard_normal(16_000), np.ones(12) / 12, "same")
    samples = to_int16(_pause(0.0) + 0.003 * hum)
    heard = comfort_noise(samples, -75.0, np.random.default_rng(_RNG_SEED))

    def share_below_1_khz(sound: Float32) -> float:
        power = np.abs(np.fft.rfft(sound)) ** 2
        return float(power[: len(power) // 4].sum() / power.sum())

    quiet = slice(5_600, 11_200)
    assert share_below_1_khz(to_float(heard[quiet])) == pytest.approx(
        share_below_1_khz(to_float(samples[quiet])), abs=0.1
    )


@given(samples=st.integers(0, 3_000), seed=st.integers(0, 50))
def test_comfort_noise_takes_anything(samples: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sound = (rng.integers(-9_000, 9_000, samples) * rng.random(samples) ** 9).astype(np.int16)
    heard = comfort_noise(sound, -60.0, rng)
    assert len(heard) == samples
    assert heard.dtype == np.int16
