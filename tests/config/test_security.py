"""Who is let in, as far as a configuration tells."""

from __future__ import annotations

import tomllib

import pytest

from serd.config.exposure import is_local
from serd.config.loading import check

# Always the same, because they become parts of the tests' names.
KEY, OTHER = "vX&0a%g/QOv7XeIx!c?}jOVvwvS.bn>R&j&83guP", "Q)S{/R7#<jB$5GpmH3-)tO.qDDcGFlbPQn!+*&WA"
PEER = f"[[security.peers]]\nname = 'pbx-1'\npublic_key = '{KEY}'\nmay = 'send'\n"
CURVE = f"[security]\ncurve = true\n{PEER}"


def problems_of(text: str) -> list[str]:
    _, problems = check(tomllib.loads(text))
    return [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("[publish]\nbind = 'tcp://0.0.0.0:5556'", "publish.bind"),
        ("[publish]\nreplay_bind = 'tcp://[::]:5557'", "publish.replay_bind"),
        ("[[sources]]\ntype = 'zmq'\nbind = 'tcp://*:1'", "sources.0.bind"),
        ("[[sources]]\ntype = 'zmq'\nconnect = 'tcp://pbx.example:1'", "sources.0.connect"),
        ("[[sources]]\ntype = 'zmq'\nbind = 'tcp://192.0.2.7:1'", "sources.0.bind"),
    ],
)
def test_plain_tcp_beyond_this_machine_is_refused_unless_told(text: str, path: str) -> None:
    (problem,) = problems_of(text)
    assert problem.startswith(f"{path}: tcp://")
    assert "security.curve = true" in problem
    assert "security.allow_plaintext = true" in problem
    assert problems_of(f"{text}\n[security]\nallow_plaintext = true") == []


def test_with_curve_it_is_not() -> None:
    assert problems_of(f"[publish]\nbind = 'tcp://0.0.0.0:5556'\n{CURVE}") == []


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("tcp://127.0.0.1:1", True),
        ("tcp://127.9.9.9:*", True),
        ("tcp://[::1]:1", True),
        ("tcp://localhost:1", True),
        ("ipc:///run/serd", True),
        ("inproc://a", True),
        ("tcp://*:1", False),
        ("tcp://[::]:1", False),
        ("tcp://eth0:1", False),
        ("tcp://127.0.0.1.example:1", False),
    ],
)
def test_what_stays_on_this_machine(endpoint: str, local: bool) -> None:
    assert is_local(endpoint) == local


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[security]\ncurve = true", "security.peers: is empty"),
        (PEER, "security.curve: is false although peers are listed"),
        (
            f"{CURVE}[[sources]]\ntype = 'zmq'\nconnect = 'tcp://192.0.2.1:1'",
            "sources.0.server_keys: is required with security.curve",
        ),
        (
            f"{CURVE}[[sources]]\ntype = 'zmq'\nconnect = ['tcp://a:1', 'tcp://b:1', 'tcp://c:1']"
            f"\nserver_keys = ['{KEY}', '{OTHER}']",
            "sources.0.server_keys: holds 2 keys for 3 endpoints",
        ),
        (
            f"[[sources]]\ntype = 'zmq'\nconnect = 'tcp://127.0.0.1:1'\nserver_keys = '{KEY}'",
            "sources.0.server_keys: only means something with security.curve = true",
        ),
        (f"{CURVE}{PEER.replace(KEY, OTHER)}", "security.peers: pbx-1 is the name of 2 peers"),
        (f"{CURVE}{PEER.replace('pbx-1', 'b')}", f"security.peers: {KEY} is the public_key of 2"),
        (CURVE.replace(KEY, "secret"), "security.peers.0.public_key: must be a public key"),
        (CURVE.replace("'send'", "'sing'"), "security.peers.0.may.0: must be one of"),
        (CURVE.replace("name", "nam"), "security.peers.0.nam: unknown key; did you mean name?"),
    ],
)
def test_what_cannot_be_meant_is_told(text: str, expected: str) -> None:
    assert any(problem.startswith(expected) for problem in problems_of(text)), problems_of(text)
