"""Several at once: two applies, an apply and a person at the `cf` command line, and operations that have to wait.

One request is made at a time, and a seeded chance says whose it is. So every seed is another interleaving, and the same
one each time.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile import pipeline
from btp_reconcile.core.errors import PlatformError, ReconcileError
from btp_reconcile.core.model import Status
from btp_reconcile.sandbox import InProcessAdapter, Sandbox
from tests.test_interrupted import (
    ABSENT,
    ALONE,
    HEAD,
    OTHER,
    PRESENT,
    PROD,
    ROTATED,
    SETTINGS,
    delivered,
    described,
)
from tests.worlds import Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import requests

    from btp_reconcile.core.kind import Door
    from btp_reconcile.core.model import Report

# --- whose turn it is -----------------------------------------------------------------------------------


class Turns:
    """Lets exactly one of several threads go on to its next request, chosen by chance when all of them wait."""

    def __init__(self, seed: int, everybody: int) -> None:
        self._chance = random.Random(seed)
        self._changed = threading.Condition()
        self._running = everybody
        """How many are on their way to their next request, or to their end."""
        self._waiting: set[int] = set()
        self._next: int | None = None
        self.taken: list[int] = []

    def wait(self, who: int) -> None:
        """Until it is this one's turn."""
        with self._changed:
            self._waiting.add(who)
            self._stopped_running()
            if not self._changed.wait_for(lambda: self._next == who, timeout=60):
                raise TimeoutError(f"{who} has never had its turn")
            self._waiting.discard(who)
            self._next, self._running = None, 1
            self.taken.append(who)

    def leave(self) -> None:
        """This one asks nothing any more."""
        with self._changed:
            self._stopped_running()

    def _stopped_running(self) -> None:
        self._running -= 1
        if not self._running and self._waiting:
            self._next = self._chance.choice(sorted(self._waiting))
            self._changed.notify_all()


class InTurn(InProcessAdapter):
    """The way to the sandbox, for one of several."""

    def __init__(self, sandbox: Sandbox, turns: Turns, who: int) -> None:
        super().__init__(sandbox)
        self._turns, self._who = turns, who

    def send(self, request: requests.PreparedRequest, *given: Any, **named: Any) -> requests.Response:
        self._turns.wait(self._who)
        return super().send(request, *given, **named)


@dataclass
class Actor(Bench):
    """One of several on the same sandbox."""

    turns: Turns | None = None
    who: int = 0

    def world(self) -> pipeline.World:
        made = super().world()
        if self.turns is not None:
            self.clients[-1]._adapter = InTurn(self.sandbox, self.turns, self.who)
        return made


@dataclass
class Ended:
    """How one of them ended: what it did, or what it said instead."""

    reports: list[Report] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def unfinished(self) -> dict[str, str]:
        last = self.reports[-1].outcomes if self.reports else ()
        return {str(one.step.id): one.error for one in last if one.status is not Status.DONE}


def applying(actor: Actor, prepared: pipeline.Prepared, **options: Any) -> Ended:
    """`reconcile apply`. Whatever it meets, it says."""
    world, policy = actor.world(), actor.policy(**options)
    try:
        planned = pipeline.make_plan(prepared, world, policy)
        if planned.plan.objections:
            return Ended(said=[one.message for one in planned.plan.objections])
        ended = Ended(pipeline.settle(planned, world, policy)[1])
    except ReconcileError as error:
        return Ended(said=[str(error)])
    assert all(ended.unfinished.values()), "a step did not end well, and nothing is said about it"
    return ended


def at_once(bench: Bench, seed: int, *acts: Callable[[Actor], Any]) -> list[Any]:
    """All of these, one request at a time. Gives what they give."""
    turns = Turns(seed, len(acts))
    results: list[Any] = [None] * len(acts)

    def act(who: int) -> None:
        try:
            results[who] = acts[who](Actor(bench.folder, bench.sandbox, turns=turns, who=who))
        except BaseException as error:  # noqa: BLE001 - told to who waits for it
            results[who] = error
        finally:
            turns.leave()

    threads = [threading.Thread(target=act, args=(who,), daemon=True) for who in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    assert len(set(turns.taken)) == len(acts), "they were not at it together"
    return results


# --- nothing twice --------------------------------------------------------------------------------------

INSTANCES = ("cf.service_instances", "sm.instances")
KEYS = ("cf.service_credential_bindings", "sm.bindings")


def twice(sandbox: Sandbox) -> dict[str, list[Any]]:
    """Marks that more than one thing carries; and what brokers hold and nobody sees, or the other way round."""
    marks: Counter[Any] = Counter()
    with sandbox.hold() as world:
        hidden = {one for one, row in world.table("broker.instances").items() if row.get("hidden")}
        held = set(world.table("broker.instances")) - hidden
        held |= {
            one for one, row in world.table("broker.bindings").items() if row["instance_id"] not in hidden
        }
        seen: set[str] = set()
        for name in (*INSTANCES, *KEYS):
            for guid, row in world.table(name).items():
                seen.add(guid)
                ours = {key: str(value) for key, value in row["labels"].items() if "reconcile/" in key}
                where = row.get("instance") or row.get("service_instance_id") or row.get("space")
                marks[name, where, tuple(sorted(ours.items()))] += bool(ours)
    return {
        "twice": [mark for mark, times in marks.items() if times > 1],
        "orphans": sorted(held ^ seen),
    }


NOTHING: dict[str, list[Any]] = {"twice": [], "orphans": []}


@dataclass(frozen=True)
class Meeting:
    """What was applied before, and what two people apply at once."""

    one: str
    two: str
    before: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the first. The second one applies without any."""
    same: bool = False


PLAIN = {"memory": 1, "plan": "standard"}
OLD, NEW = (
    HEAD + SETTINGS.format(**PLAIN, size=1, tag="red"),
    HEAD + SETTINGS.format(**PLAIN, size=2, tag="blue"),
)
READ, WRITE = (HEAD + ROTATED.format(use=use, kept="0m") for use in ("read", "write"))

MEETINGS = {
    "prod": Meeting(PROD, PROD, same=True),
    "other": Meeting(HEAD + OTHER, HEAD + OTHER, same=True),
    "the same update": Meeting(NEW, NEW, OLD, same=True),
    "the same rotation": Meeting(WRITE, WRITE, READ, same=True),
    "the same deletion": Meeting(HEAD + ABSENT, HEAD + ABSENT, HEAD + PRESENT, same=True),
    "an update and the older spec": Meeting(NEW, OLD, OLD),
    "an update of what was never applied": Meeting(NEW, OLD),
    "a rotation and the older spec": Meeting(WRITE, READ, READ),
    "pruning and the older spec": Meeting(HEAD + ALONE, HEAD + PRESENT, HEAD + PRESENT, {"prune": True}),
    "a deletion and the older spec": Meeting(HEAD + ABSENT, HEAD + PRESENT, HEAD + PRESENT),
}


def meet(folder: Path, name: str, seed: int) -> None:
    meeting = MEETINGS[name]
    bench = Bench(folder)
    if meeting.before:
        bench.apply(bench.write(meeting.before, "spec.yaml"))
    one, two = (bench.prepare(bench.write(text, "spec.yaml")) for text in (meeting.one, meeting.two))
    bench.plan(bench.write(meeting.one, "spec.yaml"))  # the sandbox gets to know the subaccounts

    ended = at_once(
        bench,
        seed,
        lambda actor: applying(actor, one, **meeting.options),
        lambda actor: applying(actor, two),
    )

    where = (name, seed)
    assert (where, twice(bench.sandbox)) == (where, NOTHING)
    if meeting.same:
        assert (where, [one.unfinished for one in ended]) == (where, [{}, {}])
        assert (where, pipeline.make_plan(one, bench.world(), bench.policy()).plan.empty) == (where, True)
    again = applying(Actor(folder, bench.sandbox), one, **meeting.options)
    planned = pipeline.make_plan(one, bench.world(), bench.policy(**meeting.options))
    left = [str(one.address) for one in planned.plan.changes if one.acts or one.drifted]
    assert (where, again.said, again.unfinished, left, planned.plan.objections) == (where, [], {}, [], ())
    assert (where, twice(bench.sandbox)) == (where, NOTHING)


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("name", ["prod", "other"])
def test_two_who_apply_one_spec_at_once_make_one_world(tmp_path: Path, name: str, seed: int) -> None:
    meet(tmp_path, name, seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [name for name in MEETINGS if name not in {"prod", "other"}])
def test_whoever_meets_whom_nothing_is_there_twice(tmp_path: Path, name: str, seed: int) -> None:
    meet(tmp_path, name, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3, 50))
@pytest.mark.parametrize("name", [name for name in MEETINGS if name not in {"prod", "other"}])
def test_whoever_meets_whom_fifty_times(tmp_path: Path, name: str, seed: int) -> None:
    meet(tmp_path, name, seed)


def rotate_at_once(folder: Path, seed: int) -> None:
    """A rotation of both runtimes is due, and two begin with it: one new generation, and consumers hold that."""
    held = folder / "held"
    held.mkdir()
    bench = Bench(folder)
    spec = bench.write(delivered().replace("HELD", str(held)))
    bench.apply(spec)
    bench.advance(20 * 86400)
    prepared = bench.prepare(spec)

    ended = at_once(bench, seed, *[lambda actor: applying(actor, prepared)] * 2)

    where = (seed, [one.said for one in ended])
    assert (where, [one.unfinished for one in ended]) == (where, [{}, {}])
    assert (where, twice(bench.sandbox)) == (where, NOTHING)
    assert pipeline.make_plan(prepared, bench.world(), bench.policy()).plan.empty
    keys = [row["name"] for table in KEYS for row in rows_of(bench.sandbox, table)]
    assert (where, sorted(keys)) == (where, ["task-center", "task-center-2", "transport", "transport-2"])
    holds = {
        "key.json": "mode 600, opens ['transport-2']",
        "other.json": "mode 600, opens ['task-center-2']",
        ".env": "mode 600, opens ['task-center-2']",
    }
    beside = {f".{name}.reconcile": "generation 2" for name in holds}
    assert (where, described(bench.sandbox, held)["held"]) == (where, holds | beside)


@pytest.mark.parametrize("seed", range(4))
def test_two_who_rotate_and_deliver_at_once_make_one_generation(tmp_path: Path, seed: int) -> None:
    rotate_at_once(tmp_path, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4, 50))
def test_two_who_rotate_and_deliver_at_once_fifty_times(tmp_path: Path, seed: int) -> None:
    rotate_at_once(tmp_path, seed)


def test_a_seed_gives_the_same_interleaving_each_time(tmp_path: Path) -> None:
    asked = []
    for _ in range(2):
        bench = Bench(tmp_path)
        prepared = bench.prepare(bench.write(PROD))
        bench.plan(bench.write(PROD))
        at_once(bench, 7, *[partial(applying, prepared=prepared)] * 2)
        asked.append(bench.requests())

    assert asked[0] == asked[1]


# --- a person at the command line -----------------------------------------------------------------------

CF_INSTANCES, CF_KEYS = "/v3/service_instances", "/v3/service_credential_bindings"
MIXED = (
    HEAD
    + """\
    instances:
      here:
        {service: sandbox-config, plan: standard, parameters: {size: SIZE}, tags: [ours], keys: {k: {}, l: {}}}
"""
)


class Person:
    """Somebody who works with the `cf` CLI on the same space: looks things up by name, then writes; no mark anywhere."""

    def __init__(self, actor: Actor, prepared: pipeline.Prepared) -> None:
        platform = actor.world().platform(prepared.wanted)
        self._door: Door = platform.door("cloud_foundry", prepared.wanted.subaccounts["prod"])
        self.done: list[str] = []

    def _find(self, path: str, *query: tuple[str, str]) -> str:
        found = self._door.get(path, query)["resources"]
        return str(found[0]["guid"]) if found else ""

    def _send(self, method: str, path: str, body: Any = None) -> None:
        """What is refused is read and left at that, as people do."""
        try:
            self._door.send(method, path, body)
            self.done.append(f"{method} {path.split('/')[2]}")
        except PlatformError:
            pass

    def create_service(self, name: str) -> None:
        space = self._find("/v3/spaces", ("names", "apis"))
        plan = self._find(
            "/v3/service_plans", ("names", "standard"), ("service_offering_names", "sandbox-config")
        )
        where = {"space": {"data": {"guid": space}}, "service_plan": {"data": {"guid": plan}}}
        body = {"type": "managed", "name": name, "relationships": where, "parameters": {"size": 77}}
        self._send("POST", CF_INSTANCES, {**body, "tags": ["theirs"]})

    def update_service(self, name: str) -> None:
        if guid := self._find(CF_INSTANCES, ("names", name)):
            self._send("PATCH", f"{CF_INSTANCES}/{guid}", {"parameters": {"size": 78}, "tags": ["by hand"]})

    def delete_service_key(self, instance: str, name: str) -> None:
        guid = self._find(CF_INSTANCES, ("names", instance))
        if guid and (key := self._find(CF_KEYS, ("names", name), ("service_instance_guids", guid))):
            self._send("DELETE", f"{CF_KEYS}/{key}")

    def create_service_key(self, instance: str, name: str) -> None:
        if guid := self._find(CF_INSTANCES, ("names", instance)):
            where = {"service_instance": {"data": {"guid": guid}}}
            self._send("POST", CF_KEYS, {"type": "key", "name": name, "relationships": where})

    def all_of_it(self) -> None:
        self.create_service("here")
        self.create_service_key("here", "theirs")
        self.update_service("here")
        self.delete_service_key("here", "k")


SCRIPTS: dict[str, Callable[[Person], None]] = {
    "create-service": lambda person: person.create_service("here"),
    "delete-service-key": lambda person: person.delete_service_key("here", "k"),
    "update-service": lambda person: person.update_service("here"),
    "create-service-key": lambda person: person.create_service_key("here", "l"),
    "all of it": lambda person: person.all_of_it(),
}


def unmarked(sandbox: Sandbox) -> dict[str, Any]:
    """What carries no mark, as far as a person can see it."""
    with sandbox.hold() as world:
        return {
            guid: {key: row.get(key) for key in ("name", "tags", "plan", "labels", "annotations", "instance")}
            for table in ("cf.service_instances", "cf.service_credential_bindings")
            for guid, row in world.table(table).items()
            if not any("reconcile/" in key for key in row["labels"])
        }


def meet_a_person(folder: Path, script: str, before: bool, seed: int) -> None:
    bench = Bench(folder)
    if before:
        bench.apply(bench.write(MIXED.replace("SIZE", "1")))
    spec = bench.write(MIXED.replace("SIZE", "2"))
    prepared = bench.prepare(spec)
    bench.plan(spec)
    with bench.sandbox.hold() as world:
        world.settings["delays"].update({"update": 3})
    theirs: dict[str, Any] = {}

    def at_the_keyboard(actor: Actor) -> list[str]:
        person = Person(actor, prepared)
        SCRIPTS[script](person)
        theirs.update(unmarked(bench.sandbox))
        return person.done

    ended, done = at_once(bench, seed, lambda actor: applying(actor, prepared), at_the_keyboard)

    where = (script, before, seed, done)
    bench.advance(60)
    bench.plan(spec)  # what the person set going comes to its end
    again = applying(Actor(folder, bench.sandbox), prepared)
    again = applying(Actor(folder, bench.sandbox), prepared) if again.unfinished else again
    planned = pipeline.make_plan(prepared, bench.world(), bench.policy())
    after = unmarked(bench.sandbox)
    names = Counter(
        (row.get("space") or row["instance"], row["name"])
        for table in ("cf.service_instances", "cf.service_credential_bindings")
        for row in rows_of(bench.sandbox, table)
    )
    assert (where, {guid: row for guid, row in after.items() if guid in theirs}) == (where, theirs)
    assert (where, [name for name, times in names.items() if times > 1]) == (where, [])
    assert (where, twice(bench.sandbox)) == (where, NOTHING)
    assert (where, all(ended.unfinished.values())) == (where, True)
    if theirs and not (planned.plan.empty and not planned.plan.objections):
        said = [one.message for one in planned.plan.objections]
        assert (where, bool(said), all("carry" in one for one in said)) == (where, True, True), said
    else:
        assert (where, again.said, again.unfinished, planned.plan.empty) == (where, [], {}, True)


def rows_of(sandbox: Sandbox, table: str) -> list[dict[str, Any]]:
    with sandbox.hold() as world:
        return [dict(row) for row in world.table(table).values()]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("before", [False, True], ids=["new", "there"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_person_at_the_command_line_loses_nothing_and_nothing_is_there_twice(
    tmp_path: Path, script: str, before: bool, seed: int
) -> None:
    meet_a_person(tmp_path, script, before, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3, 50))
@pytest.mark.parametrize("before", [False, True], ids=["new", "there"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_person_at_the_command_line_fifty_times(
    tmp_path: Path, script: str, before: bool, seed: int
) -> None:
    meet_a_person(tmp_path, script, before, seed)


# --- an operation waits its turn ------------------------------------------------------------------------

SM_INSTANCES, SM_KEYS = "/v1/service_instances", "/v1/service_bindings"
KEYED = """\
    instances:
      config: {{service: sandbox-config, plan: standard, runtime: {runtime}{more}, keys: {{{keys}}}}}
"""
BOTH = pytest.mark.parametrize("runtime", ["cloudfoundry", "other"])
PLACES = {
    "cloudfoundry": ("cloud_foundry", CF_INSTANCES, CF_KEYS),
    "other": ("service_manager", SM_INSTANCES, SM_KEYS),
}


def keyed(runtime: str, keys: str, more: str = "") -> str:
    return HEAD + KEYED.format(runtime=runtime, keys=keys, more=more)


def busy_when(bench: Bench, spec: str, runtime: str, method: str, path: str, *, times: int = 1) -> list[int]:
    """Somebody begins to change the instance right before this is asked, which then is not possible just now."""
    with bench.sandbox.hold() as world:
        world.settings["delays"].update({"update": 8})
    prepared = bench.prepare(spec)
    service, instances, _ = PLACES[runtime]
    door = bench.world().platform(prepared.wanted).door(service, prepared.wanted.subaccounts["prod"])
    happened: list[int] = []

    def hook(_: int, request: Any) -> None:
        fits = request.method == method and request.path.startswith(path)
        if fits and len(happened) < times and threading.current_thread() is not threading.main_thread():
            happened.append(1)
            with bench.sandbox.hold() as world:
                table = "cf.service_instances" if runtime == "cloudfoundry" else "sm.instances"
                (guid,) = world.table(table)
            query = () if runtime == "cloudfoundry" else (("async", "true"),)
            with suppress(PlatformError):  # it is busy with that already
                door.send("PATCH", f"{instances}/{guid}", {"parameters": {"size": 3}}, query)

    bench.sandbox.on_request = hook
    return happened


def statuses(reports: list[Report]) -> set[tuple[str, str]]:
    return {(str(one.status), one.error) for one in reports[-1].outcomes}


@BOTH
@pytest.mark.parametrize("times", [1, 4])
def test_keys_wait_until_what_is_done_to_their_instance_is_over(
    tmp_path: Path, runtime: str, times: int
) -> None:
    bench = Bench(tmp_path)
    bench.apply(bench.write(keyed(runtime, "")))
    spec = bench.write(keyed(runtime, "k: {}, l: {}"))
    happened = busy_when(bench, spec, runtime, "POST", PLACES[runtime][2], times=times)

    reports = bench.apply(spec)

    assert (statuses(reports), bool(happened)) == ({("done", "")}, True)
    assert twice(bench.sandbox) == NOTHING


@BOTH
@pytest.mark.parametrize("what", ["key", "instance"])
def test_what_is_deleted_waits_until_what_is_done_to_the_instance_is_over(
    tmp_path: Path, runtime: str, what: str
) -> None:
    bench = Bench(tmp_path)
    bench.apply(bench.write(keyed(runtime, "k: {}, l: {}" if what == "key" else "")))
    gone = ", ensure: absent" if what == "instance" else ""
    spec = bench.write(keyed(runtime, "" if gone else "k: {ensure: absent}, l: {}", gone))
    _, instances, keys = PLACES[runtime]
    happened = busy_when(bench, spec, runtime, "DELETE", keys if what == "key" else instances)

    reports = bench.apply(spec)

    assert (statuses(reports), bool(happened)) == ({("done", "")}, True)
    assert twice(bench.sandbox) == NOTHING
    assert bench.plan(spec).plan.empty


def test_a_key_that_is_refused_for_good_fails_with_the_platforms_words_after_two_looks(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    bench.apply(bench.write(keyed("cloudfoundry", "")))
    spec = bench.write(keyed("cloudfoundry", "k: {}"))
    refusal = {"errors": [{"detail": "Nobody may.", "title": "CF-UnprocessableEntity", "code": 10008}]}
    post = {"method": "POST", "path": f"^{CF_KEYS}$"}
    bench.sandbox.faults.add({"do": "status", "status": 422, "match": post, "body": refusal})
    bench.requests()

    reports = bench.apply(spec)

    asked = [(method, path) for method, _, path in bench.requests()]
    after = asked[asked.index(("POST", CF_KEYS)) :]
    assert [(str(one.status), "Nobody may." in one.error) for one in reports[-1].outcomes] == [
        ("failed", True)
    ]
    assert after == [("POST", CF_KEYS), ("GET", CF_KEYS), ("GET", CF_INSTANCES)]


def test_a_key_whose_instance_was_deleted_meanwhile_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.apply(bench.write(keyed("cloudfoundry", "")))
    spec = bench.write(keyed("cloudfoundry", "k: {}"))

    def vanish(_: int, request: Any) -> None:
        if (request.method, request.path) == ("POST", CF_KEYS):
            with bench.sandbox.hold() as world:
                world.table("cf.service_instances").clear()

    bench.sandbox.on_request = vanish

    (outcome,) = bench.apply(spec)[-1].outcomes

    assert (str(outcome.status), outcome.error.endswith("; its instance is gone")) == ("failed", True)


@pytest.mark.parametrize(
    ("deed", "runtime", "match"),
    [
        ("cf-409", "cloudfoundry", {"method": "PATCH", "path": CF_INSTANCES}),
        ("sm-busy", "other", {"method": "PATCH", "path": SM_INSTANCES}),
        ("sm-busy", "other", {"method": "POST", "path": SM_KEYS}),
        ("cis-locked", "other", {"method": "PUT"}),
    ],
    ids=["60016", "busy update", "busy key", "30004"],
)
def test_another_operation_is_waited_for_as_long_as_there_is_time(
    tmp_path: Path, deed: str, runtime: str, match: dict[str, str]
) -> None:
    bench = Bench(tmp_path)
    bench.apply(bench.write(keyed(runtime, "", ", parameters: {size: 1}")))
    assigned = "    entitlements: {APPLICATION_RUNTIME: {MEMORY: 2}}\n"
    text = keyed(runtime, "k: {}", ", parameters: {size: 2}").replace(
        "    instances:\n", f"{assigned}    instances:\n"
    )
    spec = bench.write(text)
    bench.sandbox.faults.add({"do": deed, "match": match, "times": 9})

    reports = bench.apply(spec)

    assert statuses(reports) == {("done", "")}
    assert [rule["struck"] for rule in bench.sandbox.faults.rules()] == [9]
    assert bench.plan(spec).plan.empty
