"""Which keys of the configuration a running daemon can take, and how."""

from __future__ import annotations

from serd.config.schema import Config
from serd.runtime import logs
from serd.runtime.models import Models
from serd.runtime.parts import stream_policy
from serd.runtime.pipeline import Pipeline
from serd.runtime.reload import Reloader
from serd.runtime.security import Security
from serd.sinks.publisher import Publisher


def declare_live(
    reloader: Reloader,
    pipeline: Pipeline,
    publisher: Publisher,
    security: Security,
    models: Models,
) -> None:
    """Tell `reloader` of every key that needs no restart."""

    def configure_logs(config: Config) -> None:
        logs.configure(config.logging.level, config.logging.format)

    def let_in(config: Config) -> None:
        security.let_in(config, publisher.subscribers)

    def judge_by(config: Config) -> None:
        pipeline.table.adopt(stream_policy(config))

    reloader.live("logging", apply=configure_logs)
    reloader.live(
        "streams.refuse_roles",
        "streams.allow_mixed",
        "streams.require_consent",
        apply=judge_by,
    )
    reloader.live("security.peers", apply=let_in)
    if (journal := publisher.journal) is not None:
        reloader.live(
            "journal.ttl_h",
            "journal.max_mib",
            apply=lambda new: journal.keep(new.journal.ttl_h, new.journal.max_mib),
        )
    reloader.live("inference.model", "inference.shadow", apply=models.apply)
    # Looked up whenever they are needed.
    reloader.live("daemon.heartbeat_s", "daemon.drain_timeout_s", apply=lambda _: None)
