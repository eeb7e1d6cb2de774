"""Models under a real daemon: swapped, refused, on trial; real audio over ZeroMQ all the while."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import serd.protocol
from serd.runtime.control import ControlError
from serd.types import Int16Array
from tests.daemon import Json
from tests.fakes import wait_until
from tests.inference import broken
from tests.runtime.swapping import RATE_HZ, Bench, models_of, serving
from tests.speech import demo_speech
from tests.taps import Push, blocks

SWAPS = 50
OTHER_LABELS = ("low", "level", "high", "sharp")


@pytest.fixture(scope="module")
def speech() -> Int16Array:
    return demo_speech(RATE_HZ)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return broken.sound(folder, "first"), broken.sound(folder, "second", OTHER_LABELS)


@pytest.fixture
def bench(tmp_path: Path, manifests: tuple[Path, Path]) -> Iterator[Bench]:
    with serving(tmp_path, manifests[0]) as made:
        yield made


def _judged(events: list[Json]) -> list[tuple[int, int, int, int]]:
    return [
        (event["utterance"], event["index"], event["start_sample"], event["end_sample"])
        for event in events
        if event["type"] == "emotion"
    ]


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
    rest = threading.Event()
    played: list[str] = []

    def feed() -> None:
        push = Push(bench.daemon.tap)
        while not done.is_set():
            names = [f"call-{len(played) + number}" for number in range(4)]
            for messages in zip(*(blocks(n, speech, RATE_HZ, 20) for n in names), strict=True):
                push.send(messages)
                # Ten times as fast as people speak: as fast as can be would leave a busy machine
                # no time for anything else.
                rest.wait(0.002)
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
    assert sum(len(models_of(bench.of(stream))) > 1 for stream in played)
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
    assert models_of(bench.play("after", speech)) == [before]
    [entry] = bench.daemon.logged("model.refused")
    assert entry["code"] == code
    assert bench.ask("status")["counts"]["inference.swap_failures"] == 1


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
    assert models_of(ordinary) == [bench.in_use]
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
    bench: Bench, manifests: tuple[Path, Path], speech: Int16Array
) -> None:
    before = bench.in_use
    bench.reload(broken.wrong_hash(bench.folder, "broken"))
    wait_until(lambda: bench.daemon.logged("reload"), "the reload")
    assert "inference.model" in bench.daemon.logged("reload")[0]["not_taken"]
    assert bench.in_use == before
    bench.reload(manifests[1])
    wait_until(lambda: bench.daemon.logged("model.swapped"), "the swap")
    assert bench.in_use.startswith("second-")
    assert models_of(bench.play("after", speech)) == [bench.in_use]
