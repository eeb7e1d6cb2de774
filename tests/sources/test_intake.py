"""The intake, driven message by message; rows are read back by a stand-in for the speech thread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.audio import pcm
from serd.protocol.tap import Flag
from serd.rows import (
    Changed,
    Close,
    Filled,
    Jump,
    Open,
    Paused,
    Resumed,
    Told,
)
from serd.sources.intake import IntakeOptions
from serd.types import Encoding, Role
from tests.sources.intake_bench import Bench, FakeSource, Tap, ramp


@given(st.lists(st.integers(0, 700), min_size=1, max_size=30))
def test_audio_arrives_sample_for_sample_however_it_is_cut(blocks: list[int]) -> None:
    bench, tap = Bench(), Tap()
    sent = ramp(sum(blocks))
    at = 0
    for block in blocks:
        assert bench.send(*tap.audio(sent[at : at + block]))
        at += block
        bench.read()
    assert np.array_equal(bench.heard("call"), sent)
    assert bench.kinds("call") == ["Open"]


def test_a_full_row_makes_a_lossless_source_wait_and_loses_nothing() -> None:
    bench, tap = Bench(capacity=1024), Tap()
    sent = ramp(3000)
    assert bench.send(*tap.audio(sent[:1500]))
    parts = tap.audio(sent[1500:])
    assert not bench.send(*parts)
    bench.read()
    assert bench.send(*parts)
    for _ in range(3):
        bench.read()
        bench.table.flush_pending(bench.clock.monotonic_ns())
    assert np.array_equal(bench.heard("call"), sent)
    assert bench.table.counts["overload.samples"] == 0


def test_what_the_sequencer_held_back_is_not_shed_by_a_lossless_source() -> None:
    bench, tap = Bench(capacity=1024), Tap()
    sent = ramp(100 + 9 * 200)
    bench.send(*tap.audio(sent[:100]))
    missing = tap.audio(sent[100:300])
    held = [tap.audio(sent[start : start + 200]) for start in range(300, 1900, 200)]
    for parts in (*held, missing):
        assert bench.send(*parts)
    for _ in range(3):
        bench.read()
        bench.table.flush_pending(0)
    assert np.array_equal(bench.heard("call"), sent)
    assert "overload.samples" not in bench.table.counts


def test_a_full_row_of_a_lossy_source_drops_and_tells_an_overload_gap() -> None:
    bench, tap = Bench(capacity=1024, source=FakeSource(lossless=False)), Tap()
    assert bench.send(*tap.audio(ramp(1500)))
    assert bench.send(*tap.audio(ramp(100)))
    assert bench.send(*tap.audio(ramp(50)))
    assert bench.table.counts["overload.messages"] == 2
    bench.read()
    assert bench.send(*tap.audio(ramp(10)))
    bench.read()
    [(_, filled)] = [item for item in bench.controls if isinstance(item[1], Filled)]
    assert isinstance(filled, Filled)
    assert filled.gap.reason == "overload"
    assert (filled.gap.start, filled.gap.end, filled.gap.messages) == (1500, 1650, 2)


def test_an_end_is_heard_even_when_the_row_is_full() -> None:
    bench, tap = Bench(capacity=1024, source=FakeSource(lossless=False)), Tap()
    bench.send(*tap.audio(ramp(1500)))
    bench.send(*tap.audio(ramp(6000)))
    bench.send(*tap.audio(ramp(100), flags=Flag.END))
    for _ in range(4):
        bench.read()
        bench.table.flush_pending(0)
    assert bench.kinds("call") == ["Open", "Jump", "Close"]
    jump, close = bench.controls[-2][1], bench.controls[-1][1]
    assert isinstance(jump, Jump)
    assert jump.gap is not None
    assert (jump.gap.reason, jump.gap.start, jump.gap.end) == ("overload", 1500, 7600)
    assert jump.timeline.source_index(close.at) == 7600


def test_short_loss_is_filled_with_silence_in_place() -> None:
    bench, tap = Bench(), Tap()
    sent = ramp(2000)
    bench.send(*tap.audio(sent[:500]))
    tap.audio(sent[500:700])
    for start in range(700, 2000, 100):
        bench.send(*tap.audio(sent[start : start + 100]))
    expected = sent.copy()
    expected[500:700] = 0
    assert np.array_equal(bench.heard("call"), expected)
    filled = next(control for _, control in bench.controls if isinstance(control, Filled))
    assert filled.at == 500
    assert (filled.gap.start, filled.gap.end) == (500, 700)
    assert (filled.gap.reason, filled.gap.messages) == ("lost", 1)
    assert bench.table.counts["lost.samples"] == 200


def test_long_loss_ends_the_utterance_and_moves_the_timeline() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(ramp(100)))
    tap.index += 8000
    tap.sequence += 1
    for _ in range(bench.options.reorder_messages + 1):
        bench.send(*tap.audio(ramp(100)))
    bench.read()
    jump = next(control for _, control in bench.controls if isinstance(control, Jump))
    assert jump.reason == "gap"
    assert jump.gap is not None
    assert (jump.gap.start, jump.gap.end) == (100, 8100)
    assert jump.timeline.source_index(jump.at) == 8100
    assert jump.timeline.source_index(jump.at + 50) == 8150


def test_short_suppressed_silence_is_silence_and_no_loss() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(ramp(100)))
    tap.index += 400
    bench.send(*tap.audio(ramp(100)))
    expected = np.concatenate([ramp(100), np.zeros(400, np.int16), ramp(100)])
    assert np.array_equal(bench.heard("call"), expected)
    assert bench.kinds("call") == ["Open"]
    assert "lost.samples" not in bench.table.counts


def test_long_suppressed_silence_jumps_after_enough_silence_to_end_an_utterance() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(ramp(100)))
    tap.index += 8000 * 3600
    bench.send(*tap.audio(ramp(100)))
    heard = bench.heard("call")
    assert len(heard) == 200 + bench.options.silence_ms * 8
    assert not heard[100:-100].any()
    jump = next(control for _, control in bench.controls if isinstance(control, Jump))
    assert (jump.reason, jump.gap) == ("silence", None)
    assert jump.timeline.source_index(jump.at) == 100 + 8000 * 3600


@given(st.permutations(range(6)))
def test_any_order_within_the_window_is_put_right(order: list[int]) -> None:
    bench, tap = Bench(), Tap()
    sent = ramp(700)
    first = tap.audio(sent[:100])
    rest = [tap.audio(sent[at : at + 100]) for at in range(100, 700, 100)]
    bench.send(*first)
    for number in order:
        bench.send(*rest[number])
    assert np.array_equal(bench.heard("call"), sent)


def test_doubles_are_dropped_and_counted() -> None:
    bench, tap = Bench(), Tap()
    first, second = tap.audio(ramp(100)), tap.audio(ramp(100, 100))
    for parts in (first, first, second, second, first):
        bench.send(*parts)
    assert np.array_equal(bench.heard("call"), ramp(200))
    assert bench.table.counts["duplicates"] == 3


def test_a_late_message_is_dropped_counted_and_told() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(ramp(100)))
    late = tap.audio(ramp(100))
    for _ in range(bench.options.reorder_messages + 1):
        bench.send(*tap.audio(ramp(100)))
    bench.send(*late)
    bench.read()
    told = next(control for _, control in bench.controls if isinstance(control, Told))
    assert (told.gap.reason, told.gap.start, told.gap.end) == ("late", 100, 200)
    assert bench.table.counts["late"] == 1


def test_the_sequence_wraps_without_a_gap() -> None:
    bench, tap = Bench(), Tap()
    tap.sequence = 2**32 - 2
    for start in range(0, 500, 100):
        bench.send(*tap.audio(ramp(100, start)))
    assert np.array_equal(bench.heard("call"), ramp(500))


def test_a_tap_that_is_joined_late_keeps_its_own_positions() -> None:
    bench, tap = Bench(), Tap()
    tap.index, tap.sequence = 10**9, 12345
    bench.send(*tap.audio(ramp(100)))
    bench.read()
    opened = bench.controls[0][1]
    assert isinstance(opened, Open)
    assert opened.timeline.source_index(opened.at + 7) == 10**9 + 7


def test_a_publisher_that_restarts_begins_a_new_stream() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(ramp(100), flags=Flag.START))
    bench.send(*tap.audio(ramp(100)))
    again = Tap()
    again.index = 5000
    bench.send(*again.audio(ramp(50), flags=Flag.START))
    assert bench.kinds("call") == ["Open", "Close", "Open"]
    opened = bench.controls[-1][1]
    assert isinstance(opened, Open)
    assert opened.timeline.source == 5000
    assert bench.table.streams == 1


def test_another_rate_begins_a_new_stream() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(ramp(100)))
    tap.rate = 16000
    bench.send(*tap.audio(ramp(100)))
    bench.read()
    assert bench.kinds("call") == ["Open", "Close", "Open"] or bench.kinds("call") == [
        "Open",
        "Open",
        "Close",
    ]
    assert bench.table.counts["restarts.format"] == 1


def test_the_end_closes_the_stream_and_frees_its_row() -> None:
    bench, tap = Bench(options=IntakeOptions(max_streams=1)), Tap()
    bench.send(*tap.audio(ramp(100), flags=Flag.START))
    bench.send(*tap.audio(ramp(60, 100), flags=Flag.END))
    assert np.array_equal(bench.heard("call"), ramp(160))
    closed = bench.controls[-1][1]
    assert isinstance(closed, Close)
    assert closed.reason == "end"
    assert bench.send(*Tap("next").audio(ramp(10)))
    assert bench.kinds("next") == ["Open"]


def test_a_whole_recording_in_one_message_is_heard() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(ramp(5000), flags=Flag.START | Flag.END))
    assert np.array_equal(bench.heard("call"), ramp(5000))
    assert bench.kinds("call") == ["Open", "Close"]


def test_an_end_of_what_was_never_heard_opens_nothing() -> None:
    bench = Bench()
    bench.send(*Tap().plain(Flag.END))
    assert bench.table.streams == 0
    assert bench.table.counts["end_of_unknown"] == 1


def test_a_mistake_in_one_stream_ends_that_stream_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, good, bad = Bench(), Tap("good"), Tap("bad")
    bench.send(*good.audio(ramp(100)))
    bench.send(*bad.audio(ramp(100)))
    with monkeypatch.context() as broken:
        broken.setattr(pcm, "decode", lambda *_: 1 / 0)
        assert bench.send(*bad.audio(ramp(100)))
    bench.send(*good.audio(ramp(100, 100)))
    assert np.array_equal(bench.heard("good"), ramp(200))
    assert bench.kinds("bad") == ["Open", "Close"]
    assert bench.table.counts["internal_errors"] == 1


def test_streams_beyond_the_maximum_are_refused_once_each() -> None:
    bench = Bench(options=IntakeOptions(max_streams=2))
    taps = [Tap(f"call-{number}") for number in range(4)]
    for _ in range(3):
        for tap in taps:
            assert bench.send(*tap.audio(ramp(10)))
    assert bench.refused == [("call-2", 0, "max_streams"), ("call-3", 0, "max_streams")]
    assert len(bench.heard("call-0")) == 30


def test_invented_ids_do_not_make_the_table_grow() -> None:
    bench = Bench(options=IntakeOptions(max_streams=2))
    for number in range(100):
        bench.send(*Tap(f"noise-{number}").audio(ramp(10)))
    assert len(bench.refused) < 10
    assert bench.table.counts["refused.table_full"] > 80


def test_every_channel_is_a_stream_with_its_role() -> None:
    bench, tap = Bench(), Tap(channels=2)
    bench.send(*tap.metadata(Flag.START, roles=["customer", "unknown"], call_id="c-1"))
    stereo = np.stack([ramp(100), -ramp(100)], axis=1).astype(np.int16)
    bench.send(*tap.audio(stereo))
    assert np.array_equal(bench.heard("call/0"), stereo[:, 0])
    assert np.array_equal(bench.heard("call/1"), stereo[:, 1])
    infos = [control.info for _, control in bench.controls if isinstance(control, Open)]
    assert [(info.role, info.call_id) for info in infos] == [
        (Role.CUSTOMER, "c-1"),
        (Role.UNKNOWN, "c-1"),
    ]


def test_an_agents_channel_is_refused_before_anything_hears_it() -> None:
    bench, tap = Bench(), Tap(channels=2)
    bench.send(*tap.metadata(Flag.START, roles=["customer", "agent"]))
    bench.send(*tap.audio(ramp(200)))
    bench.read()
    assert bench.refused == [("call/1", 0, "role_agent")]
    assert list(bench.audio) == ["call/0"]
    assert sum(int(pool.active.sum()) for pool in bench.pools.values()) == 1


def test_a_stream_that_turns_out_to_be_an_agents_is_ended_as_refused() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(ramp(100)))
    bench.send(*tap.metadata(roles=["agent"]))
    bench.send(*tap.audio(ramp(100)))
    assert len(bench.heard("call")) == 100
    closed = bench.controls[-1][1]
    assert isinstance(closed, Close)
    assert (closed.reason, closed.refused) == ("role_agent", True)


def test_roles_of_the_source_hold_where_the_tap_names_none() -> None:
    bench = Bench()
    bench.send(*Tap().audio(ramp(10)), roles=(Role.AGENT,))
    assert bench.refused == [("call", 0, "role_agent")]


def test_metadata_changes_the_stream_where_it_came() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(ramp(100)))
    bench.send(*tap.metadata(call_id="c-2", labels={"queue": "sales"}))
    bench.send(*tap.audio(ramp(100)))
    bench.read()
    changed = next(control for _, control in bench.controls if isinstance(control, Changed))
    assert changed.at == 100
    assert (changed.info.call_id, changed.info.labels) == ("c-2", {"queue": "sales"})


def test_nothing_is_heard_between_pause_and_resume() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(ramp(100)))
    bench.send(*tap.audio(ramp(100, 100), flags=Flag.PAUSE))
    bench.send(*tap.audio(ramp(100, 200)))
    tap.index += 50_000
    bench.send(*tap.audio(ramp(100, 300), flags=Flag.RESUME))
    assert np.array_equal(bench.heard("call"), np.concatenate([ramp(100), ramp(100, 300)]))
    kinds = bench.kinds("call")
    assert kinds == ["Open", "Paused", "Resumed"]
    paused, resumed = bench.controls[1][1], bench.controls[2][1]
    assert isinstance(paused, Paused)
    assert isinstance(resumed, Resumed)
    assert paused.at == resumed.at == 100
    assert resumed.timeline.source_index(resumed.at) == 300 + 50_000
    assert bench.table.counts["paused.samples"] == 200


def test_a_silent_tap_is_closed_after_the_time_out() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(ramp(100)))
    tap.audio(ramp(100))
    held = tap.audio(ramp(100, 200))
    bench.send(*held)
    bench.clock.advance(29)
    bench.table.sweep(bench.clock.monotonic_ns())
    assert bench.table.streams == 1
    bench.clock.advance(2)
    bench.table.sweep(bench.clock.monotonic_ns())
    assert bench.table.streams == 0
    # What waited for a message that never came is heard before the end.
    assert np.array_equal(bench.heard("call")[200:], ramp(100, 200))
    closed = bench.controls[-1][1]
    assert isinstance(closed, Close)
    assert closed.reason == "timeout"


def test_a_tap_behind_one_that_waits_for_room_is_not_silent() -> None:
    bench, full, other = Bench(capacity=1024), Tap(), Tap("other")
    bench.send(*other.audio(ramp(10)))
    bench.send(*full.audio(ramp(1500)))
    parts = full.audio(ramp(100, 1500))
    for _ in range(40):
        assert not bench.send(*parts)
        bench.clock.advance(1)
        bench.table.sweep(bench.clock.monotonic_ns())
    assert bench.table.streams == 2


@pytest.mark.parametrize("encoding", [Encoding.MULAW, Encoding.ALAW, Encoding.F32LE])
def test_every_encoding_is_decoded(encoding: Encoding) -> None:
    bench, tap = Bench(), Tap()
    sent = ramp(300) * 20
    bench.send(*tap.audio(sent, encoding=encoding))
    expected = pcm.decode(pcm.encode(sent.reshape(-1, 1), encoding), encoding, 1)[:, 0]
    assert np.array_equal(bench.heard("call"), expected)


@pytest.mark.parametrize("rate", [11_025, 24_000, 44_100, 48_000])
def test_any_rate_is_brought_to_a_native_one_with_positions_in_its_own(rate: int) -> None:
    bench, tap = Bench(capacity=64_000), Tap(rate=rate)
    tap.index = 777
    seconds = np.arange(rate) / rate
    tone = np.round(8000 * np.sin(2 * np.pi * 440 * seconds)).astype(np.int16)
    for start in range(0, rate, 441):
        bench.send(*tap.audio(tone[start : start + 441]))
    bench.send(*tap.plain(Flag.END))
    heard = bench.heard("call")
    assert abs(len(heard) - 16_000) <= 1
    expected = 8000 * np.sin(2 * np.pi * 440 * np.arange(len(heard)) / 16_000)
    assert np.abs(heard - expected)[200:-200].max() < 80
    opened = bench.controls[0][1]
    assert isinstance(opened, Open)
    assert opened.timeline.source_index(opened.at + 16_000) == 777 + rate


def test_malformed_messages_are_counted_by_reason_and_touch_nothing() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(ramp(100)))
    good = tap.audio(ramp(100, 100))
    assert bench.send(good[0], good[1])
    assert bench.send(good[0], b"XXXX" + good[1][4:], good[2])
    assert bench.send(b"", good[1], good[2])
    assert bench.send(*good)
    assert np.array_equal(bench.heard("call"), ramp(200))
    malformed = {k: v for k, v in bench.table.counts.items() if k.startswith("malformed.")}
    assert malformed == {
        "malformed.wrong_part_count": 1,
        "malformed.bad_magic": 1,
        "malformed.id_empty": 1,
    }


def test_samples_that_are_no_numbers_leave_a_gap_of_their_length() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(ramp(100), encoding=Encoding.F32LE))
    stream, header, payload = tap.audio(ramp(100), encoding=Encoding.F32LE)
    bench.send(stream, header, payload[:-4] + np.float32(np.nan).tobytes())
    bench.send(*tap.audio(ramp(100, 200), encoding=Encoding.F32LE))
    heard = bench.heard("call")
    assert len(heard) == 300
    assert not heard[100:200].any()
    assert bench.table.counts["malformed.not_finite"] == 1


def test_two_sources_cannot_share_a_stream_id() -> None:
    bench, other = Bench(), FakeSource("other")
    bench.send(*Tap().audio(ramp(10)))
    bench.table.message(other, Tap().audio(ramp(10)), (), 0)
    assert bench.refused == [("call", 0, "duplicate_stream")]


def test_closing_a_source_closes_its_streams_alone() -> None:
    bench, other = Bench(), FakeSource("other")
    bench.send(*Tap("a").audio(ramp(10)))
    bench.table.message(other, Tap("b").audio(ramp(10)), (), 0)
    bench.table.close_source(bench.source, "draining")
    assert bench.kinds("a") == ["Open", "Close"]
    assert bench.kinds("b") == ["Open"]


def test_a_pushing_source_is_told_its_room_and_loses_only_what_is_beyond() -> None:
    bench = Bench(capacity=1024)
    handle = bench.table.open_stream(
        bench.source, "mic", 16_000, 1, (Role.SELF,), Encoding.S16LE, 0
    )
    assert bench.table.room(handle) == 1024
    bench.table.push(handle, ramp(1100).reshape(-1, 1), 0)
    assert bench.table.room(handle) == 0
    bench.table.close_stream(handle, "end")
    heard = bench.heard("mic")
    bench.table.flush_pending(0)
    assert np.array_equal(np.concatenate([heard, *bench.audio["mic"][1:]])[:1024], ramp(1024))
    assert bench.table.counts["overload.samples"] == 76
