"""Logging: structlog, JSON lines for machines, coloured lines for terminals, on standard error."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

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
    if console:
        processors.append(structlog.dev.ConsoleRenderer(colors=out.isatty()))
    else:
        processors.append(structlog.processors.format_exc_info)
        processors.append(structlog.processors.JSONRenderer())
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
