"""The ring of kept events, and the last values, against plain lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.protocol.replay import StoredEvent
from serd.sinks.lastvalues import LastValues
from serd.sinks.ring import SCAN_LIMIT, EventRing, Page

TOPICS = [b"emotion.a", b"emotion.b", b"speech.a", b"daemon.heartbeat"]


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from(TOPICS)), max_size=60),
    st.integers(0, 130),
    st.none() | st.integers(0, 130),
    st.sampled_from([b"", b"emotion.", b"emotion.a", b"nothing"]),
    st.integers(1, 30),
)
def test_the_ring_answers_like_a_list(
    capacity: int,
    steps: list[tuple[int, bytes]],
    after: int,
    before: int | None,
    prefix: bytes,
    limit: int,
) -> None:
    ring = EventRing(capacity)
    kept: list[StoredEvent] = []
    cursor = 0
    for step, topic in steps:
        cursor += step
        ring.append(StoredEvent(cursor, topic, b"{}"))
        kept = [*kept, StoredEvent(cursor, topic, b"{}")][-capacity:]
    wanted = [
        event
        for event in kept
        if after < event.cursor
        and (before is None or event.cursor < before)
        and event.topic.startswith(prefix)
    ]
    page = ring.after(after, prefix, limit, before)
    assert page.events == wanted[:limit]
    assert page.more == (len(wanted) > limit)
    assert len(ring) == len(kept)
    assert ring.newest_cursor == cursor
    assert ring.oldest_cursor == (kept[0].cursor if kept else 0)


@given(st.integers(1, 7), st.lists(st.sampled_from(TOPICS), max_size=40))
def test_pages_join_without_holes(limit: int, topics: list[bytes]) -> None:
    ring = EventRing(100)
    for cursor, topic in enumerate(topics, 1):
        ring.append(StoredEvent(cursor, topic, b""))
    found: list[int] = []
    page = Page([], 0, more=True)
    while page.more:
        page = ring.after(page.reached, b"emotion.", limit)
        found += [event.cursor for event in page.events]
    assert found == [n for n, topic in enumerate(topics, 1) if topic.startswith(b"emotion.")]


def test_a_rare_topic_is_looked_for_a_page_at_a_time() -> None:
    ring = EventRing(SCAN_LIMIT + 10)
    for cursor in range(1, SCAN_LIMIT + 6):
        ring.append(StoredEvent(cursor, b"emotion.a", b""))
    ring.append(StoredEvent(SCAN_LIMIT + 6, b"speech.a", b""))
    assert ring.after(0, b"speech.") == Page([], SCAN_LIMIT, more=True)
    assert [event.cursor for event in ring.after(SCAN_LIMIT, b"speech.").events] == [SCAN_LIMIT + 6]
    assert ring.after(0, b"speech.", before=SCAN_LIMIT).more is False
    assert ring.after(0, b"speech.", before=SCAN_LIMIT + 1).more is False


def test_cursors_ascend() -> None:
    ring = EventRing(3)
    ring.append(StoredEvent(5, b"a", b""))
    with pytest.raises(ValueError, match="cursor"):
        ring.append(StoredEvent(5, b"a", b""))
    with pytest.raises(ValueError, match="capacity"):
        EventRing(0)


def test_the_last_values_are_one_a_topic_in_the_order_of_cursors() -> None:
    last = LastValues()
    for cursor, topic in enumerate([b"emotion.a", b"emotion.b", b"speech.a", b"emotion.a"], 1):
        last.keep(StoredEvent(cursor, topic, b""))
    assert [event.cursor for event in last.after(0).events] == [2, 3, 4]
    assert [event.cursor for event in last.after(2, b"emotion.").events] == [4]
    assert last.after(0, limit=1) == Page([StoredEvent(2, b"emotion.b", b"")], 2, more=True)
    newest = last.newest(b"emotion.")
    assert newest is not None
    assert newest.cursor == 4
    assert last.newest(b"gap.") is None


def test_a_closed_stream_is_forgotten_and_its_namesakes_are_not() -> None:
    last = LastValues()
    for cursor, topic in enumerate([b"emotion.a", b"speech.a", b"emotion.ab", b"daemon.ready"], 1):
        last.keep(StoredEvent(cursor, topic, b""))
    last.forget("a")
    assert [event.topic for event in last.after(0).events] == [b"emotion.ab", b"daemon.ready"]
    assert len(last) == 2


def test_a_shadows_events_are_no_last_values() -> None:
    last = LastValues()
    last.keep(StoredEvent(1, b"emotion.call", b"{}"))
    last.keep(StoredEvent(2, b"shadow.call", b"{}"))
    newest = last.newest(b"")
    assert newest is not None
    assert newest.topic == b"emotion.call"
    last.forget("call")
    last.keep(StoredEvent(3, b"shadow.call", b"{}"))
    assert len(last) == 0
