"""A changed configuration under a running daemon: what can change does, the rest is named.

A key is live when a part of the daemon has said how to apply it. Nothing else is touched: a
configuration with mistakes changes nothing, and a key that needs a restart keeps its old value
until there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import structlog

from serd.config.schema import Config
from serd.errors import SerdError

_log = structlog.get_logger(__name__)

Apply = Callable[[Config], None]


@dataclass(frozen=True)
class Reloaded:
    """What a reload came to.

    `applied`: keys that hold from now on; `restart`: keys that need a restart; `refused`: keys
    whose new value a part would not take, each with the reason; `problem`: why the configuration
    could not be read at all, in which case nothing changed.
    """

    applied: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    problem: str = ""

    @property
    def summary(self) -> str:
        """One line for the status of the service; empty when everything was taken."""
        if self.problem:
            return "reload refused: " + self.problem.splitlines()[0]
        parts = []
        if self.restart:
            parts.append("restart needed for " + ", ".join(self.restart))
        if self.refused:
            parts.append("not taken: " + ", ".join(key for key, _ in self.refused))
        return "; ".join(parts)


class Reloader:
    """The configuration in force, and how to put a new one into force.

    Parameters
    ----------
    config
        What the daemon was started with.
    reread
        Reads the configuration anew; raises `SerdError` when it is wrong.
    """

    def __init__(self, config: Config, reread: Callable[[], Config]) -> None:
        self.config = config
        self._reread = reread
        self._live: list[tuple[tuple[str, ...], Apply]] = []

    def live(self, *keys: str, apply: Apply) -> None:
        """Declare keys that can change under way.

        Parameters
        ----------
        keys
            ``section.key``, or ``section`` for all of one.
        apply
            Called on the main thread, once a reload however many of its keys changed, with a
            configuration that differs from the one in force in these keys alone. Raises
            `SerdError` to keep the old values.
        """
        self._live.append((keys, apply))

    def reload(self) -> Reloaded:
        """Read the configuration and put into force what can be."""
        try:
            new = self._reread()
        except SerdError as error:
            _log.error("reload.refused", code=error.code, why=error.message)
            return Reloaded(problem=error.message)
        left = list(changed(self.config, new))
        applied: list[str] = []
        refused: list[tuple[str, str]] = []
        for keys, apply in self._live:
            mine = [path for path in left if any(_under(path, key) for key in keys)]
            if not mine:
                continue
            left = [path for path in left if path not in mine]
            wanted = _with(self.config, new, mine)
            try:
                apply(wanted)
            except SerdError as error:
                refused += [(path, error.message) for path in mine]
            else:
                self.config = wanted
                applied += mine
        outcome = Reloaded(tuple(applied), tuple(left), tuple(refused))
        log = _log.warning if outcome.summary else _log.info
        log(
            "reload",
            applied=applied,
            needs_restart=left,
            not_taken=dict(refused),
        )
        return outcome


def changed(old: Config, new: Config) -> Iterator[str]:
    """Keys that differ, as ``section.key``; a list outside of sections is one key (``sources``)."""
    for section in type(old).model_fields:
        before, after = getattr(old, section), getattr(new, section)
        if before == after:
            continue
        fields = getattr(type(before), "model_fields", None)
        if fields is None:
            yield section
            continue
        for key in fields:
            if getattr(before, key) != getattr(after, key):
                yield f"{section}.{key}"


def _under(path: str, key: str) -> bool:
    return path == key or path.startswith(key + ".")


def _with(config: Config, new: Config, paths: list[str]) -> Config:
    """`config` with the values of `new` at `paths`."""
    update: dict[str, Any] = {}
    for path in paths:
        section, _, key = path.partition(".")
        if not key:
            update[section] = getattr(new, section)
            continue
        before = update.get(section, getattr(config, section))
        update[section] = before.model_copy(update={key: getattr(getattr(new, section), key)})
    return config.model_copy(update=update)
