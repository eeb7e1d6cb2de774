from __future__ import annotations

import select
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.channel import Channel, Overflow, Waker


def test_items_come_out_in_the_order_they_went_in() -> None:
    channel: Channel[int] = Channel("numbers", 10, Overflow.BLOCK)
    for number in range(5):
        assert channel.put(number) is None
    assert channel.take() == 0
    assert channel.take_all() == [1, 2, 3, 4]
    assert channel.take(timeout_s=0) is None
    assert channel.peak == 5


@given(st.lists(st.one_of(st.none(), st.integers()), max_size=60), st.integers(1, 5))
def test_drop_oldest_keeps_the_newest_and_counts(steps: list[int | None], capacity: int) -> None:
    channel: Channel[int] = Channel("numbers", capacity, Overflow.DROP_OLDEST)
    model: list[int] = []
    dropped = 0
    for step in steps:
        if step is None:
            assert channel.take(timeout_s=0) == (model.pop(0) if model else None)
        else:
            model.append(step)
            expected = model.pop(0) if len(model) > capacity else None
            dropped += expected is not None
            assert channel.put(step) == expected
        assert len(channel) == len(model)
    assert channel.dropped == dropped
    assert channel.take_all() == model


def test_drop_newest_gives_the_new_item_back() -> None:
    channel: Channel[str] = Channel("words", 1, Overflow.DROP_NEWEST)
    assert channel.put("first") is None
    assert channel.put("second") == "second"
    assert channel.dropped == 1
    assert channel.take_all() == ["first"]


def test_a_full_blocking_channel_waits_for_the_consumer() -> None:
    channel: Channel[int] = Channel("numbers", 1, Overflow.BLOCK)
    channel.put(1)
    producer = threading.Thread(target=channel.put, args=(2,))
    producer.start()
    assert channel.take(timeout_s=5) == 1
    assert channel.take(timeout_s=5) == 2
    producer.join(5)
    assert channel.dropped == 0


def test_a_blocking_put_gives_up_after_its_time() -> None:
    channel: Channel[int] = Channel("numbers", 1, Overflow.BLOCK)
    channel.put(1)
    assert channel.put(2, timeout_s=0) == 2
    assert channel.dropped == 1


def test_closing_releases_a_waiting_producer_and_a_waiting_consumer() -> None:
    channel: Channel[int] = Channel("numbers", 1, Overflow.BLOCK)
    channel.put(1)
    returned: list[int | None] = []
    producer = threading.Thread(target=lambda: returned.append(channel.put(2)))
    producer.start()
    channel.close()
    producer.join(5)
    assert returned == [2]
    assert channel.take() == 1
    assert channel.take() is None
    assert channel.put(3) == 3


def test_a_channel_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Channel("nothing", 0, Overflow.BLOCK)


def test_put_wakes_a_poller_once_however_often() -> None:
    waker = Waker()
    channel: Channel[int] = Channel("numbers", 10, Overflow.BLOCK, waker)
    channel.put(1)
    channel.put(2)
    assert select.select([waker], [], [], 0)[0]
    assert waker.wait(0)
    assert not waker.wait(0)
    waker.clear()
    waker.close()
    waker.wake()


def test_a_channel_that_was_emptied_wakes_again() -> None:
    waker = Waker()
    channel: Channel[int] = Channel("numbers", 2, Overflow.BLOCK, waker)
    for number in range(3):
        channel.put(number)
        assert waker.wait(0), "an item came into an empty channel"
        channel.put(number)
        assert not waker.wait(0), "the consumer was woken for the first item"
        assert channel.take_all() == [number, number]
    waker.close()
