"""Which of the daemon's counts is which metric.

`Daemon.counts` names what it counts ``part.word`` or ``part.word.reason``; those names are also in
the ``daemon`` events. Here each of them gets its Prometheus name, its labels, its unit and a help
text. No label may hold what the outside chooses freely: never a stream, a call, a topic or a peer.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

Kind = Literal["counter", "gauge"]


class Row(NamedTuple):
    """One count, or a family of them.

    Attributes
    ----------
    pattern
        Regular expression of the count's whole name; its named groups become labels.
    metric
        Without ``_total``, which exposition adds to counters.
    fixed
        Labels that the pattern implies.
    scale
        From the count's unit to the metric's.
    known
        Values of the one group that are shown as 0 until they occur, so that the first occurrence
        is an increase to whoever watches.
    """

    pattern: str
    metric: str
    kind: Kind
    fixed: tuple[tuple[str, str], ...] = ()
    scale: float = 1
    known: tuple[str, ...] = ()


_NS: Final = 1e-9

HELP: Final[dict[str, str]] = {
    "serd_tap_messages": "Messages received from taps that were well-formed.",
    "serd_tap_messages_malformed": "Messages dropped because they break the protocol, by reason.",
    "serd_tap_messages_ignored": "Messages that came too late, twice, or ended an unknown stream.",
    "serd_tap_messages_lost": "Messages that taps sent and that never arrived.",
    "serd_tap_messages_dropped": "Messages dropped because the rows of their stream were full.",
    "serd_tap_restarts": "Streams that began anew under the same id, by reason.",
    "serd_streams_opened": "Streams opened.",
    "serd_streams_closed": "Streams closed.",
    "serd_streams_refused": "Streams that no model was allowed to hear, by reason.",
    "serd_audio_dropped_samples": "Audio that was never analysed, by stage and reason.",
    "serd_audio_skipped_samples": "Audio left out on purpose: paused, or silence not sent.",
    "serd_internal_errors": "Mistakes of serd's own that cost one stream or callback.",
    "serd_source_up": "1 while a source can bring audio, 0 once it has failed for good.",
    "serd_source_messages_received": "Messages taken from a ZeroMQ source.",
    "serd_source_waits": "Times that a PULL source was made to wait for room.",
    "serd_microphone_blocks": "Blocks of audio that the sound device delivered.",
    "serd_microphone_dropped_blocks": "Blocks dropped between the sound device and serd, by cause.",
    "serd_microphone_overflow_samples": "Samples lost to overflows of the sound device.",
    "serd_microphone_queue_peak_blocks": "Most blocks that ever waited.",
    "serd_microphone_opened": "Times that the sound device was opened.",
    "serd_microphone_open_failures": "Times that the sound device could not be opened.",
    "serd_microphone_lost": "Times that the sound device went away.",
    "serd_vad_frames": "32 ms frames judged by the voice-activity detector.",
    "serd_vad_calls": "Calls of the voice-activity detector's network.",
    "serd_vad_gated_frames": "Frames that the energy gate decided without the network.",
    "serd_vad_compute_seconds": "Processor time inside the detector's network.",
    "serd_streams_shed": "Streams left out now because the load is too high.",
    "serd_overload_cuts": "Times that streams were left out for overload.",
    "serd_overload_sheds": "Streams left out for overload, each as often as it happened.",
    "serd_segments_submitted": "Segments handed to the model's queue.",
    "serd_segments_scored": "Segments that the model judged.",
    "serd_segments_dropped": "Segments that got no result, by reason.",
    "serd_batches": "Batches that the model ran.",
    "serd_inference_errors": "Runs of the model that failed.",
    "serd_inference_compute_seconds": "Processor time inside the model's runtime.",
    "serd_queue_depth": "Items that wait in a queue now.",
    "serd_queue_peak": "Most items that ever waited in a queue.",
    "serd_queue_capacity": "Items that a queue holds before its overflow policy acts.",
    "serd_queue_dropped": "Items that a full or closed queue dropped.",
    "serd_events_published": "Events published.",
    "serd_events_unencodable": "Events that could not be encoded and were dropped.",
    "serd_subscriber_overruns": "Times that a subscriber was so slow that it lost events.",
    "serd_subscriptions": "Subscriptions made by subscribers.",
    "serd_unsubscriptions": "Subscriptions ended by subscribers.",
    "serd_subscriber_messages_ignored": "Messages from subscribers that mean nothing.",
    "serd_replay_requests": "Requests for past events.",
    "serd_replay_requests_bad": "Requests for past events that were malformed.",
    "serd_replay_answers_cut_short": "Answers that their receiver did not read or left.",
    "serd_replay_events": "Past events sent again.",
    "serd_subscriptions_refused": "Subscriptions beyond what one peer may have.",
    "serd_replay_requests_refused": "Requests for past events beyond what one peer may ask.",
    "serd_inference_not_finite": "Runs of the model that gave NaN or infinity.",
    "serd_model_swaps": "Times that another model was put into use under way.",
    "serd_model_swap_failures": "Times that a model was refused and the one in use stayed.",
    "serd_model_loads_abandoned": "Loads of a model that took too long and were given up.",
    "serd_shadow_running": "1 while a shadow model runs beside the one in use.",
    "serd_shadow_events_skipped": "Results of the shadow model given up so as to delay nobody.",
    "serd_shadow_segments_submitted": "Segments handed to the shadow model.",
    "serd_shadow_segments_scored": "Segments that the shadow model judged.",
    "serd_shadow_segments_dropped": "Segments the shadow model gave no result for, by reason.",
    "serd_shadow_batches": "Batches that the shadow model ran.",
    "serd_shadow_inference_errors": "Runs of the shadow model that failed.",
    "serd_shadow_inference_not_finite": "Runs of the shadow model that gave NaN or infinity.",
    "serd_journal_ok": "1 while events are journalled, 0 while the journal fails.",
    "serd_journal_behind": "1 while events are published before they are committed.",
    "serd_journal_committed_events": "Events committed to the journal.",
    "serd_journal_commits": "Transactions of the journal.",
    "serd_journal_failures": "Commits and openings of the journal that failed.",
    "serd_journal_size_bytes": "Size of the journal.",
    "serd_journal_unjournalled_events": "Events published that are in no journal.",
    "serd_journal_late_events": "Events published before they were committed: a stalled disk.",
    "serd_journal_expired_events": "Events removed from the journal by age or size.",
    "serd_audit_records": "Records written to the audit log.",
    "serd_audit_failures": "Writes of the audit log that failed.",
    "serd_audit_lost": "Records that the audit log could not keep.",
    "serd_connections": "Connections of peers that are open now.",
    "serd_handshakes": "Peers that were let in.",
    "serd_handshake_failures": "Peers whose handshake failed, by reason.",
    "serd_peers_refused": "Peers or connections refused, by reason.",
    "serd_accept_failures": "Connections that the system could not accept: no descriptors left.",
    "serd_source_limited": "Messages or streams dropped because a peer exceeded its limits.",
    "serd_unlisted": "A count that has no metric of its own, by name.",
}


def _counter(pattern: str, metric: str, known: str = "", scale: float = 1, **fixed: str) -> Row:
    return Row(pattern, metric, "counter", tuple(fixed.items()), scale, tuple(known.split()))


def _gauge(pattern: str, metric: str, **fixed: str) -> Row:
    return Row(pattern, metric, "gauge", tuple(fixed.items()))


_REASON = r"\.(?P<reason>[a-z0-9_]+)"
_QUEUE = r"queue\.(?P<queue>[a-z_]+)\."
_SOURCE = r"source\.(?P<source>.+)\."

ROWS: Final = (
    _counter(r"intake\.messages", "serd_tap_messages"),
    _counter(rf"intake\.malformed{_REASON}", "serd_tap_messages_malformed"),
    _counter(
        r"intake\.(?P<reason>late|duplicates|end_of_unknown)",
        "serd_tap_messages_ignored",
        "late duplicates end_of_unknown",
    ),
    _counter(r"intake\.lost\.messages", "serd_tap_messages_lost"),
    _counter(r"intake\.overload\.messages", "serd_tap_messages_dropped"),
    _counter(rf"intake\.restarts{_REASON}", "serd_tap_restarts"),
    _counter(r"intake\.opened", "serd_streams_opened"),
    _counter(r"intake\.closed", "serd_streams_closed"),
    _counter(rf"intake\.refused{_REASON}", "serd_streams_refused"),
    _counter(
        r"intake\.(?P<reason>paused|suppressed)\.samples",
        "serd_audio_skipped_samples",
        "paused suppressed",
    ),
    _counter(
        r"intake\.(?P<reason>[a-z0-9_]+)\.samples",
        "serd_audio_dropped_samples",
        "lost overload",
        stage="ingest",
    ),
    _counter(r"overload\.samples", "serd_audio_dropped_samples", stage="speech", reason="overload"),
    _counter(r"intake\.internal_errors", "serd_internal_errors", stage="ingest"),
    _counter(r"inference\.callback_errors", "serd_internal_errors", stage="inference"),
    _gauge(rf"{_SOURCE}up", "serd_source_up"),
    _counter(rf"{_SOURCE}received", "serd_source_messages_received"),
    _counter(rf"{_SOURCE}waits", "serd_source_waits"),
    _counter(rf"{_SOURCE}blocks", "serd_microphone_blocks"),
    _counter(
        rf"{_SOURCE}overflow_blocks", "serd_microphone_dropped_blocks", reason="device_overflow"
    ),
    _counter(
        rf"{_SOURCE}queue_dropped_blocks", "serd_microphone_dropped_blocks", reason="queue_full"
    ),
    _counter(rf"{_SOURCE}overflow_samples", "serd_microphone_overflow_samples"),
    _gauge(rf"{_SOURCE}queue_peak_blocks", "serd_microphone_queue_peak_blocks"),
    _counter(rf"{_SOURCE}opened", "serd_microphone_opened"),
    _counter(rf"{_SOURCE}open_failures", "serd_microphone_open_failures"),
    _counter(rf"{_SOURCE}device_lost", "serd_microphone_lost"),
    _counter(r"vad\.frames", "serd_vad_frames"),
    _counter(r"vad\.calls", "serd_vad_calls"),
    _counter(r"vad\.gated", "serd_vad_gated_frames"),
    _counter(r"vad\.compute_ns", "serd_vad_compute_seconds", scale=_NS),
    _gauge(r"overload\.rows", "serd_streams_shed"),
    _counter(r"overload\.cuts", "serd_overload_cuts"),
    _counter(r"overload\.sheds", "serd_overload_sheds"),
    _counter(r"overload\.segments", "serd_segments_dropped", reason="shed"),
    _counter(
        rf"inference\.segments_dropped_{_REASON[2:]}",
        "serd_segments_dropped",
        "overload model_error stopped",
    ),
    _counter(r"inference\.segments_submitted", "serd_segments_submitted"),
    _counter(r"inference\.segments_scored", "serd_segments_scored"),
    _counter(r"inference\.batches", "serd_batches"),
    _counter(r"inference\.inference_errors", "serd_inference_errors"),
    _counter(r"inference\.compute_ns", "serd_inference_compute_seconds", scale=_NS),
    _gauge(r"inference\.queue_segments", "serd_queue_depth", queue="inference"),
    _gauge(r"inference\.queue_peak_segments", "serd_queue_peak", queue="inference"),
    _gauge(r"assembler\.pending", "serd_queue_depth", queue="assembler"),
    _gauge(r"assembler\.peak", "serd_queue_peak", queue="assembler"),
    _gauge(rf"{_QUEUE}depth", "serd_queue_depth"),
    _gauge(rf"{_QUEUE}capacity", "serd_queue_capacity"),
    _counter(rf"{_QUEUE}dropped", "serd_queue_dropped"),
    _gauge(r"events\.peak", "serd_queue_peak", queue="events"),
    _counter(r"publish\.events_published", "serd_events_published"),
    _counter(r"publish\.events_unencodable", "serd_events_unencodable"),
    _counter(r"publish\.subscriber_overruns", "serd_subscriber_overruns"),
    _counter(r"publish\.subscriptions", "serd_subscriptions"),
    _counter(r"publish\.unsubscriptions", "serd_unsubscriptions"),
    _counter(r"publish\.subscriber_messages_ignored", "serd_subscriber_messages_ignored"),
    _counter(r"publish\.replay_requests", "serd_replay_requests"),
    _counter(r"publish\.replay_requests_bad", "serd_replay_requests_bad"),
    _counter(r"publish\.replay_answers_cut_short", "serd_replay_answers_cut_short"),
    _counter(r"publish\.replay_events", "serd_replay_events"),
    _counter(r"publish\.subscriptions_refused", "serd_subscriptions_refused"),
    _counter(r"publish\.replay_requests_refused", "serd_replay_requests_refused"),
    _counter(r"inference\.inference_not_finite", "serd_inference_not_finite"),
    _counter(r"inference\.swaps", "serd_model_swaps"),
    _counter(r"inference\.swap_failures", "serd_model_swap_failures"),
    _counter(r"inference\.model_loads_abandoned", "serd_model_loads_abandoned"),
    _gauge(r"shadow\.running", "serd_shadow_running"),
    _counter(r"shadow\.events_skipped", "serd_shadow_events_skipped"),
    _counter(r"shadow\.segments_submitted", "serd_shadow_segments_submitted"),
    _counter(r"shadow\.segments_scored", "serd_shadow_segments_scored"),
    _counter(rf"shadow\.segments_dropped_{_REASON[2:]}", "serd_shadow_segments_dropped"),
    _counter(r"shadow\.batches", "serd_shadow_batches"),
    _counter(r"shadow\.inference_errors", "serd_shadow_inference_errors"),
    _counter(r"shadow\.inference_not_finite", "serd_shadow_inference_not_finite"),
    _counter(r"shadow\.callback_errors", "serd_internal_errors", stage="shadow"),
    _gauge(r"shadow\.queue_segments", "serd_queue_depth", queue="shadow"),
    _gauge(r"shadow\.queue_peak_segments", "serd_queue_peak", queue="shadow"),
    _gauge(r"journal\.ok", "serd_journal_ok"),
    _gauge(r"journal\.behind", "serd_journal_behind"),
    _counter(r"journal\.committed", "serd_journal_committed_events"),
    _counter(r"journal\.commits", "serd_journal_commits"),
    _counter(r"journal\.failures", "serd_journal_failures"),
    _gauge(r"journal\.bytes", "serd_journal_size_bytes"),
    _counter(r"journal\.unjournalled", "serd_journal_unjournalled_events"),
    _counter(r"journal\.late", "serd_journal_late_events"),
    _counter(r"journal\.expired", "serd_journal_expired_events"),
    _gauge(r"journal\.queue", "serd_queue_depth", queue="journal"),
    _gauge(r"journal\.queue_peak", "serd_queue_peak", queue="journal"),
    _gauge(r"journal\.backlog", "serd_queue_depth", queue="journal_backlog"),
    _counter(r"audit\.records", "serd_audit_records"),
    _counter(r"audit\.failures", "serd_audit_failures"),
    _counter(r"audit\.lost", "serd_audit_lost"),
    _gauge(r"security\.connections", "serd_connections"),
    _counter(r"security\.handshakes", "serd_handshakes"),
    _counter(
        rf"security\.handshake_failures{_REASON}",
        "serd_handshake_failures",
        "timeout closed garbage no_curve wrong_key protocol",
    ),
    _counter(
        rf"security\.refused{_REASON}",
        "serd_peers_refused",
        "unknown_key not_permitted peer_connections connections",
    ),
    _counter(r"security\.accept_failures", "serd_accept_failures"),
    _counter(rf"{_SOURCE}limited{_REASON}", "serd_source_limited"),
)

_UNLISTED: Final = "serd_unlisted"
_COMPILED: Final = [(re.compile(row.pattern), row) for row in ROWS]


class Found(NamedTuple):
    """The metric of one count."""

    metric: str
    kind: Kind
    labels: dict[str, str]
    scale: float


def find(name: str) -> Found:
    """The metric of a count; ``serd_unlisted`` where the table has none."""
    for pattern, row in _COMPILED:
        if match := pattern.fullmatch(name):
            return Found(row.metric, row.kind, {**dict(row.fixed), **match.groupdict()}, row.scale)
    return Found(_UNLISTED, "gauge", {"name": name}, 1)


def _labels(metric: str) -> tuple[str, ...]:
    names = {
        label
        for pattern, row in _COMPILED
        if row.metric == metric
        for label in (*dict(row.fixed), *pattern.groupindex)
    }
    return tuple(sorted(names))


KINDS: Final[dict[str, Kind]] = {**{row.metric: row.kind for row in ROWS}, _UNLISTED: "gauge"}
"""Every metric of the table with its type."""

LABELS: Final = {**{row.metric: _labels(row.metric) for row in ROWS}, _UNLISTED: ("name",)}
"""Every metric of the table with the names of its labels, sorted."""
