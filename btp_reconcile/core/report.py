"""Plan or report → JSON; JSON → text. The JSON form is the interface, everything else is a view of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from btp_reconcile import __version__
from btp_reconcile.core import shards
from btp_reconcile.core.model import Action, Secret, Seen, Status, Verb

if TYPE_CHECKING:
    from btp_reconcile.core.model import (
        Change,
        Fact,
        FieldChange,
        Outcome,
        Plan,
        Problem,
        Report,
        Subaccount,
    )
    from btp_reconcile.core.states import Unplanned

FORMAT = "btp-reconcile/plan"
REPORT_FORMAT = "btp-reconcile/report"
VERSION = 1

SIGNS = {
    "create": "+",
    "update": "~",
    "replace": "±",
    "delete": "-",
    "adopt": "»",
    "rotate": "⟳",
    "retire": "↓",
    "await": "…",
    "keep": "=",
}
"""One sign per action; a gate has its own, `!`."""

COLOURS = {
    "create": "green",
    "update": "yellow",
    "replace": "magenta",
    "delete": "red",
    "adopt": "cyan",
    "rotate": "blue",
    "retire": "red",
    "await": "yellow",
    "keep": "",
}


# --- JSON -----------------------------------------------------------------------------------------------


def plan_json(
    plan: Plan,
    subaccounts: Mapping[str, Subaccount],
    warnings: Sequence[Problem] = (),
    *,
    drift: bool = False,
    owners: Iterable[tuple[str, str]] = (),
    brief: bool = False,
) -> dict[str, Any]:
    """A plan as plain data. Holds no secret: what came from outside shows as its name.

    `owners`: (owner, spec name) of every loaded spec, by which a view knows whose plan it shows. `brief`: for text
    alone, which of what is in sync tells only how much it is.
    """
    instances = [*plan.unmanaged, *(change.found for change in plan.changes if change.found)]
    names = {fact.id: fact.name for fact in instances if fact.kind == "instance"}
    made = {step.address: step.name for step in plan.steps if step.verb is Verb.CREATE}
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": "drift" if drift else "plan",
        "digest": plan.digest,
        "specs": sorted(f"{owner}/{name}" for owner, name in owners),
        "summary": summary(plan),
        "subaccounts": {
            name: {"id": one.id, "region": one.region} for name, one in sorted(subaccounts.items())
        },
        "changes": [
            _counted(change)
            if brief and not _told(change)
            else _change(change, made.get(change.address, "")) | _state(plan, change)
            for change in plan.changes
        ],
        "unplanned": [_unplanned(one) for one in plan.states.unplanned] if plan.states else [],
        "objections": [problem_json(one) for one in _objections(plan, drift=drift)],
        "unmanaged": [
            _unmanaged(fact, names.get(fact.parent or "", "")) | said
            for fact, said in zip(plan.unmanaged, _leftover_states(plan), strict=True)
        ],
        "unseen": _unseen(plan),
        "forecast": _forecast(plan),
        "warnings": [problem_json(one) for one in warnings],
        **({"partial": shards.partial_json(plan.partial, __version__)} if plan.partial else {}),
    }


def _objections(plan: Plan, *, drift: bool) -> tuple[Problem, ...]:
    """A drift check changes nothing, so only conflicts concern it, and not what would be unsafe to apply."""
    return tuple(one for one in plan.objections if not (drift and one.code.startswith("safety/")))


def _forecast(plan: Plan) -> dict[str, Any]:
    """Writes by service, the least time in seconds that known limits allow, and the limit that sets it."""
    said = plan.forecast
    if said is None:
        return {}
    return {"writes": dict(said.requests), "seconds": said.seconds, "because": said.because}


def summary(plan: Plan) -> dict[str, int]:
    """How many changes of each action; gates are counted apart, because nobody acts on them."""
    counts = {str(action): plan.count(action) for action in Action}
    counts["gate"] = sum(bool(change.gate) for change in plan.changes)
    return counts


def problem_json(problem: Problem) -> dict[str, Any]:
    data: dict[str, Any] = {"code": problem.code, "message": problem.message}
    if problem.source:
        data["source"] = str(problem.source)
    if problem.address:
        data["address"] = str(problem.address)
    if problem.hint:
        data["hint"] = problem.hint
    if problem.also:
        data["also"] = [str(source) for source in problem.also]
    return data


def _told(change: Change) -> bool:
    """Does text say anything of it? As `worth_showing` finds it in the data."""
    keeps = change.action is Action.KEEP and not change.notes
    return not keeps or change.drifted or any(one.seen is Seen.UNKNOWN for one in change.fields)


def _counted(change: Change) -> dict[str, Any]:
    return {"address": str(change.address), "action": "keep", "drifted": False}


def _change(change: Change, made: str) -> dict[str, Any]:
    data: dict[str, Any] = {
        "address": str(change.address),
        "action": str(change.action),
        "reason": change.reason,
        "generation": change.generation,
        "drifted": change.drifted,
    }
    if made:
        data["creates"] = made
    if change.wanted is not None and change.wanted.requires:
        data["needs"] = [str(one) for one in change.wanted.requires]
    if change.gate:
        data["gate"] = change.gate
    if change.send:
        data["sends"] = sorted(change.send)
    if change.fields:
        data["fields"] = [_field(one) for one in change.fields]
    if change.found is not None:
        data["found"] = _found(change.found)
    if change.retired:
        data["retired"] = [_found(fact) for fact in change.retired]
    if change.wanted is not None:
        data["name"] = change.wanted.name
        if change.wanted.source:
            data["source"] = str(change.wanted.source)
    if change.notes:
        data["notes"] = list(change.notes)
    return data


def _state(plan: Plan, change: Change) -> dict[str, Any]:
    state = plan.states.changes.get(change.address) if plan.states else None
    return {} if state is None else {"sync": str(state.sync), "health": str(state.health)}


def _leftover_states(plan: Plan) -> list[dict[str, Any]]:
    if plan.states is None:
        return [{} for _ in plan.unmanaged]
    return [
        {"address": str(address), "sync": str(state.sync), "health": str(state.health)}
        for address, state in plan.states.unmanaged
    ]


def _unplanned(one: Unplanned) -> dict[str, Any]:
    data = {
        "address": str(one.resource.address),
        "sync": str(one.state.sync),
        "health": str(one.state.health),
        "reason": one.reason,
        "name": one.resource.name,
    }
    if one.resource.source:
        data["source"] = str(one.resource.source)
    return data


def _unseen(plan: Plan) -> list[dict[str, Any]]:
    """Problems, each with the subaccounts and services that it hides."""
    hidden: dict[Problem, list[dict[str, str]]] = {}
    for (subaccount, service), problem in plan.unseen_at.items():
        hidden.setdefault(problem, []).append({"subaccount": subaccount, "service": service})
    return [problem_json(one) | ({"where": hidden[one]} if one in hidden else {}) for one in plan.unseen]


def _field(one: FieldChange) -> dict[str, Any]:
    data: dict[str, Any] = {
        "path": one.path,
        "before": plain(one.before),
        "after": plain(one.after),
        "seen": str(one.seen),
        "changes": one.changes,
    }
    if one.forces_replace:
        data["forces_replace"] = True
    if one.note:
        data["note"] = one.note
    return data


def _found(fact: Fact) -> dict[str, Any]:
    data: dict[str, Any] = {"id": fact.id, "name": fact.name, "phase": str(fact.phase)}
    if fact.runtime:
        data["runtime"] = fact.runtime
    if fact.attributes.get("space"):
        data["space"] = fact.attributes["space"]
    if fact.mark:
        data["generation"] = fact.mark.generation
    return data


def _unmanaged(fact: Fact, instance: str) -> dict[str, Any]:
    data = {"kind": fact.kind, "subaccount": fact.subaccount, **_found(fact)}
    if instance:
        data["instance"] = instance
    if fact.mark:
        data["mark"] = {"owner": fact.mark.owner, "spec": fact.mark.spec, "name": fact.mark.name}
    return data


def plain(value: Any) -> Any:
    """JSON without secrets: a value from outside becomes a text that names where it comes from."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Secret):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def report_json(report: Report) -> dict[str, Any]:
    """How applying went, as plain data."""
    return {
        "format": REPORT_FORMAT,
        "version": VERSION,
        "summary": {str(status): report.count(status) for status in Status},
        "outcomes": [_outcome(one) for one in report.outcomes],
    }


def _outcome(one: Outcome) -> dict[str, Any]:
    data: dict[str, Any] = {
        "address": str(one.step.address),
        "verb": str(one.step.verb),
        "generation": one.step.generation,
        "status": str(one.status),
        "attempts": one.attempts,
        "seconds": round(one.seconds, 3),
    }
    if one.error:
        data["error"] = one.error
    if one.hint:
        data["hint"] = one.hint
    if one.by:
        data["blocked_by"] = str(one.by)
    if one.gate:
        data["gate"] = True
    if one.refused:
        data["refused"] = True
    if one.notes:
        data["notes"] = list(one.notes)
    return data


# --- text -----------------------------------------------------------------------------------------------

Line = tuple[str, str]
"""(style, text); the style is a colour's name or empty, and only a terminal shows it."""


def plan_text(data: Mapping[str, Any]) -> Iterable[Line]:
    """A plan to be read aloud: what changes, each with its reason; what stands against it; the count."""
    return ((style, printable(text)) for style, text in _plan_lines(data))


def printable(text: str) -> str:
    """Names and messages come from the platform: what could move a cursor or hide a line is made visible."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "�" for char in text)


def _plan_lines(data: Mapping[str, Any]) -> Iterable[Line]:
    changes = data["changes"]
    if part := data.get("partial"):
        number = len(data["subaccounts"])
        yield "bold", f"Shard {part['shard']}: {number} subaccount{'' if number == 1 else 's'}"
        yield "", ""
    shown: dict[str, list[Mapping[str, Any]]] = {}
    for one in changes:
        if worth_showing(one):
            shown.setdefault(subaccount_of(one), []).append(one)
    for name, about in data["subaccounts"].items():
        mine = shown.get(name)
        if mine:
            yield "bold", f"Subaccount {name}  {about['region']}  {about['id']}"
            yield "", ""
            for one in mine:
                yield from change_lines(one)
            yield "", ""
    yield from unmanaged_lines(data["unmanaged"])
    yield from baseline_lines(data)
    closed = [one for one in data["unseen"] if one["code"] in {"access/none", "access/later", "shard/later"}]
    yield from problem_lines("Not looked at", "", closed)
    yield from problem_lines("Could not be seen", "red", [one for one in data["unseen"] if one not in closed])
    yield from problem_lines(
        "Stands against it" if data["kind"] == "drift" else "Stands against applying",
        "red",
        data["objections"],
    )
    yield from problem_lines("Worth a look", "yellow", data["warnings"])
    yield from closing_lines(data)


def worth_showing(change: Mapping[str, Any]) -> bool:
    if change.get("accepted"):
        return False
    if change["action"] != "keep":
        return True
    unknown = any(one["seen"] == "unknown" for one in change.get("fields", ()))
    return bool(unknown or change["drifted"] or change.get("notes"))


def destructive(change: Mapping[str, Any]) -> bool:
    """Does something go, now or in the end? That is what must be read first."""
    return change["action"] in {"delete", "replace", "retire"} or bool(change.get("retired"))


def subaccount_of(change: Mapping[str, Any]) -> str:
    return str(change["address"]).partition(":")[2].partition("/")[0]


def change_lines(change: Mapping[str, Any]) -> Iterable[Line]:
    action = change["action"]
    sign = "!" if change.get("gate") else SIGNS[action]
    colour = "yellow" if change.get("gate") else COLOURS[action]
    generation = change["generation"]
    old = action in {"keep", "retire", "delete"}
    suffix = f" (generation {generation})" if generation > 1 and not old else ""
    yield colour, f"  {sign} {change['address']}{suffix}"
    if change["reason"]:
        yield "dim", f"      {change['reason']}"
    fresh = action == "create" or (action == "await" and not change.get("found"))
    for one in change.get("fields", ()):
        if one["changes"] or one["seen"] == "unknown":
            sent = one["path"].partition(".")[0] in change.get("sends", ())
            yield "", f"      {_field_text(one, fresh=fresh, sent=sent)}"
    if change.get("gate"):
        yield "yellow", f"      waits for a person: {change['gate']}"
    if change.get("creates") and _by_another_name(change):
        yield colour, f"      named: {change['creates']}"
    if change.get("retired") and not change["address"].startswith("entitlement:"):
        names = dict.fromkeys(_gone_text(one, change) for one in change["retired"])
        yield "red", f"      deletes {', '.join(names)}"
    for note in change.get("notes", ()):
        yield "dim", f"      note: {note}"


def _gone_text(gone: Mapping[str, Any], change: Mapping[str, Any]) -> str:
    """Its name; and where it is, if what is made elsewhere has the same one."""
    if gone["name"] != change.get("creates") or "runtime" not in gone:
        return str(gone["name"])
    return f"{gone['name']} in " + (
        f"space {gone['space']}" if gone.get("space") else f"runtime {gone['runtime']}"
    )


def _by_another_name(change: Mapping[str, Any]) -> bool:
    """Is what is made called something else than the address says? (An entitlement has no name.)"""
    kind, _, path = change["address"].partition(":")
    return bool(kind != "entitlement" and unquote(path.rpartition("/")[2]) != change["creates"])


def _field_text(one: Mapping[str, Any], *, fresh: bool = False, sent: bool = False) -> str:
    if fresh and one["before"] is None:
        return f"{one['path']}: {value_text(one['after'])}"
    if one["seen"] == "unknown":
        why = f" ({one['note']})" if one.get("note") else ""
        done = f"sent as the spec says: {value_text(one['after'])}" if sent else "left as it is"
        return f"{one['path']}: cannot be seen{why}, {done}"
    said = f"{one['path']}: {value_text(one['before'])} → {value_text(one['after'])}"
    if one["seen"] == "assumed":
        said += "   (assumed, by our own record)"
    return said


def value_text(value: Any) -> str:
    """A value in one short line."""
    if value is None:
        return "(none)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {value_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(value_text(item) for item in value) + "]"
    text = printable(str(value))
    return text if len(text) <= 200 else text[:199] + "…"


def unmanaged_lines(facts: Sequence[Mapping[str, Any]]) -> Iterable[Line]:
    if not facts:
        return
    yield "bold", "Unmanaged: carries the mark of a spec that does not name it any more"
    for one in facts:
        mark = one.get("mark") or {}
        said = f", made by spec {mark['spec']} as {mark['name']}" if mark else ""
        where = f" of instance {one['instance']}" if one.get("instance") else ""
        yield "", f"    {one['kind']} {one['name']}{where} in {one['subaccount']}{said}"
    yield "dim", "    left as they are; --prune deletes them"
    yield "", ""


def problem_lines(title: str, colour: str, problems: Sequence[Mapping[str, Any]]) -> Iterable[Line]:
    if not problems:
        return
    yield "bold", title
    for one in problems:
        where = "  ".join(part for part in (one.get("source", ""), one.get("address", "")) if part)
        if where:
            yield "", f"  {where}"
        yield colour, f"    {one['message']}"
        hint = one.get("hint", "")
        yield "dim", f"    {hint}  [{one['code']}]" if hint else f"    [{one['code']}]"
    yield "", ""


def closing_lines(data: Mapping[str, Any], where: str = "above") -> Iterable[Line]:
    """The count, and whether anything stands against it; `where` of these lines that is told."""
    count = data["summary"]
    rest = [
        (count["replace"], "to replace"),
        (count["adopt"], "to adopt"),
        (count["rotate"], "to rotate"),
        (count["retire"], "to retire"),
        (count["await"], "to wait for"),
        (count["gate"], "waiting for a person"),
    ]
    if data["kind"] == "drift":
        yield _drift_closing(data)
    elif not any(value for key, value in count.items() if key != "keep"):
        if data["objections"]:
            yield from _stands(data, where)
            return
        watched = sum(one["drifted"] for one in data["changes"])
        differ = f", {watched} only observed and different" if watched else ""
        blind = _blind(data)
        said = "Nothing to change in what could be seen" if blind else "No changes"
        yield ("" if watched or blind else "green"), f"{said}: {count['keep'] - watched} in sync{differ}."
    else:
        said = f"Plan: {count['create']} to add, {count['update']} to change, {count['delete']} to destroy"
        said += "".join(f", {number} {words}" for number, words in rest if number)
        yield "bold", said + "."
        yield from forecast_lines(data.get("forecast") or {})
    yield from _stands(data, where)


def forecast_lines(data: Mapping[str, Any]) -> Iterable[Line]:
    seconds = data.get("seconds") or 0
    if seconds:
        minutes = max(1, round(seconds / 60))
        spoken = f"{minutes} minute{'' if minutes == 1 else 's'}"
        if minutes >= 120:
            spoken = f"{round(minutes / 60)} hours"
        yield "", f"Applying takes about {spoken}: {data.get('because', '')}."


def _blind(data: Mapping[str, Any]) -> bool:
    """Was there something that should have been looked at and could not be?"""
    return any(one.get("code") == "platform/unseen" for one in data["unseen"])


def _stands(data: Mapping[str, Any], where: str) -> Iterable[Line]:
    if data["kind"] == "drift":
        return
    if stands := len(data["objections"]):
        reasons = "one thing stands" if stands == 1 else f"{stands} things stand"
        yield "red", f"Nothing is applied: {reasons} against it, see {where}."


def _drift_closing(data: Mapping[str, Any]) -> Line:
    fresh = [one for one in data["changes"] if not one.get("accepted")]
    drifted = sum(one["drifted"] for one in fresh)
    waiting = sum(bool(one.get("gate")) or one["action"] == "await" for one in fresh)
    known = len(data["changes"]) - len(fresh)
    checked = f"{len(data['changes'])} checked"
    also = f", {known} known and accepted" if known else ""
    if not drifted and not waiting:
        if _blind(data):
            return "bold", f"No drift in what could be seen: {checked}{also}."
        if known:
            return "green", f"No new drift: {checked}{also}."
        return "green", f"In sync: {checked}, no drift."
    said = f"Drift: {drifted} of {len(data['changes'])} differ" if drifted else "No drift"
    return "bold", said + also + (f", {waiting} waiting." if waiting else ".")


def baseline_lines(data: Mapping[str, Any]) -> Iterable[Line]:
    """What is known and accepted, and what of that is no more."""
    accepted = [one for one in data["changes"] if one.get("accepted")]
    if accepted:
        yield "bold", "Known and accepted, by the baseline"
        for one in accepted:
            said = one["gate"] if one.get("gate") else one["reason"]
            yield "dim", f"    {one['address']}: {said}"
        yield "", ""
    gone = (data.get("baseline") or {}).get("gone", ())
    if gone:
        yield "bold", "In the baseline, and not so any more"
        for one in gone:
            yield "", f"    {one['address']}: {one['about']}"
        yield "dim", "    --write-baseline leaves them out"
        yield "", ""


def steps_done(count: Mapping[str, int]) -> str:
    """Steps, not changes: a replacement takes several, and a key that somebody waits for is proven in one of its own."""
    rest = "".join(f", {count[key]} {key}" for key in ("failed", "blocked", "pending") if count.get(key))
    return f"{count['done']} step{'' if count['done'] == 1 else 's'} done{rest}"


def report_text(data: Mapping[str, Any]) -> Iterable[Line]:
    """How it went: what did not work first, then the count."""
    return ((style, printable(text)) for style, text in _report_lines(data))


def _report_lines(data: Mapping[str, Any]) -> Iterable[Line]:
    for one in data["outcomes"]:
        if one["status"] == "done":
            for note in one.get("notes", ()):
                yield "yellow", f"  {one['address']}"
                yield "", f"      note: {note}"
            continue
        colour = {"failed": "red", "blocked": "yellow", "pending": "yellow"}[one["status"]]
        yield colour, f"  {one['status']}: {one['verb']} {one['address']}"
        if one.get("error"):
            yield "", f"      {one['error']}"
        if one.get("hint"):
            yield "dim", f"      {one['hint']}"
    count = data["summary"]
    yield ("bold" if count["done"] == sum(count.values()) else "red"), f"Apply: {steps_done(count)}."
    if count["pending"]:
        yield "yellow", "What is pending goes on at the platform; run again to finish it."


# --- exit codes -----------------------------------------------------------------------------------------

DONE, FAILED, CHANGES, SPEC, REFUSED, PENDING, PERSON, USAGE = 0, 1, 2, 3, 4, 5, 6, 64
"""The same for all commands; the first that applies of 64, 3, 4, 1, 6, 5, 2, 0."""
WORST_FIRST = (USAGE, SPEC, REFUSED, FAILED, PERSON, PENDING, CHANGES)


def plan_exit(
    plan: Plan, *, detailed: bool, drift: bool = False, accepted: Collection[str] = frozenset()
) -> int:
    """What a plan or a drift check ends with. `accepted`: addresses whose drift is known and does not count."""
    if _objections(plan, drift=drift):
        return REFUSED
    if any(problem.code == "platform/unseen" for problem in plan.unseen):
        return FAILED
    if not detailed:
        return DONE
    changes = [one for one in plan.changes if str(one.address) not in accepted] if accepted else plan.changes
    if any(change.gate for change in changes):
        return PERSON
    if any(change.action is Action.AWAIT for change in changes) or waits_for_another(plan):
        return PENDING
    differs = any(change.drifted for change in changes) if drift else not plan.empty
    return CHANGES if differs else DONE


def saved_exit(data: Mapping[str, Any]) -> int:
    """What the saved plan ended with under `--detailed-exitcode`."""
    count = data.get("summary") or {}
    if data.get("objections"):
        return REFUSED
    if any(one.get("code") == "platform/unseen" for one in data.get("unseen") or ()):
        return FAILED
    if count.get("gate"):
        return PERSON
    later = any(one.get("code") == "shard/later" for one in data.get("unseen") or ())
    if count.get("await") or later:
        return PENDING
    return CHANGES if any(value for key, value in count.items() if key != "keep") else DONE


def apply_exit(plan: Plan, reports: Sequence[Report]) -> int:
    """What applying ends with. The last round counts for what is pending, all rounds for what failed."""
    outcomes = [one for report in reports for one in report.outcomes]
    if plan.objections or any(one.refused for one in outcomes):
        return REFUSED
    gates = [one for one in outcomes if one.gate]
    failed = [one for one in outcomes if one.status is Status.FAILED and not one.gate and not one.refused]
    if failed or any(problem.code == "platform/unseen" for problem in plan.unseen):
        return FAILED
    if gates or any(change.gate for change in plan.changes):
        return PERSON
    last = reports[-1].outcomes if reports else ()
    if waits_for_another(plan):
        return PENDING
    return PENDING if follows(plan, reports) or any(one.status is Status.PENDING for one in last) else DONE


def waits_for_another(plan: Plan) -> bool:
    """Is there something that takes from a key which another shard is to make?"""
    return any(problem.code == "shard/later" for problem in plan.unseen)


def opens_later(plan: Plan) -> bool:
    """Is there a service whose key comes to be there only now, so that what stands there is planned after that?"""
    return any(problem.code == "access/later" for problem in plan.unseen)


def follows(plan: Plan, reports: Sequence[Report]) -> bool:
    """Was something only waited for? What is to be done to it then, another plan must say."""
    waited = any(change.action is Action.AWAIT and not change.gate for change in plan.changes)
    waited = waited or opens_later(plan)
    done = bool(reports) and all(one.status is Status.DONE for one in reports[-1].outcomes)
    return waited and done and bool(plan.steps)
