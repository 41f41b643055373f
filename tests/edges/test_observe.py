"""Looking at the platform: one pass per endpoint, reads only, and what could not be seen is said."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile import pipeline
from btp_reconcile.cli.world import rehearse
from btp_reconcile.core import report
from btp_reconcile.core.errors import SpecError
from btp_reconcile.edges import observe
from btp_reconcile.edges.access import Platform
from btp_reconcile.edges.clock import Interrupted
from btp_reconcile.edges.observe import Threads
from btp_reconcile.kinds import KINDS
from tests.worlds import Bench

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from btp_reconcile.core.model import Facts, Wanted

SPEC = """\
version: 1
owner: finance
name: spec
access:
  central: {service_key: "${env:A}"}
  cloud_foundry: {username: u, password: "${env:B}"}
defaults: {runtime: cloudfoundry}
subaccounts:
  one:
    id: 11111111-1111-4111-8111-111111111111
    region: eu10
    cloud_foundry: {org: one, space: apis}
    instances: {config: {service: sandbox-config, plan: standard, keys: {k: {}}}}
  two:
    id: 22222222-2222-4222-8222-222222222222
    region: eu10
    cloud_foundry: {org: two, space: apis, landscape: eu10-004}
    instances: {config: {service: sandbox-config, plan: standard, keys: {k: {}}}}
  three:
    id: 33333333-3333-4333-8333-333333333333
    region: eu10
    instances: {config: {service: sandbox-config, plan: standard, runtime: other, keys: {k: {}}}}
"""


class Poor(Bench):
    """A bench for people who lack credentials for these services."""

    lacking: frozenset[str] = frozenset()

    def access(self, wanted: Wanted) -> Mapping[str, Mapping[str, Any]]:
        full = super().access(wanted)
        return {
            name: {key: value for key, value in one.items() if key not in self.lacking}
            for name, one in full.items()
        }


@pytest.fixture
def bench(tmp_path: Path) -> Poor:
    return Poor(tmp_path, attempts=1)


def seen(bench: Bench, text: str = SPEC, parallel: int = 1) -> Facts:
    world = bench.world()
    wanted = pipeline.prepare([bench.write(text)], world).wanted
    return observe.facts(wanted, KINDS, world.platform(wanted), parallel)


def named(facts: Facts) -> set[tuple[str, str, str]]:
    return {(one.kind, one.subaccount, one.name) for one in facts.all}


THINGS = {
    (kind, subaccount, name)
    for subaccount in ("one", "two", "three")
    for kind, name in (("instance", "config"), ("key", "k"), ("entitlement", "sandbox-config/standard"))
}


def test_everything_that_the_spec_names_is_seen_in_every_runtime(bench: Bench) -> None:
    bench.apply(bench.write(SPEC))

    facts = seen(bench)

    assert named(facts) >= THINGS
    assert facts.unseen == {}


def test_looking_only_reads(bench: Bench) -> None:
    bench.apply(bench.write(SPEC))
    bench.requests()

    seen(bench)

    assert {(method, path) for method, _, path in bench.requests() if method != "GET"} == {
        ("POST", "/oauth/token")
    }


def test_eight_at_a_time_see_the_same_as_one_by_one(bench: Bench) -> None:
    bench.apply(bench.write(SPEC))

    assert seen(bench, parallel=8) == seen(bench, parallel=1)


@pytest.mark.parametrize("parallel", [1, 8])
@pytest.mark.parametrize("deed", ["502", "cf-500", "html", "refuse"])
def test_an_endpoint_that_cannot_be_asked_is_named_and_the_others_are_seen(
    bench: Bench, deed: str, parallel: int
) -> None:
    bench.apply(bench.write(SPEC))
    here = {"host": "api.cf.eu10-004.hana.ondemand.com", "path": "/v3/service_instances"}
    bench.sandbox.faults.add({"match": here, "do": deed})

    facts = seen(bench, parallel=parallel)

    ((where, problem),) = facts.unseen.items()
    assert (where, problem.code) == (("two", "cloud_foundry"), "platform/unseen")
    assert "Cloud Foundry could not be asked about two" in problem.message
    assert named(facts) >= {one for one in THINGS if one[1] != "two" or one[0] == "entitlement"}
    assert not {one for one in named(facts) if one[1] == "two" and one[0] in {"instance", "key", "space"}}


def test_nothing_is_planned_where_nothing_could_be_seen(bench: Bench) -> None:
    bench.apply(bench.write(SPEC))
    bench.sandbox.faults.add({"match": {"host": "api.cf.eu10-004.hana.ondemand.com"}, "do": "502"})

    plan = bench.plan(bench.write(SPEC)).plan

    assert {str(change.address) for change in plan.changes if change.address.subaccount == "two"} == {
        "entitlement:two/sandbox-config/standard"
    }
    assert not any(change.acts for change in plan.changes)
    assert [problem.code for problem in plan.unseen] == ["platform/unseen"]


def test_credentials_that_the_spec_cannot_do_without_are_all_asked_for_at_once(bench: Poor) -> None:
    bench.lacking = frozenset({"cloud_foundry", "service_manager"})

    with pytest.raises(SpecError) as caught:
        seen(bench)

    assert [(one.code, one.message) for one in caught.value.problems] == [
        ("access/none", "no credentials for Cloud Foundry of subaccount one"),
        ("access/none", "no credentials for Cloud Foundry of subaccount two"),
        ("access/none", "no credentials for Service Manager of subaccount three"),
    ]
    assert all("--sandbox" in one.hint for one in caught.value.problems)
    assert bench.requests() == []


def test_without_the_right_to_entitle_the_rest_is_seen(bench: Poor) -> None:
    bench.apply(bench.write(SPEC))
    bench.lacking = frozenset({"central"})

    facts = seen(bench)

    assert {where: one.code for where, one in facts.unseen.items()} == {
        (name, "entitlements"): "access/none" for name in ("one", "two", "three")
    }
    assert named(facts) >= {one for one in THINGS if one[0] != "entitlement"}


def test_the_other_runtime_is_looked_at_where_its_credentials_are_declared(bench: Bench) -> None:
    """That is where an instance that moves between the runtimes comes from."""
    before = SPEC.replace("runtime: other, keys", "runtime: other, protect: false, keys")
    bench.apply(bench.write(before))
    declared = '    access: {service_manager: {service_key: "${env:C}"}}\n    cloud_foundry: {org: three, space: apis}\n'
    moved = before.replace(
        "    instances: {config: {service: sandbox-config, plan: standard, runtime: other",
        declared + "    instances: {config: {service: sandbox-config, plan: standard, runtime: cloudfoundry",
    )

    facts = seen(bench, moved)

    assert ("other", "three") in {(one.runtime, one.subaccount) for one in facts.of("instance")}


# --- where something may stand though no spec says so ---------------------------------------------------

MOVING = """\
version: 1
owner: finance
name: spec
subaccounts:
  prod:
    id: 33333333-3333-4333-8333-333333333333
    region: eu10
    cloud_foundry: {org: prod, space: apis}
    instances:
      config: {service: sandbox-config, plan: standard, runtime: RUNTIME, keys: {k: {}}}
"""
SECOND = """\
  test:
    id: 44444444-4444-4444-8444-444444444444
    region: eu10
"""
INSTANCE, KEY = "instance:prod/config", "key:prod/config/k"
RUNTIMES = [("cloudfoundry", "other"), ("other", "cloudfoundry")]


class Exported(Bench):
    """Credentials in environment variables, as in a pipeline, and none in the spec."""

    changed: Mapping[str, str] = MappingProxyType({})
    """Variables that are set to something else."""

    def world(self) -> pipeline.World:
        made = super().world()
        client = self.clients[-1]

        def platform(wanted: Wanted) -> Platform:
            given = rehearse(self.sandbox, wanted)["prod"]
            variables = {
                "BTP_CIS_CENTRAL_KEY": given["central"]["service_key"],
                "BTP_SERVICE_MANAGER_KEY": given["service_manager"]["service_key"],
                "CF_USER": given["cloud_foundry"]["username"],
                "CF_PASSWORD": given["cloud_foundry"]["password"],
            }
            return Platform(client, wanted.access, {**variables, **self.changed}, None)

        return replace(made, platform=platform)


def moved(to: str, more: str = "") -> str:
    return MOVING.replace("RUNTIME", to) + more


def kinds_of_change(planned: pipeline.Planned) -> dict[str, str]:
    return {
        str(one.address): str(one.action) for one in planned.plan.changes if one.address.kind != "entitlement"
    }


def of_runtimes(planned: pipeline.Planned) -> list[tuple[str, str, str]]:
    return sorted(
        (one.kind, one.runtime, one.name) for one in planned.facts.all if one.kind in {"instance", "key"}
    )


@pytest.mark.parametrize("desk", [Exported, Bench])
@pytest.mark.parametrize(("before", "after"), RUNTIMES)
def test_a_move_is_seen_whose_credentials_no_spec_names(
    tmp_path: Path, before: str, after: str, desk: type[Bench]
) -> None:
    """From the environment, and in a rehearsal: the old instance and its keys are superseded, and go in their time."""
    bench = desk(tmp_path)
    spec = bench.write(moved(before))
    bench.apply(spec)
    bench.write(moved(after))

    planned = bench.plan(spec)
    assert kinds_of_change(planned) == {INSTANCE: "replace", KEY: "rotate"}
    bench.apply(spec)
    done = bench.plan(spec)
    assert kinds_of_change(done) == {INSTANCE: "keep", KEY: "keep"}
    assert of_runtimes(done) == sorted(
        (kind, runtime, name)
        for kind, names in (("instance", ("config", "config")), ("key", ("k", "k-2")))
        for runtime, name in zip((before, after), names, strict=True)
    )
    assert any("superseded" in note for one in done.plan.changes for note in one.notes)

    bench.advance(8 * 86400)
    allowed = frozenset({INSTANCE})
    assert kinds_of_change(bench.plan(spec, allow=allowed)) == {INSTANCE: "retire", KEY: "retire"}
    bench.apply(spec, allow=allowed)
    assert of_runtimes(bench.plan(spec)) == [("instance", after, "config"), ("key", after, "k-2")]


@pytest.mark.parametrize(("before", "after"), RUNTIMES)
def test_what_is_where_the_spec_says_is_looked_for_nowhere_else(
    tmp_path: Path, before: str, after: str
) -> None:
    bench = Exported(tmp_path)
    spec = bench.write(moved(before))
    bench.apply(spec)
    bench.requests()

    bench.plan(spec)

    there = {"cloudfoundry": "api.cf.", "other": "service-manager."}
    hosts = {host for _, host, _ in bench.requests()}
    assert any(host.startswith(there[before]) for host in hosts)
    assert not any(host.startswith(there[after]) for host in hosts)


@pytest.mark.parametrize(
    "faulty",
    [
        {"CF_PASSWORD": "wrong"},
        {"CF_PASSWORD": ""},
        {"match": {"host": "api.cf.eu10.hana.ondemand.com"}, "do": "502"},
        {"match": {"host": "api.cf.eu10.hana.ondemand.com"}, "do": "refuse"},
    ],
    ids=str,
)
def test_a_runtime_that_is_only_possible_stands_in_nobodys_way(
    tmp_path: Path, faulty: dict[str, Any]
) -> None:
    """It refuses the sign-in, or does not answer: that is said, and what is missing is made."""
    bench = Exported(tmp_path, attempts=1)
    if "match" in faulty:
        bench.sandbox.faults.add(faulty)
    else:
        bench.changed = faulty
    planned = bench.plan(bench.write(moved("other")))

    assert kinds_of_change(planned) == {INSTANCE: "create", KEY: "create"}
    assert planned.plan.objections == ()
    assert report.plan_exit(planned.plan, detailed=False) == 0
    said = {where: one.code for where, one in planned.facts.unseen.items()}
    assert said == {("prod", "cloud_foundry"): "access/none"}
    assert report.apply_exit(planned.plan, []) == 0


def test_a_key_of_the_environment_that_is_none_is_no_error_where_nobody_needs_it(tmp_path: Path) -> None:
    bench = Exported(tmp_path)
    bench.changed = {"BTP_SERVICE_MANAGER_KEY": "{"}

    planned = bench.plan(bench.write(moved("cloudfoundry")))

    assert kinds_of_change(planned) == {INSTANCE: "create", KEY: "create"}
    (problem,) = planned.plan.unseen
    assert "Service Manager of prod is not known" in problem.message
    assert "is no JSON object" in problem.message


@pytest.mark.parametrize("more", ["", SECOND])
def test_a_key_of_the_environment_is_tried_only_where_it_can_mean_but_one_subaccount(
    tmp_path: Path, more: str
) -> None:
    bench = Exported(tmp_path)

    planned = bench.plan(bench.write(moved("cloudfoundry", more)))

    assert (planned.plan.objections, planned.plan.unseen) == ((), ())
    asked = any(host.startswith("service-manager.") for _, host, _ in bench.requests())
    assert asked == (more == "")


def test_the_key_of_another_subaccount_shows_nothing_of_this_one(tmp_path: Path) -> None:
    bench = Exported(tmp_path)
    other = "55555555-5555-4555-8555-555555555555"
    bench.sandbox.seed({"subaccounts": {"elsewhere": {"id": other, "region": "eu10"}}})
    bench.changed = {
        "BTP_SERVICE_MANAGER_KEY": json.dumps(bench.sandbox.access()["service_manager"][other]),
    }

    planned = bench.plan(bench.write(moved("cloudfoundry")))

    assert kinds_of_change(planned) == {INSTANCE: "create", KEY: "create"}
    (problem,) = planned.plan.unseen
    assert (problem.code, other in problem.message) == ("access/none", True)


def test_an_org_that_two_subaccounts_name_is_not_looked_into_for_what_may_be_there(tmp_path: Path) -> None:
    """What stands in it could be of either."""
    bench = Exported(tmp_path)
    same = SECOND + "    cloud_foundry: {org: prod, space: apis}\n"

    planned = bench.plan(bench.write(moved("other", same)))

    assert planned.plan.objections == ()
    assert not any(host.startswith("api.cf.") for _, host, _ in bench.requests())


def test_an_org_without_a_space_cannot_be_found_and_that_is_said(tmp_path: Path) -> None:
    bench = Exported(tmp_path)

    planned = bench.plan(bench.write(moved("other").replace(", space: apis", "")))

    (problem,) = planned.plan.unseen
    assert (problem.code, "names no space" in problem.message) == ("access/none", True)
    assert kinds_of_change(planned) == {INSTANCE: "create", KEY: "create"}


def test_a_delivery_that_cannot_be_looked_at_hides_nothing_but_itself(tmp_path: Path) -> None:
    """A file stands where its folder should be."""
    bench = Bench(tmp_path)
    (tmp_path / "taken").write_text("", encoding="utf-8")
    deliver = "{deliver: {main: {file: {path: taken/k.json}}, second: {file: {path: second.json}}}}"

    planned = bench.plan(bench.write(moved("other").replace("k: {}", f"k: {deliver}")))

    (problem,) = planned.plan.unseen
    assert problem.code == "platform/unseen"
    assert "could not be asked about delivery:prod/config/k/main: " in problem.message
    assert problem.hint == (
        "nothing was planned for this delivery; its key and other deliveries are not affected"
    )
    assert {KEY: "create", "delivery:prod/config/k/second": "create"}.items() <= kinds_of_change(
        planned
    ).items()


@pytest.mark.parametrize("parallel", [1, 8])
def test_who_is_asked_to_stop_does_not_wait_for_an_answer_that_does_not_come(
    bench: Bench, parallel: int
) -> None:
    hanging, released = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        hanging.set()
        released.wait(30)

    bench.sandbox.on_request = hang
    bench.parallel = parallel
    world = replace(bench.world(), stopped=hanging.is_set)
    prepared = pipeline.prepare([bench.write(SPEC)], world)
    begun = time.monotonic()

    with pytest.raises(Interrupted, match="nothing was changed"):
        pipeline.make_plan(prepared, world, bench.policy())

    spent = time.monotonic() - begun
    released.set()
    assert spent < 5


# --- threads --------------------------------------------------------------------------------------------


def test_threads_give_results_and_hand_errors_on() -> None:
    def divide(number: int) -> float:
        return 6 / number

    with Threads(2) as pool:
        jobs = [pool.submit(divide, number) for number in (1, 2, 0, 3)]

        assert [jobs[0].result(), jobs[1].result(), jobs[3].result()] == [6, 3, 2]
        with pytest.raises(ZeroDivisionError):
            jobs[2].result()


def test_one_thread_does_one_thing_after_the_other() -> None:
    done: list[int] = []
    with Threads(1) as pool:
        for job in [pool.submit(done.append, number) for number in range(50)]:
            job.result()

    assert done == list(range(50))


def test_what_has_not_begun_when_the_threads_are_left_is_never_done() -> None:
    begun, released = threading.Event(), threading.Event()
    done: list[int] = []

    def first() -> None:
        begun.set()
        released.wait(30)

    with Threads(1) as pool:
        running = pool.submit(first)
        waiting = [pool.submit(done.append, number) for number in range(5)]
        begun.wait(30)
    released.set()
    running.result()

    assert [job.cancelled() for job in waiting] == [True] * 5
    assert done == []
