"""The file source with real files, a driven clock and an intake that keeps everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serd.channel import Waker
from serd.errors import SourceError
from serd.sources.file import FileOptions, FileSource
from serd.types import Encoding, Int16Array, Role
from tests.fakes import FakeClock
from tests.sources.fake_intake import FakeIntake, FakeTap


class Setup:
    """A source that is open on a file, an intake and a clock."""

    def __init__(self, options: FileOptions, limit: int = 1 << 30) -> None:
        self.clock = FakeClock(monotonic_ns=5_000_000_000)
        self.intake = FakeIntake(limit)
        self.source = FileSource(options, self.clock)
        self.waker = Waker()
        self.source.open(self.waker)

    def service(self) -> int | None:
        return self.source.service(self.clock.now_ns, self.intake)

    def play(self) -> FakeTap:
        """Call the source whenever it asks to be called, until it has ended."""
        while (due_ns := self.service()) is not None:
            assert due_ns >= self.clock.now_ns
            self.clock.now_ns = max(due_ns, self.clock.now_ns)
        assert self.source.finished
        return self.intake.taps[-1]


@pytest.fixture
def setups() -> Iterator[Callable[..., Setup]]:
    made: list[Setup] = []

    def make(path: Path, limit: int = 1 << 30, **options: object) -> Setup:
        made.append(Setup(FileOptions("recording", path, **options), limit))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for setup in made:
        setup.source.close()
        setup.waker.close()


def tones(seconds: float, rate_hz: int, channels: int = 1) -> Int16Array:
    """Another tone on each channel, int16 ``[n, channels]``."""
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    waves = [np.sin(2 * np.pi * 200 * (k + 1) * times) for k in range(channels)]
    samples: Int16Array = np.rint(9000 * np.stack(waves, axis=1)).astype(np.int16)
    return samples


def sweep(seconds: float, rate_hz: int, channels: int) -> Int16Array:
    """A sweep, which no shift turns into itself, int16 ``[n, channels]``."""
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    wave = 9000 * np.sin(2 * np.pi * (200 + 300 * times) * times)
    samples: Int16Array = np.rint(np.repeat(wave[:, np.newaxis], channels, axis=1)).astype(np.int16)
    return samples


def write(path: Path, samples: Int16Array, rate_hz: int, **options: str) -> Path:
    soundfile.write(path, samples, rate_hz, **options)
    return path


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_lossless_formats_come_out_sample_for_sample(
    ending: str, channels: int, tmp_path: Path, setups: Callable[..., Setup]
) -> None:
    samples = tones(0.31, 16_000, channels)
    path = write(tmp_path / f"call.{ending}", samples, 16_000)
    tap = setups(path, realtime=False, roles=(Role.CUSTOMER,)).play()
    assert np.array_equal(tap.samples, samples)
    assert (tap.stream, tap.sample_rate_hz, tap.channels) == ("call", 16_000, channels)
    assert tap.roles == (Role.CUSTOMER,)
    assert tap.closed == "end"


@pytest.mark.parametrize(
    ("ending", "subtype"),
    [("mp3", "MPEG_LAYER_III"), ("ogg", "VORBIS"), ("ogg", "OPUS"), ("opus", "OPUS")],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_formats_come_out_at_their_length_and_place(
    ending: str, subtype: str, channels: int, tmp_path: Path, setups: Callable[..., Setup]
) -> None:
    rate_hz = 48_000
    samples = sweep(2.0, rate_hz, channels)
    path = tmp_path / f"a.{ending}"
    options = {"format": "OGG"} if ending == "opus" else {}
    # As floats: libsndfile's MP3 encoder spoils int16 of two channels.
    floats = (samples / 32768).astype(np.float32)
    soundfile.write(path, floats, rate_hz, subtype=subtype, **options)
    tap = setups(path, limit=1000, realtime=False).play()
    assert len(tap.samples) == len(samples)
    assert np.array_equal(setups(path, realtime=False).play().samples, tap.samples)
    middle = slice(rate_hz // 2, -rate_hz // 2)
    error = (tap.samples[middle].astype(float) - samples[middle]).std()
    assert error < 0.05 * samples[middle].astype(float).std()


@pytest.mark.parametrize(
    ("subtype", "encoding"),
    [("ULAW", Encoding.MULAW), ("ALAW", Encoding.ALAW), ("FLOAT", Encoding.F32LE)],
)
def test_tells_how_the_samples_were_encoded(
    subtype: str, encoding: Encoding, tmp_path: Path, setups: Callable[..., Setup]
) -> None:
    path = write(tmp_path / "a.wav", tones(0.1, 8000), 8000, subtype=subtype)
    assert setups(path, realtime=False).play().encoding is encoding


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW"])
def test_companded_files_decode_as_taps_do(
    subtype: str, tmp_path: Path, setups: Callable[..., Setup]
) -> None:
    from serd.audio import g711

    law = {
        "ULAW": (g711.encode_mulaw, g711.decode_mulaw),
        "ALAW": (g711.encode_alaw, g711.decode_alaw),
    }[subtype]
    samples = law[1](law[0](tones(0.2, 8000)))
    path = write(tmp_path / "a.wav", samples, 8000, subtype=subtype)
    assert np.array_equal(setups(path, realtime=False).play().samples, samples)


def test_floats_beyond_full_scale_saturate(tmp_path: Path, setups: Callable[..., Setup]) -> None:
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.array([0.5, 1.5, -3.0, 1.0], np.float32), 16_000, subtype="FLOAT")
    tap = setups(path, realtime=False).play()
    assert tap.samples[:, 0].tolist() == [16384, 32767, -32768, 32767]


def test_a_clipping_mp3_does_not_wrap(tmp_path: Path, setups: Callable[..., Setup]) -> None:
    square = np.where(np.arange(32_000) // 40 % 2, 32767, -32768).astype(np.int16)
    path = write(tmp_path / "loud.mp3", square, 16_000)
    with soundfile.SoundFile(path) as file:
        decoded = file.read(dtype="float32")
    assert np.abs(decoded).max() > 1.0, "the encoder must overshoot for this test to mean anything"
    played = setups(path, realtime=False).play().samples[:, 0]
    assert np.all(np.sign(played[decoded > 1.0]) > 0)
    assert np.all(np.sign(played[decoded < -1.0]) < 0)


def test_takes_only_what_there_is_room_for(tmp_path: Path, setups: Callable[..., Setup]) -> None:
    samples = tones(1.0, 8000)
    setup = setups(write(tmp_path / "a.wav", samples, 8000), limit=700, realtime=False)
    setup.service()
    setup.service()
    tap = setup.intake.taps[0]
    assert tap.log == [("push", 700), ("push", 700)]
    setup.intake.limit = 0
    assert setup.service() == setup.clock.now_ns + 1_000_000
    assert len(tap.log) == 2
    assert setup.source.position_s == 1400 / 8000
    setup.intake.limit = 123
    assert np.array_equal(setup.play().samples, samples)


def test_hands_over_at_most_a_second_at_a_time(
    tmp_path: Path, setups: Callable[..., Setup]
) -> None:
    setup = setups(write(tmp_path / "a.wav", tones(3.5, 8000), 8000), realtime=False)
    assert [entry[1] for entry in setup.play().log] == [8000, 8000, 8000, 4000]


def test_real_time_follows_the_clock(tmp_path: Path, setups: Callable[..., Setup]) -> None:
    samples = tones(0.13, 8000)
    setup = setups(write(tmp_path / "a.wav", samples, 8000), realtime=True, block_ms=20)
    began_ns = setup.clock.now_ns
    unix_ns = setup.clock.unix_ns()
    assert setup.service() == began_ns + 20_000_000
    tap = setup.intake.taps[0]
    assert tap.log == []
    setup.clock.advance(0.0199)
    assert setup.service() == began_ns + 20_000_000
    assert tap.log == []
    setup.clock.advance(0.0001)
    assert setup.service() == began_ns + 40_000_000
    assert tap.log == [("push", 160)]
    # A late call catches up with all that is due.
    setup.clock.advance(0.065)
    setup.service()
    assert tap.log == [("push", 160)] * 4
    setup.play()
    assert np.array_equal(tap.samples, samples)
    assert setup.clock.now_ns == began_ns + 140_000_000
    assert tap.captured == [unix_ns + k * 20_000_000 for k in range(7)]
    assert tap.captured_at_ns == unix_ns


def test_real_time_waits_for_room_and_then_catches_up(
    tmp_path: Path, setups: Callable[..., Setup]
) -> None:
    samples = tones(0.2, 8000)
    setup = setups(write(tmp_path / "a.wav", samples, 8000), limit=0, realtime=True)
    setup.service()
    setup.clock.advance(0.1)
    assert setup.service() == setup.clock.now_ns + 1_000_000
    setup.intake.limit = 160
    assert np.array_equal(setup.play().samples, samples)


def test_an_empty_file_opens_and_ends(tmp_path: Path, setups: Callable[..., Setup]) -> None:
    path = write(tmp_path / "empty.wav", np.zeros((0, 1), np.int16), 8000)
    setup = setups(path, realtime=False)
    tap = setup.play()
    assert (len(tap.samples), tap.closed) == (0, "end")
    assert setup.service() is None


def test_stream_call_and_labels_come_from_the_options(
    tmp_path: Path, setups: Callable[..., Setup]
) -> None:
    path = write(tmp_path / "a.b.wav", tones(0.1, 8000), 8000)
    setup = setups(path, realtime=False)
    assert setup.play().stream == "a.b"
    tap = setups(path, stream="line-7", call_id="c1", labels={"site": "x"}, realtime=False).play()
    assert (tap.stream, tap.call_id, tap.labels) == ("line-7", "c1", {"site": "x"})


def test_tells_how_far_it_is(tmp_path: Path, setups: Callable[..., Setup]) -> None:
    setup = setups(write(tmp_path / "a.wav", tones(2.5, 8000), 8000), realtime=False)
    assert (setup.source.position_s, setup.source.duration_s) == (0.0, 2.5)
    setup.service()
    assert setup.source.position_s == 1.0
    setup.play()
    assert setup.source.position_s == 2.5
    assert setup.source.counts() == {"samples": 20_000}
    assert setup.source.lossless
    assert list(setup.source.pollables()) == []


def refusal(path: Path) -> SourceError:
    source = FileSource(FileOptions("recording", path), FakeClock())
    waker = Waker()
    try:
        with pytest.raises(SourceError) as caught:
            source.open(waker)
    finally:
        waker.close()
    assert str(path) in caught.value.message
    return caught.value


def test_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.wav").code == "file_not_found"


def test_refuses_what_is_not_audio(tmp_path: Path) -> None:
    for name, content in (("a.wav", b"hello"), ("b.txt", b""), ("c.raw", bytes(320))):
        (tmp_path / name).write_bytes(content)
        assert refusal(tmp_path / name).code == "file_unreadable"
    assert refusal(tmp_path).code == "file_unreadable"


@pytest.mark.parametrize("rate_hz", [4000, 96_000])
def test_refuses_rates_that_it_cannot_take(rate_hz: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tones(0.1, rate_hz), rate_hz)
    error = refusal(path)
    assert error.code == "rate_unsupported"
    assert str(rate_hz) in error.message


def test_refuses_more_than_eight_channels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tones(0.1, 16_000, 9), 16_000)
    assert refusal(path).code == "channels_unsupported"


def test_a_damaged_recording_ends_where_it_breaks(
    tmp_path: Path, setups: Callable[..., Setup]
) -> None:
    samples = tones(4.0, 16_000)
    path = tmp_path / "bad.wav"
    floats = (samples / 32768).astype(np.float32)
    floats[40_000] = np.nan
    soundfile.write(path, floats, 16_000, subtype="FLOAT")
    tap = setups(path, realtime=False).play()
    assert tap.closed == "file_unreadable"
    assert np.array_equal(tap.samples, samples[:32_000])


@pytest.mark.parametrize("ending", ["flac", "ogg", "mp3"])
@pytest.mark.parametrize("kind", ["cut", "garbled"])
def test_cut_and_garbled_recordings_end_without_harm(
    ending: str, kind: str, tmp_path: Path, rng: np.random.Generator, setups: Callable[..., Setup]
) -> None:
    path = write(tmp_path / f"a.{ending}", tones(4.0, 16_000), 16_000)
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    if kind == "cut":
        del content[half:]
    else:
        content[half:] = rng.integers(0, 256, len(content) - half, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    if (ending, kind) in {("ogg", "cut"), ("ogg", "garbled")}:
        # The length of an Ogg stream stands in its last page.
        assert refusal(path).code == "file_unreadable"
        return
    tap = setups(path, realtime=False).play()
    assert tap.closed in ("end", "file_unreadable")
    assert 16_000 <= len(tap.samples) <= 65_000
