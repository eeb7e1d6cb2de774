"""ONNX graphs: written from PyTorch, run, and held against it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import nn

from trainer.audio import WINDOW_SAMPLES, Float32
from trainer.errors import TrainerError

OPSET = 17

Int64 = npt.NDArray[np.int64]

# (audio float32 [batch, samples], length int64 [batch]) to logits float32 [batch, labels]
Predictor = Callable[[Float32, Int64], Float32]


def write_onnx(
    model: nn.Module, path: Path, output: str = "logits", samples: int = WINDOW_SAMPLES
) -> None:
    """Export with a dynamic batch axis and a fixed number of samples.

    Parameters
    ----------
    model
        takes float32 [batch, samples] and int64 [batch], returns one tensor [batch, …].
    output
        its name in the graph.
    """
    example = (torch.zeros(2, samples), torch.tensor([samples, samples // 2]))
    with warnings.catch_warnings():
        # The tracing exporter is deprecated, but its successor needs onnxscript and writes
        # a larger graph; the recurrent layers it warns of take their batch size from the input.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            example,
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["audio", "length"],
            output_names=[output],
            dynamic_axes={name: {0: "batch"} for name in ("audio", "length", output)},
        )
    onnx.checker.check_model(onnx.load(path), full_check=True)


def onnx_session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """An open model, on the CPU.

    Raises
    ------
    TrainerError
        the file is missing, or no model that the runtime can run.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions share no other base
        raise TrainerError(f"{path} cannot be run: {error}") from None


def onnx_predictor(path: Path, threads: int = 1) -> Predictor:
    """An exported model as a predictor, on the CPU.

    Raises
    ------
    TrainerError
        see `onnx_session`.
    """
    session = onnx_session(path, threads)

    def predict(audio: Float32, length: Int64) -> Float32:
        (logits,) = session.run(["logits"], {"audio": audio, "length": length})
        return np.asarray(logits, np.float32)

    return predict


def largest_difference(ours: Predictor, theirs: Predictor, audio: Float32, length: Int64) -> float:
    """Between the logits of two predictors, the second asked one by one and in batches.

    Parameters
    ----------
    audio
        float32 [rows, samples]; real audio.
    length
        int64 [rows].
    """
    expected = ours(audio, length)
    worst = 0.0
    for batch in (1, 7, len(length)):
        for first in range(0, len(length), batch):
            part = slice(first, first + batch)
            found = theirs(audio[part], length[part])
            worst = max(worst, float(np.abs(found - expected[part]).max()))
    return worst
