"""What a detector is, and which one to use."""

from __future__ import annotations

from typing import Literal, Protocol

from serd.errors import ModelError
from serd.inference.manifest import load_vad_manifest, resolve_model
from serd.inference.providers import CPU
from serd.types import NATIVE_RATES_HZ, Float32Array, Int16Array, Int64Array
from serd.vad.energy import EnergyDetector
from serd.vad.network import NetworkDetector, open_network
from serd.vad.silero import RESET_AFTER_SILENCE_MS, SILENCE_BELOW, SileroDetector

DetectorKind = Literal["auto", "serd-vad", "silero", "energy"]


class Detector(Protocol):
    """Turns frames into speech probabilities, with a state of its own for every row.

    Attributes
    ----------
    name
        ``serd-vad``, ``silero`` or ``energy``.
    sample_rate_hz, frame_samples
        What frames must be: 32 ms at 8000 or 16000 Hz.
    compute_ns
        Nanoseconds of processor time that the calling thread has spent in onnxruntime. Other
        threads may read it. What threads of onnxruntime's own do (``threads`` above 1) is not in.
    gated
        Frames that the network was spared.
    """

    @property
    def name(self) -> str: ...  # noqa: D102  described in the class
    @property
    def sample_rate_hz(self) -> int: ...  # noqa: D102
    @property
    def frame_samples(self) -> int: ...  # noqa: D102
    @property
    def compute_ns(self) -> int: ...  # noqa: D102
    @property
    def gated(self) -> int: ...  # noqa: D102

    def step(self, rows: Int64Array, frames: Int16Array) -> Float32Array:
        """Speech probability of the next frame of each of `rows`.

        `rows` is int64[n], unique; `frames` int16[n, frame_samples]; the result float32[n], 0 to 1.
        A row's result depends on the frames of that row since its last reset and on nothing else.
        """
        ...

    def reset(self, rows: Int64Array) -> None:
        """Forget the past of `rows` (int64[n]): what follows is another recording."""
        ...


def make_detector(
    kind: DetectorKind,
    sample_rate_hz: int,
    rows: int,
    threads: int = 1,
    reset_after_silence_ms: float = RESET_AFTER_SILENCE_MS,
    silence_below: float = SILENCE_BELOW,
    provider: str = CPU,
) -> Detector:
    """The detector of that kind for `rows` rows at `sample_rate_hz` (8000 or 16000).

    Parameters
    ----------
    kind
        ``auto`` is silero when the package with its network is installed and ``serd-vad``
        otherwise; the caller tells the user which (`Detector.name`).
    threads
        Threads of one model call; of no use to the energy gate.
    reset_after_silence_ms, silence_below
        silero's state is reset when the probability has been below `silence_below` for that long.
        With a time above the segmenter's hangover and a value not above its offset threshold no
        reset falls into an utterance.
    provider
        ``CUDAExecutionProvider``: silero runs there if that is faster; the others do not.

    Raises
    ------
    ModelError
        ``vad_model_missing``: kind is ``silero`` and its package is not installed; other codes:
        the file is not the one that the manifest names.
    DeviceError
        onnxruntime is missing or installed twice.
    """
    if sample_rate_hz not in NATIVE_RATES_HZ:
        raise ValueError(f"detectors work at 8000 and 16000 Hz, not {sample_rate_hz}")
    if kind == "energy":
        return EnergyDetector(sample_rate_hz, rows)
    if kind != "serd-vad":
        try:
            return SileroDetector.load(
                sample_rate_hz,
                rows,
                threads,
                reset_after_silence_ms,
                silence_below,
                provider=provider,
            )
        except ModelError as error:
            if kind == "silero" or error.code != "vad_model_missing":
                raise
    manifest = load_vad_manifest(resolve_model("serd-vad"))
    return NetworkDetector(open_network(manifest, threads), manifest, sample_rate_hz, rows)
