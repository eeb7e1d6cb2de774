"""Models under a real daemon: swapped, refused, on trial; real audio over ZeroMQ all the while."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import serd.protocol
from serd.runtime.control import ControlError, ask
from serd.types import Int16Array
from tests.daemon import Json, RunningDaemon, running_daemon
from tests.fakes import wait_until
from tests.inference import broken
from tests.speech import demo_speech
from tests.taps import Collector, Push, blocks

RATE_HZ = 8000
SWAPS = 50
OTHER_LABELS = ("low", "level", "high", "sharp")

# The tiny models take half a second.
OVERRIDES = [
    "segment.window_s=0.5",
    "segment.hop_s=0.25",
    "segment.max_utterance_s=3.0",
    "inference.workers=2",
    "inference.load_timeout_s=5.0",
    "streams.max_lag_ms=50000",
    "streams.backlog_s=60.0",
]


class Bench:
    """A daemon with a control socket, and a subscriber to all that it says."""

    def __init__(self, daemon: RunningDaemon, control: Path, folder: Path) -> None:
        self.daemon = daemon
        self.control = control
        self.folder = folder
        self.collector = Collector(daemon.events)
        self.push = Push(daemon.tap)

    def ask(self, command: str, **arguments: Any) -> Json:
        return ask(self.control, {"command": command, **arguments}, 60.0)

    def use(self, manifest: Path) -> str:
        return str(self.ask("use", model=str(manifest))["model"])

    @property
    def in_use(self) -> str:
        return str(self.ask("models")["model"]["identity"])

    def play(self, stream: str, speech: Int16Array) -> list[Json]:
        """Play a recording to its end; what was said of it."""
        self.push.send(blocks(stream, speech, RATE_HZ, 20))
        self.collector.wait_closed([stream])
        return self.of(stream)

    def of(self, stream: str) -> list[Json]:
        return [event for event in self.collector.events if event.get("stream") == stream]

    def close(self) -> None:
        self.push.close()
        self.collector.close()


@pytest.fixture(scope="module")
def speech() -> Int16Array:
    return demo_speech(RATE_HZ)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return broken.sound(folder, "first"), broken.sound(folder, "second", OTHER_LABELS)


@pytest.fixture
def bench(tmp_path: Path, manifests: tuple[Path, Path]) -> Iterator[Bench]:
    control = tmp_path / "control.sock"
    overrides = [
        *OVERRIDES,
        f"inference.model={manifests[0]}",
        f"daemon.control={control}",
        "metrics.bind=127.0.0.1:0",
    ]
    with running_daemon(tmp_path, overrides=overrides) as running:
        made = Bench(running, control, tmp_path)
        yield made
        made.close()


def _judged(events: list[Json]) -> list[tuple[int, int, int, int]]:
    return [
        (event["utterance"], event["index"], event["start_sample"], event["end_sample"])
        for event in events
        if event["type"] == "emotion"
    ]


def _models(events: list[Json]) -> list[str]:
    """The models that judged a stream's segments, each once for every run of segments."""
    return [name for name, _ in groupby(e["model"] for e in events if e["type"] == "emotion")]


def _assert_utterances_rest_on_one_model(events: list[Json]) -> int:
    """How many utterances were judged by two models."""
    mixed = 0
    for utterance in (event for event in events if event["type"] == "utterance"):
        segments = [
            event
            for event in events
            if event["type"] == "emotion" and event["utterance"] == utterance["utterance"]
        ]
        last = segments[-1]["model"]
        counted = [segment for segment in segments if segment["model"] == last]
        if segments[0]["model"] != last:
            mixed += 1
        assert utterance["model"] == last
        assert set(utterance["scores"]) == set(segments[-1]["scores"])
        # Of a model that came back within the utterance only its newest run of segments counts.
        assert 1 <= utterance["segments"] <= len(counted)
        assert utterance["segments_lost"] == 0
    return mixed


def test_models_are_swapped_under_load_without_a_loss(
    bench: Bench, manifests: tuple[Path, Path], speech: Int16Array
) -> None:
    expected = _judged(bench.play("before", speech))
    assert expected
    done = threading.Event()
    played: list[str] = []

    def feed() -> None:
        push = Push(bench.daemon.tap)
        while not done.is_set():
            names = [f"call-{len(played) + number}" for number in range(4)]
            for messages in zip(*(blocks(n, speech, RATE_HZ, 20) for n in names), strict=True):
                push.send(messages)
            played.extend(names)
        push.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    identities = {}
    try:
        for number in range(SWAPS):
            manifest = manifests[(number + 1) % 2]
            identities[manifest] = bench.use(manifest)
            assert bench.in_use == identities[manifest]
    finally:
        done.set()
        feeder.join(120)
    bench.collector.wait_closed(played)
    assert len(set(identities.values())) == 2
    assert bench.collector.of_type("gap") == []
    mixed = 0
    for stream in played:
        events = bench.of(stream)
        assert _judged(events) == expected
        assert [event["seq"] for event in events] == list(range(len(events)))
        mixed += _assert_utterances_rest_on_one_model(events)
    assert sum(len(_models(bench.of(stream))) > 1 for stream in played)
    assert mixed
    assert len(bench.daemon.logged("model.swapped")) == SWAPS
    counts = bench.ask("status")["counts"]
    assert counts["inference.swaps"] == SWAPS
    assert counts["inference.segments_scored"] == counts["inference.segments_submitted"]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (broken.wrong_hash, "model_sha256"),
        (broken.no_graph, "model_unreadable"),
        (broken.wrong_shape, "model_signature"),
        (broken.nothing_finite, "model_not_finite"),
    ],
)
def test_a_broken_model_changes_nothing(
    bench: Bench, speech: Int16Array, make: Any, code: str
) -> None:
    before = bench.in_use
    with pytest.raises(ControlError) as refused:
        bench.use(make(bench.folder, "broken"))
    assert refused.value.code == code
    assert bench.in_use == before
    assert _models(bench.play("after", speech)) == [before]
    [entry] = bench.daemon.logged("model.refused")
    assert entry["code"] == code
    assert bench.ask("status")["counts"]["inference.swap_failures"] == 1


def test_a_model_that_hangs_when_warmed_up_is_given_up(
    bench: Bench, manifests: tuple[Path, Path], speech: Int16Array
) -> None:
    before = bench.in_use
    with pytest.raises(ControlError, match="5 s") as refused:
        bench.use(broken.hanging(bench.folder, "hanging", when_loud=False))
    assert refused.value.code == "model_timeout"
    assert bench.in_use == before
    # The way forward stays open.
    after = bench.use(manifests[1])
    assert _models(bench.play("after", speech)) == [after]
    assert bench.daemon.stop() == 0


def test_a_shadow_hears_the_same_segments_and_takes_no_place_in_the_stream(
    bench: Bench, manifests: tuple[Path, Path], speech: Int16Array
) -> None:
    alone = bench.play("alone", speech)
    on_trial = bench.ask("shadow", model=str(manifests[1]))["shadow"]
    schema = json.loads((Path(serd.protocol.__file__).parent / "schema/shadow.json").read_text())
    bench.play("watched", speech)
    wait_until(lambda: bench.collector.of_type("shadow"), "a shadow's event")
    ordinary = [event for event in bench.of("watched") if event["type"] != "shadow"]
    assert [event["seq"] for event in ordinary] == list(range(len(alone)))
    assert _judged(ordinary) == _judged(alone)
    assert _models(ordinary) == [bench.in_use]
    shadows = [event for event in bench.of("watched") if event["type"] == "shadow"]
    judged = {(e["utterance"], e["index"], e["start_sample"], e["end_sample"]) for e in shadows}
    assert judged <= set(_judged(ordinary))
    for event in shadows:
        jsonschema.validate(event, schema)
        assert event["model"] == on_trial
        assert set(event["scores"]) == set(OTHER_LABELS)
    # Another takes its place, then none.
    swapped = bench.ask("shadow", model=str(manifests[0]))["shadow"]
    assert swapped != on_trial
    assert bench.ask("models")["shadow"]["identity"] == swapped
    assert bench.ask("shadow", model=None)["shadow"] is None
    unwatched = bench.play("unwatched", speech)
    assert _judged(unwatched) == _judged(alone)
    assert not [event for event in unwatched if event["type"] == "shadow"]
    told = len(bench.collector.of_type("shadow"))
    counts = bench.ask("status")["counts"]
    assert counts["shadow.running"] == 0
    assert counts["shadow.segments_scored"] == told
    assert counts["shadow.segments_submitted"] == len(_judged(alone))


def test_a_shadow_that_hangs_takes_nothing_from_the_model_in_use(
    bench: Bench, speech: Int16Array
) -> None:
    expected = _judged(bench.play("alone", speech))
    bench.ask("shadow", model=str(broken.hanging(bench.folder, "hanging", when_loud=True)))
    bench.play("loud", (speech.astype(int) * 50).clip(-32768, 32767).astype(speech.dtype))
    assert _judged(bench.play("watched", speech)) == expected
    assert bench.ask("shadow", model=None)["shadow"] is None
    assert bench.ask("status")["counts"]["shadow.segments_dropped_stopped"] > 0
    assert bench.daemon.stop() == 0


def test_a_reload_swaps_the_model_that_the_file_names(
    tmp_path: Path, manifests: tuple[Path, Path], speech: Int16Array
) -> None:
    file = tmp_path / "models.toml"
    config = f'[inference]\nmodel = "{manifests[0]}"\n'
    overrides = [*OVERRIDES, "metrics.bind=127.0.0.1:0", f"daemon.control={tmp_path}/c.sock"]
    with running_daemon(tmp_path, config, overrides) as running:
        [file] = tmp_path.glob("serd-*.toml")
        text = file.read_text()
        made = Bench(running, tmp_path / "c.sock", tmp_path)
        before = made.in_use
        wrong = broken.wrong_hash(tmp_path, "broken")
        file.write_text(text.replace(str(manifests[0]), str(wrong)))
        running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: running.logged("reload"), "the reload")
        assert "inference.model" in running.logged("reload")[0]["not_taken"]
        assert made.in_use == before
        file.write_text(text.replace(str(manifests[0]), str(manifests[1])))
        running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: running.logged("model.swapped"), "the swap")
        assert made.in_use.startswith("second-")
        assert _models(made.play("after", speech)) == [made.in_use]
        made.close()
