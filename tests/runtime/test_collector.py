"""What exists once the process is ready no longer costs the garbage collector anything."""

from __future__ import annotations

import gc
import weakref

from serd.runtime.collector import settle


class _Node:
    def __init__(self) -> None:
        self.me = self


def test_what_exists_is_out_of_sight_and_what_was_left_over_is_gone() -> None:
    kept = _Node()
    left_over = weakref.ref(_Node())
    try:
        settle()
        assert left_over() is None
        assert not any(thing is kept for thing in gc.get_objects())
        later = weakref.ref(_Node())
        gc.collect()
        assert later() is None
    finally:
        gc.unfreeze()
