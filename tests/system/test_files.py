"""What the units say, as far as it can be read without booting anything."""

from __future__ import annotations

import pytest

from serd.errors import ConfigError, InputError, ModelError
from tests.system.service import UNITS

SERVICE = (UNITS / "serd.service").read_text()
TEMPLATE = (UNITS / "serd@.service").read_text()


def _settings(unit: str) -> list[str]:
    return [line for line in unit.splitlines() if "=" in line and not line.startswith("#")]


def test_the_template_differs_in_names_alone() -> None:
    pairs = zip(_settings(SERVICE), _settings(TEMPLATE), strict=True)
    names = ["Description", "ExecStart", "ExecReload", "StateDirectory", "RuntimeDirectory"]
    differing = [one.partition("=")[0] for one, other in pairs if one != other]
    assert differing == [*names, "LogsDirectory"]
    instance = TEMPLATE.replace("/%i.toml", "/serd.toml").replace("=serd-%i", "=serd")
    assert _settings(instance.replace(" (%i)", "")) == _settings(SERVICE)


@pytest.mark.parametrize("error", [ConfigError, InputError, ModelError])
def test_mistakes_that_a_restart_repeats_are_not_restarted(error: type[ConfigError]) -> None:
    [line] = [line for line in _settings(SERVICE) if line.startswith("RestartPreventExitStatus=")]
    assert str(error.exit_code) in line.partition("=")[2].split()


def test_the_readme_names_every_file() -> None:
    readme = (UNITS / "README.md").read_text()
    for path in UNITS.iterdir():
        assert path.name in readme or path.is_dir(), path.name
    for path in (UNITS / "drop-ins").iterdir():
        assert f"`{path.stem}`" in readme, path.name
