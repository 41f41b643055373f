"""Cut the wire, or end the process, at every request in turn; run again: the same world, nothing twice, no orphan.

Each story is one run from a world to another. It is told once undisturbed; then again for each of its requests, with the
connection cut before the work was done or after it. In `gone` the process ends there and a second run goes on; in
`lost` the run itself has to look and recover.
"""

from __future__ import annotations

import copy
import json
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile import pipeline
from btp_reconcile.cli import run as run_command
from btp_reconcile.core.errors import ReconcileError
from btp_reconcile.core.model import Phase, Status
from btp_reconcile.sandbox import Sandbox
from tests.worlds import ROOT, Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from btp_reconcile.core.model import Report

HEAD = """\
version: 1
owner: finance
name: story
access:
  central: {service_key: "${env:A}"}
  service_manager: {service_key: "${env:B}"}
  cloud_foundry: {username: u, password: "${env:C}"}
defaults: {runtime: cloudfoundry}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    cloud_foundry: {org: finance-prod, space: apis}
"""

OTHER = """\
    instances:
      afc-api: {api: afc, runtime: other, keys: {task-center: {}, identity: {}}}
      settings: {service: sandbox-config, plan: standard, runtime: other, parameters: {size: 1}, keys: {k: {}}}
"""

SETTINGS = """\
    entitlements: {{APPLICATION_RUNTIME: {{MEMORY: {memory}}}}}
    instances:
      here:
        {{service: sandbox-config, plan: {plan}, parameters: {{size: {size}}}, tags: [{tag}], keys: {{k: {{}}}}}}
      there:
        {{service: sandbox-config, plan: {plan}, parameters: {{size: {size}}}, runtime: other, keys: {{k: {{}}}}}}
"""

ROTATED = """\
    instances:
      here:
        service: sandbox-config
        plan: standard
        keys: {{k: {{parameters: {{use: {use}}}, keep_old_for: {kept}}}}}
      there:
        service: sandbox-config
        plan: standard
        runtime: other
        keys: {{k: {{parameters: {{use: {use}}}, keep_old_for: {kept}}}}}
"""

GATEWAY = """\
    instances:
      apim:
        {{api: api-management, parameters: {{role: {role}}}, keys: {{transport: {{}}, pipeline: {{}}}}}}
"""

MOVED = """\
    instances:
      afc-api: {{api: afc, protect: false, runtime: {runtime}, keys: {{task-center: {{}}}}}}
"""

ADOPTED = """\
    instances:
      here: {service: sandbox-config, plan: standard, tags: [ours], adopt: true, keys: {k: {adopt: true}, l: {}}}
      there: {service: sandbox-config, plan: standard, runtime: other, adopt: true, keys: {k: {adopt: true}}}
"""

PRESENT = """\
    entitlements: {APPLICATION_RUNTIME: {MEMORY: 2}}
    instances:
      apim: {api: api-management, keys: {k: {}, l: {}}}
      there: {service: sandbox-config, plan: standard, runtime: other, keys: {k: {}}}
"""

ABSENT = """\
    entitlements:
      sandbox-config: {standard: {ensure: absent}}
      APPLICATION_RUNTIME: {MEMORY: {ensure: absent}}
    instances:
      apim: {api: api-management, keys: {k: {ensure: absent}, l: {}}}
      there: {service: sandbox-config, plan: standard, runtime: other, ensure: absent, keys: {k: {ensure: absent}}}
"""

ALONE = """\
    instances:
      apim: {api: api-management}
"""

SECOND = """\
      apim-2nd: {api: api-management, keys: {k: {}}}
"""

CALLED = """\
    instances:
      {here}:
        {{{was_here}service: sandbox-config, plan: standard, parameters: {{size: 1}}, keys: {{{key}, kept: {{}}}}}}
      {there}:
        {was_there}
        service: sandbox-config
        plan: standard
        runtime: other
        keys: {{{key}, kept: {{deliver: {{main: {{file: {{path: HELD/kept.json}}}}}}}}}}
"""
"""Names of instances and keys in both runtimes; what is delivered from one of them."""


DELIVERED = """\
    instances:
      here:
        api: api-management
        keys: {{transport: {{{more}, deliver: {{main: {{file: {{path: HELD/{place}.json}}}}}}}}}}
      there:
        api: afc
        runtime: other
        keys:
          task-center:
            {{{more}, deliver: {{main: {{file: {{path: HELD/other.json}}}}, env: {{file: {{path: HELD/.env, format: env}}}}}}}}
"""
AGED = "rotate_after: 20d, keep_old_for: "


def delivered(more: str = AGED + "3d", place: str = "key") -> str:
    return HEAD + DELIVERED.format(more=more, place=place)


def by_hand(held: Path) -> None:
    """Somebody changed one file, opened another to all, and took the third away."""
    (held / "key.json").write_text("{}", encoding="utf-8")
    (held / "other.json").chmod(0o644)
    (held / ".env").unlink()


def stranger(runtime: str, name: str, **about: Any) -> dict[str, Any]:
    space = {"space": "apis"} if runtime == "cloudfoundry" else {}
    return {
        "runtime": runtime,
        "name": name,
        "service": "sandbox-config",
        "plan": "standard",
        **space,
        **about,
    }


def ours(runtime: str, name: str) -> dict[str, Any]:
    prefix = "btp.reconcile/" if runtime == "cloudfoundry" else "btp-reconcile/"
    mark = {"owner": "finance", "spec": "story", "name": name, "generation": "1"}
    return {prefix + key: value if runtime == "cloudfoundry" else [value] for key, value in mark.items()}


MASKS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r";(at|since|near)=[^;\"]{9,}", r";\1=…"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "…"),
    (r";digest=[0-9a-f]+", ";digest=…"),
    (r"(?<=\"v1\.)[0-9a-f]{8};[^\"]*", lambda record: re.sub("=[0-9a-f]{8}", "=…", record[0])),
    (r"(key:\S+#[0-9]+) [0-9a-f-]{36}", r"\1 …"),
)
"""What differs from run to run and must: times, and digests that are salted with a key's guid."""

LATE = frozenset({"only-named", "verified"})

FAILED = {"type": "create", "state": "failed", "description": "the broker was not well"}


@dataclass(frozen=True)
class Story:
    """What was applied before, what else is there, how much time passes, and what is applied now."""

    spec: str
    before: str = ""
    seeded: tuple[dict[str, Any], ...] = ()
    days: float = 0
    failures: tuple[dict[str, Any], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    drift: Callable[[Path], None] | None = None
    """What somebody does to the files of consumers before now."""
    everywhere: bool = False
    """Cut at every request; else at every write, and once at each kind of look that comes after the first write."""
    again: int = 1
    """How many runs a person needs after the one that is gone."""


PROD = (ROOT / "specs" / "prod.yaml").read_text(encoding="utf-8")

STORIES = {
    "prod": Story(PROD, everywhere=True),
    "other": Story(HEAD + OTHER, everywhere=True),
    "update": Story(
        HEAD + SETTINGS.format(memory=4, plan="standard", size=2, tag="blue"),
        before=HEAD + SETTINGS.format(memory=2, plan="standard", size=1, tag="red"),
    ),
    "change of plan": Story(
        HEAD + SETTINGS.format(memory=1, plan="large", size=1, tag="red"),
        before=HEAD + SETTINGS.format(memory=2, plan="standard", size=1, tag="red"),
    ),
    "replace": Story(
        HEAD + GATEWAY.format(role="APIPortal.Guest"),
        before=HEAD + GATEWAY.format(role="APIPortal.Administrator"),
    ),
    "move": Story(HEAD + MOVED.format(runtime="other"), before=HEAD + MOVED.format(runtime="cloudfoundry")),
    "rotate": Story(
        HEAD + ROTATED.format(use="write", kept="3d"), before=HEAD + ROTATED.format(use="read", kept="3d")
    ),
    "rotate and retire at once": Story(
        HEAD + ROTATED.format(use="write", kept="0m"), before=HEAD + ROTATED.format(use="read", kept="0m")
    ),
    "adopt": Story(
        HEAD + ADOPTED,
        seeded=tuple(
            stranger(runtime, name, keys=[{"name": "k"}])
            for runtime, name in (("cloudfoundry", "here"), ("other", "there"))
        ),
    ),
    "prune": Story(HEAD + ALONE, before=HEAD + PRESENT, options={"prune": True}),
    "absent": Story(HEAD + ABSENT, before=HEAD + PRESENT),
    "prune an instance of Cloud Foundry": Story(
        HEAD + ALONE, before=HEAD + ALONE + SECOND, options={"prune": True}
    ),
    "leftovers": Story(
        HEAD + SETTINGS.format(memory=2, plan="standard", size=1, tag="red"),
        seeded=tuple(
            stranger(runtime, name, labels=ours(runtime, name), last_operation=FAILED)
            for runtime, name in (("cloudfoundry", "here"), ("other", "there"))
        ),
    ),
    "the broker fails once": Story(
        HEAD + SETTINGS.format(memory=2, plan="standard", size=1, tag="red"),
        failures=(
            {"verb": "provision", "times": 2, "status": "async", "description": "not now"},
            {"verb": "bind", "times": 2, "status": "async", "description": "not now either"},
        ),
        again=2,  # what fails while nobody looks is made again by the run after the one that sees it
    ),
    "renamed": Story(
        HEAD
        + CALLED.format(
            here="one",
            was_here="renamed_from: here, ",
            there="two",
            was_there="renamed_from: there",
            key="new: {renamed_from: old}",
        ),
        before=HEAD + CALLED.format(here="here", was_here="", there="there", was_there="", key="old: {}"),
    ),
    "a first delivery": Story(delivered()),
    "delivered again what was changed by hand": Story(delivered(), before=delivered(), drift=by_hand),
    "delivered to another place": Story(delivered(place="moved"), before=delivered()),
    "rotated and delivered": Story(delivered(), before=delivered(), days=20),
    "rotated and delivered and retired at once": Story(
        delivered(AGED + "0m"), before=delivered(AGED + "0m"), days=20
    ),
}


class GoneError(BaseException):
    """The process is no more."""


@dataclass
class Stage:
    """A world that can be set back to how it was before the story, and what is there after it undisturbed."""

    story: Story
    bench: Bench
    begun: dict[str, Any]
    prepared: pipeline.Prepared
    """The spec of now, read once: reading it again asks nobody."""
    held: Path
    """The folder in which consumers have their files."""
    files: Mapping[Path, tuple[bytes, int]]
    """What was in there, with its modes."""
    after: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """(method, kind of thing) of every request."""

    def set_back(self) -> None:
        self.bench.sandbox.on_request = None
        with self.bench.sandbox.hold() as world:
            world.state = copy.deepcopy(self.begun)
        shutil.rmtree(self.held)
        self.held.mkdir()
        for path, (content, mode) in self.files.items():
            path.write_bytes(content)
            path.chmod(mode)
        self.bench.sandbox.requests.clear()
        self.bench.sandbox.count = 0

    def run(self) -> None:
        reports = self.apply()

        said = [
            (str(one.step.id), one.status, one.error)
            for one in reports[-1].outcomes
            if one.status is not Status.DONE
        ]
        assert said == []

    def apply(self) -> list[Report]:
        world, policy = self.bench.world(), self.bench.policy(**self.story.options)
        planned = pipeline.make_plan(self.prepared, world, policy)
        assert planned.plan.objections == ()
        return pipeline.settle(planned, world, policy)[1]

    def try_to_apply(self) -> list[Report]:
        """As a person would meet it: what cannot be planned now is said, and nothing is done."""
        world, policy = self.bench.world(), self.bench.policy(**self.story.options)
        try:
            planned = pipeline.make_plan(self.prepared, world, policy)
        except ReconcileError:
            return []
        if planned.plan.objections:
            return []
        reports = pipeline.settle(planned, world, policy)[1]
        unsaid = [
            str(one.step.id)
            for one in reports[-1].outcomes
            if one.status is not Status.DONE and not one.error
        ]
        assert unsaid == []
        return reports

    def gone_after(self, number: int) -> None:
        """Run, and be gone when one more request is asked for."""

        def end(count: int, _: object) -> None:
            if count > number:
                raise GoneError

        self.bench.sandbox.on_request = end
        with suppress(GoneError):
            self.apply()
        self.bench.sandbox.on_request = None
        self.bench.sandbox.faults.clear()
        self.bench.advance(1)  # the next process begins later

    def settled(self) -> dict[str, Any]:
        """All there is, and that nothing is left to do."""
        there = described(self.bench.sandbox, self.held)
        self.bench.sandbox.faults.clear()
        policy = self.bench.policy(**self.story.options)
        planned = pipeline.make_plan(self.prepared, self.bench.world(), policy)
        return {
            "world": there,
            "left to do": [str(one.address) for one in planned.plan.changes if one.drifted or one.acts],
            "in the way": planned.plan.objections,
            "half-done": [fact.name for fact in planned.facts.all if fact.phase is not Phase.READY],
        }


def described(sandbox: Sandbox, held: Path | None = None) -> dict[str, Any]:
    """The world without times and digests of secrets; what the brokers keep, so that nothing is left there that nobody
    sees; and which generation consumers hold, in the folder that is theirs.
    """
    text = json.dumps(sandbox.snapshot(), sort_keys=True)
    for pattern, instead in MASKS:
        text = re.sub(pattern, instead, text)
    found: dict[str, Any] = _without_late_notes(json.loads(text))
    if held is not None:
        found["held"] = {one.name: holding(held / one.name, sandbox) for one in sorted(held.glob("*"))}
    with sandbox.hold() as world:
        rows = world.table("broker.instances").values()
        found["brokers"] = Counter(
            f"{row['offering']} {len(row['bindings'])} {row['parameters']}" for row in rows
        )
        found["clients"] = len(world.table("clients"))
        found["keys at brokers"] = len(world.table("broker.bindings"))
    return found


def _without_late_notes(there: Any) -> Any:
    """The same without two notes that a run which is cut off may leave unwritten, and that nothing unsafe follows from.

    A key that nobody is given by us is tried before its predecessor goes, at the latest. An instance whose new name was not
    noted seems to have been changed.
    """
    if isinstance(there, list):
        return [_without_late_notes(one) for one in there]
    if not isinstance(there, dict):
        return there
    labels = there.get("labels")
    if (
        isinstance(labels, dict) and "btp-reconcile/verified" in labels
    ):  # in Service Manager a note is an operation
        there = {**there, "last_operation": "create succeeded"}
    late = {"only-named"} if any("btp-reconcile" in one and "to-" in one for one in there) else LATE
    return {
        key: _without_late_notes(one)
        for key, one in there.items()
        if not (key.startswith("btp-reconcile") and key[len("btp-reconcile") + 1 :] in late)
    }


def holding(file: Path, sandbox: Sandbox) -> str:
    """Which generation a consumer holds: by the client that its content names, or as is noted beside it."""
    content = file.read_text(encoding="utf-8")
    if file.name.endswith(".reconcile"):
        return f"generation {json.loads(content)['identity']['generation']}"
    with sandbox.hold() as world:
        clients = {guid: row["client"] for guid, row in world.table("broker.bindings").items()}
        rows = {**world.table("cf.service_credential_bindings"), **world.table("sm.bindings")}
        opens = [row["name"] for guid, row in rows.items() if clients[guid] in content]
    return f"mode {file.stat().st_mode & 0o777:o}, opens {opens}"


@cache
def folder() -> Path:
    import atexit
    import tempfile

    made = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@cache
def stage(name: str) -> Stage:
    return staged(name, STORIES[name])


def staged(name: str, story: Story) -> Stage:
    """The world before a story, after it was told once undisturbed."""
    here = folder() / name
    held = here / "held"
    held.mkdir(parents=True, exist_ok=True)
    bench = Bench(here)
    text = story.spec.replace("HELD", str(held))
    spec = bench.write(text, "spec.yaml" if story.spec != PROD else "prod.yaml")
    if story.seeded:
        place = {
            "id": "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10",
            "region": "eu10",
            "cloud_foundry": {"org": "finance-prod", "spaces": ["apis"]},
        }
        bench.sandbox.seed({"subaccounts": {"prod": {**place, "instances": list(story.seeded)}}})
    if story.before:
        bench.apply(bench.write(story.before.replace("HELD", str(held)), "before.yaml"))
    if story.drift:
        story.drift(held)
    bench.advance(story.days * 86400)
    with bench.sandbox.hold() as world:
        world.settings["broker_failures"] = [dict(one) for one in story.failures]
        begun = copy.deepcopy(world.state)
    files = {one: (one.read_bytes(), one.stat().st_mode & 0o777) for one in held.iterdir()}
    made = Stage(story, bench, begun, bench.prepare(spec), held, files)
    made.set_back()
    made.run()
    made.asked = [
        (method, re.sub(r"[0-9a-f-]{36}", "*", host + path))
        for method, host, path, _ in bench.sandbox.requests
    ]
    made.after = made.settled()
    return made


def points(told: Stage) -> list[int]:
    """At which requests to cut, counted from 1."""
    everything = range(1, len(told.asked) + 1)
    if told.story.everywhere:
        return list(everything)
    writes = [number for number in everything if told.asked[number - 1][0] != "GET"]
    writes = [number for number in writes if not told.asked[number - 1][1].endswith("/oauth/token")]
    chance = random.Random(1)
    looks: dict[str, list[int]] = {}
    for number in everything:
        if number > writes[0] and number not in writes:
            looks.setdefault(told.asked[number - 1][1], []).append(number)
    return sorted({*writes, *(chance.choice(numbers) for numbers in looks.values())})


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", STORIES)
def test_a_run_that_was_cut_off_and_is_gone_is_finished_by_the_next(name: str, when: str) -> None:
    told = stage(name)
    for number in points(told):
        told.set_back()
        told.bench.sandbox.faults.cut(number, when)
        told.gone_after(number)
        for _ in range(told.story.again - 1):
            told.apply()
        told.run()

        assert (number, told.settled()) == (number, told.after)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", STORIES)
def test_a_run_that_loses_one_answer_looks_and_goes_on_by_itself(name: str, when: str) -> None:
    told = stage(name)
    for number in points(told):
        told.set_back()
        told.bench.sandbox.faults.cut(number, when)
        told.run()

        assert (number, told.settled()) == (number, told.after)


# --- answers that are none, or not yet ------------------------------------------------------------------

FAULTS = ("before", "after", "reset", "500", "429", "html")
"""Everything that befalls a request here."""
ENDS_WELL = frozenset({"before", "after", "reset", "429", "html"})
"""After these the run itself comes to its end. A creation that is answered with a 500 is never sent again by itself."""


def fault(kind: str, number: int, host: str) -> dict[str, Any]:
    """A rule: this happens to this request, counted from now over all hosts; answers in the style of its host."""
    plain = {"before": "refuse", "after": "lose", "reset": "reset", "html": "html"}
    in_style = (
        ("api.cf.", {"429": "cf-429", "500": "cf-500"}),
        ("service-manager.", {"429": "sm-429"}),
        ("entitlements-service.", {"429": "cis-429"}),
        ("accounts-service.", {"429": "cis-429"}),
        ("", {"429": "uaa-429"}),
    )
    named = next(names for start, names in in_style if host.startswith(start))
    deed = plain.get(kind) or named.get(kind)
    return {"do": deed or "status", "at": number, "match": {"host": "*", "path": ""}}


def befallen(told: Stage, kind: str, number: int, *, attempts: int = 6) -> None:
    """One run in which this happens, which ends in words; then one clean run, and the world is as it should be."""
    told.set_back()
    method, asked = told.asked[number - 1]
    told.bench.sandbox.faults.add(fault(kind, number, asked))
    told.bench.attempts = attempts
    reports = told.try_to_apply()
    struck = [rule["struck"] for rule in told.bench.sandbox.faults.rules()]
    told.bench.attempts = 6
    told.bench.sandbox.faults.clear()
    told.bench.advance(1)
    where = (kind, number, method, asked, attempts)
    if attempts > 1 and kind in ENDS_WELL:
        left = [
            (str(one.step.id), one.error) for one in reports[-1].outcomes if one.status is not Status.DONE
        ]
        assert (where, left) == (where, [])

    for _ in range(told.story.again - 1):
        told.apply()
    told.run()

    assert (where, struck, told.settled()) == (where, [1], told.after)


@pytest.mark.parametrize("kind", ["reset", "500", "429", "html"])
@pytest.mark.parametrize("name", ["prod", "other", "update", "rotate and retire at once", "absent"])
def test_an_answer_that_is_none_is_made_good_by_the_next_run(name: str, kind: str) -> None:
    """A sample; all of it, with more specs, is in `make soak`."""
    told = stage(name)
    chance = random.Random(f"{name} {kind}")
    for number in chance.sample(range(1, len(told.asked) + 1), 5):
        befallen(told, kind, number, attempts=chance.choice([1, 6]))


@pytest.mark.parametrize("name", STORIES)
def test_every_story_ends_with_nothing_left_to_do(name: str) -> None:
    told = stage(name)

    assert {key: value for key, value in told.after.items() if key != "world"} == {
        "left to do": [],
        "in the way": (),
        "half-done": [],
    }


# --- a real process, really killed ----------------------------------------------------------------------

DYING = """\
import os, signal, sys
from pathlib import Path
from btp_reconcile.cli import main, world

at, moment = int(sys.argv.pop(1)), sys.argv.pop(1)
opened = world.open_sandbox

def die(): os.kill(os.getpid(), signal.SIGKILL)

def open_sandbox(*given, **named):
    sandbox = opened(*given, **named)
    answer, replace = sandbox.answer, Path.replace

    def dying(request):
        if moment == "before" and sandbox.count + 1 >= at:
            die()
        given = answer(request)
        if moment == "after" and sandbox.count >= at:
            die()
        return given

    def dying_as_it_is_written(path, target):
        if moment == "while it is written" and sandbox.count >= at:
            die()
        return replace(path, target)

    sandbox.answer, Path.replace = dying, dying_as_it_is_written
    return sandbox

world.open_sandbox = open_sandbox
main()
"""


def published(name: str) -> str:
    return str(ROOT / "specs" / f"{name}.yaml")


def command(state: Path, name: str) -> list[str]:
    return ["apply", published(name), "--sandbox", "--state", str(state), "--yes"]


@cache
def undisturbed(name: str) -> tuple[bytes, dict[str, Any], int]:
    """A world with nothing in it as a file, what a whole run makes of it, and with how many requests."""
    state = folder() / f"undisturbed-{name}.json"
    bench = Bench(folder(), sandbox=Sandbox(state))
    empty = state.read_bytes()
    bench.apply(published(name))
    return empty, described(bench.sandbox), bench.sandbox.count


CHANCE = random.Random(20)
MOMENTS = [
    (("before", "after", "while it is written")[index % 3], round(0.9 * CHANCE.random(), 3))
    for index in range(20)
]


@pytest.mark.parametrize(("moment", "how_far"), MOMENTS)
def test_a_process_that_is_killed_is_finished_by_the_same_command(
    tmp_path: Path, moment: str, how_far: float
) -> None:
    kill_and_finish(tmp_path, 1 + int(how_far * undisturbed("prod")[2]), moment)


def kill_and_finish(tmp_path: Path, number: int, moment: str, name: str = "prod") -> None:
    """Apply in a process that is killed at this request; then the same command, left alone, makes the same world."""
    empty, after, requests = undisturbed(name)
    state = tmp_path / "sandbox.json"
    state.write_bytes(empty)
    dying = [sys.executable, "-c", DYING, str(number), moment]

    killed = subprocess.run(
        [*dying, *command(state, name)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    ended = killed.returncode
    # Nothing is written any more after the last request, so a run can be over before it is killed there.
    assert (number, ended) == (number, 0 if ended == 0 and number == requests else -9)
    assert "Traceback" not in killed.stderr
    json.loads(state.read_text(encoding="utf-8"))
    again = run_command(command(state, name))

    assert (number, again, described(Sandbox(state))) == (number, 0, after)
    planned = Bench(tmp_path, sandbox=Sandbox(state)).plan(published(name))
    assert planned.plan.empty
    assert {one.name for one in tmp_path.iterdir()} - {"sandbox.json", "sandbox.json.lock"} <= set(
        left_behind(tmp_path) if moment == "while it is written" else ()
    )


def left_behind(where: Path) -> list[str]:
    """The one file that was being written."""
    found = [one.name for one in where.iterdir() if re.fullmatch(r"sandbox\.json\.[a-z0-9_]{8}", one.name)]
    return found if len(found) == 1 else []
