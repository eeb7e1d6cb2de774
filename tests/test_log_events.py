"""Log events have stable names, and deploy/logs.md lists every one with its levels."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

import serd
from tests.log_events import logged

SOURCE = Path(serd.__file__).parent
PAGE = SOURCE.parent / "deploy" / "logs.md"

CALLS = list(logged(SOURCE))


@pytest.fixture(scope="module")
def listed() -> dict[str, set[str]]:
    rows = re.findall(r"^\| `([^`]+)` \| ([a-z, ]+) \| \S.* \|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == len({name for name, _ in rows}), "an event is listed twice"
    return {name: set(levels.split(", ")) for name, levels in rows}


def test_every_event_has_a_literal_name_of_lowercase_dotted_words() -> None:
    bad = [
        f"{call.where}: {call.name}"
        for call in CALLS
        if call.name is None
        or not re.fullmatch(r"[a-z]+(_[a-z]+)*(\.[a-z]+(_[a-z]+)*)*", call.name)
    ]
    assert not bad


def test_the_page_lists_every_event_with_its_levels(listed: dict[str, set[str]]) -> None:
    named: dict[str, set[str]] = defaultdict(set)
    for call in CALLS:
        named[call.name or ""] |= call.levels
    assert listed == named


def test_a_log_under_another_name_would_be_seen() -> None:
    # What is not called _log is not found by reading: there must be none.
    others = [
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        for line in path.read_text().splitlines()
        if "get_logger" in line and not line.startswith("_log = ")
    ]
    assert not others
