"""Runs a folder of `tests/cases/plans`: a world is made, specs are planned against it, and the plan is read.

spec.yaml (and others)   what is planned
_before.yaml             a spec that was applied first, so that the world is what apply leaves behind
world.yaml               how the world comes to be, all of it optional; in this order:
    rehearsal: false         the specs' subaccounts and spaces are not made (`--sandbox` makes them)
    settings, …              a document for `Sandbox.seed`; in it an instance or key may say
                                 ours: true | {owner, spec, name, generation}   it carries our mark
                                 applied: {…}, noted: "at=…"                    and the record of parameters
    advance: 8d              time that passes after `_before.yaml` was applied
    once_more: 2d            `_before.yaml` is applied again, and so much time passes
    assignments              rows of entitlements that are overwritten: {prod: {service: {plan: {state: …}}}}
    by_hand                  requests to Cloud Foundry: [{patch | delete: its name, body: …}, {share: its name, with: space}],
                             and to the Destination service: [{destination: its name, set: {property: text or null}}],
                             and what is done to delivered files: [{file: its path, text: …}] (no text: it is deleted)
    again                    another document for `Sandbox.seed`, for what came later
    faults                   rules of the sandbox's faults, while planning
    no_access: [central]     sections of `access` that nobody has
    environment: {…}         variables
    now, options             of the policy: {prune, target, allow, reapply, at_most, only_due}

What is delivered is recorded in a folder of the test's own, as in a rehearsal; files are written there, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import requests

from btp_reconcile import pipeline
from btp_reconcile.cli.world import rehearse
from btp_reconcile.core import fingerprint, marks, report
from btp_reconcile.core.errors import SpecError
from btp_reconcile.core.model import Action, Address, Mark, Status
from btp_reconcile.core.problems import text as problems_text
from btp_reconcile.core.view import AT_MOST, Policy
from btp_reconcile.edges import load
from btp_reconcile.edges.consumers import Consumers, Rehearsed
from btp_reconcile.sandbox import InProcessAdapter, Sandbox
from btp_reconcile.sinks import SINKS
from tests.worlds import Bench

if TYPE_CHECKING:
    from btp_reconcile.core.model import Wanted
    from btp_reconcile.core.sink import Around

UNITS = {"m": 60, "h": 3600, "d": 86400}
OWNER, SPEC = "finance-platform", "prod"


@dataclass
class CaseBench(Bench):
    """A bench whose world is told by a case."""

    case: Mapping[str, Any] = field(default_factory=dict)
    scratch: Path = field(kw_only=True)

    def consumers(self, wanted: Wanted, around: Around) -> Rehearsed:
        files = Consumers(SINKS, {}, replace(around, folder=self.inside))
        real = Consumers(SINKS, wanted.access, around)
        return Rehearsed(SINKS, self.scratch / "delivered", frozenset(), real, files)

    def inside(self, path: str) -> str:
        """A path of a spec, in a folder of the test's own."""
        found = self.scratch / "files" / path.removeprefix("/")
        found.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return str(found)

    def access(self, wanted: Wanted) -> Mapping[str, Mapping[str, Any]]:
        sandbox = self.sandbox
        if self.case.get("rehearsal") is False:
            sandbox = cast(
                "Sandbox", SimpleNamespace(seed=lambda _: None, access=sandbox.access, hold=sandbox.hold)
            )
        found = rehearse(sandbox, wanted)
        missing = self.case.get("no_access") or ()
        return {
            name: {key: value for key, value in services.items() if key not in missing}
            for name, services in found.items()
        }

    def world(self) -> pipeline.World:
        return replace(super().world(), environment=self.case.get("environment") or {})


def said(folder: Path, scratch: Path) -> str:
    """What a case's plan says, and what it ends with."""
    try:
        planned = _Told(folder, scratch).plan()
    except SpecError as error:
        return f"{problems_text(error.problems)}\nexit {report.SPEC}\n"
    prepared = planned.prepared
    shown = report.plan_json(planned.plan, prepared.wanted.subaccounts, prepared.warnings)
    lines = [line for _, line in report.plan_text(shown)]
    brief = report.plan_json(planned.plan, prepared.wanted.subaccounts, prepared.warnings, brief=True)
    assert [line for _, line in report.plan_text(brief)] == lines, "text tells the same of a brief form"
    return "\n".join([*lines, f"exit {report.plan_exit(planned.plan, detailed=True)}", ""])


def left_undone(folder: Path, scratch: Path) -> list[str]:
    """Applies a case's plan, if nothing stands against it: what did not go well, and what would be planned again."""
    told = _Told(folder, scratch)
    planned = told.plan()
    if planned.plan.objections or (planned.plan.unseen and told.case.get("faults")):
        return []
    _, reports = pipeline.settle(planned, told.world, told.policy)
    ended = [outcome for done in reports for outcome in done.outcomes]
    waits = any(one.action is Action.AWAIT and not one.gate for one in planned.plan.changes)
    if waits and any(one.status is Status.PENDING for one in ended):
        return []  # a seeded operation that is in progress has no end
    failed = [f"{one.status}: {one.step.id}: {one.error}" for one in ended if one.status is not Status.DONE]
    once = replace(told.policy, reapply=frozenset(), at_most=0)  # what is put off is not done by a second run
    again = pipeline.make_plan(planned.prepared, told.world, once).plan.changes
    return [*failed, *(f"again: {one.action} {one.address}: {one.reason}" for one in again if one.acts)]


def planned(folder: Path, scratch: Path) -> tuple[pipeline.Planned, Policy]:
    """A case's plan, and the policy it was made with."""
    told = _Told(folder, scratch)
    return told.plan(), told.policy


class _Told:
    """A case, told: its world is made, and can be planned against at one moment as often as one likes."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        file = folder / "world.yaml"
        self.case: Mapping[str, Any] = load.documents([file.name])[0].data if file.exists() else {}
        self.bench = CaseBench(
            folder,
            Sandbox(settings=self.case.get("settings")),
            case=self.case,
            scratch=scratch,
            compare_clocks=True,
        )
        _make(self.bench, self.case, folder)
        self.specs = sorted(
            one.name for one in folder.glob("*.yaml") if one.name != file.name and one.name[0] != "_"
        )
        for rule in self.case.get("faults") or ():
            self.bench.sandbox.faults.add(rule)
        self.world = self.bench.world()
        self.policy = _policy(self.bench, self.case)

    def plan(self) -> pipeline.Planned:
        return pipeline.make_plan(pipeline.prepare(self.specs, self.world), self.world, self.policy)


def _make(bench: CaseBench, case: Mapping[str, Any], folder: Path) -> None:
    seeded = {key: case[key] for key in ("global_account", "directories", "subaccounts") if key in case}
    if seeded:
        bench.sandbox.seed(stamped(seeded))
    if (folder / "_before.yaml").exists():
        bench.apply("_before.yaml")
    if "advance" in case:
        bench.advance(_seconds(case["advance"]))
    if "once_more" in case:
        bench.apply("_before.yaml")
        bench.advance(_seconds(case["once_more"]))
    _overwrite(bench.sandbox, case.get("assignments") or {})
    for one in case.get("by_hand") or ():
        if "file" in one:
            _rewritten(Path(bench.inside(one["file"])), one.get("text"))
        else:
            _by_hand(bench.sandbox, one)
    if "again" in case:
        bench.sandbox.seed(stamped(case["again"]))


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * UNITS[duration[-1]]


def _policy(bench: Bench, case: Mapping[str, Any]) -> Policy:
    options = case.get("options") or {}
    now = datetime.fromisoformat(case["now"]).timestamp() if "now" in case else bench.now()
    return Policy(
        now,
        prune=bool(options.get("prune")),
        targets=tuple(map(Address.parse, options.get("target") or ())),
        allow=frozenset(options.get("allow") or ()),
        reapply=frozenset(map(Address.parse, options.get("reapply") or ())),
        at_most=options.get("at_most", AT_MOST),
        only_due=bool(options.get("only_due")),
    )


def stamped(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with `ours` and `applied` written out as labels and annotations."""
    subaccounts = {}
    for name, subaccount in (document.get("subaccounts") or {}).items():
        instances = [
            _stamped_one(one, one.get("runtime")) for one in (subaccount or {}).get("instances") or ()
        ]
        subaccounts[name] = {**(subaccount or {}), "instances": instances}
    return {**document, "subaccounts": subaccounts}


def _stamped_one(thing: Mapping[str, Any], runtime: str | None) -> dict[str, Any]:
    foundry = runtime != "other"
    labels = dict(thing.get("labels") or {})
    annotations = dict(thing.get("annotations") or {})
    if ours := thing.get("ours"):
        given = ours if isinstance(ours, Mapping) else {}
        mark = Mark(given.get("owner", OWNER), given.get("spec", SPEC), given.get("name", thing["name"]))
        prefix = marks.CLOUD_FOUNDRY if foundry else marks.SERVICE_MANAGER
        labels.update(marks.labels(prefix, mark, given.get("generation", 1)))
    if "applied" in thing:
        record = fingerprint.write(thing["applied"], None)
        record += f";{thing['noted']}" if "noted" in thing else ""
        (annotations if foundry else labels)[marks.ANNOTATION if foundry else marks.PARAMETERS] = record
    rest = {key: value for key, value in thing.items() if key not in {"ours", "applied", "noted"}}
    if foundry and "service" in thing:
        rest.setdefault("space", "apis")
    keys = [_stamped_one(key, runtime) for key in thing.get("keys") or ()]
    return {**rest, "labels": labels, "annotations": annotations, "keys": keys}


def _overwrite(sandbox: Sandbox, wanted: Mapping[str, Any]) -> None:
    with sandbox.hold() as world:
        names = {row["name"]: guid for guid, row in world.table("subaccounts").items()}
        for name, services in wanted.items():
            rows = world.table("entitlements.assignments")[names[name]]
            for row in rows.values():
                row.update(services.get(row["service"], {}).get(row["plan"], {}))
                if row["state"] == "PROCESSING":
                    row.update(wanted=1, ticket=world.ticket("entitlement"))


def _overwritten(session: requests.Session, sandbox: Sandbox, name: str, changes: Mapping[str, Any]) -> None:
    """A destination, changed by somebody who knows nothing of us; with another Name it is copied."""
    (key,) = sandbox.access()["destination"].values()
    form = {
        "grant_type": "client_credentials",
        "client_id": key["clientid"],
        "client_secret": key["clientsecret"],
    }
    token = session.post(f"{key['url']}/oauth/token", data=form).json()["access_token"]
    session.headers["Authorization"] = f"Bearer {token}"
    url = f"{key['uri']}/destination-configuration/v1/subaccountDestinations"
    there = session.get(f"{url}/{name}").json()
    body = {one: text for one, text in {**there, **changes}.items() if text is not None}
    session.request("PUT" if body["Name"] == name else "POST", url, json=body).raise_for_status()


def _rewritten(file: Path, text: str | None) -> None:
    """A file at its place, as somebody who knows nothing of us leaves it behind."""
    if text is None:
        file.unlink()
        return
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)


def _by_hand(sandbox: Sandbox, request: Mapping[str, Any]) -> None:
    """What a person would do with a client of Cloud Foundry, or in the cockpit."""
    session = requests.Session()
    session.mount("https://", InProcessAdapter(sandbox))
    if "destination" in request:
        _overwritten(session, sandbox, request["destination"], request["set"])
        return
    (foundry,) = sandbox.access()["cloud_foundry"].values()
    api = foundry["api"]
    uaa = session.get(api).json()["links"]["uaa"]["href"]
    form = {"grant_type": "password", "username": foundry["username"], "password": foundry["password"]}
    token = session.post(f"{uaa}/oauth/token", data=form, auth=("cf", "")).json()["access_token"]
    session.headers["Authorization"] = f"bearer {token}"
    verb = next(one for one in ("patch", "delete", "share") if one in request)
    (found,) = [
        f"{api}/v3/{kind}/{row['guid']}"
        for kind in ("service_instances", "service_credential_bindings")
        for row in session.get(f"{api}/v3/{kind}", params={"names": request[verb]}).json()["resources"]
    ]
    if verb == "share":
        (space,) = session.get(f"{api}/v3/spaces", params={"names": request["with"]}).json()["resources"]
        body = {"data": [{"guid": space["guid"]}]}
        session.post(f"{found}/relationships/shared_spaces", json=body).raise_for_status()
        return
    answer = session.request(verb.upper(), found, json=request.get("body"))
    answer.raise_for_status()
    while "Location" in answer.headers:
        job = session.get(answer.headers["Location"])
        if job.json()["state"] in {"COMPLETE", "FAILED"}:
            break
