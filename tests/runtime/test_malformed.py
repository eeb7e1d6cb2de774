"""A flood of malformed messages costs no good stream anything, and every one is counted."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np

from serd.errors import MessageError
from serd.protocol.tap import decode_message
from serd.types import Encoding
from tests.daemon import running_daemon
from tests.speech import demo_speech, essence, scores
from tests.taps import Collector, Push, blocks

BAD_MESSAGES = 100_000


def _bad(rng: random.Random, good: list[list[bytes]]) -> list[bytes]:
    stream, header, payload = rng.choice(good)
    stream = f"junk-{rng.randrange(50)}".encode()
    match rng.randrange(9):
        case 0:
            return [rng.randbytes(rng.randrange(40)) for _ in range(rng.randrange(1, 6))]
        case 1:
            at = rng.randrange(len(header))
            mutated = header[:at] + bytes([rng.randrange(256)]) + header[at + 1 :]
            return [stream, mutated, payload]
        case 2:
            return [stream, rng.randbytes(32), payload]
        case 3:
            return [stream, header[: rng.randrange(32)], payload]
        case 4:
            return [rng.randbytes(rng.randrange(1, 250)), header, payload]
        case 5:
            return [stream, header, payload[: rng.randrange(len(payload) + 1)]]
        case 6:
            # Metadata that is anything but.
            broken = header[:4] + b"\0" + header[5:6] + b"\x20\0" + header[8:]
            return [stream, broken, rng.randbytes(rng.randrange(60))]
        case 7:
            return [stream, header, payload, payload]
        case _:
            return [stream, header + b"\0", payload]


def test_a_hundred_thousand_bad_messages_cost_no_good_event(tmp_path: Path) -> None:
    rng = random.Random(20260101)
    speech = demo_speech(8000)
    streams = [f"good-{number}" for number in range(3)]
    good = [blocks(stream, speech, 8000, 20, Encoding.S16LE) for stream in streams]
    in_turn = [message for turn in zip(*good, strict=True) for message in turn]
    expected: Counter[str] = Counter()
    bad: list[list[bytes]] = []
    for _ in range(BAD_MESSAGES):
        message = _bad(rng, good[0])
        try:
            decode_message(message)
        except MessageError as error:
            expected[f"intake.malformed.{error.code}"] += 1
        bad.append(message)
    assert sum(expected.values()) > BAD_MESSAGES / 2
    share = len(bad) // len(in_turn)

    with running_daemon(tmp_path) as daemon:
        collector = Collector(daemon.events)
        undisturbed = Push(daemon.tap)
        undisturbed.send(blocks("undisturbed", speech, 8000, 20))
        collector.wait_closed(["undisturbed"])
        undisturbed.close()
        push = Push(daemon.tap)
        for number, message in enumerate(in_turn):
            push.send([message])
            push.send(bad[number * share : (number + 1) * share])
        push.send(bad[len(in_turn) * share :])
        push.send(blocks("afterwards", speech[:16_000], 8000, 20))
        collector.wait_closed([*streams, "afterwards"], timeout_s=240)
        push.close()
        for stream in streams:
            assert essence(collector.events, stream) == essence(collector.events, "undisturbed")
            np.testing.assert_allclose(
                scores(collector.events, stream),
                scores(collector.events, "undisturbed"),
                rtol=0,
                atol=1e-3,
            )
        assert daemon.stop() == 0, daemon.log[-3:]
        stopped = collector.wait_for("daemon", "stopped")
        counted = {
            name: count
            for name, count in stopped["counts"].items()
            if ".malformed." in name and not name.endswith(".not_finite")
        }
        assert counted == dict(expected)
        assert "intake.internal_errors" not in stopped["counts"]
        collector.close()
