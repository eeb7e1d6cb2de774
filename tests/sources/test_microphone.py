"""The microphone source on fake devices, with a driven clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.channel import Waker
from serd.errors import SourceError
from serd.sources.microphone import MicrophoneOptions, MicrophoneSource, list_devices
from serd.sources.portaudio import PortAudio
from serd.sources.recording import Recording
from serd.types import Encoding, Role
from tests.fakes import FakeClock, wait_until
from tests.sources.fake_backend import FakeBackend, FakeStream, device, expected
from tests.sources.fake_intake import FakeIntake, FakeTap


class Bench:
    """A machine with two devices; the test is its ingest thread."""

    def __init__(self) -> None:
        self.clock = FakeClock(monotonic_ns=1_000_000_000)
        self.backend = FakeBackend([device(0, "desk", is_default=True), device(1, "headset")])
        self.portaudio = PortAudio(self.backend)
        self.waker = Waker()
        self.intake = FakeIntake()
        self.sources: list[MicrophoneSource] = []

    def add(self, name: str, **options: object) -> MicrophoneSource:
        options = {"device": name, "retry_s": 0.01, **options}
        source = MicrophoneSource(
            MicrophoneOptions(name, f"{name}-stream", **options),  # type: ignore[arg-type]
            self.portaudio,
            self.clock,
        )
        source.open(self.waker)
        self.sources.append(source)
        return source

    def service(self) -> list[int | None]:
        return [source.service(self.clock.now_ns, self.intake) for source in self.sources]

    def opened(self, source: MicrophoneSource, times: int = 1) -> FakeStream:
        """Serve until the source has its device for the given time; returns the stream."""

        def is_open() -> bool:
            self.service()
            return source.counts()["opened"] >= times

        wait_until(is_open, f"{source.name} to open")
        return next(s for s in reversed(self.backend.live) if s.device.name == source.name)

    def taps(self, source: MicrophoneSource) -> list[FakeTap]:
        return [tap for tap in self.intake.taps if tap.source == source.name]

    def close(self) -> None:
        self.backend.may_open.set()
        for source in self.sources:
            source.close()
        self.waker.close()
        assert not self.backend.live


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_hands_over_every_sample_in_order(bench: Bench) -> None:
    source = bench.add("desk", roles=(Role.SELF,))
    stream = bench.opened(source)
    assert (stream.sample_rate_hz, stream.channels, stream.block_samples) == (16_000, 1, 320)
    for blocks in (1, 3, 2):
        stream.speak(blocks)
        bench.service()
    tap = bench.taps(source)[0]
    assert np.array_equal(tap.samples, expected(0, 6 * 320, [0]))
    assert (tap.stream, tap.sample_rate_hz, tap.channels) == ("desk-stream", 16_000, 1)
    assert (tap.roles, tap.encoding) == ((Role.SELF,), Encoding.S16LE)
    assert source.counts()["blocks"] == 6
    assert not source.lossless
    assert not source.finished
    assert list(source.pollables()) == []


def test_a_block_wakes_the_ingest_thread(bench: Bench) -> None:
    stream = bench.opened(bench.add("desk"))
    bench.waker.clear()
    stream.speak()
    assert bench.waker.wait(0)


@pytest.mark.parametrize("channels", [(1,), (2,), (4, 2), (1, 2, 3, 4), (3, 3)])
def test_takes_the_channels_that_were_chosen(bench: Bench, channels: tuple[int, ...]) -> None:
    bench.backend.listed.append(device(2, "mixer", channels=6))
    bench.backend.plugged.append(device(2, "mixer", channels=6))
    source = bench.add("mixer", channels=channels)
    stream = bench.opened(source)
    assert stream.channels == max(channels)
    stream.speak(2)
    bench.service()
    columns = [channel - 1 for channel in channels]
    assert np.array_equal(bench.taps(source)[0].samples, expected(0, 640, columns))


def test_channels_are_counted_from_one() -> None:
    for channels in ((), (0,), (1, -1)):
        with pytest.raises(ValueError, match="counted from 1"):
            MicrophoneOptions("m", "m", channels=channels)


@pytest.mark.parametrize("timed", [True, False])
def test_blocks_carry_when_they_were_captured(bench: Bench, timed: bool) -> None:
    source = bench.add("desk")
    stream = bench.opened(source)
    now_ns = bench.clock.unix_ns()
    stream.speak(timed=timed, latency_s=0.125)
    bench.service()
    tap = bench.taps(source)[0]
    age_ms = 125 if timed else 20
    assert tap.captured[0] == pytest.approx(now_ns - age_ms * 1_000_000, abs=1000)
    assert tap.captured_at_ns == tap.captured[0]


@pytest.mark.parametrize(
    ("timed", "lost", "told"), [(True, 777, 777), (True, 0, 1), (False, 777, 320)]
)
def test_tells_what_the_device_lost(bench: Bench, timed: bool, lost: int, told: int) -> None:
    source = bench.add("desk")
    stream = bench.opened(source)
    stream.speak(2, timed=timed)
    stream.speak(2, timed=timed, lost=lost, overflowed=True)
    bench.service()
    log = bench.taps(source)[0].log
    assert log == [("push", 320)] * 2 + [("lose", told, "overflow")] + [("push", 320)] * 2
    assert source.counts()["overflow_blocks"] == 1
    assert source.counts()["overflow_samples"] == told


def test_a_full_queue_drops_the_newest_and_tells_how_much(bench: Bench) -> None:
    source = bench.add("desk", queue_blocks=4)
    stream = bench.opened(source)
    stream.speak(7)
    bench.service()
    stream.speak(1)
    bench.service()
    tap = bench.taps(source)[0]
    assert tap.log == [("push", 320)] * 4 + [("lose", 960, "overflow"), ("push", 320)]
    assert np.array_equal(tap.blocks[-1], expected(7 * 320, 320, [0]))
    assert source.counts()["queue_dropped_blocks"] == 3
    assert source.counts()["queue_peak_blocks"] == 4


def test_what_was_lost_last_is_told_before_the_stream_closes(bench: Bench) -> None:
    source = bench.add("desk", queue_blocks=2)
    stream = bench.opened(source)
    stream.speak(3)
    stream.die()
    bench.service()
    tap = bench.taps(source)[0]
    assert tap.log == [("push", 320)] * 2 + [("lose", 320, "overflow")]
    assert tap.closed == "device_lost"


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=40))
def test_positions_stay_true_whatever_the_queue_drops(turns: list[tuple[int, int]]) -> None:
    waker = Waker()
    recording = Recording(device(0, "m"), 8000, 1, 20, 3, FakeClock(), waker)
    stream = FakeStream(device(0, "m"), 8000, 1, 160, recording.on_block, recording.on_end)
    position = 0
    for speak, take in turns:
        stream.speak(speak)
        for _ in range(take):
            block = recording.peek()
            if block is None:
                break
            position += block.lost_before
            assert np.array_equal(block.samples, expected(position, 160, [0]))
            position += 160
            recording.drop_first()
    while (block := recording.peek()) is not None:
        position += block.lost_before + 160
        recording.drop_first()
    assert position + recording.take_lost() == stream.heard
    waker.close()


def unplug_by_end(bench: Bench, stream: FakeStream) -> None:
    stream.die()


def unplug_by_silence(bench: Bench, stream: FakeStream) -> None:
    bench.clock.advance(1.01)


@pytest.mark.parametrize("unplug", [unplug_by_end, unplug_by_silence])
def test_an_unplugged_device_is_given_up_and_taken_up_again(
    bench: Bench, unplug: Callable[[Bench, FakeStream], None]
) -> None:
    source = bench.add("desk")
    stream = bench.opened(source)
    stream.speak(3)
    bench.backend.pull("desk")
    unplug(bench, stream)
    assert bench.service() == [None]
    first = bench.taps(source)[0]
    assert np.array_equal(first.samples, expected(0, 960, [0]))
    assert first.closed == "device_lost"
    wait_until(lambda: bench.service() and source.counts()["open_failures"] >= 3, "attempts")
    assert stream.closed
    bench.backend.plug(device(7, "desk"))
    again = bench.opened(source, times=2)
    assert again.device.index == 7
    again.speak(2)
    bench.service()
    second = bench.taps(source)[1]
    assert np.array_equal(second.samples, expected(0, 640, [0]))
    assert second.closed is None
    assert source.counts()["device_lost"] == 1


def test_another_microphone_is_not_disturbed(bench: Bench) -> None:
    desk, headset = bench.add("desk"), bench.add("headset")
    lost, kept = bench.opened(desk), bench.opened(headset)
    rescans = bench.backend.rescans
    bench.backend.pull("desk")
    lost.speak()
    kept.speak()
    bench.service()
    lost.die()

    def tried() -> bool:
        kept.speak()
        bench.service()
        return desk.counts()["open_failures"] >= 3

    wait_until(tried, "attempts")
    bench.backend.plug(device(0, "desk"))
    bench.opened(desk, times=2).speak()
    kept.speak()
    bench.service()
    assert bench.backend.rescans == rescans
    assert not kept.closed
    taps = bench.taps(headset)
    assert len(taps) == 1
    assert np.array_equal(taps[0].samples, expected(0, kept.heard, [0]))


def test_the_first_block_may_take_its_time(bench: Bench) -> None:
    source = bench.add("desk")
    stream = bench.opened(source)
    opened_ns = bench.clock.now_ns
    bench.clock.advance(4.9)
    assert bench.service() == [opened_ns + 5_000_000_000]
    stream.speak()
    spoken_ns = bench.clock.now_ns
    assert bench.service() == [spoken_ns + 1_000_000_000]
    assert source.counts()["device_lost"] == 0


def test_a_device_that_never_delivers_is_tried_again(bench: Bench) -> None:
    source = bench.add("desk")
    bench.opened(source)
    bench.clock.advance(5)
    bench.service()
    bench.opened(source, times=2)
    assert bench.intake.taps == []
    assert source.counts()["device_lost"] == 1


def test_a_device_that_is_slow_to_open_holds_nobody_up(bench: Bench) -> None:
    bench.backend.may_open.clear()
    source = bench.add("desk")
    wait_until(lambda: bench.backend.attempts, "the attempt")
    assert bench.service() == [None]
    assert "MainThread" not in bench.backend.threads
    bench.backend.may_open.set()
    bench.opened(source)


def test_a_device_that_comes_later_is_waited_for(bench: Bench) -> None:
    bench.backend.pull("desk")
    bench.backend.listed = list(bench.backend.plugged)
    source = bench.add("desk")
    wait_until(lambda: bench.service() and source.counts()["open_failures"], "a failure")
    bench.backend.plug(device(3, "desk"))
    bench.opened(source)


def test_a_missing_library_is_told_at_once(bench: Bench) -> None:
    bench.backend.missing = True
    source = MicrophoneSource(MicrophoneOptions("m", "m"), bench.portaudio, bench.clock)
    with pytest.raises(SourceError, match="apt install libportaudio2"):
        source.open(bench.waker)
    source.close()


def test_closing_releases_the_device(bench: Bench) -> None:
    source = bench.add("desk")
    stream = bench.opened(source)
    source.close()
    assert stream.closed
    source.close()


def test_closing_before_the_device_was_handed_over_releases_it(bench: Bench) -> None:
    source = bench.add("desk")
    wait_until(lambda: bench.backend.streams, "the device to open")
    source.close()
    assert not bench.backend.live


def test_lists_devices(bench: Bench) -> None:
    assert [found.name for found in list_devices(bench.portaudio)] == ["desk", "headset"]
