"""What an operator may ask of a running daemon over its control socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from serd.config.schema import Config
from serd.runtime.control import Control, ControlError, Peer, control_path
from serd.runtime.models import Models


def open_control(config: Config) -> Control | None:
    """The control socket of ``daemon.control``, bound and not yet served; None for none.

    Raises
    ------
    BindError
        See `Control`.
    """
    path = control_path(config.daemon.control)
    return None if path is None else Control(path)


def serve(control: Control, models: Models, counts: Callable[[], Mapping[str, int]]) -> None:
    """Serve the commands ``models``, ``use``, ``shadow`` and ``status``."""

    def use(request: Mapping[str, Any], _peer: Peer) -> Mapping[str, Any]:
        return {"model": models.use(_name(request))}

    def shadow(request: Mapping[str, Any], _peer: Peer) -> Mapping[str, Any]:
        wanted = request.get("model")
        return {"shadow": models.use_shadow(None if wanted is None else _name(request))}

    control.register("models", lambda _request, _peer: models.describe())
    control.register("use", use)
    control.register("shadow", shadow)
    control.register("status", lambda _request, _peer: {"counts": dict(counts())})
    control.start()


def _name(request: Mapping[str, Any]) -> str:
    name = request.get("model")
    if not isinstance(name, str) or not name or "\0" in name:
        raise ControlError("control_argument", "model: must be the name or the path of a model")
    return name
