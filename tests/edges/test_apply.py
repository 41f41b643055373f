"""The engine: starts, looks, blocks, and believes only what it sees. All of it against the sandbox."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile import pipeline
from btp_reconcile.core import report
from btp_reconcile.core.model import Outcome, Status
from btp_reconcile.edges import apply
from btp_reconcile.edges.clock import Interrupted, MovingClock
from tests.worlds import Bench

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from btp_reconcile.sandbox import Request

PROD = "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10"
HEAD = f"""\
version: 1
owner: finance
name: spec
access:
  central: {{service_key: "${{env:A}}"}}
  service_manager: {{service_key: "${{env:B}}"}}
  cloud_foundry: {{username: u, password: "${{env:C}}"}}
defaults: {{runtime: cloudfoundry}}
subaccounts:
  prod:
    id: {PROD}
    region: eu10
    cloud_foundry: {{org: finance-prod, space: apis}}
    instances:
"""
CF_INSTANCES, CF_KEYS = "/v3/service_instances", "/v3/service_credential_bindings"
SM_INSTANCES, SM_KEYS = "/v1/service_instances", "/v1/service_bindings"
BOTH = pytest.mark.parametrize("runtime", ["cloudfoundry", "other"])


def instance(name: str, about: str = "service: sandbox-config, plan: standard") -> str:
    return f"      {name}: {{{about}}}\n"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def failing(bench: Bench, *failures: dict[str, Any]) -> None:
    """What the brokers are to do wrong."""
    with bench.sandbox.hold() as world:
        world.settings["broker_failures"] = list(failures)


def delayed(bench: Bench, **looks: int | None) -> None:
    with bench.sandbox.hold() as world:
        world.settings["delays"].update(looks)


def told(outcomes: tuple[Outcome, ...]) -> dict[str, tuple[str, str]]:
    return {f"{one.step.verb} {one.step.address}": (str(one.status), one.error) for one in outcomes}


def run(bench: Bench, spec: str, **options: Any) -> tuple[Outcome, ...]:
    """Apply, and how the last round went."""
    bench.sandbox.requests.clear()
    return bench.apply(bench.write(HEAD + spec), **options)[-1].outcomes


def asked(bench: Bench, *paths: str) -> list[tuple[str, str]]:
    """(method, path) of what was asked of these, ids left out, in order."""
    found = [(method, re.sub(r"/[0-9a-f-]{36}", "/*", path)) for method, _, path, _ in bench.sandbox.requests]
    return [one for one in found if one[1].removesuffix("/*") in paths]


def writes(bench: Bench) -> list[tuple[str, str]]:
    found = [(method, re.sub(r"/[0-9a-f-]{36}", "/*", path)) for method, _, path, _ in bench.sandbox.requests]
    return [one for one in found if one[0] != "GET" and one[1] != "/oauth/token"]


def seed(bench: Bench, *instances: dict[str, Any]) -> None:
    place = {
        "id": PROD,
        "region": "eu10",
        "cloud_foundry": {"org": "finance-prod", "spaces": ["apis"]},
        "instances": list(instances),
    }
    bench.sandbox.seed({"subaccounts": {"prod": place}})


def there(runtime: str, name: str, **about: Any) -> dict[str, Any]:
    space = {"space": "apis"} if runtime == "cloudfoundry" else {}
    return {
        "runtime": runtime,
        "name": name,
        "service": "sandbox-config",
        "plan": "standard",
        **space,
        **about,
    }


def marked(runtime: str, name: str, owner: str = "finance") -> dict[str, Any]:
    prefix = "btp.reconcile/" if runtime == "cloudfoundry" else "btp-reconcile/"
    mark = {"owner": owner, "spec": "spec", "name": name, "generation": "1"}
    return {prefix + key: value if runtime == "cloudfoundry" else [value] for key, value in mark.items()}


def once(bench: Bench, method: str, path: str, then: Callable[[], None]) -> None:
    """Let something happen at the moment when this is asked for the first time."""
    happened: list[bool] = []

    def hook(_: int, request: Request) -> None:
        if not happened and (request.method, request.path) == (method, path):
            happened.append(True)
            then()

    bench.sandbox.on_request = hook


def settled(bench: Bench, spec: str, **options: Any) -> bool:
    return bench.plan(bench.write(HEAD + spec), **options).plan.empty


# --- failures -------------------------------------------------------------------------------------------


@BOTH
def test_a_failure_blocks_only_what_stands_on_it_and_says_so(bench: Bench, runtime: str) -> None:
    failing(
        bench,
        {"verb": "provision", "name": "bad", "times": None, "status": "async", "description": "no disk"},
    )
    about = f"service: sandbox-config, plan: standard, runtime: {runtime}"
    spec = instance("bad", f"{about}, keys: {{k: {{}}, l: {{}}}}") + instance(
        "good", f"{about}, keys: {{k: {{}}}}"
    )

    outcomes = run(bench, spec)

    said = told(outcomes)
    assert {step: status for step, (status, _) in said.items()} == {
        "create entitlement:prod/sandbox-config/standard": "done",
        "create instance:prod/bad": "failed",
        "create key:prod/bad/k": "blocked",
        "create key:prod/bad/l": "blocked",
        "create instance:prod/good": "done",
        "create key:prod/good/k": "done",
    }
    assert "no disk" in said["create instance:prod/bad"][1]
    assert said["create key:prod/bad/k"][1] == "needs instance:prod/bad"
    assert {str(one.by) for one in outcomes if one.status is Status.BLOCKED} == {"instance:prod/bad"}


APIM = instance("apim", "api: api-management, keys: {transport: {}}")


def test_a_failure_that_passes_is_made_again_once_over_the_failed_one(bench: Bench) -> None:
    failing(
        bench,
        {
            "verb": "provision",
            "times": 1,
            "status": "async",
            "description": "Could not find credentials service.",
        },
    )

    outcomes = run(bench, APIM)

    assert {one.status for one in outcomes} == {Status.DONE}
    assert [one for one in writes(bench) if CF_INSTANCES in one[1]] == [("POST", CF_INSTANCES)] * 2
    assert settled(bench, APIM)


def test_in_the_service_manager_the_failed_one_is_deleted_before_it_is_made_again(bench: Bench) -> None:
    failing(bench, {"verb": "provision", "times": 1, "status": "async", "description": "not now"})
    spec = instance("config", "service: sandbox-config, plan: standard, runtime: other")

    outcomes = run(bench, spec)

    assert {one.status for one in outcomes} == {Status.DONE}
    assert [one for one in writes(bench) if SM_INSTANCES in one[1]] == [
        ("POST", SM_INSTANCES),
        ("DELETE", f"{SM_INSTANCES}/*"),
        ("POST", SM_INSTANCES),
    ]
    assert settled(bench, spec)


@BOTH
def test_a_failure_that_stays_is_made_again_only_once(bench: Bench, runtime: str) -> None:
    failing(bench, {"verb": "provision", "times": None, "status": "async", "description": "not today"})

    outcomes = run(bench, instance("config", f"service: sandbox-config, plan: standard, runtime: {runtime}"))

    assert [one.status for one in outcomes] == [Status.DONE, Status.FAILED]
    assert "not today" in outcomes[-1].error
    assert sum(one[0] == "POST" for one in writes(bench)) == 2


@BOTH
def test_what_an_earlier_run_left_failed_takes_the_one_try_of_this_run(bench: Bench, runtime: str) -> None:
    failed = {"type": "create", "state": "failed", "description": "not today"}
    seed(bench, there(runtime, "config", labels=marked(runtime, "config"), last_operation=failed))
    failing(bench, {"verb": "provision", "times": None, "status": "async", "description": "nor today"})

    outcomes = run(bench, instance("config", f"service: sandbox-config, plan: standard, runtime: {runtime}"))

    assert [one.status for one in outcomes] == [Status.FAILED]
    assert sum(one[0] == "POST" for one in writes(bench)) == 1


def test_an_error_that_the_catalogue_calls_final_is_not_repeated(bench: Bench) -> None:
    failing(
        bench, {"verb": "provision", "times": None, "status": "async", "description": "invalid role creation"}
    )

    outcomes = run(bench, APIM)

    made = next(one for one in outcomes if str(one.step.address) == "instance:prod/apim")
    assert (made.status, made.gate, made.attempts) == (Status.FAILED, False, 1)
    assert "reconcile catalogue" in made.hint
    assert [one for one in writes(bench) if CF_INSTANCES in one[1]] == [("POST", CF_INSTANCES)]


def test_an_error_that_a_person_must_answer_ends_as_a_gate_with_6(bench: Bench) -> None:
    failing(
        bench, {"verb": "provision", "times": None, "status": "async", "description": "APIMGT100: no tenant"}
    )
    spec = bench.write(HEAD + APIM)
    world = bench.world()
    planned = pipeline.make_plan(pipeline.prepare([spec], world), world, bench.policy())

    done = pipeline.carry_out(planned, world)

    assert {str(one.step.address): (one.status, one.gate) for one in done.outcomes} == {
        "entitlement:prod/apimanagement-apiportal/apiportal-apiaccess": (Status.DONE, False),
        "instance:prod/apim": (Status.FAILED, True),
        "key:prod/apim/transport": (Status.BLOCKED, True),
    }
    assert report.apply_exit(planned.plan, [done]) == 6


def test_a_refused_entitlement_fails_at_once_and_does_not_wait_for_the_deadline(bench: Bench) -> None:
    refused = {"error": {"code": 30001, "message": "no quota is left"}}
    bench.sandbox.faults.add({"match": {"method": "PUT"}, "do": "status", "status": 400, "body": refused})

    outcomes = run(bench, instance("config"))

    assert [(one.status, one.seconds < 60) for one in outcomes] == [
        (Status.FAILED, True),
        (Status.BLOCKED, True),
    ]
    assert "no quota is left" in outcomes[0].error


# --- entitlements together ------------------------------------------------------------------------------

THREE = "".join(
    instance(name, f"service: {service}, plan: standard")
    for name, service in (("a", "sandbox-config"), ("b", "sandbox-slow"), ("c", "afc-api-service"))
)


def puts(bench: Bench) -> int:
    return sum(method == "PUT" for method, _, _, _ in bench.sandbox.requests)


def test_the_entitlements_of_one_subaccount_go_in_one_request(bench: Bench) -> None:
    outcomes = run(bench, THREE)

    assert ({one.status for one in outcomes}, puts(bench)) == ({Status.DONE}, 1)


def test_a_refused_batch_is_sent_item_by_item_and_only_the_bad_one_fails(bench: Bench) -> None:
    refused = {"error": {"code": 30001, "message": "not for you"}}
    rule = {
        "match": {"method": "PUT", "body": "sandbox-slow"},
        "do": "status",
        "status": 403,
        "body": refused,
    }
    bench.sandbox.faults.add(rule)

    said = told(run(bench, THREE))

    assert {step: status for step, (status, _) in said.items()} == {
        "create entitlement:prod/sandbox-config/standard": "done",
        "create entitlement:prod/sandbox-slow/standard": "failed",
        "create entitlement:prod/afc-api-service/standard": "done",
        "create instance:prod/a": "done",
        "create instance:prod/b": "blocked",
        "create instance:prod/c": "done",
    }
    assert "not for you" in said["create entitlement:prod/sandbox-slow/standard"][1]


# --- lost answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("deed", "posts"), [("lose", 1), ("refuse", 2)])
@BOTH
def test_a_creation_whose_answer_was_lost_is_looked_up_by_name_before_it_is_sent_again(
    bench: Bench, runtime: str, deed: str, posts: int
) -> None:
    path = CF_INSTANCES if runtime == "cloudfoundry" else SM_INSTANCES
    bench.sandbox.faults.add({"match": {"method": "POST", "path": f"^{path}$"}, "at": 1, "do": deed})

    outcomes = run(bench, instance("config", f"service: sandbox-config, plan: standard, runtime: {runtime}"))

    about = [method for method, _ in asked(bench, path)]
    first = about.index("POST")
    assert {one.status for one in outcomes} == {Status.DONE}
    assert (about[first + 1], about.count("POST")) == ("GET", posts)


def test_a_creation_that_is_lost_each_time_is_given_up(bench: Bench) -> None:
    bench.sandbox.faults.add({"match": {"method": "POST", "path": f"^{CF_INSTANCES}$"}, "do": "refuse"})

    outcomes = run(bench, instance("config"))

    assert (outcomes[-1].status, outcomes[-1].error) == (
        Status.FAILED,
        "it was created 3 times and is not there",
    )


def test_a_deletion_whose_answer_was_lost_is_sent_again(bench: Bench) -> None:
    before = instance("config", "service: sandbox-config, plan: standard, runtime: other")
    run(bench, before)
    bench.attempts = 1
    bench.sandbox.faults.add({"match": {"method": "DELETE"}, "at": 1, "do": "refuse"})

    absent = before.replace("runtime: other", "runtime: other, ensure: absent")
    outcomes = run(bench, absent)

    assert [(one.status, one.seconds < 60) for one in outcomes] == [(Status.DONE, True)]
    assert settled(bench, absent)


def test_an_update_that_never_arrived_is_not_recorded_as_done(bench: Bench) -> None:
    """All attempts of the client are lost; the engine sends it again, and only then seals the record."""
    run(bench, instance("config", "service: sandbox-config, plan: standard, parameters: {size: 1}"))
    bench.attempts = 1
    bench.sandbox.faults.add({"match": {"method": "PATCH"}, "at": 1, "do": "refuse"})
    spec = instance("config", "service: sandbox-config, plan: standard, parameters: {size: 2}")

    outcomes = run(bench, spec)

    config = bench.sandbox.snapshot()["cloud_foundry"]["eu10"]["finance-prod"]["apis"]["config"]
    assert ([one.status for one in outcomes], config["parameters"]) == ([Status.DONE], {"size": 2})
    assert settled(bench, spec)


def test_what_another_run_made_with_our_mark_is_taken_as_done(bench: Bench) -> None:
    other = there("cloudfoundry", "config", labels=marked("cloudfoundry", "config"))
    once(bench, "POST", CF_INSTANCES, lambda: seed(bench, other))

    outcomes = run(bench, instance("config"))

    assert {one.status for one in outcomes} == {Status.DONE}
    assert [one for one in writes(bench) if CF_INSTANCES in one[1]] == [("POST", CF_INSTANCES)]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (marked("cloudfoundry", "config", "others"), "belongs to owner 'others', spec 'spec'"),
        ({}, "carries no mark"),
    ],
)
def test_what_somebody_else_made_meanwhile_is_a_failure_that_says_whose_it_is(
    bench: Bench, labels: dict[str, str], said: str
) -> None:
    once(bench, "POST", CF_INSTANCES, lambda: seed(bench, there("cloudfoundry", "config", labels=labels)))

    outcomes = run(bench, instance("config", "service: sandbox-config, plan: standard, keys: {k: {}}"))

    assert [str(one.status) for one in outcomes] == ["done", "failed", "blocked"]
    assert said in outcomes[1].error


def test_what_is_being_changed_by_others_is_waited_for_and_then_changed(bench: Bench) -> None:
    run(bench, instance("config"))
    busy = {
        "errors": [
            {
                "code": 60016,
                "title": "CF-AsyncServiceInstanceOperationInProgress",
                "detail": "An operation for service instance config is in progress.",
            }
        ]
    }
    rule = {"match": {"method": "PATCH"}, "times": 2, "do": "status", "status": 422, "body": busy}
    bench.sandbox.faults.add(rule)
    spec = instance("config", "service: sandbox-config, plan: standard, tags: [red]")

    outcomes = run(bench, spec)

    assert [one.status for one in outcomes] == [Status.DONE]
    assert settled(bench, spec)


# --- looking --------------------------------------------------------------------------------------------

SLOW = "".join(instance(f"slow{number}", "service: sandbox-slow, plan: standard") for number in range(40))


def test_one_look_asks_for_everything_that_is_pending_and_looks_grow_rare(bench: Bench) -> None:
    delayed(bench, provision=9)
    spec = bench.write(HEAD + SLOW)
    world = bench.world()
    planned = pipeline.make_plan(pipeline.prepare([spec], world), world, bench.policy())
    bench.sandbox.requests.clear()

    done = pipeline.carry_out(planned, world)

    clock = world.clock
    assert isinstance(clock, MovingClock)
    looks = [
        query for method, _, path, query in bench.sandbox.requests if (method, path) == ("GET", CF_INSTANCES)
    ]
    names = [len(dict(query)["names"].split(",")) for query in looks]
    assert {one.status for one in done.outcomes} == {Status.DONE}
    assert names == [40] * len(names)
    assert [round(one, 1) for one in clock.slept[-len(names) :]][:7] == [2.0, 2.0, 3.0, 4.5, 6.8, 10.1, 15.0]


def test_a_look_that_fails_does_not_fail_the_step(bench: Bench) -> None:
    bench.attempts = 1
    look = {"method": "GET", "path": f"^{CF_INSTANCES}$"}
    bench.sandbox.faults.add({"match": look, "at": 2, "do": "503"})
    bench.sandbox.faults.add({"match": look, "at": 3, "do": "html"})
    bench.sandbox.faults.add({"match": look, "at": 4, "do": "lose"})

    outcomes = run(bench, instance("config"))

    assert {one.status for one in outcomes} == {Status.DONE}
    assert sum(name == "look failed" for name, _ in bench.events) == 3


def test_out_of_time_is_pending_and_the_next_run_finishes(bench: Bench) -> None:
    delayed(bench, provision=9)
    spec = instance("slow", "service: sandbox-slow, plan: standard, keys: {k: {}}")

    first = told(run(bench, spec, deadline=20.0))
    second = run(bench, spec)

    assert first["create instance:prod/slow"][0] == "pending"
    assert first["create instance:prod/slow"][1].startswith("accepted, not finished yet")
    assert first["create key:prod/slow/k"] == ("pending", "not started yet")
    assert {one.status for one in second} == {Status.DONE}
    assert settled(bench, spec)


def test_a_plan_that_does_not_get_visible_is_pending_and_says_so(bench: Bench) -> None:
    delayed(bench, visibility=None)

    said = told(run(bench, instance("config"), deadline=60.0))

    assert said["create instance:prod/config"] == (
        "pending",
        "its plan is not visible in the marketplace yet",
    )


def test_what_is_awaited_and_disappears_is_a_failure_and_not_done(bench: Bench) -> None:
    creating = {"type": "create", "state": "in progress"}
    seed(
        bench,
        there("cloudfoundry", "config", labels=marked("cloudfoundry", "config"), last_operation=creating),
    )
    spec = bench.write(HEAD + instance("config"))
    world = bench.world()
    planned = pipeline.make_plan(pipeline.prepare([spec], world), world, bench.policy())
    with bench.sandbox.hold() as inside:
        inside.table("cf.service_instances").clear()

    done = pipeline.carry_out(planned, world)

    assert told(done.outcomes) == {"await instance:prod/config": ("failed", "it is gone")}


# --- stopping -------------------------------------------------------------------------------------------

SIX = "".join(instance(name, "service: sandbox-config, plan: standard, keys: {k: {}}") for name in "abcdef")


@pytest.mark.parametrize("parallel", [1, 8])
def test_who_is_asked_to_stop_starts_nothing_new_and_leaves_the_rest_pending(
    bench: Bench, parallel: int
) -> None:
    bench.parallel = parallel
    spec = bench.write(HEAD + SIX)
    asked_to_stop: list[int] = []
    once(bench, "POST", CF_INSTANCES, lambda: asked_to_stop.append(len(bench.sandbox.requests)))
    world = replace(bench.world(), stopped=lambda: bool(asked_to_stop))
    planned = pipeline.make_plan(pipeline.prepare([spec], world), world, bench.policy())

    done = pipeline.carry_out(planned, world)

    after = [path for method, _, path, _ in bench.sandbox.requests[asked_to_stop[0] :] if method == "POST"]
    assert {one.status for one in done.outcomes} == {Status.DONE, Status.PENDING}
    assert len(after) < 2 * parallel
    assert CF_KEYS not in after
    assert report.apply_exit(planned.plan, [done]) == 5
    assert {one.status for one in run(bench, SIX)} == {Status.DONE}
    assert settled(bench, SIX)


class Impatient(MovingClock):
    """Somebody presses Ctrl-C while it is waited for the n-th time."""

    def __init__(self, start: float, waits: int) -> None:
        super().__init__(start)
        self.waits = waits

    def sleep(self, seconds: float) -> None:
        if len(self.slept) == self.waits:
            raise Interrupted("enough")
        super().sleep(seconds)


@pytest.mark.parametrize("waits", [0, 1, 2, 3, 4])
def test_who_is_interrupted_while_waiting_leaves_the_rest_pending(bench: Bench, waits: int) -> None:
    spec = bench.write(HEAD + SIX)
    world = replace(bench.world(), clock=Impatient(bench.now(), waits))
    planned = pipeline.make_plan(pipeline.prepare([spec], world), world, bench.policy())

    done = pipeline.carry_out(planned, world)

    assert Status.PENDING in {one.status for one in done.outcomes} <= {Status.DONE, Status.PENDING}
    assert {one.status for one in run(bench, SIX)} == {Status.DONE}
    assert settled(bench, SIX)


@pytest.mark.parametrize("parallel", [1, 8])
def test_a_request_that_hangs_does_not_keep_a_run_that_is_asked_to_stop(
    bench: Bench, parallel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "GRACE", 0.05)
    bench.parallel = parallel
    spec = bench.write(HEAD + SIX)
    hanging, released = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        released.wait(30)

    once(bench, "POST", CF_INSTANCES, hang)
    world = replace(bench.world(), stopped=hanging.is_set)
    planned = pipeline.make_plan(pipeline.prepare([spec], world), world, bench.policy())
    begun = time.monotonic()

    done = pipeline.carry_out(planned, world)

    spent = time.monotonic() - begun
    released.set()
    assert spent < 5
    assert "sent, and not answered yet" in {one.error for one in done.outcomes}
    assert {one.status for one in done.outcomes} == {Status.DONE, Status.PENDING}


# --- leftovers, deletes ---------------------------------------------------------------------------------

FAILED = {"type": "create", "state": "failed", "description": "the broker was not well"}


@BOTH
def test_a_failed_leftover_is_posted_over_or_deleted_first(bench: Bench, runtime: str) -> None:
    seed(bench, there(runtime, "config", labels=marked(runtime, "config"), last_operation=FAILED))
    spec = instance("config", f"service: sandbox-config, plan: standard, runtime: {runtime}")

    outcomes = run(bench, spec)

    posted_over = [("POST", CF_INSTANCES)]
    deleted_first = [("DELETE", f"{SM_INSTANCES}/*"), ("POST", SM_INSTANCES)]
    assert {one.status for one in outcomes} == {Status.DONE}
    assert writes(bench) == (posted_over if runtime == "cloudfoundry" else deleted_first)
    assert settled(bench, spec)


def test_many_leftovers_are_looked_after_together(bench: Bench) -> None:
    names = [f"c{number}" for number in range(20)]
    seed(
        bench, *(there("other", name, labels=marked("other", name), last_operation=FAILED) for name in names)
    )
    spec = "".join(
        instance(name, "service: sandbox-config, plan: standard, runtime: other") for name in names
    )

    outcomes = run(bench, spec)

    asks = asked(bench, SM_INSTANCES)
    assert {one.status for one in outcomes} == {Status.DONE}
    assert Counter(method for method, _ in asks)["DELETE"] == 20
    assert Counter(method for method, _ in asks)["GET"] < 20


KEPT = "service: sandbox-config, plan: standard, runtime: {runtime}{more}, keys: {{k: {{}}, l: {{}}}}"


@BOTH
def test_keys_go_before_their_instance(bench: Bench, runtime: str) -> None:
    run(bench, instance("config", KEPT.format(runtime=runtime, more="")))
    path, keys = (CF_INSTANCES, CF_KEYS) if runtime == "cloudfoundry" else (SM_INSTANCES, SM_KEYS)

    outcomes = run(bench, instance("config", KEPT.format(runtime=runtime, more=", ensure: absent")))

    assert {one.status for one in outcomes} == {Status.DONE}
    assert writes(bench) == [("DELETE", f"{keys}/*"), ("DELETE", f"{keys}/*"), ("DELETE", f"{path}/*")]


DOMAIN = "cfapps.eu10.hana.ondemand.com"
THEIRS = [
    ("other", {"keys": [{"name": "theirs"}]}, "binding theirs (smctl unbind config theirs)"),
    ("cloudfoundry", {"keys": [{"name": "theirs"}]}, "key theirs (cf delete-service-key config theirs)"),
    (
        "cloudfoundry",
        {"keys": [{"name": "theirs", "labels": marked("cloudfoundry", "theirs", "others")}]},
        "key theirs of owner 'others', spec 'spec' (cf delete-service-key config theirs)",
    ),
    (
        "cloudfoundry",
        {"app_bindings": [{"app": "shop"}]},
        "app binding of app shop (cf unbind-service shop config)",
    ),
    (
        "cloudfoundry",
        {"shared_with": ["elsewhere"]},
        "shared with space elsewhere (cf unshare-service config -s elsewhere -o finance-prod)",
    ),
    (
        "cloudfoundry",
        {"routes": [{"host": "www", "path": "/shop"}]},
        f"route binding of route www.{DOMAIN}/shop (cf unbind-route-service {DOMAIN} config --hostname www --path /shop)",
    ),
]


@pytest.mark.parametrize(("runtime", "joined", "named"), THEIRS, ids=[named for _, _, named in THEIRS])
def test_a_delete_is_refused_while_something_of_others_stands_in_it_and_names_it(
    bench: Bench, runtime: str, joined: dict[str, Any], named: str
) -> None:
    """It was made after the plan: the last look before the delete is what counts."""
    run(bench, instance("config", KEPT.format(runtime=runtime, more="")))
    bench.sandbox.seed({"subaccounts": {"prod": {"id": PROD, "cloud_foundry": {"spaces": ["elsewhere"]}}}})
    spec = bench.write(HEAD + instance("config", KEPT.format(runtime=runtime, more=", ensure: absent")))
    world = bench.world()
    planned = pipeline.make_plan(pipeline.prepare([spec], world), world, bench.policy())
    if runtime == "other":
        _bind_by_hand(planned)
    else:
        seed(bench, there(runtime, "config", **joined))
    bench.sandbox.requests.clear()

    done = pipeline.carry_out(planned, world)

    gone = next(one for one in done.outcomes if one.step.address.kind == "instance")
    assert (gone.status, gone.refused) == (Status.FAILED, True)
    assert gone.error == f"not deleted, because this would be lost with it: {named}"
    assert report.apply_exit(planned.plan, [done]) == 4
    assert not [one for one in writes(bench) if "service_instances" in one[1]]


def _bind_by_hand(planned: pipeline.Planned) -> None:
    found = next(fact for fact in planned.facts.of("instance") if fact.name == "config")
    door = planned.platform.door("service_manager", planned.prepared.wanted.subaccounts["prod"])
    door.send("POST", SM_KEYS, {"name": "theirs", "service_instance_id": found.id})


# --- records --------------------------------------------------------------------------------------------


def test_an_update_is_sealed_on_cloud_foundry_and_dated_in_the_service_manager(bench: Bench) -> None:
    spec = "".join(
        instance(
            runtime,
            f"service: sandbox-config, plan: standard, runtime: {runtime}, parameters: {{size: SIZE}}",
        )
        for runtime in ("cloudfoundry", "other")
    )
    run(bench, spec.replace("SIZE", "1"))

    outcomes = run(bench, spec.replace("SIZE", "2"))

    text = json.dumps(bench.sandbox.snapshot())
    again = bench.plan(bench.write(HEAD + spec.replace("SIZE", "2"))).plan
    fields = [one for change in again.changes for one in change.fields]
    assert {one.status for one in outcomes} == {Status.DONE}
    assert (text.count(";at="), text.count(";near="), text.count(";since=")) == (1, 1, 0)
    assert again.empty
    assert [(one.path, str(one.seen), one.changes) for one in fields] == [
        ("parameters", "assumed", False)
    ] * 2


# --- many -----------------------------------------------------------------------------------------------


def without_times(bench: Bench) -> Any:
    return json.loads(
        re.sub(r";(at|near)=[^;\"]{9,}", "", json.dumps(bench.sandbox.snapshot(), sort_keys=True))
    )


def test_eight_at_a_time_make_the_same_world_as_one_by_one(tmp_path: Path) -> None:
    worlds = []
    for parallel in (1, 8):
        folder = tmp_path / str(parallel)
        folder.mkdir()
        bench = Bench(folder, parallel=parallel)
        there = "service: sandbox-config, plan: large, runtime: other, keys: {k: {}}"
        slow = "service: sandbox-slow, plan: standard, keys: {k: {}}"
        spec = SIX + instance("there", there) + instance("slow", slow)
        assert {one.status for one in run(bench, spec)} == {Status.DONE}
        changed = spec.replace("plan: standard, keys", "plan: standard, parameters: {size: 2}, keys")
        assert {one.status for one in run(bench, changed)} == {Status.DONE}
        worlds.append(without_times(bench))

    assert worlds[0] == worlds[1]


def test_300_instances_with_600_keys_are_made_with_a_few_looks(tmp_path: Path) -> None:
    bench = Bench(tmp_path, parallel=8)
    spec = "".join(
        instance(f"i{number:03d}", "service: sandbox-config, plan: standard, keys: {k: {}, l: {}}")
        for number in range(300)
    )
    begun = time.monotonic()

    outcomes = run(bench, spec)

    spent = time.monotonic() - begun
    methods = Counter(method for method, _ in asked(bench, CF_INSTANCES, CF_KEYS))
    assert Counter(one.status for one in outcomes) == {Status.DONE: 901}
    assert methods["POST"] == 900
    assert methods["GET"] <= 40
    assert spent < 20


@BOTH
def test_two_applies_at_once_make_nothing_twice_and_both_end_in_words(tmp_path: Path, runtime: str) -> None:
    spec = "".join(
        instance(
            name, f"service: sandbox-config, plan: standard, runtime: {runtime}, keys: {{k: {{}}, l: {{}}}}"
        )
        for name in "abcdef"
    )
    bench = Bench(tmp_path, parallel=4)
    path = bench.write(HEAD + spec)
    bench.plan(path)
    ended: list[Any] = []

    def work() -> None:
        with suppress(
            AssertionError
        ):  # the other was faster: then there is nothing against it but what is there
            ended.append(bench.apply(path))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ended) == 2
    assert {one.status for reports in ended for one in reports[-1].outcomes} <= {Status.DONE}
    shown = bench.sandbox.snapshot()
    found = (
        shown["cloud_foundry"]["eu10"]["finance-prod"]["apis"]
        if runtime == "cloudfoundry"
        else shown["service_manager"]["prod"]
    )
    assert {name: sorted(one["keys"]) for name, one in found.items()} == {
        name: ["k", "l"] for name in "abcdef"
    }
    assert bench.plan(path).plan.empty
