from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import zmq
from hypothesis import given
from hypothesis import strategies as st

from serd.audio.pcm import decode
from serd.audio.resample import StreamResampler
from serd.commands.common import PeerError
from serd.commands.playing import Recording, play, tap_socket
from serd.errors import BindError, InputError, MessageError
from serd.protocol.tap import Flag, Metadata, TapMessage, decode_message
from serd.types import Encoding, Int16Array, Role
from tests.fakes import FakeClock


def tone(seconds: float, rate: int, channels: int = 1) -> Int16Array:
    time = np.arange(round(seconds * rate)) / rate
    columns = [np.sin(2 * np.pi * 300 * (channel + 1) * time) for channel in range(channels)]
    samples: Int16Array = np.rint(np.stack(columns, axis=1) * 12000).astype(np.int16)
    return samples


def write(path: Path, samples: Int16Array, rate: int) -> Path:
    soundfile.write(path, samples, rate)
    return path


class Receiver:
    """Collects the messages that a recording turns into."""

    def __init__(self) -> None:
        self.messages: list[TapMessage] = []

    def __call__(self, parts: Sequence[bytes]) -> None:
        self.messages.append(decode_message(parts))

    @property
    def audio(self) -> Int16Array:
        return np.concatenate(
            [
                decode(message.payload, Encoding(message.header.encoding), message.header.channels)
                for message in self.messages
                if message.header.encoding
            ]
        )


class TestRecording:
    @pytest.mark.parametrize("suffix", [".wav", ".flac"])
    def test_samples_are_those_of_the_file(self, tmp_path: Path, suffix: str) -> None:
        samples = tone(2.3, 16000, channels=2)
        recording = Recording(write(tmp_path / f"a{suffix}", samples, 16000))
        assert (recording.channels, recording.sample_rate_hz) == (2, 16000)
        np.testing.assert_array_equal(np.concatenate([*recording.blocks(20)]), samples)

    @given(block_ms=st.integers(1, 1000), rate=st.sampled_from([8000, 11025, 44100]))
    def test_blocks_begin_where_time_says(
        self, tmp_path_factory: pytest.TempPathFactory, block_ms: int, rate: int
    ) -> None:
        path = tmp_path_factory.getbasetemp() / f"blocks-{rate}.wav"
        if not path.exists():
            write(path, tone(1.7, rate), rate)
        start = 0
        for number, block in enumerate(Recording(path).blocks(block_ms)):
            assert start == number * block_ms * rate // 1000
            start += len(block)
        assert start == round(1.7 * rate)

    def test_float_files_are_scaled(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "f.wav", np.full(800, 0.5, np.float32), 8000, subtype="FLOAT")
        (block,) = Recording(tmp_path / "f.wav").blocks(1000)
        assert (block == 16384).all()

    def test_resampling_is_that_of_a_stream(self, tmp_path: Path) -> None:
        samples = tone(1.5, 44100, channels=2)
        got = np.concatenate(
            [*Recording(write(tmp_path / "a.wav", samples, 44100), 8000).blocks(37)]
        )
        for channel in range(2):
            resampler = StreamResampler(44100, 8000)
            whole = np.ascontiguousarray(samples[:, channel])
            expected = np.concatenate([resampler.push(whole), resampler.finish()])
            np.testing.assert_array_equal(got[:, channel], expected)

    def test_what_cannot_be_sent_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"nothing\.wav: there is no such file"):
            Recording(tmp_path / "nothing.wav")
        (tmp_path / "text.wav").write_text("no audio at all")
        with pytest.raises(InputError, match="not a recording"):
            Recording(tmp_path / "text.wav")
        with pytest.raises(InputError, match=r"96000 Hz.*--rate"):
            Recording(write(tmp_path / "high.wav", tone(0.1, 96000), 96000))
        with pytest.raises(InputError, match="9 channels"):
            Recording(write(tmp_path / "many.wav", tone(0.1, 8000, channels=9), 8000))

    def test_a_file_with_impossible_samples_is_refused(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "nan.wav", np.full(8, np.nan, np.float32), 8000, subtype="FLOAT")
        with pytest.raises(InputError, match=r"nan\.wav"):
            list(Recording(tmp_path / "nan.wav").blocks(20))


class TestPlay:
    @pytest.mark.parametrize("encoding", [Encoding.S16LE, Encoding.F32LE])
    def test_messages_carry_the_recording(self, tmp_path: Path, encoding: Encoding) -> None:
        samples = tone(0.5, 8000, channels=2)
        receiver = Receiver()
        played = play(
            Recording(write(tmp_path / "a.wav", samples, 8000)),
            "call-1",
            receiver,
            encoding=encoding,
            block_ms=37,
            speed=None,
            metadata=Metadata(call_id="7", roles=(Role.CUSTOMER, Role.AGENT)),
        )
        first, *middle, last = receiver.messages
        assert first.header.flags == Flag.START | Flag.METADATA
        assert first.metadata == Metadata(call_id="7", roles=(Role.CUSTOMER, Role.AGENT))
        assert last.header.flags == Flag.END
        assert {message.stream for message in receiver.messages} == {"call-1"}
        assert [message.header.sequence for message in receiver.messages] == list(
            range(played.messages)
        )
        assert [message.header.first_sample for message in middle] == list(range(0, 4000, 37 * 8))
        assert {message.header.captured_at_ns for message in receiver.messages} == {0}
        assert last.header.first_sample == played.samples == 4000
        np.testing.assert_array_equal(receiver.audio, samples)

    def test_telephone_encodings_are_close(self, tmp_path: Path) -> None:
        samples = tone(0.5, 8000)
        for encoding in (Encoding.MULAW, Encoding.ALAW):
            receiver = Receiver()
            play(
                Recording(write(tmp_path / "a.wav", samples, 8000)),
                "a",
                receiver,
                encoding=encoding,
                speed=None,
            )
            error = np.abs(receiver.audio.astype(np.int32) - samples)
            assert error.max() < 400

    @pytest.mark.parametrize("speed", [1.0, 4.0])
    def test_a_block_leaves_when_it_would_have_been_recorded(
        self, tmp_path: Path, clock: FakeClock, speed: float
    ) -> None:
        sent_at_ns: list[int] = []
        began_unix_ns = clock.unix_ns()
        receiver = Receiver()

        def send(parts: Sequence[bytes]) -> None:
            sent_at_ns.append(clock.monotonic_ns())
            receiver(parts)

        play(
            Recording(write(tmp_path / "a.wav", tone(1.0, 8000), 8000)),
            "a",
            send,
            block_ms=100,
            speed=speed,
            clock=clock,
            sleep=clock.advance,
        )
        step_ns = round(1e8 / speed)
        assert sent_at_ns == [0, *range(step_ns, 10 * step_ns + 1, step_ns), 10 * step_ns]
        captured = [message.header.captured_at_ns for message in receiver.messages[1:-1]]
        if speed == 1.0:
            assert captured == [began_unix_ns + number * 100_000_000 for number in range(10)]
        else:
            assert set(captured) == {0}

    def test_a_late_start_is_caught_up(self, tmp_path: Path, clock: FakeClock) -> None:
        slept: list[float] = []
        sent = 0

        def send(parts: Sequence[bytes]) -> None:
            nonlocal sent
            sent += 1
            if sent == 3:
                clock.advance(0.25)

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            clock.advance(seconds)

        path = write(tmp_path / "a.wav", tone(0.6, 8000), 8000)
        play(Recording(path), "a", send, block_ms=100, clock=clock, sleep=sleep)
        assert sum(slept) == pytest.approx(0.6 - 0.25)

    def test_a_stream_id_that_is_none_is_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.wav", tone(0.1, 8000), 8000)
        with pytest.raises(MessageError):
            play(Recording(path), "", Receiver())


class TestSocket:
    def test_everything_arrives_before_it_is_left(
        self, zmq_context: zmq.Context[zmq.Socket[bytes]]
    ) -> None:
        with zmq_context.socket(zmq.PULL) as pull:
            port = pull.bind_to_random_port("tcp://127.0.0.1")
            with tap_socket(f"tcp://127.0.0.1:{port}") as send:
                for number in range(500):
                    send([b"%d" % number])
            assert [int(pull.recv()) for _ in range(500)] == list(range(500))

    def test_a_subscriber_gets_the_first_message(
        self, zmq_context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
    ) -> None:
        endpoint = f"ipc://{tmp_path}/pub"
        with zmq_context.socket(zmq.SUB) as subscriber:
            subscriber.subscribe(b"")
            subscriber.connect(endpoint)
            with tap_socket(endpoint, "PUB", bind=True) as send:
                send([b"first"])
            assert subscriber.recv() == b"first"

    @pytest.mark.parametrize("kind", ["PUSH", "PUB"])
    @pytest.mark.parametrize("bind", [True, False])
    def test_nobody_there(self, tmp_path: Path, kind: str, bind: bool) -> None:
        endpoint = f"ipc://{tmp_path}/nobody"
        with (
            pytest.raises(PeerError, match="nobody took the audio") as caught,
            tap_socket(endpoint, kind, bind=bind, wait_s=0.1),  # type: ignore[arg-type]  # a str of two values
        ):
            pytest.fail("there was somebody")
        assert caught.value.exit_code == 69

    def test_somebody_who_takes_nothing(
        self, zmq_context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
    ) -> None:
        def send_much() -> None:
            with tap_socket(f"ipc://{tmp_path}/deaf", wait_s=0.2) as send:
                for _ in range(100_000):
                    send([bytes(10_000)])

        with zmq_context.socket(zmq.PULL) as pull:
            pull.rcvhwm = 1
            pull.bind(f"ipc://{tmp_path}/deaf")
            with pytest.raises(PeerError, match="nobody took the audio"):
                send_much()

    def test_an_endpoint_that_is_none(self) -> None:
        with pytest.raises(BindError, match="nonsense"), tap_socket("nonsense"):
            pytest.fail("there is no such endpoint")

    def test_leaving_early_does_not_wait(self, tmp_path: Path) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        pull = context.socket(zmq.PULL)
        pull.bind(f"ipc://{tmp_path}/gone")
        left = threading.Event()

        def leave() -> None:
            with tap_socket(f"ipc://{tmp_path}/gone", wait_s=300) as send:
                send([b"x"])
                pull.close(linger=0)
                raise KeyboardInterrupt

        def run() -> None:
            with pytest.raises(KeyboardInterrupt):
                leave()
            left.set()

        thread = threading.Thread(target=run)
        thread.start()
        assert left.wait(20)
        thread.join()
        context.destroy(linger=0)
