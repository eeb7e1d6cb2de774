"""What the model is given of a call that is paused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serd.protocol.tap import Flag
from serd.types import Int16Array
from tests.daemon import running_daemon
from tests.inference import broken
from tests.sources.intake_bench import Tap
from tests.speech import demo_speech
from tests.taps import Collector, Push

RATE_HZ = 8000
PAUSED_S, RESUMED_S = 4, 9


def _call() -> Int16Array:
    """Quiet speech, and between pause and resume a voice on top of so much direct current that
    the model answers nonsense to whatever begins there.
    """
    speech = demo_speech(RATE_HZ)[: 14 * RATE_HZ].astype(np.float64)
    call: Int16Array = (speech * 8_000 / np.abs(speech).max()).astype(np.int16)
    call[PAUSED_S * RATE_HZ : RESUMED_S * RATE_HZ] += np.int16(24_000)
    return call


@pytest.mark.parametrize("paused", [True, False])
def test_what_is_said_in_a_pause_does_not_reach_the_model(tmp_path: Path, paused: bool) -> None:
    overrides = [
        f"inference.model={broken.poisoned(tmp_path, 'poisoned')}",
        "segment.window_s=0.5",
        "segment.hop_s=0.25",
    ]
    call, tap = _call(), Tap("call")
    with running_daemon(tmp_path, overrides=overrides) as daemon:
        collector = Collector(daemon.events)
        push = Push(daemon.tap)
        for at in range(0, len(call), 160):
            if paused and at in (PAUSED_S * RATE_HZ, RESUMED_S * RATE_HZ):
                flag = Flag.PAUSE if at == PAUSED_S * RATE_HZ else Flag.RESUME
                push.send([list(tap.plain(flag))])
            push.send([list(tap.audio(call[at : at + 160]))])
        push.send([list(tap.plain(Flag.END))])
        collector.wait_closed(["call"])
        push.close()
        collector.close()
    nonsense = [gap for gap in collector.of_type("gap") if gap["reason"] == "model_error"]
    assert bool(nonsense) is not paused
    starts = [event["start_s"] for event in collector.of_type("emotion")]
    assert min(starts) < PAUSED_S
    assert max(starts) >= RESUMED_S
