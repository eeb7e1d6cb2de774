"""The lock and the cursor's mark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serd.errors import JournalError
from serd.sinks.journal import files
from serd.sinks.journal.files import Lock, Mark, Marked

RUN = "0123456789abcdef"
# Writes its mark again and again; the line says how far it got before it is killed.
_MARKER = """
import sys
from pathlib import Path
from serd.sinks.journal.files import Mark, Marked
mark = Mark(Path(sys.argv[1]))
for last in range(1, 10_000_000):
    assert mark.write(Marked("0123456789abcdef", 1, last))
    sys.stdout.write(f"{last}\\n")
    sys.stdout.flush()
"""


def test_a_mark_is_read_back(tmp_path: Path) -> None:
    mark = Mark(tmp_path / "j")
    assert mark.read() is None
    assert mark.write(Marked(RUN, 5, 9))
    assert mark.write(Marked(RUN, 5, 12))
    assert Mark(tmp_path / "j").read() == Marked(RUN, 5, 12)
    mark.close()


def test_a_damaged_mark_is_no_mark(tmp_path: Path) -> None:
    mark = Mark(tmp_path / "j")
    mark.write(Marked(RUN, 5, 9))
    mark.close()
    content = bytearray(mark.path.read_bytes())
    content[30] ^= 1
    mark.path.write_bytes(content)
    assert mark.read() is None
    mark.path.write_bytes(b"short")
    assert mark.read() is None


def test_a_mark_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    assert not Mark(tmp_path / "nowhere" / "j").write(Marked(RUN, 1, 2))


def test_a_mark_survives_the_process(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _MARKER, str(tmp_path / "j")], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    told = 0
    while told < 500:
        told = int(process.stdout.readline())
    process.kill()
    told = max([told, *(int(line) for line in process.stdout.read().splitlines() if line)])
    process.wait()
    process.stdout.close()
    marked = Mark(tmp_path / "j").read()
    assert marked is not None
    assert marked.last in (told, told + 1)


def test_a_second_daemon_is_told_whose_the_journal_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PATIENCE_S", 0.0)
    first, second = Lock(tmp_path / "j"), Lock(tmp_path / "j")
    first.take("serd-berlin, process 4711")
    with pytest.raises(JournalError, match=r"serd-berlin, process 4711.*path") as caught:
        second.take("serd-paris, process 4712")
    assert caught.value.code == "journal_in_use"
    first.release()
    second.take("serd-paris, process 4712")
    assert second.path.read_text() == "serd-paris, process 4712\n"
    second.release()


def test_a_folder_that_takes_no_file_needs_no_lock(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "nowhere" / "j")
    lock.take("serd")
    lock.release()
    assert not list(tmp_path.iterdir())
