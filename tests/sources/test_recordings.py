"""What is found in files and folders, and what its streams are called."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.errors import InputError
from serd.sources.recordings import Found, find_recordings


def make(folder: Path, *names: str, size: int = 1) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))


def ids(found: Found) -> set[str]:
    return {recording.stream for recording in found.recordings}


def test_a_file_is_called_by_its_name_and_one_in_a_folder_by_its_way_there(tmp_path: Path) -> None:
    make(tmp_path, "alone.wav", "calls/a.wav", "calls/day/a.FLAC", "calls/day/late/b.c.mp3")
    found = find_recordings([tmp_path / "alone.wav", tmp_path / "calls"])
    assert ids(found) == {"alone", "a", "day/a", "day/late/b.c"}
    by_id = {recording.stream: recording.path for recording in found.recordings}
    assert by_id["day/a"] == str(tmp_path / "calls" / "day" / "a.FLAC")
    assert not found.problems
    assert not found.passed_over


def test_the_same_whatever_way_the_folder_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "calls/day/a.wav")
    monkeypatch.chdir(tmp_path)
    for folder in ("calls", "calls/", "./calls", "calls/day/..", tmp_path / "calls"):
        assert ids(find_recordings([folder])) == {"day/a"}


def test_files_that_differ_by_their_ending_alone_keep_it(tmp_path: Path) -> None:
    make(tmp_path, "a.wav", "a.flac", "b.wav", "sub/a.wav")
    assert ids(find_recordings([tmp_path])) == {"a.wav", "a.flac", "b", "sub/a"}


def test_other_files_and_hidden_ones_are_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "a.wav", "notes.txt", "wav", ".hidden.wav", "._a.wav", ".cache/b.wav")
    found = find_recordings([tmp_path])
    assert (ids(found), found.passed_over) == ({"a"}, 2)


def test_a_file_that_is_named_is_taken_whatever_its_ending(tmp_path: Path) -> None:
    make(tmp_path, "call.bin")
    assert ids(find_recordings([tmp_path / "call.bin"])) == {"call"}


def test_the_largest_come_first(tmp_path: Path) -> None:
    for size in (3, 9, 1, 5):
        make(tmp_path, f"{size}.wav", size=size)
    assert [recording.size for recording in find_recordings([tmp_path]).recordings] == [9, 5, 3, 1]


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    make(tmp_path, "calls/a.wav", "elsewhere/b.wav")
    (tmp_path / "calls" / "c.wav").symlink_to(tmp_path / "elsewhere" / "b.wav")
    (tmp_path / "calls" / "round").symlink_to(tmp_path / "calls")
    (tmp_path / "calls" / "broken.wav").symlink_to(tmp_path / "nowhere.wav")
    found = find_recordings([tmp_path / "calls"])
    assert ids(found) == {"a", "c"}
    [problem] = found.problems
    assert "broken.wav: No such file" in problem


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_a_problem_and_no_end(tmp_path: Path) -> None:
    make(tmp_path, "a.wav", "closed/b.wav")
    (tmp_path / "closed").chmod(0)
    found = find_recordings([tmp_path])
    (tmp_path / "closed").chmod(0o700)
    assert ids(found) == {"a"}
    assert "closed" in found.problems[0]


@pytest.mark.parametrize(
    ("paths", "code"),
    [
        (["nothing.wav"], "input_unreadable"),
        (["empty"], "no_recordings"),
        (["a.wav", "sub/a.wav"], "same_stream"),
        (["a.wav", "sub"], "same_stream"),
        (["a.wav", "a.wav"], "same_stream"),
    ],
)
def test_mistakes_are_told_before_anything_is_played(
    paths: list[str], code: str, tmp_path: Path
) -> None:
    make(tmp_path, "a.wav", "sub/a.wav", "empty/notes.txt")
    with pytest.raises(InputError) as raised:
        find_recordings([tmp_path / path for path in paths])
    assert raised.value.code == code


def test_names_that_make_no_stream_id_are_problems(tmp_path: Path) -> None:
    deep = "/".join(["x" * 99] * 2)
    make(tmp_path, "good.wav", f"{deep}/too-long.wav", "control\x07.wav")
    (tmp_path / os.fsdecode(b"latin-\xe9.wav")).write_bytes(b"")
    found = find_recordings([tmp_path])
    assert ids(found) == {"good"}
    assert len(found.problems) == 3
    for problem in found.problems:
        assert problem.encode()


NAMES = st.text(st.sampled_from("ab.é -"), min_size=1, max_size=4).filter(
    lambda name: not name.startswith(".")
)


@given(
    st.sets(
        st.tuples(st.lists(NAMES, max_size=2), NAMES, st.sampled_from([".wav", ".MP3"])).map(
            lambda parts: "/".join([*parts[0], parts[1] + parts[2]])
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_folder_gives_each_of_its_files_an_id_of_its_own_or_says_which_clash(
    names: set[str],
) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in names:
            try:
                make(folder, name)
            except OSError:
                return  # one name is both a file and a folder
        try:
            found = find_recordings([folder])
        except InputError as error:
            clash = str(error)
        else:
            assert len(ids(found)) == len(names)
            assert all(1 <= len(stream.encode()) <= 200 for stream in ids(found))
            return
        assert "would both be the stream" in clash
