"""Plans and reports as data, as text, and as exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile.core import report
from btp_reconcile.core.model import (
    Action,
    Address,
    Change,
    FieldChange,
    Outcome,
    Plan,
    Problem,
    Report,
    Secret,
    Seen,
    Status,
    Step,
    StepId,
    Verb,
)
from tests import build
from tests.build import fact, planned, resource

if TYPE_CHECKING:
    from collections.abc import Sequence

APIM = Address("instance", ("prod", "apim"))


def text(plan: Plan, *, drift: bool = False) -> list[str]:
    data = json.loads(json.dumps(report.plan_json(plan, {"prod": build.PLACE}, drift=drift)))
    return [line for _, line in report.plan_text(data)]


def plan(*changes: Change, **more: Any) -> Plan:
    return Plan(changes, (), **more)


def change(action: Action, **more: Any) -> Change:
    return Change(APIM, action, **more)


# --- text -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", list(Action))
def test_every_action_has_a_sign_and_a_colour_of_its_own(action: Action) -> None:
    assert report.SIGNS[action]
    assert report.COLOURS[action] in {"green", "yellow", "magenta", "red", "cyan", "blue", ""}
    assert len(set(report.SIGNS.values())) == len(Action)


def test_a_saved_plan_reads_as_it_did_when_it_was_made() -> None:
    one = planned([resource("instance:prod/apim", parameters={"size": 1}), resource("key:prod/apim/k")])
    data = report.plan_json(one, {"prod": build.PLACE})

    assert list(report.plan_text(json.loads(json.dumps(data)))) == list(report.plan_text(data))


def test_nothing_to_do_is_one_line() -> None:
    assert text(plan(change(Action.KEEP, reason="in sync"))) == ["No changes: 1 in sync."]
    assert text(plan(change(Action.KEEP, reason="in sync")), drift=True) == ["In sync: 1 checked, no drift."]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (FieldChange("tags", ["a"], []), "tags: [a] → []"),
        (FieldChange("on", None, True), "on: (none) → true"),
        (FieldChange("map", {"a": {"b": [1, None]}}, {}), "map: {a: {b: [1, (none)]}} → {}"),
        (FieldChange("p", "x", Secret("env:P", "hunter2")), "p: x → <secret env:P>"),
        (FieldChange("role", "a", "b", Seen.ASSUMED), "role: a → b   (assumed, by our own record)"),
        (
            FieldChange("parameters", None, {}, Seen.UNKNOWN, changes=False, note="changed by others since"),
            "parameters: cannot be seen (changed by others since), left as it is",
        ),
        (FieldChange("long", "", "x" * 500), f"long:  → {'x' * 199}…"),
    ],
)
def test_a_field_in_one_line(field: FieldChange, expected: str) -> None:
    assert text(plan(change(Action.UPDATE, fields=(field,))))[3] == f"      {expected}"


def test_what_is_sent_though_it_cannot_be_seen_is_said() -> None:
    field = FieldChange("parameters", None, {"size": 1}, Seen.UNKNOWN, changes=False)
    one = change(Action.UPDATE, fields=(field,), send={"parameters": {"size": 1}})

    assert text(plan(one))[3] == "      parameters: cannot be seen, sent as the spec says: {size: 1}"


def test_no_name_or_message_of_the_platform_can_move_the_cursor() -> None:
    evil = "apim\x1b[2J\r\nPlan: 0 to destroy.\u202e"
    one = change(Action.DELETE, reason=evil, notes=(evil,), retired=(fact("instance", evil),), gate=evil)
    made = plan(one, objections=(Problem("x/y", evil, hint=evil),), unmanaged=(fact("instance", evil),))
    step = Step(StepId("s"), Verb.DELETE, APIM, 1)
    ended = report.report_json(Report((Outcome(step, Status.FAILED, evil, evil),)))

    for line in [*text(made), *(line for _, line in report.report_text(ended))]:
        assert line.isprintable()


def test_no_secret_shows_in_any_view() -> None:
    secret = Secret("env:P", "hunter2")
    wanted = resource("instance:prod/apim", parameters={"nested": [{"p": secret}]})
    data = report.plan_json(planned([wanted]), {"prod": build.PLACE})

    assert "hunter2" not in json.dumps(data) + "\n".join(line for _, line in report.plan_text(data))
    assert "parameters.nested: [{p: <secret env:P>}]" in "\n".join(text(planned([wanted])))


def test_how_it_went_says_first_what_did_not_work() -> None:
    step = Step(StepId("s"), Verb.CREATE, APIM, 1)
    outcomes = (
        Outcome(step, Status.DONE),
        Outcome(step, Status.FAILED, "no", "ask somebody"),
        Outcome(step, Status.PENDING, "not finished yet"),
    )

    assert [line for _, line in report.report_text(report.report_json(Report(outcomes)))] == [
        "  failed: create instance:prod/apim",
        "      no",
        "      ask somebody",
        "  pending: create instance:prod/apim",
        "      not finished yet",
        "Apply: 1 step done, 1 failed, 1 pending.",
        "What is pending goes on at the platform; run again to finish it.",
    ]


# --- exit codes -----------------------------------------------------------------------------------------

OBJECTION = (Problem("safety/protected", "protected"),)
CONFLICT = (Problem("conflict/exists", "there already"),)
UNSEEN = (Problem("platform/unseen", "down"),)
CLOSED = (Problem("access/none", "no credentials"),)
DIFFERS = FieldChange("tags", [], ["a"])


@pytest.mark.parametrize(
    ("made", "plain", "detailed", "drift"),
    [
        (plan(), 0, 0, 0),
        (plan(change(Action.KEEP)), 0, 0, 0),
        (plan(change(Action.KEEP), unseen=CLOSED), 0, 0, 0),
        (plan(change(Action.CREATE)), 0, 2, 2),
        (plan(change(Action.RETIRE)), 0, 2, 0),
        (plan(change(Action.KEEP, fields=(DIFFERS,))), 0, 0, 2),
        (plan(change(Action.CREATE), change(Action.AWAIT)), 0, 5, 5),
        (plan(change(Action.AWAIT), change(Action.AWAIT, gate="somebody must")), 0, 6, 6),
        (plan(change(Action.AWAIT, gate="somebody must"), unseen=UNSEEN), 1, 1, 1),
        (plan(change(Action.CREATE), unseen=UNSEEN, objections=OBJECTION), 4, 4, 1),
        (plan(change(Action.DELETE), objections=OBJECTION), 4, 4, 2),
        (plan(change(Action.CREATE), objections=CONFLICT), 4, 4, 4),
    ],
)
def test_what_a_plan_ends_with(made: Plan, plain: int, detailed: int, drift: int) -> None:
    assert report.plan_exit(made, detailed=False) == plain
    assert report.plan_exit(made, detailed=True) == detailed
    assert report.plan_exit(made, detailed=True, drift=True) == drift
    assert report.saved_exit(report.plan_json(made, {})) == detailed


def ended(*outcomes: Outcome) -> Report:
    return Report(outcomes)


STEP = Step(StepId("s"), Verb.CREATE, APIM, 1)
DONE = Outcome(STEP, Status.DONE)
FAILED = Outcome(STEP, Status.FAILED, "no")
PENDING = Outcome(STEP, Status.PENDING)
GATE = replace(FAILED, gate=True)
REFUSED = replace(FAILED, refused=True)


@pytest.mark.parametrize(
    ("made", "reports", "expected"),
    [
        (plan(), [], 0),
        (plan(), [ended(DONE)], 0),
        (plan(), [ended(DONE, PENDING)], 5),
        (plan(), [ended(PENDING), ended(DONE)], 0),
        (plan(change(Action.AWAIT, gate="somebody must")), [ended(PENDING)], 6),
        (plan(), [ended(GATE, PENDING)], 6),
        (plan(), [ended(GATE, FAILED)], 1),
        (plan(unseen=UNSEEN), [ended(DONE)], 1),
        (plan(), [ended(FAILED), ended(DONE)], 1),
        (plan(), [ended(FAILED, REFUSED)], 4),
        (plan(objections=OBJECTION), [], 4),
        (replace(plan(change(Action.AWAIT)), steps=(STEP,)), [ended(DONE)], 5),
        (replace(plan(change(Action.AWAIT)), steps=(STEP,)), [ended(FAILED)], 1),
        (plan(change(Action.AWAIT)), [ended(DONE)], 0),
    ],
)
def test_what_applying_ends_with(made: Plan, reports: Sequence[Report], expected: int) -> None:
    assert report.apply_exit(made, reports) == expected
