"""How long models take, side by side, so that whatever else the machine does falls on all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from trainer.audio import WINDOW_SAMPLES
from trainer.graph import Predictor, onnx_predictor


def milliseconds(
    paths: Sequence[Path],
    batch: int = 1,
    rounds: int = 40,
    samples: int = WINDOW_SAMPLES,
    ask: Callable[[Path], Predictor] = onnx_predictor,
) -> list[float]:
    """Median CPU time of a row on one thread, one a path.

    In each round every model runs once, in turn; `ask` opens them. CPU time is what an idle
    core would take.
    """
    rng = np.random.default_rng(0)
    audio = (0.1 * rng.standard_normal((batch, samples))).astype(np.float32)
    length = np.full(batch, samples, np.int64)
    predictors = [ask(path) for path in paths]
    taken = np.zeros((rounds, len(paths)))
    for row in range(-3, rounds):
        for column, predict in enumerate(predictors):
            started = time.process_time()
            predict(audio, length)
            if row >= 0:
                taken[row, column] = time.process_time() - started
    return [float(value) for value in 1e3 * np.median(taken, axis=0) / batch]
