"""Looking at the platform: one pass per endpoint, reads only, and what could not be seen is said."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile import pipeline
from btp_reconcile.core.errors import SpecError
from btp_reconcile.edges import observe
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
