"""Dashboard and alert rules, against what a real daemon tells after real audio."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from serd.runtime import catalogue
from tests.daemon import running_daemon
from tests.deploy.promql import Use, uses
from tests.speech import demo_speech
from tests.taps import Collector, Push, blocks

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "serd.rules.yml"
DASHBOARD = DEPLOY / "grafana" / "serd.json"

# Given to every series by Prometheus itself.
TARGET_LABELS = {"instance", "job"}
OF_COUNTERS = {"rate", "irate", "increase", "resets"}
OF_GAUGES = {"changes", "delta", "deriv", "predict_linear", "avg_over_time", "max_over_time"}


class Known(NamedTuple):
    """Type and labels of a series."""

    kind: str
    labels: set[str]


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> list[Metric]:
    with running_daemon(tmp_path_factory.mktemp("monitoring")) as daemon:
        collector, push = Collector(daemon.events), Push(daemon.tap)
        push.send(blocks("call-17", demo_speech(8000), 8000, 20))
        push.send([[b"call-17", b"no header", b""]])
        collector.wait_closed(["call-17"])
        # What comes behind it has been seen as well once this is closed.
        push.send(blocks("call-18", demo_speech(8000)[:8000], 8000, 20))
        collector.wait_closed(["call-18"])
        with urllib.request.urlopen(f"{daemon.http}/metrics", timeout=20) as answer:
            text = answer.read().decode()
        push.close()
        collector.close()
    assert "call-1" not in text
    return list(text_string_to_metric_families(text))


@pytest.fixture(scope="module")
def known(families: list[Metric]) -> dict[str, Known]:
    found = {"up": Known("gauge", set())}
    for family in families:
        if family.type == "histogram":
            labels = {name for sample in family.samples for name in sample.labels}
            found[f"{family.name}_bucket"] = Known("counter", labels)
            for suffix in ("_sum", "_count"):
                found[family.name + suffix] = Known("counter", labels - {"le"})
            continue
        suffix = "_total" if family.type == "counter" else ""
        labels = {name for sample in family.samples for name in sample.labels}
        if not family.samples:
            labels = set(catalogue.LABELS[family.name])
        found[family.name + suffix] = Known(family.type, labels)
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if "targets" in panel]


EXPRESSIONS = [
    *((f"alert {rule['alert']}", rule["expr"]) for rule in rules()),
    *(
        (f"panel {panel['title']}", target["expr"])
        for panel in panels()
        for target in panel["targets"]
    ),
]


def problems(use: Use, known: dict[str, Known]) -> list[str]:
    """What is wrong with how a metric is used."""
    series = known.get(use.metric)
    if series is None:
        return [f"there is no {use.metric}"]
    found = [
        f"{use.metric} has no label {label}"
        for label in sorted(use.labels - series.labels - TARGET_LABELS)
    ]
    around = set(use.functions)
    if series.kind == "counter" and not around & OF_COUNTERS:
        found.append(f"{use.metric} is a counter: only its rate or increase says anything")
    if series.kind == "gauge" and around & OF_COUNTERS:
        found.append(f"{use.metric} is a gauge: it has no rate")
    if use.ranged != bool(around & (OF_COUNTERS | OF_GAUGES)):
        found.append(f"{use.metric}: a range goes with a function of ranges")
    if "histogram_quantile" in around and (
        not use.metric.endswith("_bucket") or "le" not in use.labels
    ):
        found.append(f"{use.metric}: quantiles come from buckets, by le")
    return found


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_expressions_ask_for_what_is_there(
    where: str, expression: str, known: dict[str, Known]
) -> None:
    asked = uses(expression)
    assert asked, where
    assert not [problem for use in asked for problem in problems(use, known)]


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("serd_nothing", "there is no"),
        ("serd_tap_messages_total", "is a counter"),
        ("rate(serd_streams[5m])", "is a gauge"),
        ('serd_queue_depth{stream="x"}', "no label stream"),
        ("sum by (reason) (rate(serd_tap_messages_total[5m]))", "no label reason"),
        ("histogram_quantile(0.5, rate(serd_batch_size_segments_sum[5m]))", "from buckets"),
    ],
)
def test_mistakes_in_expressions_are_found(
    expression: str, complaint: str, known: dict[str, Known]
) -> None:
    found = [problem for use in uses(expression) for problem in problems(use, known)]
    assert any(complaint in problem for problem in found)


def test_every_count_of_a_daemon_has_its_metric(families: list[Metric]) -> None:
    unlisted = [
        sample.labels["name"]
        for family in families
        if family.name == "serd_unlisted"
        for sample in family.samples
    ]
    assert not unlisted, "rows are missing in serd.runtime.catalogue"


def test_the_catalogue_describes_what_is_told(families: list[Metric]) -> None:
    told = {family.name: family for family in families}
    for metric, kind in catalogue.KINDS.items():
        if metric == "serd_unlisted":
            continue
        assert told[metric].type == kind
        for sample in told[metric].samples:
            assert sorted(sample.labels) == list(catalogue.LABELS[metric])


def test_audio_shows(families: list[Metric]) -> None:
    values = {
        (sample.name, sample.labels.get("reason") or sample.labels.get("part")): sample.value
        for family in families
        for sample in family.samples
    }
    assert values["serd_streams_opened_total", None] == 2
    assert values["serd_segments_scored_total", None] > 4
    assert values["serd_tap_messages_malformed_total", "header_length"] == 1
    for part in ("wait", "inference", "total"):
        count = values["serd_segment_latency_seconds_count", part]
        assert count == values["serd_segments_scored_total", None]
    assert (
        values["serd_batch_size_segments_sum", None] == values["serd_segments_scored_total", None]
    )
    assert values["serd_batch_size_segments_count", None] == values["serd_batches_total", None]


def test_every_alert_says_how_urgent_it_is_what_it_means_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert re.fullmatch(r"Serd[A-Za-z]+", rule["alert"])
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(rule["annotations"]) == {"summary", "description", "action"}
        asked = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        # An aggregation keeps what its list names, and nothing else.
        for by in re.findall(r"sum by \(([^)]*)\)", rule["expr"]):
            assert asked <= {name.strip() for name in by.split(",")}, rule["alert"]


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    config = tmp_path / "prometheus.yml"
    config.write_text(
        f"rule_files: [{RULES}]\n{(DEPLOY / 'prometheus' / 'scrape.yml').read_text()}"
    )
    checked = subprocess.run(
        ["promtool", "check", "config", str(config)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
