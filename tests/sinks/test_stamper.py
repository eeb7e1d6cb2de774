"""Stamping, alone and into JSON lines."""

from __future__ import annotations

import io

import pytest

from serd.protocol.events import DaemonEvent, Event, ShadowEvent, decode, utc
from serd.sinks.jsonl import JsonlWriter
from serd.sinks.stamper import Stamper, new_run_id
from tests.fakes import FakeClock
from tests.protocol import examples as make

RUN = "0123456789abcdef"


def test_cursors_count_all_events_and_seq_those_of_a_stream(clock: FakeClock) -> None:
    stamper = Stamper(RUN, clock)
    events: list[Event] = [make.stream("a"), make.daemon(), make.stream("b"), make.speech("a")]
    assert [stamper.stamp(event) for event in events] == [False] * 4
    assert [event.cursor for event in events] == [1, 2, 3, 4]
    assert [event.id for event in events] == [f"{RUN}-{n}" for n in range(1, 5)]
    assert [e.seq for e in events if not isinstance(e, DaemonEvent | ShadowEvent)] == [0, 0, 1]
    assert {event.emitted_at for event in events} == {utc(clock.unix_ns())}
    assert stamper.last_cursor == 4


def test_a_daemon_event_tells_the_cursor_before_it(clock: FakeClock) -> None:
    stamper = Stamper(RUN, clock)
    ready, heartbeat = make.daemon("ready"), make.daemon()
    for event in (ready, make.stream(), heartbeat):
        stamper.stamp(event)
    assert (ready.last_cursor, heartbeat.last_cursor) == (0, 2)


def test_seq_begins_again_after_the_stream_closed(clock: FakeClock) -> None:
    stamper = Stamper(RUN, clock)
    events = [make.stream("a"), make.stream("a", "closed"), make.stream("a")]
    assert [stamper.stamp(event) for event in events] == [False, True, False]
    assert [event.seq for event in events] == [0, 1, 0]


def test_a_stream_refused_at_once_leaves_nothing_but_a_later_refusal_goes_on(
    clock: FakeClock,
) -> None:
    stamper = Stamper(RUN, clock)
    refused = make.stream("a", "refused")
    assert stamper.stamp(refused)
    events = [make.stream("a"), make.stream("a", "refused"), make.stream("a", "closed")]
    assert [stamper.stamp(event) for event in events] == [False, False, True]
    assert [event.seq for event in events] == [0, 1, 2]


def test_run_ids_are_hexadecimal_and_differ() -> None:
    first, second = new_run_id(), new_run_id()
    assert first != second
    assert len(bytes.fromhex(first)) == 8


def test_json_lines_are_stamped_events(clock: FakeClock) -> None:
    file = io.BytesIO()
    writer = JsonlWriter(file, Stamper(RUN, clock))
    events = make.examples()
    for event in events:
        writer.write(event)
    lines = file.getvalue().splitlines()
    assert [decode(line) for line in lines] == events
    assert [decode(line).cursor for line in lines] == [*range(1, len(events) + 1)]


def test_what_the_file_raises_passes_through(clock: FakeClock) -> None:
    file = io.BytesIO()
    file.close()
    with pytest.raises(ValueError, match="closed"):
        JsonlWriter(file, Stamper(RUN, clock)).write(make.stream())


def test_a_shadow_takes_a_cursor_and_no_place_in_its_stream(clock: FakeClock) -> None:
    stamper = Stamper(RUN, clock)
    events: list[Event] = [
        make.stream(),
        make.shadow(),
        make.emotion(),
        make.stream(state="closed"),
    ]
    late = make.shadow()
    for event in (*events, late):
        stamper.stamp(event)
    assert [event.seq for event in events if not isinstance(event, DaemonEvent | ShadowEvent)] == [
        0,
        1,
        2,
    ]
    assert (late.cursor, late.id) == (5, f"{RUN}-5")
    opened = make.stream()
    stamper.stamp(opened)
    assert opened.seq == 0
