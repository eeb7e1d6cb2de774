from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path

import pytest
import zmq
from click.testing import CliRunner

from serd.cli import cli, execute
from serd.config.loading import check
from serd.curve import CurveKeys


def _keygen(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["keygen", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_secret_is_in_the_file_alone_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "serd.secret"
    before = os.umask(0)
    try:
        printed = _keygen(str(path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keys = CurveKeys.read(path)
    assert keys.public in printed
    assert keys.secret not in printed
    assert keys.public.encode() == zmq.curve_public(keys.secret.encode())


def test_what_it_prints_is_a_configuration(tmp_path: Path) -> None:
    printed = _keygen(
        str(tmp_path / "pbx-1.secret"), "--may", "subscribe", "--may", "replay", "--name", "pbx-1"
    )
    table = tomllib.loads(printed.partition("\n")[2])
    config, problems = check(table)
    assert not problems
    assert config.security.curve
    (peer,) = config.security.peers
    assert (peer.name, peer.may) == ("pbx-1", ("subscribe", "replay"))


def test_a_key_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "serd.secret"
    _keygen(str(path))
    before = path.read_bytes()
    assert execute(["keygen", str(path)]) == os.EX_CANTCREAT
    assert "exists and is not overwritten" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert execute(["keygen", str(tmp_path / "link")]) == os.EX_CANTCREAT
    assert not (tmp_path / "elsewhere").exists()


def test_the_public_key_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "serd.secret"
    _keygen(str(path))
    assert _keygen("--public", str(path)).strip() == CurveKeys.read(path).public


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["keygen", str(tmp_path / "none" / "key")]) == os.EX_CANTCREAT
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["listen", "--key", "x"],
        ["listen", "--peer-key", "short", "--key", "x"],
    ],
)
def test_half_a_link_is_a_usage_error(arguments: list[str]) -> None:
    assert execute(arguments) == os.EX_USAGE
