from __future__ import annotations

import threading
from functools import partial
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from serd.protocol.events import Event, GapEvent
from serd.runtime.assembler import Assembler, Place


def _event(stream: int, number: int) -> GapEvent:
    return GapEvent(
        stream=str(stream),
        reason="test",
        start_sample=number,
        end_sample=number,
        start_s=0.0,
        end_s=0.0,
        sample_rate_hz=8000,
        lost_ms=0.0,
        messages=0,
    )


def _events(stream: int, number: int) -> list[GapEvent]:
    return [_event(stream, number)]


def _assembler(out: list[GapEvent]) -> Assembler:
    def emit(event: Event) -> None:
        assert isinstance(event, GapEvent)
        out.append(event)

    return Assembler(emit)


@given(st.lists(st.integers(0, 3), max_size=40), st.randoms(use_true_random=False))
def test_events_leave_in_the_order_of_their_places(lines: list[int], random: Random) -> None:
    out: list[GapEvent] = []
    assembler = _assembler(out)
    places: list[tuple[Place, int, int]] = [
        (assembler.reserve(line), line, number) for number, line in enumerate(lines)
    ]
    random.shuffle(places)
    for place, line, number in places:
        assembler.fill(place, partial(_events, line, number))
    assert assembler.pending == 0
    assert len(out) == len(lines)
    for line in set(lines):
        numbers = [event.start_sample for event in out if event.stream == str(line)]
        assert numbers == [number for number, other in enumerate(lines) if other == line]


def test_a_line_waits_for_its_own_places_alone() -> None:
    out: list[GapEvent] = []
    assembler = _assembler(out)
    waiting = assembler.reserve(1)
    assembler.say(1, lambda: [_event(1, 1)])
    assembler.say(2, lambda: [_event(2, 0)])
    assert [event.stream for event in out] == ["2"]
    assert assembler.pending == 2
    assembler.fill(waiting, lambda: [_event(1, 0)])
    assert [(event.stream, event.start_sample) for event in out] == [("2", 0), ("1", 0), ("1", 1)]


def test_what_is_made_is_made_when_its_turn_comes() -> None:
    out: list[GapEvent] = []
    assembler = _assembler(out)
    first = assembler.reserve(1)
    assembler.say(1, lambda: [_event(1, len(out))])
    assembler.fill(first, lambda: [_event(1, 7), _event(1, 8)])
    assert [event.start_sample for event in out] == [7, 8, 2]


def test_two_threads_cannot_overtake_each_other() -> None:
    out: list[GapEvent] = []
    assembler = _assembler(out)
    places = [assembler.reserve(0) for _ in range(400)]

    def fill(numbers: range) -> None:
        for number in numbers:
            assembler.fill(places[number], partial(_events, 0, number))

    threads = [threading.Thread(target=fill, args=(range(k, 400, 2),)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [event.start_sample for event in out] == list(range(400))


@given(st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_stream_that_begins_anew_waits_for_its_end(lives: int, random: Random) -> None:
    out: list[GapEvent] = []
    assembler = _assembler(out)
    places: list[tuple[Place, int, int]] = []
    for life in range(lives):
        assembler.begin(life, "stream")
        places += [(assembler.reserve(life), life, number) for number in range(3)]
        assembler.end(life)
    random.shuffle(places)
    for place, life, number in places:
        assembler.fill(place, partial(_events, life, number))
    assert [event.stream for event in out] == [str(n) for n in range(lives) for _ in range(3)]
    assert assembler.pending == 0


def test_a_life_that_begins_after_the_end_of_another_waits_for_nothing() -> None:
    out: list[GapEvent] = []
    assembler = _assembler(out)
    for life in range(2):
        assembler.begin(life, "stream")
        assembler.say(life, partial(_events, life, 0))
        assembler.end(life)
        assert len(out) == life + 1


def test_streams_of_other_names_wait_for_nobody() -> None:
    out: list[GapEvent] = []
    assembler = _assembler(out)
    assembler.begin(0, "stream")
    assembler.reserve(0)
    assembler.begin(1, "other")
    assembler.say(1, partial(_events, 1, 0))
    assert [event.stream for event in out] == ["1"]
