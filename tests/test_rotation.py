"""The life of a key: made, tried out, given to its consumers, made anew in time, and deleted when nobody uses it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest

from btp_reconcile.core import record
from btp_reconcile.core.model import Action, Address, Seen, Status
from btp_reconcile.kinds import key as key_kind
from tests.worlds import Bench

if TYPE_CHECKING:
    from pathlib import Path

    from btp_reconcile.core.kind import KeyDriver
    from btp_reconcile.core.model import Change, Fact

DAY = 86400.0

HEAD = """\
version: 1
owner: finance
name: life
access:
  central: {service_key: "${env:A}"}
  service_manager: {service_key: "${env:B}"}
  cloud_foundry: {username: u, password: "${env:C}"}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    cloud_foundry: {org: finance-prod, space: apis}
    instances:
"""

APIM = """\
      apim:
        api: api-management
        runtime: RUNTIME
        parameters: {role: APIPortal.Administrator}
        keys:
          transport: KEY
"""


@dataclass
class Life:
    """One spec over days."""

    bench: Bench
    spec: str

    def plan(self, **options: Any) -> dict[str, Change]:
        planned = self.bench.plan(self.spec, **options)
        assert planned.plan.objections == ()
        return {str(one.address): one for one in planned.plan.changes}

    def actions(self, **options: Any) -> dict[str, str]:
        """What a plan would do, without what stays as it is."""
        found = self.plan(**options).items()
        return {name: str(one.action) for name, one in found if one.action is not Action.KEEP}

    def apply(self, **options: Any) -> dict[str, str]:
        """Steps and how they ended."""
        reports = self.bench.apply(self.spec, **options)
        return {str(one.step.id): str(one.status) for one in reports[-1].outcomes}

    def done(self, **options: Any) -> list[str]:
        steps = self.apply(**options)
        assert {name: status for name, status in steps.items() if status != Status.DONE} == {}
        return list(steps)

    def keys(self) -> list[str]:
        facts = self.bench.plan(self.spec).facts
        return sorted(one.name for one in facts.of("key"))

    def days(self, number: float) -> None:
        self.bench.advance(number * DAY)


RUNTIMES = ("cloudfoundry", "other")
KEY = "key:prod/apim/transport"
MAIN = "delivery:prod/apim/transport/main"


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def begun(folder: Path, runtime: str, key: str, instances: str = APIM) -> Life:
    bench = Bench(folder)
    text = HEAD + instances.replace("RUNTIME", runtime).replace("KEY", key)
    return Life(bench, bench.write(text))


def rewritten(life: Life, runtime: str, key: str) -> None:
    life.bench.write(HEAD + APIM.replace("RUNTIME", runtime).replace("KEY", key))


def to_file(folder: Path, more: str = "rotate_after: 20d, keep_old_for: 5d") -> str:
    return f"{{{more}, deliver: {{main: {{file: {{path: {folder}/key.json}}}}}}}}"


def generation_in(file: Path) -> int:
    beside = file.with_name(f".{file.name}.reconcile")
    return int(json.loads(beside.read_text(encoding="utf-8"))["identity"]["generation"])


def test_a_key_is_made_tried_out_and_delivered_in_one_run(tmp_path: Path, runtime: str) -> None:
    life = begun(tmp_path, runtime, to_file(tmp_path))

    assert life.done()[-3:] == [f"create {KEY}#1", f"verify {KEY}#1", f"create {MAIN}#1"]
    assert life.actions() == {}
    assert json.loads((tmp_path / "key.json").read_text(encoding="utf-8"))["clientSecret"]
    assert (tmp_path / "key.json").stat().st_mode & 0o777 == 0o600


def test_a_key_is_made_anew_when_it_is_old_and_the_old_one_goes_when_its_time_is_over(
    tmp_path: Path, runtime: str
) -> None:
    life = begun(tmp_path, runtime, to_file(tmp_path))
    life.done()
    life.days(17)
    assert life.actions() == {}

    life.days(3)
    assert life.actions() == {KEY: "rotate", MAIN: "update"}
    life.done()
    assert generation_in(tmp_path / "key.json") == 2
    assert life.actions() == {}
    assert life.keys() == ["transport", "transport-2"]

    life.days(4.9)
    assert life.actions() == {}
    life.days(0.2)
    assert life.actions() == {KEY: "retire"}
    life.done()
    assert life.keys() == ["transport-2"]
    assert life.actions() == {}


def test_a_key_without_consumers_is_kept_from_when_its_successor_was_made(
    tmp_path: Path, runtime: str
) -> None:
    life = begun(tmp_path, runtime, "{rotate_after: 20d, keep_old_for: 5d}")
    life.done()
    life.days(20)

    assert life.done() == [f"create {KEY}#2", f"verify {KEY}#2"]
    life.days(5.1)
    assert life.done() == [f"delete {KEY}#1"]
    assert life.keys() == ["transport-2"]


def test_a_delivery_that_fails_keeps_the_old_key_and_is_made_up_for_later(
    tmp_path: Path, runtime: str
) -> None:
    """However long it takes: no third key is made, and the grace time begins when it has worked."""
    folder = tmp_path / "consumer"
    folder.mkdir()
    life = begun(tmp_path, runtime, to_file(folder))
    life.done()
    life.days(20)
    away = folder.rename(tmp_path / "away")  # nothing can be delivered there now

    late = {f"date {KEY}#1": "blocked", f"create {MAIN}#2": "failed"}
    first = life.apply()
    assert {name.partition("@")[0]: one for name, one in first.items()} == {
        f"create {KEY}#2": "done",
        f"verify {KEY}#2": "done",
        **late,
    }
    for _ in range(3):
        life.days(10)
        again = life.apply()
        assert {name.partition("@")[0]: one for name, one in again.items()} == late
    assert life.keys() == ["transport", "transport-2"]

    away.rename(folder)
    assert life.actions() == {KEY: "retire", MAIN: "update"}
    life.done()
    assert generation_in(folder / "key.json") == 2
    assert life.keys() == ["transport", "transport-2"]
    life.days(5.1)
    # The second one has become old meanwhile: its successor is made, and the first one goes.
    assert life.done()
    assert life.keys() == ["transport-2", "transport-3"]


def test_a_key_that_is_asked_for_while_the_last_new_one_is_on_its_way_is_said_not_to_be_made(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "consumer"
    folder.mkdir()
    life = begun(tmp_path, "cloudfoundry", to_file(folder))
    life.done()
    life.days(20)
    folder.rename(tmp_path / "away")
    life.apply()

    asked = frozenset({Address.parse(KEY)})
    changes = life.bench.plan(life.spec, reapply=asked, only_due=True).plan.changes
    notes = next(one.notes for one in changes if str(one.address) == KEY)
    assert notes[0] == "not made anew: transport-2 is still on its way"


def test_what_was_changed_at_the_consumer_is_mended(tmp_path: Path, runtime: str) -> None:
    life = begun(tmp_path, runtime, to_file(tmp_path))
    life.done()
    file = tmp_path / "key.json"
    before = file.read_text(encoding="utf-8")

    file.write_text(before.replace("clientSecret", "clientsecret"), encoding="utf-8")
    assert life.actions() == {MAIN: "update"}
    assert life.done()[0] == f"update {MAIN}#1"
    assert file.read_text(encoding="utf-8") == before

    file.chmod(0o644)
    assert life.actions() == {MAIN: "update"}
    life.done()
    assert file.stat().st_mode & 0o777 == 0o600

    file.unlink()
    assert life.actions() == {MAIN: "create"}
    life.done()
    assert life.actions() == {}


def test_what_is_there_and_is_not_ours_is_not_overwritten_unless_it_is_adopted(tmp_path: Path) -> None:
    life = begun(tmp_path, "cloudfoundry", to_file(tmp_path))
    (tmp_path / "key.json").write_text("{}", encoding="utf-8")
    (tmp_path / "key.json").chmod(0o600)
    planned = life.bench.plan(life.spec)

    assert [one.code for one in planned.plan.objections] == ["conflict/exists"]

    adopting = f"{{deliver: {{main: {{file: {{path: {tmp_path}/key.json}}, adopt: true}}}}}}"
    rewritten(life, "cloudfoundry", adopting)
    assert life.actions()[MAIN] == "update"
    life.done()
    assert life.actions() == {}


def test_a_folder_in_the_place_of_a_file_is_not_overwritten_and_nobody_is_told_that_it_could_be(
    tmp_path: Path,
) -> None:
    (tmp_path / "key.json").mkdir()
    life = begun(tmp_path, "cloudfoundry", to_file(tmp_path))

    for more in ("", ", adopt: true"):
        key = f"{{deliver: {{main: {{file: {{path: {tmp_path}/key.json}}{more}}}}}}}"
        rewritten(life, "cloudfoundry", key)
        assert [(one.code, one.hint) for one in life.bench.plan(life.spec).plan.objections] == [
            ("conflict/exists", "take it away, or deliver to another place")
        ]


TO_PROGRAM = "{keep_old_for: 3d, deliver: {main: {command: {run: [cat]}}}}"


def test_what_a_program_is_given_first_is_an_addition(tmp_path: Path) -> None:
    life = begun(tmp_path, "cloudfoundry", TO_PROGRAM)

    first = life.plan()[MAIN]
    assert (first.action, first.reason, first.found) == (Action.CREATE, "not delivered yet", None)
    assert [(one.path, one.before, one.after) for one in first.fields] == [("to", None, "command cat")]
    life.done()
    assert life.actions() == {}


def test_what_a_program_holds_is_known_by_its_receipt_alone(tmp_path: Path) -> None:
    life = begun(tmp_path, "cloudfoundry", TO_PROGRAM)
    life.done()

    again = life.plan(reapply=frozenset({Address.parse(KEY)}))[MAIN]
    assert (again.action, again.reason) == (Action.UPDATE, "generation 2 is not there yet")
    assert [(one.path, one.before, one.after, one.seen) for one in again.fields] == [
        ("generation", 1, 2, Seen.ASSUMED)
    ]
    life.done(reapply=frozenset({Address.parse(KEY)}))
    assert life.actions() == {}

    rewritten(life, "cloudfoundry", TO_PROGRAM.replace("[cat]", "[cat, -]"))
    moved = life.plan()[MAIN]
    assert (moved.action, moved.reason) == (Action.UPDATE, "the spec says otherwise now")
    assert moved.notes == ("left behind: what was delivered to command cat stays there",)


def test_a_program_in_the_place_of_another_sink_was_given_nothing_yet(tmp_path: Path) -> None:
    life = begun(tmp_path, "cloudfoundry", to_file(tmp_path))
    life.done()
    rewritten(life, "cloudfoundry", TO_PROGRAM)

    planned = life.plan()[MAIN]
    assert (planned.action, planned.found) == (Action.CREATE, None)
    assert [(one.path, one.before, one.after) for one in planned.fields] == [
        ("to", f"file {tmp_path}/key.json", "command cat")
    ]
    life.done()
    assert life.actions() == {}


def test_a_key_that_is_due_before_its_age_says_why(tmp_path: Path) -> None:
    life = begun(tmp_path, "cloudfoundry", "{rotate_after: 20d}")
    life.done()
    life.bench.advance(19.9 * DAY)

    assert life.plan()[KEY].reason == "it is 19 days old (rotate_after: 20 days, this key 22 hours earlier)"
    life.bench.advance(0.2 * DAY)
    assert life.plan()[KEY].reason == "it is 20 days old (rotate_after: 20 days)"


def test_a_delivery_that_moves_leaves_the_old_one_behind_and_says_so(tmp_path: Path) -> None:
    life = begun(tmp_path, "cloudfoundry", to_file(tmp_path))
    life.done()
    rewritten(life, "cloudfoundry", to_file(tmp_path).replace("key.json", "other.json"))

    changed = life.plan()[MAIN]
    assert changed.notes == (f"left behind: what was delivered to file {tmp_path}/key.json stays there",)
    life.done()
    assert (tmp_path / "key.json").exists()
    assert life.actions() == {}

    rewritten(life, "cloudfoundry", "{}")
    notes = life.plan()[KEY].notes
    assert [one.partition(" has had")[0] for one in notes] == [
        f"left behind: {MAIN} (file {tmp_path}/other.json)"
    ]


def test_a_certificate_is_renewed_before_it_ends_and_its_end_is_noted(tmp_path: Path, runtime: str) -> None:
    signs_in = "credential: {type: x509, validity: 14d}, rotate_after: 8d, keep_old_for: 3d"
    life = begun(tmp_path, runtime, to_file(tmp_path, signs_in))
    life.done()
    noted = record.not_after(life.plan()[KEY].found)
    assert noted is not None
    assert abs(noted - (life.bench.now() + 14 * DAY)) < 600

    life.days(7)
    assert life.actions() == {}
    life.days(1)
    assert life.actions() == {KEY: "rotate", MAIN: "update"}


def test_rotations_because_of_age_are_capped_and_certificates_that_end_are_not(tmp_path: Path) -> None:
    names = [f"k{number}" for number in range(5)]
    keys = "".join(f"          {name}: {{rotate_after: 20d}}\n" for name in names)
    instances = APIM.replace("          transport: KEY\n", keys)
    signs_in = "{credential: {type: x509, validity: 30d}, rotate_after: 20d, keep_old_for: 5d}"
    instances += f"          ends: {signs_in}\n"
    life = begun(tmp_path, "cloudfoundry", "", instances)
    life.done()
    life.days(26)

    assert sorted(life.actions(at_most=2)) == [
        "key:prod/apim/ends",
        *sorted(name for name in life.actions(at_most=2) if "/k" in name),
    ]
    assert len(life.actions(at_most=2)) == 3
    life.done(at_most=2)
    assert len(life.actions(at_most=10)) == 3


def test_a_key_older_than_its_instances_last_change_is_spoken_of_or_made_anew(tmp_path: Path) -> None:
    settings = """\
      settings:
        service: sandbox-config
        plan: standard
        runtime: cloudfoundry
        parameters: {size: SIZE}
        keys: {k: KEY}
"""
    life = begun(tmp_path, "cloudfoundry", "{}", settings.replace("SIZE", "1"))
    life.done()
    life.days(1)
    life.bench.write(HEAD + settings.replace("SIZE", "2").replace("KEY", "{}"))
    life.done()

    assert [
        "older than its instance's last change" in one for one in life.plan()["key:prod/settings/k"].notes
    ] == [True]
    life.bench.write(HEAD + settings.replace("SIZE", "2").replace("KEY", "{reissue_stale: true}"))
    assert life.actions() == {"key:prod/settings/k": "rotate"}
    life.done()
    assert life.actions() == {}


def test_the_end_of_a_certificate_that_was_not_noted_is_noted_by_the_next_run(
    tmp_path: Path, runtime: str
) -> None:
    life = begun(tmp_path, runtime, "{credential: {type: x509, validity: 14d}}")
    life.done()
    noted = life.plan()[KEY].found
    assert noted is not None
    ends = noted.record[record.NOT_AFTER]
    forget(life, noted)

    assert life.actions() == {KEY: "update"}
    assert life.done() == [f"update {KEY}#1"]
    again = life.plan()[KEY].found
    assert again is not None
    assert again.record[record.NOT_AFTER] == ends
    assert life.actions() == {}


def forget(life: Life, fact: Fact) -> None:
    """Take the note away, as a run does that is cut off before it writes it."""
    planned = life.bench.plan(life.spec)
    driver = cast("KeyDriver", key_kind.KIND.drivers[fact.runtime])
    subaccount = planned.prepared.wanted.subaccounts["prod"]
    driver.note(planned.platform.door(driver.service, subaccount), fact, {record.NOT_AFTER: None})


DESTINATION = """\
    destinations:
      APIManagement: {recipe: api-management-transport, key: apim/transport, ensure: WISH}
"""


def test_a_destination_that_goes_takes_its_receipt_along_and_goes_before_its_key(tmp_path: Path) -> None:
    both = APIM + DESTINATION
    life = begun(tmp_path, "cloudfoundry", "{}", both.replace("WISH", "present"))
    life.done()
    held = life.plan()[KEY].found
    assert held is not None
    assert [one.of for one in record.receipts(held).values()] == ["destination:prod/APIManagement"]

    text = HEAD + both.replace("WISH", "absent").replace("RUNTIME", "cloudfoundry")
    life.bench.write(text.replace("KEY", "{}"))
    assert life.done() == ["delete destination:prod/APIManagement#1"]
    kept = life.plan()[KEY]
    assert kept.found is not None
    assert record.receipts(kept.found) == {}
    assert kept.notes == ()

    life.bench.write(
        HEAD + both.replace("WISH", "present").replace("RUNTIME", "cloudfoundry").replace("KEY", "{}")
    )
    life.done()
    life.bench.write(text.replace("KEY", "{ensure: absent}"))
    assert life.done() == ["delete destination:prod/APIManagement#1", f"delete {KEY}#1"]


def test_a_new_key_with_the_secret_of_the_old_one_is_spoken_of(tmp_path: Path, runtime: str) -> None:
    """A secret of the whole instance cannot be renewed by a new key, and deleting the old key ends nothing."""
    life = begun(tmp_path, runtime, to_file(tmp_path))
    with life.bench.sandbox.hold() as world:
        world.settings["instance_secrets"] = ["apimanagement-apiportal"]
    life.done()
    life.days(20)
    reports = life.bench.apply(life.spec)

    (proven,) = (one for one in reports[-1].outcomes if one.step.verb == "verify")
    assert proven.notes == (
        (
            "transport-2 has the same secret as transport: it belongs to the instance and not to the key, so a rotation "
            "does not renew it; a new instance would"
        ),
    )


# --- old keys go on their own day ------------------------------------------------------------------------


def noted(life: Life, fact: Fact, notes: dict[str, str | None]) -> None:
    """Write notes beside a key, as another run would."""
    planned = life.bench.plan(life.spec)
    driver = cast("KeyDriver", key_kind.KIND.drivers[fact.runtime])
    subaccount = planned.prepared.wanted.subaccounts["prod"]
    driver.note(planned.platform.door(driver.service, subaccount), fact, notes)


def unanswered(life: Life) -> None:
    """No API answers from now on; the platform itself does."""
    life.bench.sandbox.faults.add(
        {"do": "status", "status": 500, "match": {"host": "*", "path": "/apiportal/"}}
    )


def refusing(life: Life) -> None:
    life.bench.sandbox.faults.add(
        {"do": "status", "status": 403, "match": {"host": "*", "path": "/apiportal/"}}
    )


def test_old_keys_go_after_their_own_successors_when_every_run_makes_another(
    tmp_path: Path, runtime: str
) -> None:
    life = begun(tmp_path, runtime, "{rotate_after: 5d, keep_old_for: 1d}")
    life.done()
    for number in range(2, 7):
        life.days(7)
        steps = life.done(only_due=True)
        gone = [f"delete {KEY}#{number - 2}"] if number > 2 else []
        assert steps == [f"create {KEY}#{number}", f"verify {KEY}#{number}", *gone]
        assert life.keys() == [f"transport-{one}" if one > 1 else "transport" for one in (number - 1, number)]


def test_old_keys_go_though_the_rotation_is_left_to_a_later_run(tmp_path: Path) -> None:
    life = begun(tmp_path, "cloudfoundry", "{rotate_after: 5d, keep_old_for: 1d}")
    life.done()
    life.days(7)
    life.done()
    life.days(7)

    planned = life.plan(at_most=0)[KEY]
    assert (planned.action, [one.name for one in planned.retired]) == (Action.RETIRE, ["transport"])
    assert life.done(at_most=0, only_due=True) == [f"delete {KEY}#1"]


def test_a_new_key_without_consumers_that_is_no_use_is_nobodys_successor(
    tmp_path: Path, runtime: str
) -> None:
    life = begun(tmp_path, runtime, "{rotate_after: 5d, keep_old_for: 1d}")
    life.done()
    life.days(7)
    life.done()
    life.days(7)
    refusing(life)
    assert life.apply() == {
        f"create {KEY}#3": "done",
        f"verify {KEY}#3": "failed",
        f"delete {KEY}#1": "blocked",
    }

    life.days(2)
    said = "transport-2 is kept: transport-3 was no use when it was last tried (forbidden); `apply --verify` tries it again"
    planned = life.plan()[KEY]
    assert (planned.action, [one.name for one in planned.retired]) == (Action.RETIRE, ["transport"])
    assert said in planned.notes
    assert life.done() == [f"delete {KEY}#1"]
    assert life.keys() == ["transport-2", "transport-3"]

    life.bench.sandbox.faults.clear()
    life.days(4)
    assert life.done() == [f"create {KEY}#4", f"verify {KEY}#4"]
    life.days(2)
    assert sorted(one.partition("@")[0] for one in life.done()) == [f"delete {KEY}#2", f"delete {KEY}#3"]
    assert life.keys() == ["transport-4"]


def test_a_new_key_without_consumers_that_cannot_be_tried_is_tried_again_before_the_old_one_goes(
    tmp_path: Path, runtime: str
) -> None:
    life = begun(tmp_path, runtime, "{rotate_after: 9d, keep_old_for: 1d}")
    life.done()
    life.days(10)
    unanswered(life)
    assert life.apply() == {f"create {KEY}#2": "done", f"verify {KEY}#2": "failed"}
    assert life.actions() == {}

    life.days(2)
    assert life.actions() == {KEY: "retire"}
    reports = life.bench.apply(life.spec)
    (tried, gone) = reports[-1].outcomes
    assert (tried.status, gone.status) == (Status.DONE, Status.DONE)
    assert tried.notes[0].startswith("transport-2 could not be tried, as before (unreachable: ")
    assert tried.notes[0].endswith("; that says nothing about it, so transport goes all the same")
    assert life.keys() == ["transport-2"]


def test_a_new_key_that_cannot_be_tried_holds_the_old_one_for_an_hour_at_least(tmp_path: Path) -> None:
    life = begun(tmp_path, "cloudfoundry", "{rotate_after: 9d, keep_old_for: 0m}")
    life.done()
    life.days(10)
    unanswered(life)
    blocked = {f"verify {KEY}#2": "failed", f"delete {KEY}#1": "blocked"}
    assert life.apply() == {f"create {KEY}#2": "done", **blocked}
    assert life.apply() == blocked
    life.days(0.02)
    assert life.apply() == blocked

    life.days(0.03)
    assert life.done() == [f"verify {KEY}#2", f"delete {KEY}#1"]


def test_a_new_key_with_consumers_that_cannot_be_tried_reaches_nobody(tmp_path: Path) -> None:
    life = begun(tmp_path, "cloudfoundry", to_file(tmp_path, "rotate_after: 9d, keep_old_for: 0m"))
    life.done()
    life.days(10)
    unanswered(life)
    for _ in range(3):
        assert life.apply()[f"verify {KEY}#2"] == "failed"
        life.days(1)
    assert generation_in(tmp_path / "key.json") == 1
    assert life.keys() == ["transport", "transport-2"]


def test_a_new_key_without_consumers_that_was_never_tried_is_tried_before_the_old_one_goes(
    tmp_path: Path, runtime: str
) -> None:
    life = begun(tmp_path, runtime, "{rotate_after: 9d, keep_old_for: 1d}")
    life.done()
    life.days(10)
    life.done()
    newest = life.plan()[KEY].found
    assert newest is not None
    noted(life, newest, {record.VERIFIED: None})

    life.days(2)
    refusing(life)
    assert life.apply() == {f"verify {KEY}#2": "failed", f"delete {KEY}#1": "blocked"}
    assert life.actions() == {}
    assert life.keys() == ["transport", "transport-2"]


def test_a_key_that_is_not_to_be_tried_is_not(tmp_path: Path) -> None:
    life = begun(tmp_path, "cloudfoundry", "{rotate_after: 9d, keep_old_for: 1d, verify: false}")
    life.done()
    life.days(10)
    refusing(life)
    assert life.done() == [f"create {KEY}#2"]
    life.days(2)
    assert life.done() == [f"delete {KEY}#1"]


@pytest.mark.parametrize(("keep", "after"), [("0m", 0.0), ("1h", 0.05)])
def test_a_shorter_time_counts_for_old_keys_that_have_their_day_already(
    tmp_path: Path, runtime: str, keep: str, after: float
) -> None:
    life = begun(tmp_path, runtime, to_file(tmp_path, "rotate_after: 20d, keep_old_for: 15d"))
    life.done()
    life.days(20)
    life.done()
    rewritten(life, runtime, to_file(tmp_path, f"rotate_after: 20d, keep_old_for: {keep}"))
    asked = frozenset({Address.parse(KEY)})
    life.done(reapply=asked, only_due=True)
    life.days(after)
    life.apply(only_due=True)

    assert generation_in(tmp_path / "key.json") == 3
    assert life.keys() == ["transport-3"]


def test_a_longer_time_changes_nothing_for_old_keys_that_have_their_day_already(
    tmp_path: Path, runtime: str
) -> None:
    life = begun(tmp_path, runtime, to_file(tmp_path))
    life.done()
    life.days(20)
    life.done()
    rewritten(life, runtime, to_file(tmp_path, "rotate_after: 20d, keep_old_for: 15d"))
    life.days(4.9)
    assert life.actions() == {}
    life.days(0.2)
    assert life.actions() == {KEY: "retire"}


def test_a_shorter_time_waits_for_the_last_consumer(tmp_path: Path) -> None:
    life = begun(tmp_path, "cloudfoundry", to_file(tmp_path))
    life.done()
    life.days(20)
    life.done()
    folder = tmp_path / "late"
    more = (
        f"{{rotate_after: 20d, keep_old_for: 0m, deliver: {{main: {{file: {{path: {tmp_path}/key.json}}}}, "
    )
    more += f"late: {{file: {{path: {folder}/key.json}}}}}}}}"
    rewritten(life, "cloudfoundry", more)

    life.apply()
    assert life.keys() == ["transport", "transport-2"]
    folder.mkdir()
    life.done()
    life.apply()
    assert life.keys() == ["transport-2"]


# --- what a delivery holds when its key is gone ----------------------------------------------------------


def taken_away(life: Life, name: str) -> None:
    """As somebody deletes a key at the platform."""
    with life.bench.sandbox.hold() as world:
        for table in ("cf.service_credential_bindings", "sm.bindings"):
            rows = world.table(table)
            for guid in [guid for guid, row in rows.items() if row["name"] == name]:
                del rows[guid]


@pytest.mark.parametrize("due", [False, True])
def test_nobody_is_blamed_for_what_a_lost_key_left_behind(tmp_path: Path, runtime: str, due: bool) -> None:
    life = begun(tmp_path, runtime, to_file(tmp_path))
    life.done()
    life.days(20)
    life.done()
    taken_away(life, "transport-2")
    if due:
        change = life.plan()[MAIN]
        assert (
            change.reason == "the key it holds (generation 2) is gone; it is given the one that is made now"
        )
        assert [(one.path, one.before, one.after) for one in change.fields] == [
            ("key", "generation 2, gone", "generation 2, made now")
        ]
        life.done()
        assert life.actions() == {}
        return
    rewritten(life, runtime, to_file(tmp_path, "keep_old_for: 5d"))

    change = life.plan()[MAIN]
    assert (change.action, change.reason) == (
        Action.UPDATE,
        "the key it holds (generation 2) is gone, and the receipt for it with that",
    )
    assert [(one.path, one.before, one.after) for one in change.fields] == [
        ("key", "generation 2, gone", "generation 1")
    ]
    life.done()
    assert life.actions() == {}


def test_a_delivery_of_a_key_that_is_made_anew_says_so(tmp_path: Path, runtime: str) -> None:
    life = begun(tmp_path, runtime, to_file(tmp_path))
    life.done()
    taken_away(life, "transport")

    change = life.plan()[MAIN]
    assert (change.action, change.reason) == (
        Action.UPDATE,
        "the key it holds (generation 1) is gone; it is given the one that is made now",
    )
    assert [(one.path, one.before, one.after) for one in change.fields] == [
        ("key", "generation 1, gone", "generation 1, made now")
    ]
    life.done()
    assert life.actions() == {}


# --- a name is no reason for a new key -------------------------------------------------------------------

SETTINGS = """\
      NAME:
        service: sandbox-config
        plan: standard
        runtime: RUNTIME
        parameters: {size: SIZE}
        keys: {k: KEY}
"""


@pytest.mark.parametrize("stale", [False, True])
def test_a_new_name_makes_no_key_stale(tmp_path: Path, runtime: str, stale: bool) -> None:
    def says(name: str, size: int, key: str) -> str:
        text = SETTINGS.replace("NAME", name).replace("RUNTIME", runtime)
        return HEAD + text.replace("SIZE", str(size)).replace("KEY", key)

    def remarked() -> bool:
        return any("older than its instance's last change" in one for one in life.plan()[address].notes)

    life = begun(tmp_path, runtime, "")
    life.bench.write(says("settings", 1, "{}"))
    life.done()
    life.days(1)
    if stale:  # more was changed before the name is
        life.bench.write(says("settings", 2, "{}"))
        life.done()
        life.days(1)
    size = 2 if stale else 1
    address = "key:prod/other/k"
    for name, before in (("other", "settings"), ("third", "other")):
        address = f"key:prod/{name}/k"
        text = says(name, size, "{}").replace(
            f"      {name}:\n", f"      {name}:\n        renamed_from: {before}\n"
        )
        life.bench.write(text)
        life.done()
        life.days(1)
        assert remarked() is stale
        life.bench.write(text.replace("{k: {}}", "{k: {reissue_stale: true}}"))
        assert life.actions() == ({address: "rotate"} if stale else {})

    life.bench.write(says("third", size + 1, "{}"))
    life.done()
    assert remarked()


def test_an_old_key_that_could_be_given_no_day_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "consumer"
    folder.mkdir()
    life = begun(tmp_path, "cloudfoundry", to_file(folder))
    life.done()
    life.days(20)
    folder.rename(tmp_path / "away")

    said = [one.error for one in life.bench.apply(life.spec)[-1].outcomes if one.step.verb == "date"]
    assert said == [f"transport gets no day yet: needs {MAIN}"]
