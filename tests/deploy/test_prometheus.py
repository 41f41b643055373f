"""deploy/prometheus: rules and a dashboard over what `drift --metrics` really writes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from btp_reconcile.core.states import Health, Sync
from btp_reconcile.views.metrics import HELP
from tests.deploy.files import DEPLOY, documents, passes, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Desk

PROMETHEUS = DEPLOY / "prometheus"
RULES = PROMETHEUS / "rules.yaml"
DASHBOARD = json.loads((PROMETHEUS / "dashboard.json").read_text(encoding="utf-8"))
METRIC = re.compile(r"(?<![a-z_:])reconcile_[a-z_]+")
"""What a check writes; a name with a colon is recorded by a rule."""


def rules() -> list[dict[str, Any]]:
    return [one for group in documents(RULES)[0]["groups"] for one in group["rules"]]


def expressions() -> list[str]:
    """What the dashboard asks, its variables filled in."""
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [one.replace("$run", "prod").replace("$subaccount", ".*") for one in asked]


@pytest.mark.promtool
def test_promtool_accepts_the_rules_and_their_tests_pass() -> None:
    passes(program("promtool"), "check", "rules", str(RULES))
    passes(program("promtool"), "test", "rules", "rules_test.yaml", cwd=PROMETHEUS)


@pytest.mark.promtool
def test_promtool_accepts_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    asked = [
        {"record": "dashboard:panel:expr", "expr": one, "labels": {"number": str(number)}}
        for number, one in enumerate(expressions())
    ]
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": asked}]}), encoding="utf-8"
    )
    passes(program("promtool"), "check", "rules", str(tmp_path / "rules.yaml"))


def test_every_alert_is_tested() -> None:
    alerts = {one["alert"] for one in rules() if "alert" in one}
    tests = documents(PROMETHEUS / "rules_test.yaml")[0]["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one.get("exp_alerts")}
    quiet = {
        one["alertname"] for test in tests for one in test["alert_rule_test"] if not one.get("exp_alerts")
    }
    assert (alerts - fired, alerts - quiet, fired | quiet) == (set(), set(), alerts)


def test_rules_and_dashboard_ask_for_metrics_that_there_are() -> None:
    text = " ".join(
        [
            *(one["expr"] for one in rules()),
            *expressions(),
            RULES.parent.joinpath("rules_test.yaml").read_text(),
        ]
    )
    asked = set(METRIC.findall(text))
    assert asked <= set(HELP)
    assert set(HELP) - asked == set()


def test_states_are_written_as_the_metrics_write_them() -> None:
    text = RULES.read_text(encoding="utf-8") + json.dumps(DASHBOARD).replace('\\"', '"')
    syncs = set(re.findall(r'\bsync=~?"([a-z|-]+)"', text))
    healths = {word for found in re.findall(r'\bhealth=~?"([a-z|-]+)"', text) for word in found.split("|")}
    assert syncs == {str(Sync.IN_SYNC)}
    assert healths == {str(Health.FAILED), str(Health.BLOCKED)}


@pytest.mark.promtool
def test_what_a_real_check_writes_has_the_labels_that_are_asked_for(in_sync: Desk) -> None:
    assert in_sync.run("drift", "--sandbox", "--metrics", "prod.prom").code == 0
    written = (in_sync.folder / "prod.prom").read_text(encoding="utf-8")
    labels: dict[str, set[str]] = {}
    for name, found in re.findall(r"^(reconcile_[a-z_]+)\{(.*)\} ", written, re.MULTILINE):
        labels.setdefault(name, set()).update(re.findall(r'([a-z_]+)="', found))
    assert labels["reconcile_drifted"] == {"run", "subaccount", "kind"}
    assert labels["reconcile_resources"] == {"run", "subaccount", "kind", "sync"}
    assert labels["reconcile_health"] == {"run", "subaccount", "kind", "health"}
    assert labels["reconcile_last_run_timestamp_seconds"] == {"run"}
    assert labels["reconcile_last_run_exit_code"] == {"run"}
    assert labels["reconcile_key_created_seconds"] == {"run", "address", "generation"}
    assert 'run="prod"' in written


def test_the_dashboard_is_one_that_grafana_can_lay_out() -> None:
    panels = DASHBOARD["panels"]
    assert len({one["id"] for one in panels}) == len(panels)
    assert len({one["title"] for one in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for one in panels:
        at = one["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24, one["title"]
        assert not cells & taken, one["title"]
        taken |= cells
        assert all(target["datasource"]["uid"] == "${datasource}" for target in one["targets"])
    variables = {one["name"] for one in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "run", "subaccount"}
    used = set(re.findall(r"\$\{?([a-z]+)", json.dumps([panel["targets"] for panel in panels])))
    assert used <= variables
