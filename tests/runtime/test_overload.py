"""More than the daemon can take: it drops, tells what it dropped, and recovers."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

import zmq

from serd.types import Encoding
from tests.daemon import running_daemon
from tests.fakes import wait_until
from tests.speech import demo_speech, essence
from tests.taps import Collector, blocks

RATE_HZ = 8000

LOSSY = '[[sources]]\ntype = "zmq"\nsocket = "SUB"\nbind = "tcp://127.0.0.1:*"\n'


def _has_received(collector: Collector, messages: int) -> bool:
    beats = [event for event in collector.of_type("daemon") if event["state"] == "heartbeat"]
    return bool(beats) and beats[-1]["counts"]["source.zmq-0.received"] >= messages


def test_a_flood_is_shed_by_the_stated_policy_and_told(tmp_path: Path) -> None:
    speech = demo_speech(RATE_HZ)
    streams = [f"flood-{number}" for number in range(6)]
    # Little room everywhere, so that the flood meets every limit.
    small = ["inference.queue_segments=2", "inference.max_batch=1", "streams.backlog_s=0.5"]
    small.append("daemon.heartbeat_s=0.1")
    with running_daemon(tmp_path, LOSSY, overrides=small) as daemon, zmq.Context() as context:
        collector = Collector(daemon.events)
        with context.socket(zmq.XPUB) as publisher:
            publisher.sndhwm = 0
            publisher.linger = 30_000
            publisher.connect(daemon.tap)
            assert publisher.recv() == b"\1"
            calls = [blocks(stream, speech, RATE_HZ, 20, Encoding.MULAW) for stream in streams]
            for turn in zip(*calls, strict=True):
                for message in turn:
                    publisher.send_multipart(message)
            collector.wait_closed(streams)

            gaps = [event for event in collector.of_type("gap") if event["stream"] in streams]
            assert gaps
            assert {gap["reason"] for gap in gaps} <= {"overload"}
            for stream in streams:
                events = [event for event in collector.events if event.get("stream") == stream]
                assert [event["seq"] for event in events] == list(range(len(events)))
                # Positions are true in spite of all that was dropped.
                assert events[-1]["at_sample"] == len(speech)
            flood = sum(len(call) for call in calls)
            lost_segments = sum(event["segments_lost"] for event in collector.of_type("utterance"))
            # Beside those of segments, gaps without messages tell of streams that were shed. Where
            # the machine is so slow that the rows drop nearly all of it, there may be none.
            assert sum(gap["messages"] == 0 for gap in gaps) >= lost_segments
            spans = sorted((g["stream"], g["start_sample"], g["end_sample"]) for g in gaps)
            for before, after in pairwise(spans):
                assert before[0] != after[0] or before[2] <= after[1], (before, after)

            # Then a call at a pace that it can keep up with is complete again: the next block
            # is sent when the last one has been heard.
            calm = blocks("calm", speech[: 6 * RATE_HZ], RATE_HZ, 400, Encoding.MULAW)
            for heard, message in enumerate(calm, start=flood + 1):
                publisher.send_multipart(message)
                wait_until(partial(_has_received, collector, heard), "the block to be heard")
            collector.wait_closed(["calm"])
        assert not [event for event in collector.of_type("gap") if event["stream"] == "calm"]
        assert "emotion" in {event["type"] for event in essence(collector.events, "calm")}
        assert daemon.stop() == 0
        counts = collector.wait_for("daemon", "stopped")["counts"]
        dropped = counts["inference.segments_dropped_overload"] + counts["overload.segments"]
        assert dropped == lost_segments
        collector.close()
