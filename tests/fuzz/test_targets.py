"""A fuzzer's short run over every target; `python -m tests.fuzz` is the long one."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, mutations

NAMES = sorted(TARGETS)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=200)
@given(st.data())
def test_any_bytes(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    seeds = st.sampled_from(target.seeds())
    spliced = st.builds(
        lambda seed, at, cut, junk: seed[: at % (len(seed) + 1)] + junk + seed[cut:],
        seeds,
        st.integers(0, 5000),
        st.integers(0, 5000),
        st.binary(max_size=12),
    )
    target.check(data.draw(st.one_of(st.binary(max_size=400), spliced)))


@pytest.mark.parametrize("name", NAMES)
def test_seeds_and_their_neighbours(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds():
        target.check(seed)
        for mutated in mutations(seed):
            target.check(mutated)


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("name", ["tap_message", "tap_streams", "event"])
def test_guided_by_coverage(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--messages", "2000", "--target", name],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{name}: 2,000" in done.stdout
