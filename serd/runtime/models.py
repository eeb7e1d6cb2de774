"""Models under a running daemon: tried elsewhere, opened beside the one in use, then taken."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import structlog

from serd.channel import Waker
from serd.clock import Clock
from serd.config.schema import Config
from serd.errors import ModelError, SerdError
from serd.inference.candidate import Candidate, digest, rehearse
from serd.inference.manifest import resolve_model
from serd.inference.model import EmotionModel
from serd.protocol.events import Event
from serd.runtime.patience import Patience
from serd.runtime.pipeline import Pipeline, wanted
from serd.runtime.proving import REHEARSAL, prove
from serd.runtime.shadow import Shadow

_log = structlog.get_logger(__name__)

# A load that never comes back keeps a thread, and a core of it, until the process ends.
_MOST_ABANDONED = 3
_END_S = 2.0

_Copies = Callable[[EmotionModel], list[EmotionModel]]


def _alone(model: EmotionModel) -> list[EmotionModel]:
    return [model]


class Models:
    """The model of a running pipeline, and the one on trial beside it.

    Parameters
    ----------
    config
        Sections ``segment`` and ``inference`` say how models are opened, and which.
    pipeline
        Running.
    emit
        Takes the shadow's events.
    clock
        Monotonic time of the shadow's results.
    crowded
        Whether events are waiting to be published: the shadow's are then left out, and counted.
    rehearsal
        The program that tries a model, see `serd.runtime.proving.prove`.

    Attributes
    ----------
    waiting
        Called about once a second while the main thread waits for a model.
    on_change
        Called with what happened (``model.use``, ``shadow.start``, ``shadow.stop``) and the model.

    Notes
    -----
    A model is opened, checked and warmed up twice: in a process of its own, which may die of it or
    hang, and then in a thread of the daemon. Whatever goes wrong, or takes longer than
    ``inference.load_timeout_s`` in all, changes nothing. Nobody holds a lock meanwhile that another
    thread would wait for.
    """

    def __init__(
        self,
        config: Config,
        pipeline: Pipeline,
        emit: Callable[[Event], None],
        clock: Clock,
        crowded: Callable[[], bool],
        rehearsal: Sequence[str] = REHEARSAL,
    ) -> None:
        self._config = config
        self._pipeline = pipeline
        self._shadow = Shadow(pipeline.worker, emit, clock, crowded)
        self._rehearsal = rehearsal
        self._changing = threading.Lock()
        self._ended = Waker()
        self._stopped = False
        self._abandoned: list[threading.Thread] = []
        self._counts = dict.fromkeys(("swaps", "swap_failures", "model_loads_abandoned"), 0)
        self.waiting: Callable[[], object] = lambda: None
        self.on_change: Callable[[str, EmotionModel], object] = lambda _event, _model: None

    def start(self) -> None:
        """Start the shadow that the configuration names. One that cannot be had is only told."""
        if self._config.inference.shadow:
            try:
                self.use_shadow(self._config.inference.shadow)
            except SerdError:
                # Said in the log; the calls matter more than the trial.
                return

    def give_up(self) -> None:
        """End at once the wait for a model. Any thread, any signal handler; `stop` is to follow."""
        self._ended.wake()

    def stop(self) -> None:
        """Take no model any more, and end the shadow. More than once does nothing."""
        self.give_up()
        # For good. Whoever is at it gives up, unless it is a shadow that hangs in its place.
        if not self._stopped and self._changing.acquire(timeout=_END_S):
            self._ended.close()
        self._stopped = True
        self._pipeline.listener = None
        self._shadow.stop()

    def counts(self) -> dict[str, int]:
        """Monotonic counters, by their full names."""
        return {
            **{f"inference.{name}": count for name, count in self._counts.items()},
            **{f"shadow.{name}": count for name, count in self._shadow.counts().items()},
        }

    def describe(self) -> dict[str, Any]:
        """What is in use, for people and programs."""
        shadow = self._shadow.model
        return {
            "model": _described(self._pipeline.model),
            "shadow": None if shadow is None else _described(shadow),
        }

    def use(self, name: str) -> str:
        """Score with another model from the next batch on.

        Parameters
        ----------
        name
            A shipped model or the path of a manifest, as in ``inference.model``.

        Returns
        -------
        str
            The new model's identity.

        Raises
        ------
        ModelError, DeviceError
            The model is refused, and the old one goes on. ``model_timeout``: it took longer than
            ``inference.load_timeout_s``; ``model_died_sigsegv`` and the like: the process that
            tried it died; ``model_busy``: another model is being opened, or too many earlier ones
            never came back; ``model_stopping``: serd is about to end.
        """
        with self._change(_model_refused, name):
            self._switch(self._opened(name, self._pipeline.one_a_worker))
        return self._pipeline.model.identity

    def use_shadow(self, name: str | None) -> str | None:
        """Try another model on the same segments, or with None no longer.

        Returns
        -------
        str or None
            The identity of the model on trial.

        Raises
        ------
        ModelError, DeviceError
            As `use`; a shadow that ran before goes on.
        """
        with self._change(_shadow_refused, name or ""):
            self._set_shadow(self._opened(name)[0] if name else None)
        return None if self._shadow.model is None else self._shadow.model.identity

    def apply(self, config: Config) -> None:
        """Take ``inference.model`` and ``inference.shadow`` of another configuration.

        Both models are opened before either is used, so that all of it happens or nothing.

        Raises
        ------
        ModelError, DeviceError
            As `use`.
        """
        old, new = self._config.inference, config.inference
        with self._change(_model_refused, new.model):
            other = new.model != old.model
            models = self._opened(new.model, self._pipeline.one_a_worker) if other else None
            changed = new.shadow != old.shadow
            shadow = self._opened(new.shadow)[0] if changed and new.shadow else None
            if models is not None:
                self._switch(models)
            if changed:
                self._set_shadow(shadow)
        self._config = config

    def _change(self, refused: _Refused, name: str) -> _Change:
        return _Change(self._changing, self._counts, refused, name)

    def _switch(self, models: list[EmotionModel]) -> None:
        old, model = self._pipeline.model, models[0]
        self._pipeline.use_model(models)
        self._counts["swaps"] += 1
        self.on_change("model.use", model)
        _log.info(
            "model.swapped",
            old=old.identity,
            model=model.identity,
            provider=model.provider,
            same_labels=tuple(old.labels) == tuple(model.labels),
        )

    def _set_shadow(self, model: EmotionModel | None) -> None:
        before = self._shadow.model
        self._pipeline.listener = None
        if model is None:
            self._shadow.stop()
            if before is not None:
                _log.info("shadow.stopped", model=before.identity)
                self.on_change("shadow.stop", before)
            return
        self._shadow.start(model)
        self._pipeline.listener = self._shadow.submit
        _log.info("shadow.started", model=model.identity, provider=model.provider)
        self.on_change("shadow.start", model)

    def _opened(self, name: str, copies: _Copies = _alone) -> list[EmotionModel]:
        self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]
        if len(self._abandoned) >= _MOST_ABANDONED:
            raise ModelError(
                "model_busy",
                f"model {name!r}: {len(self._abandoned)} models that were tried before still "
                "hang; restart serd before trying another",
            )
        timeout_s = self._config.inference.load_timeout_s
        patience = Patience(name, timeout_s, self._ended, self.waiting)
        candidate = wanted(self._config, resolve_model(name))
        tried = prove(name, candidate, patience, self._rehearsal)
        models = self._opened_here(name, candidate, copies, patience)
        if digest(models[0].manifest) != tried:
            raise ModelError(
                "model_changed",
                f"model {name!r}: its manifest was changed while it was tried; try it again",
            )
        return models

    def _opened_here(
        self, name: str, candidate: Candidate, copies: _Copies, patience: Patience
    ) -> list[EmotionModel]:
        future: Future[list[EmotionModel]] = Future()
        done, at_its_end = os.pipe()
        thread = threading.Thread(
            target=_open,
            args=(name, candidate, copies, future, at_its_end),
            name="serd-model",
            daemon=True,
        )
        thread.start()
        try:
            patience.until(done)
        except ModelError:
            self._abandoned.append(thread)
            self._counts["model_loads_abandoned"] += 1
            raise
        finally:
            os.close(done)
        return future.result()


def _model_refused(name: str, error: SerdError) -> None:
    _log.error("model.refused", model=name, code=error.code, why=error.message)


def _shadow_refused(name: str, error: SerdError) -> None:
    _log.error("shadow.refused", model=name, code=error.code, why=error.message)


_Refused = Callable[[str, SerdError], None]


class _Change:
    """One change of models at a time; a refusal is counted and told in the log."""

    def __init__(
        self, lock: threading.Lock, counts: dict[str, int], refused: _Refused, name: str
    ) -> None:
        self._lock, self._counts, self._refused, self._name = lock, counts, refused, name

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            error = ModelError(
                "model_busy", f"model {self._name!r}: another model is being opened; try again"
            )
            self._tell(error)
            raise error

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._lock.release()
        if isinstance(error, SerdError):
            self._tell(error)

    def _tell(self, error: SerdError) -> None:
        self._counts["swap_failures"] += 1
        self._refused(self._name, error)


def _open(
    name: str,
    candidate: Candidate,
    copies: _Copies,
    future: Future[list[EmotionModel]],
    at_its_end: int,
) -> None:
    try:
        model = candidate.open()
        models = copies(model)
        rehearse(model)
    except SerdError as error:
        future.set_exception(error)
    except BaseException as error:
        # The runtime's exceptions share no base but Exception; neither may end as a traceback in
        # a thread while somebody waits.
        future.set_exception(
            ModelError("model_failed", f"model {name!r}: {type(error).__name__}: {error}")
        )
    else:
        future.set_result(models)
    finally:
        os.close(at_its_end)


def _described(model: EmotionModel) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "identity": model.identity,
        "manifest": None if manifest.path is None else str(manifest.path),
        "labels": list(model.labels),
        "provider": model.provider,
    }
