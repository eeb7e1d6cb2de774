"""The same recording gives the same events, however it comes in and whatever else is running."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serd.audio import pcm
from serd.types import Encoding, Int16Array
from tests.daemon import running_daemon
from tests.speech import Json, demo_speech, essence, scores
from tests.taps import Collector, Push, blocks

BLOCKS_MS = (10, 20, 37, 100)


def _replay(path: Path) -> list[Json]:
    done = subprocess.run(
        [sys.executable, "-m", "serd", "replay", str(path), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _same(first: list[Json], second: list[Json], stream: str, other: str) -> None:
    assert essence(second, other) == essence(first, stream)
    np.testing.assert_allclose(scores(second, other), scores(first, stream), rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def speech() -> Int16Array:
    return demo_speech(8000)


def test_replay_and_a_busy_daemon_agree_whatever_the_blocks(
    tmp_path: Path, speech: Int16Array
) -> None:
    recording = tmp_path / "recording.wav"
    soundfile.write(recording, speech, 8000, subtype="PCM_16")
    replayed = _replay(recording)
    kinds = {event["type"] for event in replayed}
    assert {"stream", "speech", "emotion", "utterance"} <= kinds
    assert sum(event["type"] == "emotion" for event in replayed) >= 4

    with running_daemon(tmp_path) as daemon:
        collector = Collector(daemon.events)
        busy = threading.Event()

        def keep_busy() -> None:
            push = Push(daemon.tap)
            round_number = 0
            while not busy.is_set() and round_number < 40:
                for number in range(4):
                    shifted = np.roll(speech, 8000 * number)[: 8000 * 5]
                    stream = f"other-{round_number}-{number}"
                    push.send(blocks(stream, shifted, 8000, 20, Encoding.MULAW))
                round_number += 1
            push.close()

        # Where the test fails, nobody empties its socket any more.
        others = threading.Thread(target=keep_busy, daemon=True)
        others.start()
        push = Push(daemon.tap)
        for block_ms in BLOCKS_MS:
            push.send(blocks(f"blocks-{block_ms}", speech, 8000, block_ms))
        collector.wait_closed(f"blocks-{block_ms}" for block_ms in BLOCKS_MS)
        busy.set()
        others.join(120)
        push.close()
        assert len(collector.of_type("utterance")) > len(BLOCKS_MS)
        for block_ms in BLOCKS_MS:
            _same(replayed, collector.events, "recording", f"blocks-{block_ms}")
        assert not collector.of_type("gap")
        assert daemon.stop() == 0
        collector.close()


def test_serd_send_gives_what_replay_gives(tmp_path: Path, speech: Int16Array) -> None:
    recording = tmp_path / "recording.wav"
    soundfile.write(recording, speech, 8000, subtype="PCM_16")
    replayed = _replay(recording)
    with running_daemon(tmp_path) as daemon:
        collector = Collector(daemon.events)
        senders = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "serd", "send", str(recording)),
                    *("--to", daemon.tap, "--stream", f"sent-{block_ms}"),
                    *("--block-ms", str(block_ms), "--speed", "8"),
                ]
            )
            for block_ms in BLOCKS_MS
        ]
        assert [sender.wait(120) for sender in senders] == [0] * len(senders)
        collector.wait_closed(f"sent-{block_ms}" for block_ms in BLOCKS_MS)
        for block_ms in BLOCKS_MS:
            _same(replayed, collector.events, "recording", f"sent-{block_ms}")
        collector.close()


def test_mulaw_live_is_mulaw_replayed(tmp_path: Path, speech: Int16Array) -> None:
    coded = pcm.encode(speech.reshape(-1, 1), Encoding.MULAW)
    decoded = pcm.decode(coded, Encoding.MULAW, 1)
    recording = tmp_path / "telephone.wav"
    soundfile.write(recording, decoded, 8000, subtype="PCM_16")
    replayed = _replay(recording)
    with running_daemon(tmp_path) as daemon:
        collector = Collector(daemon.events)
        push = Push(daemon.tap)
        push.send(blocks("telephone-live", speech, 8000, 20, Encoding.MULAW))
        collector.wait_closed(["telephone-live"])
        push.close()
        _same(replayed, collector.events, "telephone", "telephone-live")
        collector.close()


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_other_rates_agree_with_their_replay_too(tmp_path: Path, rate_hz: int) -> None:
    speech = demo_speech(rate_hz)
    recording = tmp_path / "wide.wav"
    soundfile.write(recording, speech, rate_hz, subtype="PCM_16")
    replayed = _replay(recording)
    with running_daemon(tmp_path) as daemon:
        collector = Collector(daemon.events)
        push = Push(daemon.tap)
        for block_ms in (10, 37):
            push.send(blocks(f"wide-{block_ms}", speech, rate_hz, block_ms))
        collector.wait_closed(["wide-10", "wide-37"])
        push.close()
        for block_ms in (10, 37):
            _same(replayed, collector.events, "wide", f"wide-{block_ms}")
        collector.close()
