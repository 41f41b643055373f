"""Access by bootstrap: the run makes what opens the services it needs, shows it in the plan, and knows it again."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from btp_reconcile.core.errors import SpecError
from btp_reconcile.core.model import Action
from tests.worlds import Bench

if TYPE_CHECKING:
    from pathlib import Path

SPEC = """\
version: 1
owner: finance
name: boot
access:
  central: {service_key: "${env:A}"}
  cloud_foundry: {username: u, password: "${env:C}"}
ACCESS
defaults: {runtime: cloudfoundry}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    cloud_foundry: {org: finance-prod, space: apis}
    instances:
      apim:
        api: api-management
        parameters: {role: APIPortal.Administrator}
        keys: {transport: {}}
INSTANCES
    destinations:
      APIManagement: {recipe: api-management-transport, key: apim/transport}
"""
BOTH = "  service_manager: {bootstrap: true}\n  destination: {bootstrap: true}\n"
ACCOUNTS = "accounts-service."


def spec(access: str = BOTH, instances: str = "") -> str:
    return SPEC.replace("ACCESS\n", access).replace("INSTANCES\n", instances)


def begun(folder: Path, text: str) -> tuple[Bench, str]:
    bench = Bench(folder)
    return bench, bench.write(text)


def asked_of_accounts(bench: Bench) -> list[tuple[str, str]]:
    return [
        (method, path.rpartition("/")[2])
        for method, host, path in bench.requests()
        if host.startswith(ACCOUNTS) and "serviceManagerBindings" in path
    ]


def test_a_plan_only_looks_for_the_binding_and_says_that_it_would_be_made(tmp_path: Path) -> None:
    bench, path = begun(tmp_path, spec())
    bench.requests()
    planned = bench.plan(path).plan

    assert asked_of_accounts(bench) == [("GET", "btp-reconcile-finance")]
    found = {str(one.address): (one.action, one.reason) for one in planned.changes}
    assert found["access:prod/service_manager"] == (
        Action.CREATE,
        "create access binding btp-reconcile-finance",
    )
    assert [one.code for one in planned.unseen] == ["access/later", "access/later"]


def test_one_run_makes_the_access_and_everything_behind_it(tmp_path: Path) -> None:
    bench, path = begun(tmp_path, spec())
    reports = bench.apply(path)

    made = [str(one.step.id) for report in reports for one in report.outcomes if one.step.verb == "create"]
    assert made[0] == "create access:prod/service_manager#1"
    assert made[-3:] == [
        "create instance:prod/btp-reconcile-access#1",
        "create key:prod/btp-reconcile-access/destination#1",
        "create destination:prod/APIManagement#1",
    ]
    bench.requests()
    assert bench.plan(path).plan.quiet
    assert asked_of_accounts(bench) == [("GET", "btp-reconcile-finance")]


def test_without_the_service_manager_the_key_is_made_in_cloud_foundry(tmp_path: Path) -> None:
    bench, path = begun(tmp_path, spec("  destination: {bootstrap: true}\n"))
    bench.apply(path)

    planned = bench.plan(path)
    (instance,) = (one for one in planned.facts.of("instance") if one.name == "btp-reconcile-access")
    assert instance.runtime == "cloudfoundry"
    assert planned.plan.quiet


def test_the_binding_is_taken_away_when_it_is_to_be_absent(tmp_path: Path) -> None:
    foundry = spec("  service_manager: {bootstrap: true}\n").partition("    destinations:")[0]
    bench, path = begun(tmp_path, foundry)
    bench.apply(path)
    assert bench.sandbox.snapshot()["service_manager_bindings"] == {"prod": ["btp-reconcile-finance"]}

    bench.write(foundry.replace("{bootstrap: true}", "{bootstrap: true, ensure: absent}"))
    planned = bench.plan(path).plan
    assert [str(one.address) for one in planned.changes if one.acts] == ["access:prod/service_manager"]
    bench.apply(path)
    assert bench.sandbox.snapshot()["service_manager_bindings"] == {}
    assert bench.plan(path).plan.quiet


def test_the_last_destination_is_pruned_through_the_access_that_stays_for_it(tmp_path: Path) -> None:
    bench, path = begun(tmp_path, spec())
    bench.apply(path)
    none = spec().partition("    destinations:")[0] + "    destinations: {}\n"
    bench.write(none)

    planned = bench.plan(path).plan
    assert [one.name for one in planned.unmanaged] == ["APIManagement"]
    bench.apply(path, prune=True)
    assert bench.sandbox.snapshot()["destinations"] in ({}, {"prod": {}})
    assert bench.plan(path).plan.empty


@pytest.mark.parametrize("number", range(6, 60, 6))
def test_a_run_that_ends_anywhere_is_finished_by_the_next(tmp_path: Path, number: int) -> None:
    bench, path = begun(tmp_path, spec())

    class GoneError(BaseException):
        """The process is no more."""

    start = bench.sandbox.count

    def end(count: int, _: object) -> None:
        if count > start + number:
            raise GoneError

    bench.sandbox.faults.cut(start + number, "after")
    bench.sandbox.on_request = end
    with suppress(GoneError):
        bench.apply(path)
    bench.sandbox.on_request = None
    bench.sandbox.faults.clear()
    bench.advance(1)
    for _ in range(2):
        bench.apply(path)

    assert bench.plan(path).plan.quiet
    snapshot = bench.sandbox.snapshot()
    assert snapshot["service_manager_bindings"] == {"prod": ["btp-reconcile-finance"]}
    assert len(snapshot["destinations"]["prod"]) == 1


@pytest.mark.parametrize(
    ("access", "instances", "said"),
    [
        (
            '  service_manager: {bootstrap: true, service_key: "${env:B}"}\n',
            "",
            "access.service_manager says both bootstrap and service_key",
        ),
        (
            "  destination: {bootstrap: true, key: apim/transport}\n",
            "",
            "access.destination says both bootstrap and key",
        ),
        (
            "  destination: {bootstrap: true}\n",
            "      btp-reconcile-access: {api: afc}\n",
            "the instance name btp-reconcile-access is taken by bootstrap",
        ),
    ],
)
def test_what_contradicts_itself_is_said(tmp_path: Path, access: str, instances: str, said: str) -> None:
    bench, path = begun(tmp_path, spec(access, instances))
    with pytest.raises(SpecError) as refused:
        bench.plan(path)

    assert said in [one.message for one in refused.value.problems]
