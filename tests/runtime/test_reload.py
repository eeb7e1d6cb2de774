"""What a reload applies, what it names, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from serd.config.loading import load
from serd.config.schema import Config
from serd.errors import ModelError
from serd.runtime.reload import Reloaded, Reloader, changed


class Setting:
    """A configuration file and a reloader that reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text("")
        self.reloader = Reloader(load(path), lambda: load(path))
        self.applied: list[Config] = []

    def live(self, *keys: str, apply: Callable[[Config], None] | None = None) -> None:
        self.reloader.live(*keys, apply=apply or self.applied.append)

    def reload(self, text: str) -> Reloaded:
        self.path.write_text(text)
        return self.reloader.reload()


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path / "serd.toml")


def _refuse(config: Config) -> None:
    raise ModelError("model_unknown", f"no model {config.inference.model}")


def test_nothing_changed(setting: Setting) -> None:
    setting.live("logging")
    assert setting.reload("") == Reloaded()
    assert setting.applied == []


def test_a_live_key_is_applied_once_and_holds(setting: Setting) -> None:
    setting.live("daemon.heartbeat_s", "daemon.drain_timeout_s")
    text = "[daemon]\nheartbeat_s = 1.0\ndrain_timeout_s = 2.0\n"
    outcome = setting.reload(text)
    assert set(outcome.applied) == {"daemon.heartbeat_s", "daemon.drain_timeout_s"}
    assert outcome.summary == ""
    assert len(setting.applied) == 1
    assert setting.reloader.config.daemon.heartbeat_s == 1.0
    assert setting.reload(text) == Reloaded()


def test_a_section_may_be_live_as_a_whole(setting: Setting) -> None:
    setting.live("logging")
    assert setting.reload("[logging]\nlevel = 'debug'\n").applied == ("logging.level",)


def test_what_needs_a_restart_is_named_again_until_there_is_one(setting: Setting) -> None:
    setting.live("logging")
    text = "[logging]\nlevel = 'debug'\n[segment]\nhop_s = 0.5\n"
    first = setting.reload(text)
    assert (first.applied, first.restart) == (("logging.level",), ("segment.hop_s",))
    assert "segment.hop_s" in first.summary
    assert setting.reloader.config.segment.hop_s == 1.0
    assert setting.reload(text).restart == ("segment.hop_s",)
    assert setting.reload("[logging]\nlevel = 'debug'\n") == Reloaded()


def test_sources_are_one_key(setting: Setting) -> None:
    text = "[[sources]]\ntype = 'zmq'\nbind = 'tcp://127.0.0.1:7000'\n"
    assert setting.reload(text).restart == ("sources",)


def test_a_part_sees_its_own_keys_changed_and_no_others(setting: Setting) -> None:
    setting.live("inference.model")
    setting.reload("[inference]\nmodel = 'other'\nmax_batch = 16\n[segment]\nhop_s = 0.5\n")
    [seen] = setting.applied
    assert list(changed(Config(), seen)) == ["inference.model"]


def test_a_part_may_refuse_and_the_others_go_on(setting: Setting) -> None:
    setting.live("inference.model", apply=_refuse)
    setting.live("logging")
    outcome = setting.reload("[inference]\nmodel = 'other'\n[logging]\nlevel = 'debug'\n")
    assert outcome.refused == (("inference.model", "no model other"),)
    assert outcome.applied == ("logging.level",)
    assert "inference.model" in outcome.summary
    assert setting.reloader.config.inference.model == "serd-crnn"


@pytest.mark.parametrize("text", ["[segment]\nhop_s = -1\n", "not toml", "[nothing]\n"])
def test_a_configuration_with_mistakes_changes_nothing(setting: Setting, text: str) -> None:
    setting.live("logging")
    before = setting.reloader.config
    outcome = setting.reload("[logging]\nlevel = 'debug'\n" + text)
    assert outcome.problem
    assert outcome.summary.startswith("reload refused: ")
    assert setting.reloader.config is before
    assert setting.applied == []


def test_a_file_that_is_gone_changes_nothing(setting: Setting) -> None:
    setting.path.unlink()
    assert "serd.toml" in setting.reloader.reload().problem
