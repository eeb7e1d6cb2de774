"""Checks the chain of an audit log, see `serd.runtime.audit`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serd.errors import InputError
from serd.runtime.audit import FIRST


@dataclass(slots=True)
class Verdict:
    """What the files show.

    Attributes
    ----------
    records
        Lines that are records.
    first_previous
        What the first record gives as the hash before it; `FIRST` at the very beginning.
    last
        Hash of the last line.
    breaks
        ``FILE:LINE: what is wrong`` for every place where the chain does not hold.
    torn
        The same for lines cut off when the machine stopped, where the chain goes on behind them.
    found
        Which of the hashes asked for are those of lines.
    """

    records: int = 0
    first_previous: str = FIRST
    last: str = FIRST
    breaks: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    found: set[str] = field(default_factory=set)


def verify(paths: Sequence[Path], known: Iterable[str] = ()) -> Verdict:
    """Follow the chain through files, oldest first.

    Parameters
    ----------
    known
        Hashes that were kept elsewhere, to be looked for.

    Raises
    ------
    InputError
        A file cannot be read.
    """
    verdict, wanted = Verdict(), set(known)
    expected: str | None = None
    suspect: str | None = None
    for path in paths:
        try:
            with path.open("rb") as file:
                for number, raw in enumerate(file, start=1):
                    line, place = raw.rstrip(b"\n"), f"{path}:{number}"
                    previous = _previous(line)
                    if previous is None:
                        suspect = f"{place}: not a record"
                    else:
                        if expected is None:
                            verdict.first_previous = previous
                        holds = expected in (None, previous)
                        if suspect is not None:
                            (verdict.torn if holds else verdict.breaks).append(suspect)
                            suspect = None
                        elif not holds:
                            verdict.breaks.append(
                                f"{place}: does not follow the line before it: one of the two was"
                                " changed, or lines between them are missing"
                            )
                        verdict.records += 1
                    expected = hashlib.sha256(line).hexdigest()
                    if expected in wanted:
                        verdict.found.add(expected)
        except OSError as error:
            raise InputError("audit_unreadable", f"{path}: {error.strerror}") from None
    if suspect is not None:
        verdict.torn.append(suspect)
    verdict.last = expected or FIRST
    return verdict


def _previous(line: bytes) -> str | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    previous = record.get("previous") if isinstance(record, dict) else None
    return previous if isinstance(previous, str) else None
