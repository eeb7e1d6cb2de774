"""The README's programs run as they stand there, and it names all there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import zmq

from serd.protocol import schemas
from serd.protocol.events import EVENT_TYPES, decode
from serd.protocol.replay import ReplayDone, ReplayRequest
from serd.protocol.sequencer import Deliver, Sequencer
from serd.protocol.tap import REASONS, Flag, Metadata, TapMessage, decode_message
from tests.fakes import wait_until
from tests.protocol import examples as make
from tests.sinks.harness import PATIENCE_MS, RUN, Context, running
from tests.sinks.journal.journalled import journal_of, journalled

TIMEOUT_S = 60
AUDIO = bytes(range(256)) * 10 + b"\1\2"


def pull(context: Context) -> tuple[zmq.Socket[bytes], str]:
    socket = context.socket(zmq.PULL)
    return socket, f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"


def feed(command: list[str], context: Context) -> list[TapMessage]:
    """What a sender makes of `AUDIO`, up to the end flag."""
    socket, endpoint = pull(context)
    try:
        subprocess.run([*command, endpoint], input=AUDIO, check=True, timeout=TIMEOUT_S)
        messages: list[TapMessage] = []
        while not messages or not messages[-1].header.flags & Flag.END:
            assert socket.poll(PATIENCE_MS), "no message came"
            messages.append(decode_message(socket.recv_multipart()))
        return messages
    finally:
        socket.close(linger=0)


def check_stream(messages: list[TapMessage], sample_bytes: int) -> None:
    assert b"".join(bytes(message.payload) for message in messages) == AUDIO
    assert messages[0].header.flags == Flag.START
    assert messages[-1].header.flags == Flag.END
    assert messages[-1].header.first_sample == len(AUDIO) // sample_bytes
    sequencer: Sequencer[None] = Sequencer(8)
    for message in messages:
        [step] = sequencer.push(message.header, message.samples, None)
        assert isinstance(step, Deliver)


def test_the_sender_in_python(zmq_context: Context, example: Callable[[str], Path]) -> None:
    messages = feed([sys.executable, str(example("sender.py"))], zmq_context)
    check_stream(messages, 2)
    assert all(message.header.captured_at_ns for message in messages[:-1])


def test_the_sender_in_c(zmq_context: Context, c_sender: Path) -> None:
    check_stream(feed([str(c_sender)], zmq_context), 1)


def test_the_subscriber(zmq_context: Context, example: Callable[[str], Path]) -> None:
    with running(zmq_context) as daemon:
        daemon.publish(make.emotion("a"))
        command = [sys.executable, str(example("subscriber.py")), daemon.endpoint]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "1 emotion.a angry\n"
            daemon.publish(make.speech("a"))
            assert process.stdout.readline() == "2 speech.a None\n"
            process.kill()


def test_the_request_for_past_events(zmq_context: Context, example: Callable[[str], Path]) -> None:
    with running(zmq_context, keep=3000) as daemon:
        daemon.publish(*(make.emotion(name) for name in "ab" * 1100))
        command = [sys.executable, str(example("replay.py")), daemon.replay, "emotion.b"]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    assert {topic for topic, _, _ in lines} == {"emotion.b"}
    cursors = [decode(event.encode()).cursor for _, _, event in lines]
    assert cursors == list(range(2, 2201, 2))


def test_the_durable_subscriber(
    zmq_context: Context, example: Callable[[str], Path], tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    with journalled(zmq_context, tmp_path / "j") as daemon:
        command = [sys.executable, str(example("durable.py"))]
        command += [daemon.endpoint, daemon.replay, str(kept)]
        for total in (30, 60):
            # Published while nobody listens.
            daemon.publish(*(make.utterance("a") for _ in range(30)))
            with subprocess.Popen(command) as process:
                wait_until(partial(has_lines, kept, total), "the events")
                process.kill()
        first = journal_of(daemon).first
    assert lines(kept) == [f"{RUN}-{first + n} a angry" for n in range(60)]


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


def has_lines(file: Path, number: int) -> bool:
    return file.exists() and len(lines(file)) == number


def test_the_event_that_is_shown_is_one(readme: str) -> None:
    shown = re.findall(r"```json\n(.*?)```", readme, re.DOTALL)
    assert len(shown) == 1
    value = json.loads(shown[0])
    assert decode(shown[0].encode()) is not None
    assert set(value) == set(schemas.load("emotion")["properties"])


def first_cells(table: str) -> set[str]:
    """Names in the first column of the tables of a piece of the README."""
    return {
        name
        for line in table.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }


def section(readme: str, heading: str) -> str:
    match = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#)", readme, re.DOTALL | re.MULTILINE)
    assert match is not None, heading
    return match[1]


def test_every_reason_is_named(readme: str) -> None:
    assert first_cells(section(readme, "What is refused")) == set(REASONS)


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_field_of_an_event_is_named(readme: str, kind: str) -> None:
    everywhere, of_streams = section(readme, "Fields of all events").split("Fields of all but")
    named = first_cells(everywhere) | first_cells(section(readme, f"`{kind}`"))
    if kind != "daemon":
        named |= first_cells(of_streams)
    if kind == "shadow":
        named -= {"seq"}
    assert named == set(schemas.load(kind)["properties"])


def test_every_key_of_requests_answers_and_metadata_is_named(readme: str) -> None:
    past = readme.partition("## Past events")[2].partition("## The journal")[0]
    named = first_cells(past) - {"event", "done", "error"}
    wanted = set(ReplayRequest.__struct_fields__) | set(ReplayDone.__struct_fields__)
    assert named == wanted | {"newest"}
    assert first_cells(section(readme, "Metadata")) == set(Metadata.__struct_fields__)


def test_every_flag_and_header_field_is_named(readme: str) -> None:
    header = section(readme, "Header")
    flags = dict(re.findall(r"^\| (\d+) \| (\w+) \| [^|]+ \|$", header, re.MULTILINE))
    assert flags == {str(flag.value): flag.name.lower() for flag in Flag if flag.name}
    fields = re.findall(r"^\| (\d+) \| `(\w+)` \|", header, re.MULTILINE)
    assert [name for _, name in fields][:8] == [
        "magic",
        "encoding",
        "channels",
        "flags",
        "sample_rate_hz",
        "sequence",
        "first_sample",
        "captured_at_ns",
    ]
    assert [offset for offset, _ in fields][:8] == ["0", "4", "5", "6", "8", "12", "16", "24"]
