"""Events: their JSON, their topics and their schemas."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.errors import MessageError
from serd.protocol import schemas
from serd.protocol.events import (
    EVENT_TYPES,
    EmotionEvent,
    Event,
    decode,
    encode,
    topic,
    utc,
)
from tests.protocol import examples as make

EXAMPLES = make.examples()
SCHEMA_FOLDER = Path(schemas.__file__).parent / "schema"


def kind(event: Event) -> str:
    tag = event.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


GOLDEN = (
    b'{"type":"emotion","v":1,"id":"0123456789abcdef-1042","cursor":1042,'
    b'"emitted_at":"2026-01-31T09:30:15.361000Z","stream":"call-42/0","seq":17,'
    b'"call_id":"2026-0815","role":"customer","labels":{"queue":"billing"},'
    b'"utterance":3,"index":1,"last":false,"padded":false,"start_s":12.34,"end_s":15.34,'
    b'"start_sample":98720,"end_sample":122720,"sample_rate_hz":8000,'
    b'"captured_at":"2026-01-31T09:30:15.340000Z","label":"angry","confidence":0.71,'
    b'"scores":{"neutral":0.05,"calm":0.04,"happy":0.02,"sad":0.03,"angry":0.71,'
    b'"fearful":0.06,"disgust":0.05,"surprised":0.04},"abstained":false,"speech_ratio":0.93,'
    b'"level_dbfs":-23.1,"clipped_ratio":0.0,"lost_ms":0.0,'
    b'"model":"serd-crnn-1@sha256:ab12cd34ef56",'
    b'"latency_ms":{"wait":9.1,"inference":3.4,"total":21.0}}'
)


def golden_event() -> EmotionEvent:
    return make.emotion(
        id="0123456789abcdef-1042",
        cursor=1042,
        seq=17,
        emitted_at=utc(make.UNIX_NS + 21_000_000),
    )


def test_an_emotion_event_is_these_bytes() -> None:
    assert encode(golden_event()) == GOLDEN
    assert decode(GOLDEN) == golden_event()


@pytest.mark.parametrize("event", EXAMPLES, ids=kind)
def test_every_type_round_trips(event: Event) -> None:
    assert decode(encode(event)) == event


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
MAKERS = (make.stream, make.speech, make.emotion, make.utterance, make.gap)


@st.composite
def events(draw: st.DrawFn) -> Event:
    maker: Callable[..., Event] = draw(st.sampled_from(MAKERS))
    return maker(
        "a/b.c ü",
        seq=draw(st.integers(0, 2**53 - 1)),
        cursor=draw(st.integers(0, 2**53 - 1)),
        call_id=draw(st.none() | TEXT),
        labels=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        emitted_at=draw(st.datetimes(timezones=st.just(UTC))),
    )


@given(events())
def test_any_event_round_trips_on_one_line(event: Event) -> None:
    line = encode(event)
    assert b"\n" not in line
    assert decode(line) == event


def test_times_are_cut_to_microseconds() -> None:
    assert utc(1_999) == datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    assert utc(2**63 - 1).year == 2262


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (make.stream(), b"stream.call-42/0"),
        (make.speech(), b"speech.call-42/0"),
        (make.emotion("gespräch"), b"emotion.gespr\xc3\xa4ch"),
        (make.utterance(), b"utterance.call-42/0"),
        (make.gap(), b"gap.call-42/0"),
        (make.daemon("heartbeat"), b"daemon.heartbeat"),
        (make.daemon("ready"), b"daemon.ready"),
    ],
)
def test_the_topic_is_type_and_stream(event: Event, expected: bytes) -> None:
    assert topic(event) == expected


def test_fields_of_a_later_version_are_skipped() -> None:
    value = json.loads(GOLDEN) | {"later": {"a": [1]}}
    assert decode(json.dumps(value).encode()) == golden_event()


def without(field: str) -> dict[str, Any]:
    value = json.loads(GOLDEN)
    del value[field]
    return dict(value)


@pytest.mark.parametrize(
    "value",
    [
        without("type"),
        without("stream"),
        without("label"),
        json.loads(GOLDEN) | {"type": "mood"},
        json.loads(GOLDEN) | {"v": 2},
        json.loads(GOLDEN) | {"seq": -1},
        json.loads(GOLDEN) | {"role": "boss"},
        json.loads(GOLDEN) | {"captured_at": "yesterday"},
        json.loads(GOLDEN) | {"captured_at": "2026-01-31T09:30:15"},
        [],
        None,
    ],
)
def test_what_is_no_event_is_refused(value: object) -> None:
    with pytest.raises(MessageError) as caught:
        decode(json.dumps(value).encode())
    assert caught.value.code == "bad_event"


def refused(payload: bytes) -> str | None:
    try:
        decode(payload)
    except MessageError as error:
        return error.code
    return None


@given(st.binary())
def test_arbitrary_bytes_raise_nothing_else(payload: bytes) -> None:
    assert refused(payload) == "bad_event"


@given(st.integers(0, len(GOLDEN) - 1), st.integers(0, 255))
def test_a_flipped_byte_raises_nothing_else(at: int, byte: int) -> None:
    mutated = bytearray(GOLDEN)
    mutated[at] = byte
    assert refused(bytes(mutated)) in (None, "bad_event")


def test_deep_nesting_raises_nothing_else() -> None:
    assert refused(b'{"type":"emotion","later":' + b"[" * 100_000) == "bad_event"


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_the_schema_files_are_current(name: str) -> None:
    text = (SCHEMA_FOLDER / f"{name}.json").read_text()
    assert text == schemas.render(name), "run `python -m serd.protocol.schemas`"


def test_there_is_no_schema_of_anything_else() -> None:
    assert {path.stem for path in SCHEMA_FOLDER.glob("*")} == set(EVENT_TYPES)
    with pytest.raises(KeyError):
        schemas.load("mood")


def validator(name: str) -> Any:
    schema = schemas.load(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("event", EXAMPLES, ids=kind)
def test_events_are_valid_by_their_schema_and_no_other(event: Event) -> None:
    value = json.loads(encode(event))
    for name in EVENT_TYPES:
        assert validator(name).is_valid(value) == (name == kind(event))


@pytest.mark.parametrize("event", EXAMPLES, ids=kind)
def test_the_schema_requires_every_field(event: Event) -> None:
    value = json.loads(encode(event))
    assert set(value) == set(schemas.load(kind(event))["properties"])
    for field in value:
        rest = {key: item for key, item in value.items() if key != field}
        assert not validator(kind(event)).is_valid(rest)


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_every_field_is_described(name: str) -> None:
    for field, definition in schemas.load(name)["properties"].items():
        assert "description" in definition or "enum" in definition, field


def test_the_readers_strictness_is_the_schemas() -> None:
    value = json.loads(GOLDEN) | {"confidence": 1.5}
    assert refused(msgspec.json.encode(value)) == "bad_event"
    assert not validator("emotion").is_valid(value)
