"""``serd send`` and ``serd listen`` with keys, against a daemon's sockets."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import zmq

from serd.cli import execute
from serd.commands.keygen import write_secret
from serd.commands.playing import tap_socket
from serd.curve import CurveKeys, Link
from tests.security.test_hostile import DASHBOARD, SERVER, TAP, guarded


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    soundfile.write(path, np.zeros(1600, np.int16), 8000)
    return path


def test_send_and_listen_with_keys(
    tmp_path: Path, talk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tap, dashboard = tmp_path / "tap.secret", tmp_path / "dashboard.secret"
    write_secret(tap, TAP)
    write_secret(dashboard, DASHBOARD)
    with guarded(tmp_path) as daemon:
        keys = ["--peer-key", SERVER.public]
        listen = f"listen {daemon.events} --topic stream. --json --count 1 --replay {daemon.replay}"
        listening = threading.Thread(
            target=execute, args=([*listen.split(), "--key", str(dashboard), *keys],)
        )
        listening.start()
        send = ["send", str(talk), "--to", daemon.tap, "--speed", "max", "--key", str(tap), *keys]
        # Until the listener, who may still be at its handshake, has heard of one.
        for _ in range(100):
            assert execute(send) == 0
            listening.join(0.3)
            if not listening.is_alive():
                break
        assert not listening.is_alive()
    event = json.loads(capfd.readouterr().out.splitlines()[0])
    assert (event["type"], event["stream"]) == ("stream", "talk")


def test_send_that_binds_takes_no_other_receiver(
    zmq_context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    tap, daemon, stranger = (CurveKeys.generate() for _ in range(3))
    # Not one of libzmq's, which gives a port back some time after it is closed.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"tcp://127.0.0.1:{port}"
    wrong, right = zmq_context.socket(zmq.PULL), zmq_context.socket(zmq.PULL)
    monitor = wrong.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    Link(stranger, tap.public).reach(wrong)
    Link(daemon, tap.public).reach(right)

    def receive() -> None:
        wrong.connect(endpoint)
        # Not before the stranger has been turned away.
        if monitor.poll(20_000):
            turned_away.set()
        right.connect(endpoint)

    turned_away = threading.Event()
    thread = threading.Thread(target=receive)
    thread.start()
    with tap_socket(endpoint, bind=True, wait_s=30, curve=Link(tap, daemon.public)) as send:
        send([b"id", b"header", b"audio"])
        thread.join()
        assert turned_away.is_set()
        assert right.recv_multipart() == [b"id", b"header", b"audio"]
        assert not wrong.poll(0)
    wrong.disable_monitor()
    monitor.close()
    wrong.close(linger=0)
    right.close(linger=0)
