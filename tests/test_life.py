"""Sixty days of life: keys are made anew when due, and at no moment is what a consumer holds dead.

Consumers here are programs of their own. They read what was delivered to them, take a token with it at the token service, or
at the certificate host, and call their API; plain `requests`, nothing of ours. They do so after every single request of every
run, with what they hold now and with what they read earlier, for as long as old keys are to be kept.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import requests

from btp_reconcile import pipeline
from btp_reconcile.core.model import Action, Address, Phase, Status
from btp_reconcile.sandbox import InProcessAdapter, Sandbox
from tests.test_concurrency import NOTHING, twice
from tests.test_interrupted import GoneError, described, folder
from tests.worlds import Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from btp_reconcile.core.model import Change, Report

DAY = 86400.0
PATIENCE = 60.0
"""Seconds for which no more is promised: a day is noted a moment after the file was written."""

HEAD = """\
version: 1
owner: finance
name: life
access:
  central: {service_key: "${env:A}"}
  service_manager: {service_key: "${env:B}"}
  destination: {service_key: "${env:D}"}
  cloud_foundry: {username: u, password: "${env:C}"}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    cloud_foundry: {org: finance-prod, space: apis}
"""

SPEC = (
    HEAD
    + """\
    instances:
      apim:
        api: api-management
        runtime: cloudfoundry
        parameters: {role: APIPortal.Administrator}
        keys:
          transport:
            rotate_after: 9d
            keep_old_for: 3d
            deliver: {main: {file: {path: held/transport.json}}}
          pipeline:
            credential: {type: x509, validity: 30d}
            rotate_after: 20d
            keep_old_for: 5d
            deliver: {main: {file: {path: held/pipeline.json}}}
      afc-api:
        api: afc
        runtime: other
        keys:
          task-center:
            rotate_after: 7d
            keep_old_for: 2d
            deliver: {main: {file: {path: held/afc.json}}}
    destinations:
      APIManagement: {recipe: api-management-transport, key: apim/transport}
"""
)

MOVED = (
    HEAD
    + """\
    instances:
      afc-api:
        api: afc
        protect: false
        runtime: RUNTIME
        keep_old_for: 2d
        keys:
          task-center:
            deliver: {main: {file: {path: held/afc.json}}, second: {file: {path: held/second.json}}}
          identity:
            deliver: {main: {file: {path: held/identity.json}}}
"""
)


# --- who uses the keys ----------------------------------------------------------------------------------


class DeadError(AssertionError):
    """What a consumer holds does not work."""


@dataclass
class Program:
    """Reads a file as the service wrote its key, and calls the API with it."""

    file: Path
    keep: float
    """Seconds for which it may go on with what it has read."""
    held: str = ""
    read: dict[str, float] = field(default_factory=dict)
    """What it has read earlier, and until when that must work."""

    def look(self, now: float) -> None:
        """Read the file again. What it held until now stays in the memory of who has read it."""
        text = self.file.read_text(encoding="utf-8") if self.file.exists() else self.held
        if text != self.held:
            if self.held:
                self.read[self.held] = now + self.keep - PATIENCE
            self.held = text

    def calls(self, session: requests.Session, sandbox: Sandbox, now: float) -> None:
        """Everything it may still use works."""
        del sandbox
        self.read = {text: until for text, until in self.read.items() if until > now}
        for text in (self.held, *self.read):
            if text:
                self._call(session, json.loads(text))

    def _call(self, session: requests.Session, key: Mapping[str, Any]) -> None:
        form = {"grant_type": "client_credentials"}
        papers = None
        url = f"{key.get('url')}/apiportal/api/1.0/Management.svc/APIProxies"
        if "uaa" in key:  # AFC
            service = f"{key['uaa']['url']}/oauth/token"
            form |= {"client_id": key["uaa"]["clientid"], "client_secret": key["uaa"]["clientsecret"]}
            url = f"{key['endpoints']['scim2']}/Groups?count=1"
        elif "certificate" in key:
            service, papers = f"{key['certurl']}/oauth/token", self._papers(key)
            form["client_id"] = key["clientId"]
        else:
            service = key["tokenUrl"]
            form |= {"client_id": key["clientId"], "client_secret": key["clientSecret"]}
        try:
            answer = session.post(service, form, cert=papers)
        except requests.exceptions.SSLError as error:
            raise DeadError(f"{self.file.name}: {error}") from None
        if answer.status_code != 200:
            raise DeadError(f"{self.file.name}: no token, {answer.status_code} {answer.text}")
        token = answer.json()["access_token"]
        answer = session.get(url, headers={"Authorization": f"Bearer {token}"})
        if answer.status_code != 200:
            raise DeadError(f"{self.file.name}: its API says {answer.status_code} {answer.text}")

    def _papers(self, key: Mapping[str, Any]) -> tuple[str, str]:
        where = self.file.parent.with_name("papers")
        where.mkdir(exist_ok=True)
        certificate, private = where / "certificate.pem", where / "key.pem"
        if not certificate.exists() or certificate.read_text(encoding="utf-8") != key["certificate"]:
            certificate.write_text(key["certificate"], encoding="utf-8")
            private.write_text(key["privateKey"], encoding="utf-8")
        return str(certificate), str(private)


@dataclass
class Finder:
    """An application that finds its destination, with a token in it, and calls what it names."""

    name: str

    def look(self, now: float) -> None:
        """It keeps nothing."""

    def calls(self, session: requests.Session, sandbox: Sandbox, now: float) -> None:
        """The destination has a token that works, if it is there."""
        del now
        (key,) = sandbox.access()["destination"].values()
        form = {
            "grant_type": "client_credentials",
            "client_id": key["clientid"],
            "client_secret": key["clientsecret"],
        }
        answer = session.post(f"{key['url']}/oauth/token", form)
        mine = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        url = f"{key['uri']}/destination-configuration/v1/destinations/{self.name}"
        answer = session.get(url, headers=mine)
        if answer.status_code == 404:
            return
        found = answer.json()
        tokens = found["authTokens"]
        if "error" in tokens[0]:
            raise DeadError(f"{self.name}: {tokens[0]['error']}")
        header = tokens[0]["http_header"]
        answer = session.get(
            found["destinationConfiguration"]["URL"], headers={header["key"]: header["value"]}
        )
        if answer.status_code != 200:
            raise DeadError(f"{self.name}: its API says {answer.status_code} {answer.text}")


# --- runs that are watched ------------------------------------------------------------------------------


@dataclass
class Wire(InProcessAdapter):
    """The way of a run to the sandbox: counted, cut where a test says so, and looked at after every request."""

    land: Land

    def __post_init__(self) -> None:
        super().__init__(self.land.bench.sandbox)

    def send(self, request: requests.PreparedRequest, *given: Any, **named: Any) -> requests.Response:
        land = self.land
        if land.gone is not None and land.count >= land.gone:
            raise GoneError
        land.count += 1
        cut = land.cut if land.cut and land.cut[0] == land.count else None
        if cut and cut[1] == "before":
            raise requests.ConnectionError("cut before it was done", request=request)
        answer = super().send(request, *given, **named)
        land.check(f"{request.method} {request.url}")
        if cut:
            raise requests.ConnectionError("cut after it was done", request=request)
        return answer


@dataclass
class Watched(Bench):
    """A bench whose runs go over a watched wire."""

    land: Land | None = None

    def world(self) -> pipeline.World:
        made = super().world()
        if self.land is not None:
            self.clients[-1]._adapter = Wire(self.land)
        return made


@dataclass
class Land:
    """One world over days, and who lives on its keys."""

    where: Path
    text: str
    programs: Sequence[Program | Finder]
    count: int = 0
    """Requests of the run that goes on."""
    gone: int | None = None
    """The process ends when it asks for more than so many."""
    cut: tuple[int, str] | None = None
    looked: int = 0
    asked: int = 0
    """How often consumers were looked at, and how often they had to ask."""
    unchanged: str = ""

    def __post_init__(self) -> None:
        (self.where / "held").mkdir(parents=True, exist_ok=True)
        self.bench = Watched(self.where, land=self)
        self.session = requests.Session()
        self.session.mount("https://", InProcessAdapter(self.bench.sandbox))
        self.session.trust_env = False
        self.say(self.text)

    def say(self, text: str) -> None:
        """What the spec says from now on."""
        self.spec = self.bench.write(text.replace("held/", f"{self.where}/held/"))
        self.prepared = self.bench.prepare(self.spec)

    def check(self, after: str) -> None:
        """Every consumer works. What they ask takes no time, so that runs are the same whoever looks on.

        They need not ask again while no file, no client, no destination and not the hour has changed.
        """
        with self.bench.sandbox.hold() as world:
            elapsed, now = world.state["elapsed"], world.now()
            matters = [world.table(name) for name in ("clients", "destinations")]
            known = json.dumps([*matters, int(now // 3600)], sort_keys=True)
        for program in self.programs:
            program.look(now)
        known += "".join(program.held for program in self.programs if isinstance(program, Program))
        self.looked += 1
        if known == self.unchanged:
            return
        self.asked += 1
        try:
            for program in self.programs:
                program.calls(self.session, self.bench.sandbox, now)
        except DeadError as error:
            raise DeadError(f"after request {self.count}, {after}: {error}") from None
        with self.bench.sandbox.hold() as world:
            world.state["elapsed"] = elapsed
        self.unchanged = known

    def run(self, **options: Any) -> list[Report]:
        """One apply."""
        self.count = 0
        world, policy = self.bench.world(), self.bench.policy(**options)
        planned = pipeline.make_plan(self.prepared, world, policy)
        assert planned.plan.objections == ()
        reports = pipeline.settle(planned, world, policy)[1]
        self.check("the run is over")
        return reports

    def done(self, **options: Any) -> list[str]:
        """One apply in which everything is done; its steps."""
        outcomes = [one for report in self.run(**options) for one in report.outcomes]
        assert [(str(one.step.id), one.error) for one in outcomes if one.status is not Status.DONE] == []
        return [str(one.step.id).partition("@")[0] for one in outcomes]

    def cut_off(self, number: int, how: str, when: str, **options: Any) -> None:
        """One apply that is cut at this request, or gone after it."""
        self.cut = (number, when)
        self.gone = number if how == "gone" else None
        with suppress(GoneError):
            self.run(**options)
        self.cut = self.gone = None

    def days(self, number: float) -> None:
        self.bench.advance(number * DAY)
        self.check("time has passed")

    def changes(self, **options: Any) -> dict[str, Change]:
        planned = pipeline.make_plan(self.prepared, self.bench.world(), self.bench.policy(**options))
        assert planned.plan.objections == ()
        return {str(one.address): one for one in planned.plan.changes if one.acts or one.drifted}

    def keys(self) -> list[str]:
        facts = self.bench.plan(self.spec).facts
        return sorted(f"{one.runtime} {one.name}" for one in facts.of("key"))

    def settled(self, **options: Any) -> dict[str, Any]:
        """All there is, and that nothing is left to do."""
        there = described(self.bench.sandbox, self.where / "held")
        planned = pipeline.make_plan(self.prepared, self.bench.world(), self.bench.policy(**options))
        return {
            "world": there,
            "left to do": [str(one.address) for one in planned.plan.changes if one.drifted or one.acts],
            "in the way": planned.plan.objections,
            "half-done": [fact.name for fact in planned.facts.all if fact.phase is not Phase.READY],
        }

    def kept(self) -> Callable[[], None]:
        """The world as it is now: gives what sets it back."""
        with self.bench.sandbox.hold() as world:
            state = copy.deepcopy(world.state)
        files = {one: one.read_bytes() for one in (self.where / "held").iterdir()}
        programs = copy.deepcopy(self.programs)

        def set_back() -> None:
            with self.bench.sandbox.hold() as world:
                world.state = copy.deepcopy(state)
            shutil.rmtree(self.where / "held")
            (self.where / "held").mkdir()
            for path, content in files.items():
                path.touch(0o600)
                path.write_bytes(content)
            self.programs = copy.deepcopy(programs)
            self.bench.sandbox.requests.clear()

        return set_back


def at_home(where: Path, text: str = SPEC) -> Land:
    held = where / "held"
    programs: list[Program | Finder] = [
        Program(held / "transport.json", 3 * DAY),
        Program(held / "pipeline.json", 5 * DAY),
        Program(held / "afc.json", 2 * DAY),
        Finder("APIManagement"),
    ]
    return Land(where, text, programs)


# --- sixty days -----------------------------------------------------------------------------------------

TRANSPORT, PIPELINE, CENTER = (
    "key:prod/apim/transport",
    "key:prod/apim/pipeline",
    "key:prod/afc-api/task-center",
)


def test_in_sixty_days_keys_are_renewed_when_due_and_no_consumer_is_ever_without_one(tmp_path: Path) -> None:
    land = at_home(tmp_path)
    happened: dict[str, list[int]] = {}
    for day in range(60):
        if day:
            land.days(1)
        for step in land.done(only_due=day > 0):
            happened.setdefault(step.partition("#")[0], []).append(day)

    made = {key: happened[f"create {key}"] for key in (TRANSPORT, PIPELINE, CENTER)}
    assert made == {
        TRANSPORT: list(range(0, 60, 9)),
        PIPELINE: [0, 20, 40],
        CENTER: list(range(0, 60, 7)),
    }
    gone = {key: happened[f"delete {key}"] for key in made}
    assert gone == {
        TRANSPORT: [day + 3 for day in made[TRANSPORT][1:]],
        PIPELINE: [day + 5 for day in made[PIPELINE][1:]],
        CENTER: [day + 2 for day in made[CENTER][1:]],
    }
    assert land.keys() == ["cloudfoundry pipeline-3", "cloudfoundry transport-7", "other task-center-9"]
    assert land.settled()["left to do"] == []
    assert (land.looked > 1000, land.asked > 100) == (True, True), (land.looked, land.asked)


@dataclass
class Eventful:
    """A day on which something is done: what was before it, how often that asks, and what is there after it."""

    set_back: Callable[[], None]
    only_due: bool
    requests: int
    after: dict[str, Any] = field(default_factory=dict)


@cache
def eventful() -> tuple[Land, dict[int, Eventful]]:
    """Four weeks undisturbed; the days on which a run has steps."""
    land = at_home(folder() / "life")
    days: dict[int, Eventful] = {}
    for day in range(26):
        if day:
            land.days(1)
        set_back, due = land.kept(), day > 0
        if land.done(only_due=due):
            days[day] = Eventful(set_back, due, land.count)
            undo = land.kept()
            days[day].after = land.settled()
            undo()
    return land, days


DISTURBANCES = [(how, when) for how in ("gone", "lost") for when in ("before", "after")]


def disturbed(day: int, number: int, how: str, when: str) -> None:
    """This request of that day is cut; at the latest the next run makes the same world, and nobody was dead."""
    land, days = eventful()
    here = days[day]
    here.set_back()
    land.cut_off(number, how, when, only_due=here.only_due)
    land.bench.advance(1)
    where = (day, number, how, when)
    if how == "gone":
        land.done(only_due=here.only_due)

    assert (where, land.settled()) == (where, here.after)
    assert (where, twice(land.bench.sandbox)) == (where, NOTHING)


def test_on_a_day_like_others_nothing_is_left_to_do() -> None:
    _, days = eventful()

    assert list(days) == [0, 7, 9, 12, 14, 16, 18, 20, 21, 23, 25]
    left = {
        day: {key: one for key, one in here.after.items() if key != "world"} for day, here in days.items()
    }
    nothing: dict[str, Any] = {"left to do": [], "in the way": (), "half-done": []}
    assert left == dict.fromkeys(days, nothing)


@pytest.mark.parametrize(("how", "when"), DISTURBANCES)
@pytest.mark.parametrize("day", [7, 9, 20])
def test_a_rotation_that_is_cut_off_is_finished_by_the_next_run_and_kills_nobody(
    day: int, how: str, when: str
) -> None:
    """A sample; all of it is in `make soak`."""
    chance = random.Random(f"{day} {how} {when}")
    for number in chance.sample(range(1, eventful()[1][day].requests + 1), 3):
        disturbed(day, number, how, when)


@pytest.mark.soak
@pytest.mark.parametrize(("how", "when"), DISTURBANCES)
@pytest.mark.parametrize("day", [0, 7, 9, 12, 14, 16, 18, 20, 21, 23, 25])
def test_whatever_request_of_whatever_day_is_cut_off_nobody_is_dead(day: int, how: str, when: str) -> None:
    for number in range(1, eventful()[1][day].requests + 1):
        disturbed(day, number, how, when)


# --- a consumer that cannot be written ------------------------------------------------------------------


def test_a_delivery_that_fails_for_eight_days_kills_nobody_and_is_made_up_for(tmp_path: Path) -> None:
    text = (
        HEAD
        + """\
    instances:
      apim:
        api: api-management
        runtime: cloudfoundry
        keys:
          transport:
            rotate_after: 4d
            keep_old_for: 2d
            deliver:
              near: {file: {path: held/near.json}}
              far: {file: {path: held/far/far.json}}
"""
    )
    near = Program(tmp_path / "held" / "near.json", 2 * DAY)
    far = Program(tmp_path / "held" / "far" / "far.json", 2 * DAY)
    land = Land(tmp_path, text, [near, far])
    (tmp_path / "held" / "far").mkdir()
    land.done()
    land.days(4)
    away = (tmp_path / "held" / "far").rename(tmp_path / "away")

    for _ in range(8):
        statuses = {str(one.step.address): str(one.status) for one in land.run(only_due=True)[-1].outcomes}
        assert statuses["delivery:prod/apim/transport/far"] == "failed"
        assert land.keys() == ["cloudfoundry transport", "cloudfoundry transport-2"]
        land.days(1)

    away.rename(tmp_path / "held" / "far")
    assert land.done(only_due=True) == [
        "update delivery:prod/apim/transport/far#2",
        f"date {TRANSPORT}#1",
    ]
    land.days(1.9)
    # It has become old meanwhile: now that everybody has it, its successor is made as usual.
    assert land.done(only_due=True)[0] == f"create {TRANSPORT}#3"
    assert land.keys() == [f"cloudfoundry transport{one}" for one in ("", "-2", "-3")]
    land.days(0.2)
    assert land.done(only_due=True) == [f"delete {TRANSPORT}#1"]
    land.days(2)
    assert land.done(only_due=True) == [f"delete {TRANSPORT}#2"]
    assert land.keys() == ["cloudfoundry transport-3"]


def test_a_certificate_that_nobody_got_in_time_is_made_anew_for_who_comes_back_late(tmp_path: Path) -> None:
    text = (
        HEAD
        + """\
    instances:
      apim:
        api: api-management
        runtime: cloudfoundry
        keys:
          pipeline:
            credential: {type: x509, validity: 8d}
            rotate_after: 4d
            keep_old_for: 1d
            deliver: {main: {file: {path: held/far/pipeline.json}}}
"""
    )
    far = tmp_path / "held" / "far"
    land = Land(tmp_path, text, [])
    far.mkdir()
    land.done()
    land.days(4)
    away = far.rename(tmp_path / "away")
    for _ in range(3):
        land.run()
        land.days(2.9)
    assert land.keys() == ["cloudfoundry pipeline", "cloudfoundry pipeline-2"]
    for _ in range(3):
        land.run()
        land.days(0.1)
    assert land.keys() == ["cloudfoundry pipeline", "cloudfoundry pipeline-2", "cloudfoundry pipeline-3"]

    away.rename(far)
    land.done()
    assert land.changes() == {}
    land.programs = [Program(far / "pipeline.json", DAY)]
    land.days(1.1)
    land.done()
    assert land.keys() == ["cloudfoundry pipeline-3"]


# --- a move to the other runtime ------------------------------------------------------------------------


def moving(where: Path, runtime: str = "cloudfoundry") -> Land:
    held = where / "held"
    programs = [Program(held / name, 2 * DAY) for name in ("afc.json", "second.json", "identity.json")]
    return Land(where, MOVED.replace("RUNTIME", runtime), programs)


AFC = "instance:prod/afc-api"
OLD_KEYS = ["cloudfoundry identity", "cloudfoundry task-center"]
NEW_KEYS = ["other identity-2", "other task-center-2"]


def instances(land: Land) -> list[str]:
    return sorted(f"{one.runtime} {one.name}" for one in land.bench.plan(land.spec).facts.of("instance"))


def test_afc_moves_to_the_other_runtime_without_a_dead_moment(tmp_path: Path) -> None:
    allowed = frozenset({AFC})
    land = moving(tmp_path)
    land.done()
    assert land.keys() == OLD_KEYS
    land.say(MOVED.replace("RUNTIME", "other"))

    land.done(allow=allowed)
    assert (instances(land), land.keys()) == (["cloudfoundry afc-api", "other afc-api"], OLD_KEYS + NEW_KEYS)
    assert land.changes(allow=allowed) == {}
    land.days(1.9)
    assert land.changes(allow=allowed) == {}
    land.days(0.2)
    # The keys go by themselves; the instance only when that is allowed by name.
    assert sorted(land.changes()) == [CENTER.replace("task-center", "identity"), CENTER]
    steps = land.done(allow=allowed)

    assert [step for step in steps if step.startswith("delete")][-1] == f"delete {AFC}#1"
    assert (instances(land), land.keys()) == (["other afc-api"], NEW_KEYS)
    assert land.changes() == {}


def test_an_old_instance_stays_while_one_consumer_has_not_the_new_key(tmp_path: Path) -> None:
    allowed = frozenset({AFC})
    land = moving(tmp_path)
    away = tmp_path / "away"
    text = MOVED.replace("held/second.json", "held/far/second.json")
    land.say(text.replace("RUNTIME", "cloudfoundry"))
    (tmp_path / "held" / "far").mkdir()
    land.programs = [
        *land.programs[:1],
        Program(tmp_path / "held" / "far" / "second.json", 2 * DAY),
        land.programs[2],
    ]
    land.done()
    land.say(text.replace("RUNTIME", "other"))
    (tmp_path / "held" / "far").rename(away)
    for _ in range(4):
        land.run(allow=allowed)
        land.days(1)
        assert instances(land) == ["cloudfoundry afc-api", "other afc-api"]
        there = land.keys()
        assert "cloudfoundry task-center" in there

    away.rename(tmp_path / "held" / "far")
    land.done(allow=allowed)
    assert instances(land) == ["cloudfoundry afc-api", "other afc-api"]
    land.days(2.1)
    land.done(allow=allowed)
    assert (instances(land), land.keys()) == (["other afc-api"], NEW_KEYS)


@cache
def moves() -> tuple[Land, list[Eventful]]:
    """The move and the day on which the old instance goes, undisturbed."""
    land = moving(folder() / "moving")
    land.done()
    land.say(MOVED.replace("RUNTIME", "other"))
    days = []
    for _ in range(2):
        set_back = land.kept()
        land.done(allow=frozenset({AFC}))
        days.append(Eventful(set_back, False, land.count, land.settled()))
        land.days(2.1)
    return land, days


def moved_and_disturbed(day: int, number: int, how: str, when: str) -> None:
    land, days = moves()
    days[day].set_back()
    allowed = frozenset({AFC})
    land.cut_off(number, how, when, allow=allowed)
    land.bench.advance(1)
    if how == "gone":
        land.done(allow=allowed)

    where = (day, number, how, when)
    assert (where, land.settled()) == (where, days[day].after)
    assert (where, twice(land.bench.sandbox)) == (where, NOTHING)


@pytest.mark.parametrize(("how", "when"), DISTURBANCES)
@pytest.mark.parametrize("day", [0, 1])
def test_a_move_that_is_cut_off_is_finished_by_the_next_run_and_kills_nobody(
    day: int, how: str, when: str
) -> None:
    """A sample; all of it is in `make soak`."""
    chance = random.Random(f"{day} {how} {when}")
    for number in chance.sample(range(1, moves()[1][day].requests + 1), 3):
        moved_and_disturbed(day, number, how, when)


@pytest.mark.soak
@pytest.mark.parametrize(("how", "when"), DISTURBANCES)
@pytest.mark.parametrize("day", [0, 1])
def test_whatever_request_of_a_move_is_cut_off_nobody_is_dead(day: int, how: str, when: str) -> None:
    for number in range(1, moves()[1][day].requests + 1):
        moved_and_disturbed(day, number, how, when)


# --- what else could take a key away too early ----------------------------------------------------------

TWO_KEYS = """\
    instances:
      apim:
        api: api-management
        runtime: cloudfoundry
        keys: {transport: {rotate_after: 4d, keep_old_for: KEPT}}
MORE    destinations:
      APIManagement:
        recipe: api-management-transport
        key: apim/transport
        properties: {Description: "DESCRIPTION"}
"""
PORTAL = """\
      portal: {api: api-management-devportal, runtime: cloudfoundry, entitlement: external, keys: {k: {}}}
"""


@pytest.mark.parametrize("kept", ["2d", "0m"])
def test_a_destination_that_waits_for_another_key_keeps_the_one_it_holds(tmp_path: Path, kept: str) -> None:
    text = HEAD + TWO_KEYS.replace("KEPT", kept)
    land = Land(tmp_path, text.replace("MORE", "").replace("DESCRIPTION", "plain"), [Finder("APIManagement")])
    land.done()
    land.days(4)
    # Its second key stands in an instance whose plan nobody has entitled yet.
    land.say(text.replace("MORE", PORTAL).replace("DESCRIPTION", "${key:portal/k#url}"))

    planned = land.changes()["destination:prod/APIManagement"]
    assert (planned.gate, planned.action) == ("it needs instance:prod/portal, which waits", Action.AWAIT)
    for _ in range(4):
        land.run()
        assert land.keys() == ["cloudfoundry transport", "cloudfoundry transport-2"]
        land.days(1)


@pytest.mark.parametrize("runtime", ["cloudfoundry", "other"])
def test_a_new_key_that_could_not_be_made_is_made_when_rotations_are_looked_after_again(
    tmp_path: Path, runtime: str
) -> None:
    text = HEAD + (
        f"    instances: {{apim: {{api: api-management, runtime: {runtime}, keys: {{transport: {{keep_old_for: 1d, "
        "rotate_after: 4d, deliver: {main: {file: {path: held/transport.json}}}}}}}\n"
    )
    land = Land(tmp_path, text, [Program(tmp_path / "held" / "transport.json", DAY)])
    land.done()
    land.days(4)
    with land.bench.sandbox.hold() as world:
        failure = {"verb": "bind", "times": 2, "status": "async", "description": "not now"}
        world.settings["broker_failures"] = [failure]
    ended = {str(one.step.id): str(one.status) for one in land.run(only_due=True)[-1].outcomes}
    assert ended[f"create {TRANSPORT}#2"] == "failed"

    land.days(1)
    assert f"create {TRANSPORT}#2" in land.done(only_due=True)
    assert land.keys() == [f"{runtime} transport", f"{runtime} transport-2"]
    land.days(1.1)
    # Its day is noted by the run after the one that served everybody: until then it was not known to be needed no more.
    while len(land.keys()) > 1:
        land.done(only_due=True)
        land.days(1.1)
    assert land.keys() == [f"{runtime} transport-2"]


def test_a_run_with_an_older_plan_does_not_put_an_older_key_back(tmp_path: Path) -> None:
    """What it meant to do was planned before another run made the key anew."""
    text = HEAD + TWO_KEYS.replace("KEPT", "2d").replace("MORE", "")
    land = Land(tmp_path, text.replace("DESCRIPTION", "before"), [Finder("APIManagement")])
    land.done()
    land.say(text.replace("DESCRIPTION", "after"))
    late = land.bench.world()
    planned = pipeline.make_plan(land.prepared, late, land.bench.policy())
    assert [str(one.id) for one in planned.plan.steps] == ["update destination:prod/APIManagement#1"]
    land.days(4)
    land.done()

    (outcome,) = pipeline.carry_out(planned, late).outcomes

    assert (outcome.status, "was filled from generation 2" in outcome.error) == (Status.FAILED, True)
    assert land.changes() == {}


def test_a_new_key_that_is_refused_reaches_nobody_and_can_be_made_once_more(tmp_path: Path) -> None:
    text = HEAD + (
        "    instances: {apim: {api: api-management, runtime: cloudfoundry, keys: {transport: {keep_old_for: 1d, "
        "rotate_after: 4d, deliver: {main: {file: {path: held/transport.json}}}}}}}\n"
    )
    land = Land(tmp_path, text, [Program(tmp_path / "held" / "transport.json", DAY)])
    land.done()
    land.days(4)
    rule = {"do": "status", "status": 403, "match": {"host": "*", "path": "/apiportal/"}}
    land.bench.sandbox.faults.add(rule)
    land.programs = []  # who has a key works with it, but this fault does not know them apart
    for _ in range(3):
        ended = {str(one.step.id): str(one.status) for one in land.run()[-1].outcomes}
        assert ended[f"verify {TRANSPORT}#2"] == "failed"
        land.days(2)
        assert land.keys() == ["cloudfoundry transport", "cloudfoundry transport-2"]
    land.bench.sandbox.faults.clear()
    land.programs = [Program(tmp_path / "held" / "transport.json", DAY)]
    land.check("the API may be called again")

    asked = frozenset({Address.parse(TRANSPORT)})
    assert f"create {TRANSPORT}#3" in land.done(reapply=asked)
    land.days(1.1)
    land.done()
    assert land.keys() == ["cloudfoundry transport-3"]
