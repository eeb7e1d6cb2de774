"""Which recordings files and folders hold, and what their streams are called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from serd.errors import InputError, MessageError
from serd.protocol.tap import decode_stream_id

ENDINGS = frozenset(
    {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"}
    | {".au", ".snd", ".caf", ".w64", ".rf64", ".voc", ".sph", ".nist"}
)
"""What a recording's file name may end in (in any case) to be found in a folder."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A file that is to be played; not opened yet, so it may turn out to be none.

    Attributes
    ----------
    path
        Where it is.
    stream
        Stream id.
    size
        Bytes.
    """

    path: str
    stream: str
    size: int


@dataclass(frozen=True, slots=True)
class Found:
    """What `find_recordings` found.

    Attributes
    ----------
    recordings
        Largest file first. Recordings are played side by side, so a long one that began last
        would be played alone in the end, and alone a frame costs three times what it costs in
        company.
    problems
        A sentence for each file or folder that cannot be used.
    passed_over
        Files in folders that have no recording's ending.
    """

    recordings: Sequence[Recording]
    problems: Sequence[str]
    passed_over: int


def find_recordings(paths: Iterable[str | Path]) -> Found:
    """The recordings among files and in folders.

    A file's stream id is its name without the ending. In a folder and everything below it, ids are
    paths relative to the folder, without the endings and with ``/`` between the parts; where
    several files would get one id, as ``a.wav`` and ``a.flac`` would, they keep their endings.
    Files whose names begin with a dot are passed over, links to folders are not followed.

    No recording is opened: 100,000 files take about a second.

    Raises
    ------
    InputError
        ``input_unreadable``: there is no such file or folder; ``no_recordings``: a folder without
        any; ``same_stream``: two recordings have one stream id.
    """
    finder = _Finder()
    for path in paths:
        finder.add(Path(path))
    _refuse_doubles(finder.recordings)
    finder.recordings.sort(key=lambda recording: -recording.size)
    return Found(finder.recordings, finder.problems, finder.passed_over)


class _Finder:
    def __init__(self) -> None:
        self.recordings: list[Recording] = []
        self.problems: list[str] = []
        self.passed_over = 0

    def add(self, path: Path) -> None:
        try:
            size = path.stat().st_size
        except OSError as error:
            why = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
            raise InputError("input_unreadable", f"{path}: {why}") from error
        if path.is_dir():
            self._add_folder(path)
        else:
            self._add_file(str(path), path.stem, size)

    def _add_folder(self, folder: Path) -> None:
        files = list(self._walk(str(folder)))
        if not files:
            raise InputError("no_recordings", f"{folder}: no recordings in this folder")
        names = [os.path.relpath(path, folder).replace(os.sep, "/") for path, _ in files]
        bare = [name.rpartition(".")[0] for name in names]
        shared = Counter(bare)
        for (path, size), name, without in zip(files, names, bare, strict=True):
            self._add_file(path, without if shared[without] == 1 else name, size)

    def _walk(self, folder: str) -> Iterable[tuple[str, int]]:
        """Paths and sizes, in the order of their names."""
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self.problems.append(f"{folder}: {error.strerror}")
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(entry.path)
            elif "".join(entry.name.rpartition(".")[1:]).lower() not in ENDINGS:
                self.passed_over += 1
            else:
                try:
                    yield entry.path, entry.stat().st_size
                except OSError as error:
                    self.problems.append(f"{entry.path}: {error.strerror}")

    def _add_file(self, path: str, stream: str, size: int) -> None:
        try:
            decode_stream_id(os.fsencode(stream))
        except MessageError as error:
            shown = path.encode(errors="replace").decode()
            self.problems.append(f"{shown}: its name makes no stream id: {error.message}")
        else:
            self.recordings.append(Recording(path, stream, size))


def _refuse_doubles(recordings: Sequence[Recording]) -> None:
    first: dict[str, Recording] = {}
    for recording in recordings:
        other = first.setdefault(recording.stream, recording)
        if other is not recording:
            raise InputError(
                "same_stream",
                f"{other.path} and {recording.path} would both be the stream "
                f"{recording.stream!r}: rename one, or name the folder that holds both",
            )
