"""JUnit XML: valid by the schema that CI systems keep to, and one case per address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import junitparser
import pytest
from lxml import etree

from btp_reconcile.views import junit
from tests.views.plans import HOSTILE, change, every_action, field, hostile, plan

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).parent / "junit-10.xsd"))
"""`junit-10.xsd` of Jenkins' xUnit plugin, under the MIT licence that stands in it."""


def read(text: str) -> junitparser.JUnitXml:
    """Valid XML, as another program reads it."""
    SCHEMA.assertValid(etree.fromstring(text.encode()))
    found = junitparser.JUnitXml.fromstring(text.encode())
    assert isinstance(found, junitparser.JUnitXml)
    return found


def results(data: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Name → (kind of result, message); a case that passed has neither."""
    found = {}
    for suite in read(junit.text(data)):
        for case in suite:
            kinds = [(type(one).__name__.lower(), str(one.message)) for one in case.result]
            assert len(kinds) <= 1
            found[case.name] = kinds[0] if kinds else ("", "")
    return found


def test_each_address_is_a_case_with_what_a_reader_must_know() -> None:
    assert results(every_action()) == {
        "entitlement:prod/apimanagement-apiportal/apiportal-apiaccess": ("", ""),
        "instance:prod/apim": ("failure", "differs: parameters.role; that cannot be changed in place"),
        "key:prod/apim/transport": ("failure", "not there yet"),
        "key:prod/apim/old": ("failure", "no spec names it any more"),
        "key:prod/apim/pipeline": ("", ""),
        "delivery:prod/apim/transport/store": ("failure", "not there yet"),
        "destination:prod/APIManagement": ("failure", "not there yet"),
        "key:prod/apim/gone id-of-gone": (
            "skipped",
            "gone: made by spec prod as gone, no spec names it any more",
        ),
        "entitlement:test/afc-api-service/standard": ("failure", "not assigned yet"),
        "instance:test/afc": ("skipped", "somebody must subscribe Advanced Financial Closing first"),
        "key:test/afc/task-center": ("skipped", "not there yet"),
        "destination:test/APIManagement": ("failure", "not there yet"),
        "key:test/x/y": ("skipped", "it needs instance:test/x"),
    }


def test_suites_and_their_sums_agree_with_the_cases() -> None:
    read_back = read(junit.text(every_action()))

    sums = [(one.name, one.tests, one.failures, one.errors, one.skipped) for one in read_back]
    assert sums == [("prod", 8, 5, 0, 1), ("test", 5, 2, 0, 3)]
    assert (read_back.tests, read_back.failures, read_back.errors) == (13, 7, 0)


def test_a_case_says_each_field_and_its_place() -> None:
    one = change(
        "instance:prod/apim",
        "update",
        reason="differs",
        source="specs/prod.yaml:31:7",
        notes=["a note"],
        fields=[
            field("tags", ["a"], ["b"]),
            field("plan", "x", "x", changes=False),
            field("parameters.role", "A", "B", seen="assumed"),
        ],
    )
    (suite,) = read(junit.text(plan(one)))
    (case,) = suite

    assert case.classname == "prod.instance"
    assert (
        case.result[0].text
        == "differs\ntags: [a] → [b]\nparameters.role: A → B (assumed)\nnote: a note\nat: specs/prod.yaml:31:7"
    )


def test_what_could_not_be_seen_is_an_error_per_service_and_per_address() -> None:
    where = [{"subaccount": "test", "service": "cloud_foundry"}]
    unseen = {"code": "platform/unseen", "message": "Cloud Foundry did not answer", "where": where}
    lost = {
        "address": "key:test/x/y",
        "reason": "it needs instance:test/x",
        "sync": "unknown",
        "health": "blocked",
        "name": "y",
    }

    assert results(plan(unseen=[unseen], unplanned=[lost])) == {
        "key:test/x/y": ("error", "it needs instance:test/x"),
        "subaccount:test cloud_foundry": ("error", "Cloud Foundry did not answer"),
    }


def test_a_conflict_fails_with_its_message_and_what_to_do() -> None:
    objection = {
        "code": "conflict/exists",
        "message": "exists already",
        "hint": "adopt: true takes it over",
        "address": "instance:prod/apim",
    }
    lost = {
        "address": "instance:prod/apim",
        "reason": "exists already",
        "sync": "conflicting",
        "health": "blocked",
        "name": "apim",
    }
    data = plan(objections=[objection], unplanned=[lost])

    assert results(data) == {"instance:prod/apim": ("failure", "exists already")}
    assert "adopt: true takes it over" in junit.text(data)


def test_what_stands_against_it_and_has_no_address_of_its_own_fails_too() -> None:
    objection = {"code": "subaccount/unknown", "message": "there is none", "source": "specs/prod.yaml:3:3"}

    assert results(plan(objections=[objection])) == {
        "subaccount/unknown specs/prod.yaml:3:3": ("failure", "there is none")
    }


def test_known_drift_is_skipped() -> None:
    one = change("instance:prod/apim", "update", reason="differs: tags", accepted=True)

    assert results(plan(one)) == {"instance:prod/apim": ("skipped", "known and accepted: differs: tags")}


def test_specs_that_are_wrong_are_errors() -> None:
    text = junit.problems(
        [
            {
                "code": "spec/unknown-field",
                "message": "no field colour",
                "source": "x.yaml:3:1",
                "hint": "color",
            }
        ]
    )
    (suite,) = read(text)
    (case,) = suite

    assert (case.name, case.result[0].message) == ("spec/unknown-field x.yaml:3:1", "no field colour")


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_what_others_chose_cannot_break_out(text: str) -> None:
    whole = junit.text(hostile(text))

    read(whole)
    assert all(line.isprintable() for line in whole.splitlines())
