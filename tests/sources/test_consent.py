"""Who is heard: roles, consent, mixed channels, and what taps say too late or wrongly."""

from __future__ import annotations

import numpy as np
import pytest

from serd.protocol.tap import Flag
from serd.rows import Close, Filled, Open
from serd.sources.intake import IntakeOptions
from serd.sources.policy import Policy, Standing
from serd.types import Role
from tests.sources.intake_bench import Bench, FakeSource, Tap, ramp


def bench(**policy: object) -> Bench:
    return Bench(options=IntakeOptions(policy=Policy(**policy)))  # type: ignore[arg-type]


def refusals(bench: Bench) -> list[tuple[str, str]]:
    return [(stream, reason) for stream, _, reason in bench.refused]


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"roles": ["agent"]}, "role_agent"),
        ({"roles": ["mixed"]}, "role_mixed"),
        ({"roles": ["customer", "agent"]}, "role_mixed"),
        ({"roles": ["Agent"]}, "role_invalid"),
        ({"roles": ["agnet"]}, "role_invalid"),
        ({"roles": [None]}, "role_invalid"),
        ({"roles": []}, "metadata_invalid"),
        ({"roles": "agent"}, "metadata_invalid"),
        ({"roles": ["customer"], "consent": "no"}, "metadata_invalid"),
        ({"consent": False}, "consent_withdrawn"),
    ],
)
def test_no_sample_of_a_refused_stream_reaches_a_row(
    metadata: dict[str, object], reason: str
) -> None:
    made, tap = bench(), Tap()
    made.send(*tap.metadata(Flag.START, **metadata))
    made.send(*tap.audio(ramp(100)))
    made.send(*tap.audio(ramp(100), flags=Flag.END))
    made.read()
    assert refusals(made) == [("call", reason)]
    assert made.table.counts[f"refused.{reason}"] == 1
    assert made.audio == {}
    assert all(not pool.ring.written.any() for pool in made.pools.values())


@pytest.mark.parametrize("metadata", [{"roles": ["customer"]}, {"consent": True}, {}])
def test_others_are_heard(metadata: dict[str, object]) -> None:
    made, tap = bench(), Tap()
    made.send(*tap.metadata(Flag.START, **metadata))
    made.send(*tap.audio(ramp(100)))
    assert np.array_equal(made.heard("call"), ramp(100))
    assert made.refused == []


def test_a_misspelt_role_refuses_its_channel_alone() -> None:
    made, tap = bench(), Tap(channels=2)
    made.send(*tap.metadata(Flag.START, roles=["customer", "agnet"]))
    made.send(*tap.audio(ramp(200)))
    made.read()
    assert refusals(made) == [("call/1", "role_invalid")]
    assert list(made.audio) == ["call/0"]


@pytest.mark.parametrize("payload", [b"", b"{", b'{"call_id":1}', b"\xff"])
def test_metadata_that_cannot_be_read_ends_the_stream_and_is_counted_once(payload: bytes) -> None:
    made, tap = bench(), Tap()
    made.send(*tap.audio(ramp(100)))
    stream, header, _ = tap.metadata(roles=["agent"])
    made.send(stream, header, payload)
    made.send(*tap.audio(ramp(100, 100)))
    made.send(*tap.metadata(roles=["customer"]))
    made.send(*tap.audio(ramp(100, 200)))
    assert np.array_equal(made.heard("call"), ramp(100))
    close = made.controls[-1][1]
    assert isinstance(close, Close)
    assert (close.reason, close.refused) == ("metadata_invalid", True)
    malformed = [n for name, n in made.table.counts.items() if name.startswith("malformed.")]
    assert malformed == [1]
    assert "lost.messages" not in made.table.counts


def test_metadata_with_an_encoding_is_not_taken_for_audio() -> None:
    made, tap = bench(), Tap()
    stream, header, payload = tap.metadata(Flag.START, roles=["agent"])
    made.send(stream, header[:4] + b"\2" + header[5:], payload)
    made.send(*tap.audio(ramp(100)))
    made.read()
    assert refusals(made) == [("call", "metadata_invalid")]
    assert made.audio == {}


def test_consent_that_is_required_and_given_in_the_call_opens_the_stream_there() -> None:
    made, tap = bench(require_consent=True), Tap()
    made.send(*tap.audio(ramp(100)))
    made.send(*tap.metadata(consent=True))
    made.send(*tap.audio(ramp(100, 100)))
    assert refusals(made) == [("call", "consent_missing")]
    assert np.array_equal(made.heard("call"), ramp(100, 100))
    opened = made.controls[0][1]
    assert isinstance(opened, Open)
    assert opened.timeline.source_index(opened.at) == 100


def test_consent_that_is_withdrawn_ends_the_stream_where_that_was_said() -> None:
    made, tap = bench(require_consent=True), Tap()
    made.send(*tap.metadata(Flag.START, consent=True))
    made.send(*tap.audio(ramp(100)))
    made.send(*tap.metadata(consent=False))
    made.send(*tap.audio(ramp(100, 100)))
    assert np.array_equal(made.heard("call"), ramp(100))
    assert made.kinds("call") == ["Open", "Close"]
    assert made.table.counts["refused.consent_withdrawn"] == 1


def test_the_operator_may_answer_for_a_source() -> None:
    made = bench(require_consent=True, consenting_sources=frozenset({"tap"}))
    made.send(*Tap().audio(ramp(10)))
    other = FakeSource(name="other")
    made.table.message(other, Tap("second").audio(ramp(10)), (), 0)
    made.read()
    assert list(made.audio) == ["call"]
    assert refusals(made) == [("second", "consent_missing")]


def test_mixed_streams_are_allowed_by_name_and_agents_are_not() -> None:
    made = bench(allow_mixed=("hotline-",))
    for stream, role in [("hotline-1", "mixed"), ("sales-1", "mixed"), ("hotline-2", "agent")]:
        tap = Tap(stream)
        made.send(*tap.metadata(Flag.START, roles=[role]))
        made.send(*tap.audio(ramp(10)))
    made.read()
    assert list(made.audio) == ["hotline-1"]
    assert refusals(made) == [("sales-1", "role_mixed"), ("hotline-2", "role_agent")]


def test_two_roles_of_a_source_make_a_tap_of_one_channel_mixed() -> None:
    made = bench()
    made.send(*Tap().audio(ramp(10)), roles=(Role.CUSTOMER, Role.AGENT))
    assert refusals(made) == [("call", "role_mixed")]


def test_a_role_that_is_put_right_opens_the_stream() -> None:
    made, tap = bench(), Tap()
    made.send(*tap.metadata(Flag.START, roles=["agnet"]))
    made.send(*tap.audio(ramp(100)))
    made.send(*tap.metadata(roles=["customer"]))
    made.send(*tap.audio(ramp(100, 100)))
    assert np.array_equal(made.heard("call"), ramp(100, 100))


def test_a_refusal_that_comes_too_late_holds_and_a_permission_does_not() -> None:
    made, tap = bench(), Tap()
    made.send(*tap.audio(ramp(100)))
    late = tap.metadata(roles=["agent"])
    for number in range(1, made.options.reorder_messages + 2):
        made.send(*tap.audio(ramp(100, number * 100)))
    made.send(*late)
    made.send(*tap.audio(ramp(100)))
    assert len(made.heard("call")) == 100 * (made.options.reorder_messages + 2)
    assert made.table.counts["refused.role_agent"] == 1

    made, tap = bench(require_consent=True), Tap()
    made.send(*tap.audio(ramp(100)))
    late = tap.metadata(consent=True)
    for _ in range(made.options.reorder_messages + 1):
        made.send(*tap.audio(ramp(100)))
    made.send(*late)
    made.send(*tap.audio(ramp(100)))
    made.read()
    assert made.audio == {}


def test_what_a_full_row_cost_is_told_before_a_late_refusal_ends_the_stream() -> None:
    made, tap = Bench(capacity=1024, source=FakeSource(lossless=False)), Tap()
    made.send(*tap.audio(ramp(1500)))
    late = tap.metadata(roles=["agent"])
    for _ in range(made.options.reorder_messages + 1):
        made.send(*tap.audio(ramp(100)))
    made.send(*late)
    for _ in range(4):
        made.read()
        made.table.flush_pending(0)
    assert made.kinds("call") == ["Open", "Filled", "Filled", "Close"]
    gaps = [control.gap for _, control in made.controls if isinstance(control, Filled)]
    assert [(gap.reason, gap.start, gap.end) for gap in gaps] == [
        ("lost", 1500, 1500),
        ("overload", 1500, 2400),
    ]


@pytest.mark.parametrize("role", ["agent", "agnet"])
@pytest.mark.parametrize("how", ["timeout", "sequence", "format"])
def test_a_refusal_outlasts_every_new_life_that_the_tap_did_not_announce(
    how: str, role: str
) -> None:
    made, tap = bench(), Tap()
    made.send(*tap.metadata(Flag.START, roles=[role]))
    made.send(*tap.audio(ramp(100)))
    if how == "timeout":
        made.clock.advance(31)
        made.table.sweep(made.clock.monotonic_ns())
    elif how == "sequence":
        tap.sequence += 1_000_000
    else:
        tap.rate = 16000
    for _ in range(20):
        made.send(*tap.audio(ramp(100)))
    made.read()
    assert made.audio == {}
    # A start is another matter: whoever announces a stream says who speaks on it.
    made.send(*tap.metadata(Flag.START, roles=["customer"]))
    made.send(*tap.audio(ramp(100)))
    made.send(*tap.audio(ramp(100)))
    assert len(made.heard("call")) == 200


def test_other_rules_hold_for_open_streams_too() -> None:
    made, tap = bench(), Tap()
    made.send(*tap.metadata(Flag.START, roles=["customer"]))
    made.send(*tap.audio(ramp(100)))
    made.table.adopt(Policy(require_consent=True))
    made.table.sweep(made.clock.monotonic_ns())
    made.send(*tap.audio(ramp(100)))
    assert np.array_equal(made.heard("call"), ramp(100))
    made.table.adopt(Policy())
    made.table.sweep(made.clock.monotonic_ns())
    made.send(*tap.audio(ramp(100, 200)))
    assert np.array_equal(made.heard("call"), np.concatenate([ramp(100), ramp(100, 200)]))


def test_the_opening_names_the_encoding_of_the_samples() -> None:
    made, tap = bench(), Tap()
    made.send(*tap.metadata(Flag.START, roles=["customer"], call_id="c-1"))
    assert made.table.streams == 0
    made.send(*tap.audio(ramp(100)))
    made.read()
    opened = made.controls[0][1]
    assert isinstance(opened, Open)
    assert (opened.info.encoding, opened.info.call_id) == ("s16le", "c-1")


def test_a_stream_without_a_sample_is_opened_and_closed_at_its_end() -> None:
    made, tap = bench(), Tap()
    made.send(*tap.metadata(Flag.START, roles=["customer"]))
    made.send(*tap.plain(Flag.END))
    assert made.kinds("call") == ["Open", "Close"]
    opened = made.controls[0][1]
    assert isinstance(opened, Open)
    assert opened.info.encoding == "none"


def test_what_is_lost_before_the_first_sample_is_told() -> None:
    made, tap = bench(), Tap()
    made.send(*tap.metadata(Flag.START, roles=["customer"]))
    tap.audio(ramp(200))
    for number in range(made.options.reorder_messages + 1):
        made.send(*tap.audio(ramp(100, 200 + number * 100)))
    kinds = made.kinds("call")
    assert kinds == ["Open", "Filled"]
    filled = made.controls[1][1]
    assert (filled.gap.reason, filled.gap.start, filled.gap.end, filled.gap.messages) == (  # type: ignore[union-attr]
        "lost",
        0,
        200,
        1,
    )
    assert len(made.heard("call")) == 200 + 100 * (made.options.reorder_messages + 1)


def test_no_role_is_heard_by_default_that_is_not_meant_to_be() -> None:
    made = bench()
    for role in Role:
        tap = Tap(f"call-{role}")
        made.send(*tap.metadata(Flag.START, roles=[role]))
        made.send(*tap.audio(ramp(10)))
    made.read()
    assert sorted(made.audio) == ["call-customer", "call-self", "call-unknown"]


def test_a_standing_without_word_of_consent_is_fine_unless_it_is_required() -> None:
    made, tap = bench(), Tap()
    made.send(*tap.audio(ramp(10)))
    made.read()
    info = made.controls[0][1].info  # type: ignore[union-attr]
    assert Policy().refuses(Standing(info)) is None
    assert Policy(require_consent=True).refuses(Standing(info)) == "consent_missing"
    assert Policy().refuses(Standing(info, consent=False)) == "consent_withdrawn"
