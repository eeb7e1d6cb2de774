"""Every error serd raises on purpose, with a stable code and a blast radius.

    SerdError
    ├── MessageError        radius message: one tap message is dropped, nothing else is touched
    ├── SourceError         radius source: one source is down and tries again, the others go on
    └── DaemonError         radius daemon: the process refuses to start or stops
        ├── ConfigError     exit 78 (EX_CONFIG)
        ├── ModelError      exit 65 (EX_DATAERR): model or manifest refused
        ├── DeviceError     exit 69 (EX_UNAVAILABLE): the asked-for accelerator is not there
        ├── BindError       exit 71 (EX_OSERR): a socket cannot be bound
        ├── JournalError    exit 73 (EX_CANTCREAT): the journal is another's, or no journal
        └── InputError      exit 66 (EX_NOINPUT): a file the user named cannot be read

The code is a short snake_case word (``bad_magic``, ``unknown_key``): logs, counters and tests
refer to it, so it never changes once released. The message is for people and may change.
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import ClassVar


class BlastRadius(StrEnum):
    """How much of the daemon an error may take down."""

    MESSAGE = "message"
    SOURCE = "source"
    DAEMON = "daemon"


class SerdError(Exception):
    """Base of all deliberate errors.

    Parameters
    ----------
    code
        Stable snake_case identifier of the kind of error.
    message
        One sentence for a person: what is wrong, where, and what to do about it.
    """

    radius: ClassVar[BlastRadius] = BlastRadius.DAEMON
    exit_code: ClassVar[int] = os.EX_SOFTWARE

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class MessageError(SerdError):
    """One message is malformed; it is dropped and counted under its code."""

    radius = BlastRadius.MESSAGE
    exit_code = os.EX_DATAERR


class SourceError(SerdError):
    """One source is down (device unplugged, endpoint gone)."""

    radius = BlastRadius.SOURCE
    exit_code = os.EX_IOERR


class DaemonError(SerdError):
    """The process cannot start or cannot go on."""


class ConfigError(DaemonError):
    """The configuration is wrong; the message lists every problem, one a line."""

    exit_code = os.EX_CONFIG


class ModelError(DaemonError):
    """A model or its manifest is refused; the message names the field."""

    exit_code = os.EX_DATAERR


class DeviceError(DaemonError):
    """The device asked for is not available; the message says what is missing."""

    exit_code = os.EX_UNAVAILABLE


class BindError(DaemonError):
    """A socket cannot be bound or connected."""

    exit_code = os.EX_OSERR


class JournalError(DaemonError):
    """The journal of events belongs to another daemon, or the file is none."""

    exit_code = os.EX_CANTCREAT


class InputError(DaemonError):
    """A file or argument that the user gave cannot be used."""

    exit_code = os.EX_NOINPUT
