"""A program that tries a model, so that nobody else has to die of it.

ONNX Runtime is native code: a graph that it does not expect may end the process, or never come
back. ``python -m serd.inference.rehearsal JSON`` opens a model, warms it up and takes it down, just
as serd will. The argument has the fields of `Candidate`, and `parent`, the process that asks.

It writes one line of JSON to standard output, then ends: 0 if the model will do, else as the error
has it::

    {"ok": true, "digest": "…"}
    {"ok": false, "error": "ModelError", "code": "model_sha256", "message": "…"}

Whatever else it has to say goes to standard error. It dies with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import structlog

from serd.errors import ModelError, SerdError
from serd.inference.candidate import Candidate, digest, rehearse

_PR_SET_PDEATHSIG = 1
_NICER_BY = 5


def main(argument: str) -> int:
    """Try the model; return the exit status."""
    # Libraries write to standard output what they please.
    answers = os.dup(1)
    os.dup2(2, 1)
    # serd says all of this once more when it opens the model itself.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asked = json.loads(argument)
    _be_expendable(asked.pop("parent"))
    answer, status = _tried(Candidate(**asked))
    os.write(answers, json.dumps(answer).encode() + b"\n")
    return status


def _tried(candidate: Candidate) -> tuple[dict[str, Any], int]:
    try:
        model = candidate.open()
        rehearse(model)
        found = digest(model.manifest)
        # What a model does when it is let go belongs to it as well.
        del model
        gc.collect()
    except Exception as error:
        # The runtime's exceptions share no base but Exception.
        if not isinstance(error, SerdError):
            error = ModelError("model_failed", f"{type(error).__name__}: {error}")
        told = {
            "ok": False,
            "error": type(error).__name__,
            "code": error.code,
            "message": error.message,
        }
        return told, error.exit_code
    return {"ok": True, "digest": found}, os.EX_OK


def _be_expendable(parent: int) -> None:
    """Die with the parent, wait for it on the processor, and go first when memory runs out."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that asked has ended")
    # Where either is forbidden it goes without.
    with contextlib.suppress(OSError):
        os.nice(_NICER_BY)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    # Not by way of the interpreter's end, where libraries' own threads may still run.
    os._exit(main(sys.argv[1]))
