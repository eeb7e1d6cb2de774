"""Trying a model in a process of its own, before it comes near the daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from serd.errors import DeviceError, ModelError, SerdError
from serd.inference.candidate import Candidate
from serd.runtime.patience import Patience

# Without the folder that serd happens to run in, whatever is called numpy there.
REHEARSAL: Final = (sys.executable, "-P", "-m", "serd.inference.rehearsal")
"""The program, to which the candidate is added."""

_ERRORS: Final = {error.__name__: error for error in (ModelError, DeviceError)}
_LONGEST_ANSWER: Final = 1 << 16
_DEATH_S = 2.0


def prove(
    name: str, candidate: Candidate, patience: Patience, program: Sequence[str] = REHEARSAL
) -> str:
    """Try a model in a process that may die of it. It has ended when this returns.

    Parameters
    ----------
    name
        Of the model, for messages.
    patience
        How long to wait; then the process is killed.
    program
        The command line.

    Returns
    -------
    str
        `serd.inference.candidate.digest` of the manifest that was tried.

    Raises
    ------
    ModelError, DeviceError
        What the model was refused for; ``model_died_sigsegv`` and the like: what ended the process;
        ``model_died``: it ended by itself without an answer; ``model_not_tried``: it could not be
        started; ``model_timeout`` and ``model_stopping`` as `Patience`.
    """
    asked = json.dumps({**candidate._asdict(), "parent": os.getpid()})
    try:
        # The calling thread's child, which dies with that thread: it waits here.
        process = subprocess.Popen(
            [*program, asked],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # NumPy would start a thread a processor, of which a service may have but a few.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            # A terminal's Ctrl-C is for serd.
            start_new_session=True,
        )
    except OSError as error:
        raise ModelError(
            "model_not_tried",
            f"model {name!r}: no process could be started to try it: {error.strerror or error}; "
            "the model in use goes on",
        ) from error
    try:
        return _verdict(name, _answer(process, patience), process)
    finally:
        process.kill()
        # One that a driver holds fast dies when that lets go.
        with suppress(subprocess.TimeoutExpired):
            process.wait(_DEATH_S)
        assert process.stdout is not None, "a pipe was asked for"
        process.stdout.close()


def _answer(process: subprocess.Popen[bytes], patience: Patience) -> bytes:
    """What the process wrote until its end."""
    assert process.stdout is not None, "a pipe was asked for"
    fd = process.stdout.fileno()
    answer = b""
    while len(answer) <= _LONGEST_ANSWER:
        patience.until(fd)
        part = os.read(fd, _LONGEST_ANSWER)
        if not part:
            break
        answer += part
    return answer


def _verdict(name: str, answer: bytes, process: subprocess.Popen[bytes]) -> str:
    with suppress(subprocess.TimeoutExpired):
        process.wait(_DEATH_S)
    status = process.poll()
    if status is not None and status < 0:
        raise _died(name, -status)
    told = _parsed(answer)
    if status == os.EX_OK and told.get("ok") is True:
        return str(told["digest"])
    kind = _ERRORS.get(str(told.get("error")))
    if kind is not None:
        raise kind(str(told["code"]), str(told["message"]))
    raise ModelError(
        "model_died",
        f"model {name!r}: the process that tried it ended with status {status} and no answer; "
        "what it wrote is in serd's log; the model in use goes on",
    )


def _parsed(answer: bytes) -> dict[str, Any]:
    # A model that corrupts memory may have it write anything.
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    wanted = {"digest"} if isinstance(told, dict) and told.get("ok") is True else _TOLD
    return told if isinstance(told, dict) and wanted <= told.keys() else {}


_TOLD: Final = {"error", "code", "message"}


def _died(name: str, number: int) -> SerdError:
    try:
        signal_name = signal.Signals(number).name
    except ValueError:
        signal_name = f"SIG{number}"
    if number == signal.SIGKILL:
        advice = "if nobody killed it, memory ran out: see journalctl -k and MemoryMax of the unit"
    else:
        advice = "the model file or the installed onnxruntime is broken"
    return ModelError(
        f"model_died_{signal_name.lower()}",
        f"model {name!r}: the process that tried it died by {signal_name} "
        f"({signal.strsignal(number) or 'unknown'}); {advice}; the model in use goes on",
    )
