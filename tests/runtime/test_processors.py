"""Processors that the process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serd.runtime.processors import processors

MINE = len(os.sched_getaffinity(0))


def group(system: Path, path: str, **quotas: str) -> None:
    (system / "proc/self").mkdir(parents=True)
    (system / "proc/self/cgroup").write_text(f"1:name=systemd:/\n0::{path}\n")
    for name, quota in quotas.items():
        folder = system / "sys/fs/cgroup" / name.replace("__", "/").replace("root", ".")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(f"{quota} 100000\n")


def test_without_control_groups_there_are_those_that_it_may_run_on(tmp_path: Path) -> None:
    assert processors(tmp_path) == MINE
    assert 0 < processors() <= MINE


@pytest.mark.parametrize(
    ("path", "quotas", "expected"),
    [
        ("/", {"root": "50000"}, 0.5),
        ("/", {"root": "max"}, MINE),
        ("/a/b", {"a": "25000", "a__b": "50000"}, 0.25),
        ("/a/b", {"a": "max", "a__b": "50000"}, 0.5),
        ("/a", {"a__b": "25000", "a": "max"}, MINE),
        ("/a", {"a": "10000000"}, MINE),
        ("/gone", {}, MINE),
    ],
)
def test_the_smallest_quota_on_the_way_up_counts(
    tmp_path: Path, path: str, quotas: dict[str, str], expected: float
) -> None:
    group(tmp_path, path, **quotas)
    assert processors(tmp_path) == expected
