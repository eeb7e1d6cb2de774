"""Fuzzing guided by coverage, for as many inputs as one likes: ``python -m tests.fuzz``.

Needs atheris (``pip install atheris``). Inputs that made a target fail are left in the folder
named by ``--artifacts``, and ``python -m tests.fuzz --target NAME FILE…`` plays them again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What an input costs differs by a factor of 300, so that equal shares would be spent on the
# slowest. Together they are 1.
_SHARES = {
    "tap_message": 0.25,
    "tap_headers": 0.20,
    "tap_metadata": 0.12,
    "tap_streams": 0.01,
    "samples": 0.08,
    "event": 0.15,
    "replay_request": 0.10,
    "replay_reply": 0.06,
    "manifest": 0.01,
    "config": 0.01,
    "override": 0.01,
}
_LONGEST_S = 10


def _fuzz(name: str, runs: int, corpus: str, artifacts: str) -> None:
    """Be the fuzzer of one target; does not return."""
    import atheris

    with atheris.instrument_imports(include=["serd"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds()):
        (Path(corpus) / f"seed-{number}").write_bytes(seed)
    options = [
        f"-runs={runs}",
        f"-timeout={_LONGEST_S}",
        f"-artifact_prefix={artifacts}/{name}-",
        "-max_len=4096",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *options, corpus], target.check)
    atheris.Fuzz()


def _run(name: str, runs: int, artifacts: Path) -> bool:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="serd-fuzz-") as corpus:
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", "--be", name, corpus, str(artifacts), str(runs)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        found = len(list(Path(corpus).iterdir()))
    seconds = time.monotonic() - began
    if done.returncode:
        sys.stderr.write(done.stdout[-2000:] + done.stderr[-6000:])
        print(f"{name}: FAILED after {seconds:.0f} s, see {artifacts}", flush=True)
        return False
    print(f"{name}: {runs:,} inputs in {seconds:.0f} s, {found} ways through", flush=True)
    return True


def main() -> int:
    """Run the targets one after the other; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000_000, help="inputs in all")
    parser.add_argument("--target", choices=sorted(_SHARES), help="this one alone")
    parser.add_argument("--artifacts", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--be", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("inputs", nargs="*", type=Path, help="inputs to play again")
    given = parser.parse_args()
    if given.be:
        name, corpus, artifacts, runs = given.be
        _fuzz(name, int(runs), corpus, artifacts)
    if given.inputs:
        from tests.fuzz.targets import TARGETS

        for path in given.inputs:
            TARGETS[given.target].check(path.read_bytes())
        return 0
    given.artifacts.mkdir(parents=True, exist_ok=True)
    shares = {given.target: 1.0} if given.target else _SHARES
    results = [
        _run(name, round(given.messages * share), given.artifacts) for name, share in shares.items()
    ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
