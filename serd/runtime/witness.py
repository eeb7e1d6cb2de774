"""What the daemon writes into its audit log, gathered from where it is known."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict

import serd
from serd.clock import Clock
from serd.config.schema import Config
from serd.inference.model import EmotionModel
from serd.protocol.events import Event, StreamEvent
from serd.runtime.audit import AuditLog, audit_path
from serd.runtime.guard import Refusal
from serd.runtime.pipeline import Pipeline
from serd.runtime.reload import Reloaded

_MIB = 1 << 20


def config_sha256(config: Config) -> str:
    """Hash of everything that is configured. Keys are in it by the names of their files alone."""
    plain = json.dumps(config.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(plain.encode()).hexdigest()


class Witness:
    """Writes the records of one run of the daemon.

    Parameters
    ----------
    config
        As at the start; names the file.
    run_id
        Of this run, as in the ids of events.

    Attributes
    ----------
    log
        For records of others.
    """

    def __init__(self, config: Config, run_id: str, clock: Clock) -> None:
        self._config = config
        self._run_id = run_id
        self.log = AuditLog(audit_path(config.audit.path), config.audit.max_mib * _MIB, clock)

    def start(self) -> None:
        """Open the log.

        Raises
        ------
        ConfigError
            It cannot be written.
        """
        self.log.start()

    def started(self, pipeline: Pipeline) -> None:
        """The daemon is ready."""
        policy = self._config.streams
        self.log.record(
            "start",
            run_id=self._run_id,
            version=serd.__version__,
            pid=os.getpid(),
            config_sha256=config_sha256(self._config),
            model=pipeline.model.identity,
            model_sha256=pipeline.model.manifest.file.sha256,
            vad=pipeline.vad_name,
            refuse_roles=list(policy.refuse_roles),
            allow_mixed=list(policy.allow_mixed),
            require_consent=policy.require_consent,
            curve=self._config.security.curve,
        )

    def event(self, event: Event) -> None:
        """Look at an event on its way to the publisher."""
        if type(event) is StreamEvent and event.state == "refused":
            self.log.record(
                "stream.refused",
                stream=event.stream,
                source=event.source,
                role=event.role,
                reason=event.reason,
            )

    def peer_refused(self, refusal: Refusal, count: int) -> None:
        """A peer was not let in, so many times since this was last told."""
        self.log.record("peer.refused", **refusal._asdict(), count=count)

    def subscription(self, subscribed: bool, topic: bytes, peer: str) -> None:
        """A subscriber came or went."""
        self.log.record(
            "subscribed" if subscribed else "unsubscribed",
            topic=topic.decode(errors="backslashreplace"),
            peer=peer or None,
        )

    def reloaded(self, config: Config, reloaded: Reloaded) -> None:
        """The configuration was read anew."""
        self.log.record("reload", config_sha256=config_sha256(config), **asdict(reloaded))

    def model(self, event: str, model: EmotionModel) -> None:
        """Another model is in use, or beside the one in use (``shadow.start``)."""
        self.log.record(event, model=model.identity, model_sha256=model.manifest.file.sha256)

    def stopped(self, drained: bool) -> None:
        """The daemon ends."""
        self.log.record("stop", run_id=self._run_id, drained=drained)
        self.log.stop()
