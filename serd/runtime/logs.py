"""Logging: structlog, JSON lines for machines, coloured lines for terminals, on standard error.

Under systemd each line begins with its syslog priority, as in ``<4>``, which journald takes off
and files as ``PRIORITY`` (sd-daemon(3)); ``journalctl -p warning`` then finds what matters. Names
of events are stable; ``deploy/logs.md`` lists them.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Final, TextIO

import structlog


def _own_stderr() -> TextIO:
    """Standard error, as a descriptor of the log's own.

    PortAudio's binding points descriptor 2 at /dev/null while it looks for devices; a line that
    is logged in that moment would be lost.
    """
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1)
    except (OSError, ValueError):
        return sys.stderr


_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def to_journal(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream leads to journald: ``JOURNAL_STREAM`` names it by device and inode.

    The variable alone says nothing: it is inherited by those whose output was sent elsewhere.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Prioritised:
    """Puts the syslog priority before every line that a renderer makes."""

    def __init__(self, render: structlog.typing.Processor) -> None:
        self._render = render

    def __call__(self, logger: object, method: str, event: structlog.typing.EventDict) -> str:
        prefix = f"<{_PRIORITIES[event['level']]}>"
        return "\n".join(
            prefix + line for line in str(self._render(logger, method, event)).split("\n")
        )


def configure(
    level: str = "info",
    format: str = "auto",  # noqa: A002  # the name of the key in the configuration
    stream: TextIO | None = None,
) -> None:
    """Set up logging for the process.

    Parameters
    ----------
    level
        ``debug``, ``info``, ``warning`` or ``error``.
    format
        ``json``, ``console``, or ``auto``: console on a terminal, JSON elsewhere.
    stream
        Where to write; standard error by default, since standard output carries events.
    """
    out = stream if stream is not None else _own_stderr()
    console = format == "console" or (format == "auto" and out.isatty())
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: structlog.typing.Processor
    if console:
        render = structlog.dev.ConsoleRenderer(colors=out.isatty())
    else:
        processors.append(structlog.processors.format_exc_info)
        render = structlog.processors.JSONRenderer()
    processors.append(_Prioritised(render) if to_journal(out) else render)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
