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

    assert life.done() == [f"create {KEY}#2"]
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
