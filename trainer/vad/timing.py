"""What a step costs: ours and silero's side by side in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from serd.inference.manifest import load_vad_manifest, resolve_model
from serd.vad.network import NetworkDetector, open_network
from trainer.vad.network import RATES_HZ

BATCHES = (1, 32, 512)
_FRAMES = 1500
_ROUNDS = 7


def compare(model: str) -> Iterator[str]:
    """A line a rate and network: microseconds of processor time a frame by batch size, the best of
    seven rounds, measured in turns so that both meet the same machine.
    """
    detectors = [model, "silero-vad"]
    yield f"{'':24}" + "".join(f"{f'batch {batch}':>16}" for batch in BATCHES)
    for rate_hz in RATES_HZ:
        best = {(name, batch): np.inf for name in detectors for batch in BATCHES}
        for batch in BATCHES:
            steps = [(name, _step(name, rate_hz, batch)) for name in detectors]
            for _ in range(_ROUNDS):
                for name, step in steps:
                    best[name, batch] = min(best[name, batch], step())
        for name in detectors:
            figures = "".join(f"{best[name, batch]:13.1f} µs" for batch in BATCHES)
            yield f"{rate_hz:6} Hz  {name:14}{figures}"


def _step(name: str, rate_hz: int, batch: int) -> Callable[[], float]:
    manifest = load_vad_manifest(resolve_model(name))
    detector = NetworkDetector(open_network(manifest, 1), manifest, rate_hz, batch)
    rows = np.arange(batch)
    rng = np.random.default_rng(1)
    frames = rng.normal(0, 1000, (batch, detector.frame_samples)).astype(np.int16)
    calls = max(4, _FRAMES // batch)

    def step() -> float:
        began = time.thread_time()
        for _ in range(calls):
            detector.step(rows, frames)
        return (time.thread_time() - began) / calls / batch * 1e6

    return step
