"""Reading events: the subscriber that programs import.

>>> from serd.client import Subscriber
>>> with Subscriber("tcp://127.0.0.1:5556", ["emotion."]) as events:   # doctest: +SKIP
...     for event in events:
...         print(event.stream, event.label)

A program that must have every event once keeps the `id` of the last one it has dealt with, together
with what came of it, asks the replay socket as well, and begins after that `id` the next time:

>>> events = Subscriber(endpoint, replay=replay, after=kept_id or 0)   # doctest: +SKIP
"""

from serd.client.items import Item, Missed, Restarted
from serd.client.subscriber import Subscriber

__all__ = ["Item", "Missed", "Restarted", "Subscriber"]
