"""The daemon's counts as Prometheus metrics."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serd.runtime import catalogue
from serd.runtime.histogram import LatencyRecorder, of_sizes
from serd.runtime.metrics import Exposition, Observation, Queue
from serd.runtime.process import ThreadTimes


def observation(**changes: object) -> Observation:
    given: dict[str, object] = {
        "state": "ready",
        "name": "serd",
        "version": "1.2",
        "run_id": "r",
        "started_unix_s": 1.7e9,
        "uptime_s": 12.5,
        "max_streams": 10,
        "latencies": LatencyRecorder().histograms(),
        "batches": of_sizes([0, 2, 1]),
    }
    return Observation(**{**given, **changes})  # type: ignore[arg-type]  # checked by the fields


def scraped(seen: Observation) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = Exposition(lambda: seen).render().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("count", "metric", "labels", "value"),
    [
        ("intake.malformed.bad_magic", "serd_tap_messages_malformed_total",
         {"reason": "bad_magic"}, 7),
        ("intake.late", "serd_tap_messages_ignored_total", {"reason": "late"}, 7),
        ("intake.lost.samples", "serd_audio_dropped_samples_total",
         {"reason": "lost", "stage": "ingest"}, 7),
        ("intake.paused.samples", "serd_audio_skipped_samples_total", {"reason": "paused"}, 7),
        ("source.a.b-1.received", "serd_source_messages_received_total", {"source": "a.b-1"}, 7),
        ("inference.segments_dropped_overload", "serd_segments_dropped_total",
         {"reason": "overload"}, 7),
        ("vad.compute_ns", "serd_vad_compute_seconds_total", {}, 7e-9),
        ("something.new", "serd_unlisted", {"name": "something.new"}, 7),
    ],
)  # fmt: skip
def test_a_count_becomes_its_metric(
    count: str, metric: str, labels: dict[str, str], value: float
) -> None:
    found = scraped(observation(counts={count: 7}))
    assert found[metric, tuple(sorted(labels.items()))] == pytest.approx(value)


def test_two_counts_of_one_metric_are_told_apart_by_their_labels() -> None:
    found = scraped(observation(counts={"overload.samples": 1, "intake.overload.samples": 2}))
    metric = "serd_audio_dropped_samples_total"
    assert found[metric, (("reason", "overload"), ("stage", "speech"))] == 1
    assert found[metric, (("reason", "overload"), ("stage", "ingest"))] == 2


def test_counters_are_there_before_they_count() -> None:
    found = scraped(observation())
    assert found["serd_tap_messages_total", ()] == 0
    assert found["serd_segments_dropped_total", (("reason", "model_error"),)] == 0
    # A gauge that is not known is not zero.
    assert ("serd_journal_ok", ()) not in found


def test_queues_histograms_state_and_stages() -> None:
    queues = (Queue("events", 3, 10, 1), Queue("inference", capacity=256))
    found = scraped(
        observation(queues=queues, ages={"speech": 1.5}, stuck=("speech",), state="draining")
    )
    events = (("queue", "events"),)
    assert found["serd_queue_depth", events] == 3
    assert found["serd_queue_capacity", events] == 10
    assert found["serd_queue_dropped_total", events] == 1
    assert found["serd_queue_capacity", (("queue", "inference"),)] == 256
    assert found["serd_stage_pulse_age_seconds", (("stage", "speech"),)] == 1.5
    assert found["serd_stages_stuck", ()] == 1
    assert found["serd_state", (("state", "draining"),)] == 1
    assert found["serd_state", (("state", "ready"),)] == 0
    assert found["serd_batch_size_segments_bucket", (("le", "1.0"),)] == 2
    assert found["serd_batch_size_segments_count", ()] == 3
    assert found["process_open_fds", ()] > 0


def test_names_and_help_texts_are_as_prometheus_wants_them() -> None:
    assert set(catalogue.HELP) == set(catalogue.KINDS)
    for metric, text in catalogue.HELP.items():
        assert re.fullmatch(r"serd_[a-z]+(_[a-z]+)*", metric)
        assert not metric.endswith("_total")
        assert text.endswith(".")
        assert not set(catalogue.LABELS[metric]) & {"stream", "call_id", "topic", "peer", "address"}


def test_rows_agree_with_each_other() -> None:
    kinds: dict[str, set[str]] = {}
    for row in catalogue.ROWS:
        kinds.setdefault(row.metric, set()).add(row.kind)
        groups = set(re.compile(row.pattern).groupindex)
        labels = groups | set(dict(row.fixed))
        assert labels == set(catalogue.LABELS[row.metric]), row.pattern
        assert not row.known or len(groups) == 1, row.pattern
    assert all(len(of_metric) == 1 for of_metric in kinds.values())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_complain_about() -> None:
    counts = {"intake.malformed.bad_magic": 1, "source.zmq-0.up": 1, "journal.ok": 1}
    text = Exposition(lambda: observation(counts=counts)).render()
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert checked.returncode == 0, (checked.stdout + checked.stderr).decode()


class TestThreadTimes:
    def _task(self, folder: Path, thread: int, name: str, ticks: int) -> None:
        (folder / str(thread)).mkdir(exist_ok=True)
        fields = ["S", *["0"] * 10, str(ticks), "0", *["0"] * 8]
        (folder / str(thread) / "stat").write_text(f"{thread} ({name}) {' '.join(fields)}")

    def test_threads_of_a_stage_add_up_and_ended_ones_stay(self, tmp_path: Path) -> None:
        self._task(tmp_path, 1, "serd-inference", 100)
        self._task(tmp_path, 2, "serd-inference", 50)
        self._task(tmp_path, 3, "a (strange) name", 10)
        times = ThreadTimes(tmp_path)
        assert times.seconds() == {"inference": 1.5, "other": 0.1}
        (tmp_path / "2" / "stat").unlink()
        self._task(tmp_path, 1, "serd-inference", 130)
        assert times.seconds() == {"inference": 1.8, "other": 0.1}

    def test_a_thread_that_gets_its_name_takes_nothing_from_the_others(
        self, tmp_path: Path
    ) -> None:
        self._task(tmp_path, 1, "python", 10)
        times = ThreadTimes(tmp_path)
        assert times.seconds() == {"other": 0.1}
        self._task(tmp_path, 1, "serd-speech", 20)
        assert times.seconds() == {"other": 0.1, "speech": 0.2}
