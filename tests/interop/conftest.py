"""What the tests with other languages need: the README's programs, a compiler, Node."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from serd.protocol import tap

README = Path(tap.__file__).with_name("README.md")
_EXAMPLE = re.compile(r"<!-- example: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
ZEROMQ_FOR_NODE = "zeromq@6"


@pytest.fixture(scope="session")
def readme() -> str:
    """The specification."""
    return README.read_text()


@pytest.fixture(scope="session")
def example(readme: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the path of one of the README's programs, written out as it stands there."""
    folder = tmp_path_factory.mktemp("examples")
    programs = dict(_EXAMPLE.findall(readme))

    def write(name: str) -> Path:
        path = folder / name
        path.write_text(programs[name])
        return path

    return write


@pytest.fixture(scope="session")
def c_sender(example: Callable[[str], Path]) -> Path:
    """The README's sender in C, compiled; skips where there is no compiler or no libzmq."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc)")
    source = example("sender.c")
    probe = source.with_name("probe.c")
    probe.write_text("#include <zmq.h>\nint main(void) { return 0; }\n")
    program = source.with_suffix("")
    trial = [compiler, str(probe), "-lzmq", "-o", str(program)]
    if subprocess.run(trial, capture_output=True, check=False).returncode:
        pytest.skip("libzmq is not there to compile with (Debian: apt-get install libzmq3-dev)")
    warnings = ["-std=c99", "-Wall", "-Wextra", "-Wno-unused-result", "-Werror"]
    subprocess.run([compiler, *warnings, source, "-lzmq", "-o", program], check=True)
    return program


@pytest.fixture(scope="session")
def node_tap(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Command of the tap written for Node; skips where Node or its package cannot be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("no Node (node, npm)")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"private": true}')
    install = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), ZEROMQ_FOR_NODE]
    try:
        done = subprocess.run(install, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm could not install zeromq in time")
    if done.returncode:
        pytest.skip(f"npm could not install zeromq: {done.stderr.strip()[-300:]}")
    program = folder / "tap.mjs"
    shutil.copy(Path(__file__).with_name("tap.mjs"), program)
    return [node, str(program)]
