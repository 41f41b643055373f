"""The record of parameters last applied: what it tells, what it never holds, and when it is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from btp_reconcile.core import fingerprint
from btp_reconcile.core.fingerprint import Trust
from btp_reconcile.core.model import FieldChange, Operation, Secret, Seen

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
parameters = st.dictionaries(st.text(max_size=30), values, max_size=8)
NOTES = st.sampled_from(["", "at", "since", "near"])
KEY = Secret("env:FINGERPRINT_KEY", "a key of our own")


def written(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def noted(record: str, note: str) -> str:
    if note == "at":
        return fingerprint.sealed(record, "2026-01-01T00:00:00Z")
    if note == "since":
        return fingerprint.unsealed(record, "2026-01-01T00:00:00.123456Z")
    return fingerprint.near(record, 1_767_225_600.0) if note == "near" else record


@given(parameters, NOTES)
def test_a_record_fits_into_a_label_and_knows_its_parameters_again(wanted: dict[str, Any], note: str) -> None:
    record = noted(fingerprint.write(wanted), note)

    assert len(record) <= fingerprint.LIMIT
    assert record.isprintable()
    assert fingerprint.compare(record, wanted, None, {}) == ()


@given(parameters, NOTES, NOTES)
def test_the_note_on_the_time_can_be_changed_and_taken_off(
    wanted: dict[str, Any], one: str, two: str
) -> None:
    record = fingerprint.write(wanted)

    assert fingerprint.bare(noted(noted(record, one), two)) == record


@given(st.dictionaries(st.sampled_from(["at", "since", "near", "all", "-", ";", "=", ""]), values))
def test_no_name_of_a_parameter_is_taken_for_a_note(wanted: dict[str, Any]) -> None:
    record = fingerprint.read(fingerprint.write(wanted))

    assert (record.at, record.since, record.near) == ("", "", None)
    assert set(record.parts or ()) == set(wanted)


@given(parameters, parameters)
def test_only_what_differs_is_told(before: dict[str, Any], after: dict[str, Any]) -> None:
    record = fingerprint.write(before)
    told = {one.path for one in fingerprint.compare(record, after, None, {})}

    def same(name: str) -> bool:
        return (name in before) == (name in after) and written(before.get(name)) == written(after.get(name))

    names = {name for name in {*before, *after} if not same(name)}
    if fingerprint.read(record).parts is None:
        assert told == ({"parameters"} if names else set())
    else:
        assert told == {f"parameters.{name}" for name in names}


def test_a_record_is_no_longer_than_a_label_however_many_parameters() -> None:
    wanted = {f"parameter-{number}": number for number in range(50)}
    record = fingerprint.write(wanted)

    assert record == f"v1;all={record[7:23]};-"
    assert fingerprint.compare(record, {**wanted, "parameter-1": "other"}, None, {}) == (
        FieldChange("parameters", "(as last applied)", {**wanted, "parameter-1": "other"}, Seen.ASSUMED),
    )


def test_a_former_value_is_named_where_all_possible_ones_are_known() -> None:
    record = fingerprint.write({"role": "Guest"})

    (known,) = fingerprint.compare(record, {"role": "Admin"}, None, {"role": ["Admin", "Guest"]})
    (unknown,) = fingerprint.compare(record, {"role": "Admin"}, None, {})

    assert (known.before, known.after, known.seen) == ("Guest", "Admin", Seen.ASSUMED)
    assert unknown.before == "(another value)"


def test_a_parameter_that_comes_or_goes_has_no_value_on_the_other_side() -> None:
    record = fingerprint.write({"old": 1})

    assert [
        (one.path, one.before, one.after) for one in fingerprint.compare(record, {"new": 2}, None, {})
    ] == [
        ("parameters.new", None, 2),
        ("parameters.old", "(another value)", None),
    ]


# --- secrets --------------------------------------------------------------------------------------------


def password(value: str) -> dict[str, Any]:
    return {"nested": {"list": [Secret("env:PASSWORD", value)]}, "plain": 1}


def test_without_a_key_a_secret_leaves_no_trace() -> None:
    assert fingerprint.write(password("one")) == fingerprint.write(password("two"))


def test_without_a_key_a_secret_is_unknown_and_no_change() -> None:
    (said,) = fingerprint.compare(fingerprint.write(password("one")), password("two"), None, {})

    assert (said.path, said.seen, said.changes) == ("parameters.nested", Seen.UNKNOWN, False)


def test_with_a_key_a_changed_secret_is_seen() -> None:
    record = fingerprint.write(password("one"), KEY)

    assert fingerprint.compare(record, password("one"), KEY, {}) == ()
    assert [one.path for one in fingerprint.compare(record, password("two"), KEY, {})] == [
        "parameters.nested"
    ]


@pytest.mark.parametrize("long", [False, True], ids=["each parameter", "no room for each"])
@pytest.mark.parametrize(
    ("then", "now"),
    [(None, KEY), (KEY, None), (KEY, Secret("env:FINGERPRINT_KEY", "another key"))],
    ids=["added", "taken away", "changed"],
)
def test_a_key_that_came_or_went_is_no_change_of_what_it_hides(
    then: Secret | None, now: Secret | None, long: bool
) -> None:
    value = password("one") | ({f"parameter-{number}": 1 for number in range(40)} if long else {})
    record = fingerprint.write(value, then)

    (said,) = fingerprint.compare(record, value, now, {})

    assert len(record) <= fingerprint.LIMIT - len(";since=2026-01-01T00:00:00.123456Z")
    assert (said.seen, said.changes) == (Seen.UNKNOWN, False)


def test_what_is_not_secret_still_differs_when_a_key_is_added() -> None:
    told = fingerprint.compare(fingerprint.write(password("one")), {**password("one"), "plain": 2}, KEY, {})

    assert [(one.path, one.changes) for one in told] == [
        ("parameters.nested", False),
        ("parameters.plain", True),
    ]


def test_with_another_key_the_record_is_another() -> None:
    other = Secret("env:FINGERPRINT_KEY", "another key")

    assert fingerprint.write(password("one"), KEY) != fingerprint.write(password("one"), other)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=9, max_size=40))
def test_a_record_holds_no_value(value: str) -> None:
    for key in (None, KEY):
        assert value not in fingerprint.write({"password": Secret("env:P", value), "plain": value}, key)


# --- trust ----------------------------------------------------------------------------------------------

AT = "2026-01-01T00:00:00Z"
RECORD = fingerprint.write({"size": 1})
LATER = "changed by others since"


def update(at: str = AT, state: str = "succeeded") -> Operation:
    return Operation("update", state, at)


@pytest.mark.parametrize(
    ("record", "operation", "expected"),
    [
        ("", None, Trust(Seen.UNKNOWN, "no record of the parameters last applied")),
        ("something else", None, Trust(Seen.UNKNOWN, "no record of the parameters last applied")),
        (RECORD, None, Trust(Seen.ASSUMED)),
        (RECORD, Operation("create", "succeeded", AT), Trust(Seen.ASSUMED)),
        (RECORD, update(), Trust(Seen.UNKNOWN, LATER)),
        (noted(RECORD, "at"), update(), Trust(Seen.ASSUMED)),
        (noted(RECORD, "at"), update("2026-01-01T00:00:01Z"), Trust(Seen.UNKNOWN, LATER)),
        (noted(RECORD, "since"), update(), Trust(Seen.ASSUMED, cut_short=True)),
        (noted(RECORD, "near"), update("2026-01-01T00:01:00Z"), Trust(Seen.ASSUMED)),
        (noted(RECORD, "near"), update("2026-01-01T00:10:00Z"), Trust(Seen.UNKNOWN, LATER)),
        (noted(RECORD, "near"), update("no time"), Trust(Seen.UNKNOWN, LATER)),
        (noted(RECORD, "near"), update(state="failed"), Trust(Seen.ASSUMED, cut_short=True)),
        (RECORD, update(state="failed"), Trust(Seen.ASSUMED)),
        (RECORD, Operation("delete", "failed", AT), Trust(Seen.UNKNOWN, "a deletion was tried since")),
    ],
)
def test_when_a_record_is_believed(record: str, operation: Operation | None, expected: Trust) -> None:
    assert fingerprint.trust(record, operation) == expected


@given(st.text(max_size=80) | st.text(max_size=60).map(lambda tail: "v1;all=" + tail))
def test_reading_never_fails(text: str) -> None:
    fingerprint.read(text)
    fingerprint.bare(text)
    fingerprint.trust(text, update())
    fingerprint.compare(text, {"size": 1}, None, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T00:00:00Z", 1_767_225_600.0),
        ("2026-01-01T01:00:00+01:00", 1_767_225_600.0),
        ("2026-01-01T00:00:00.5Z", 1_767_225_600.5),
        ("2026-01-01T00:00:00.123456789z", 1_767_225_600.123456789),
        ("2026-01-01T00:00:00", None),
        ("2026-01-01", None),
        ("soon", None),
        ("", None),
    ],
)
def test_times_of_the_platform(text: str, expected: float | None) -> None:
    assert fingerprint.epoch(text) == expected
