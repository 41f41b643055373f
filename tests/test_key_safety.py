"""Notes and surroundings that are not as our own runs leave them: no crash, and no key goes that somebody still uses."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from btp_reconcile import pipeline
from btp_reconcile.core import keys, record
from btp_reconcile.core.errors import Blame, LostResponse
from btp_reconcile.core.fingerprint import epoch
from btp_reconcile.core.model import Action, Address, Adoption, Fact, Mark, Problem, Resource
from btp_reconcile.core.times import day, words
from btp_reconcile.edges.consumers import Consumers
from btp_reconcile.kinds import key as key_kind
from btp_reconcile.kinds.destination import holdings
from btp_reconcile.sinks import SINKS
from tests.build import OWNER, SPEC, fact, planned, resource
from tests.test_rotation import (
    APIM,
    HEAD,
    KEY,
    MAIN,
    Life,
    begun,
    generation_in,
    rewritten,
    runtime,
    to_file,
)
from tests.worlds import Bench

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from btp_reconcile.core.kind import KeyDriver
    from btp_reconcile.core.model import Data, Subaccount, Wanted
    from btp_reconcile.core.sink import Around, Consumer, Held, Parcel, Sink
    from btp_reconcile.edges.consumers import SinkDoor

__all__ = ["runtime"]

FAR = (
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "2026-12-21T10:00:00.²Z",
    "{}",
    "",
    "v1;at=;",
)


def noted(life: Life, name: str, notes: Mapping[str, str | None]) -> None:
    """Write beside a key, as anybody may who may change it."""
    found = life.bench.plan(life.spec)
    (one,) = (one for one in found.facts.of("key") if one.name == name)
    driver = cast("KeyDriver", key_kind.KIND.drivers[one.runtime])
    place = found.prepared.wanted.subaccounts["prod"]
    driver.note(found.platform.door(driver.service, place), one, notes)


def deleted(life: Life, name: str) -> None:
    """Delete a key by hand."""
    found = life.bench.plan(life.spec)
    (one,) = (one for one in found.facts.of("key") if one.name == name)
    service = key_kind.KIND.drivers[one.runtime].service
    door = found.platform.door(service, found.prepared.wanted.subaccounts["prod"])
    path = "/v3/service_credential_bindings" if one.runtime == "cloudfoundry" else "/v1/service_bindings"
    door.send(
        "DELETE", f"{path}/{one.id}", query=() if one.runtime == "cloudfoundry" else (("async", "true"),)
    )
    for _ in range(9):  # what goes takes a few looks
        life.days(0.01)
        if name not in (there := life.keys()):
            return
    raise AssertionError(there)


# --- notes that are not ours ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", FAR)
def test_no_time_that_anybody_writes_beside_a_key_ends_a_plan(text: str) -> None:
    receipt = f"v1;at={text};of=delivery:prod/apim/k/gone"
    notes = {"not-after": text, "retire-after": text, "verified": f"v1;at={text};verdict=ok", "to-1": receipt}
    key = resource("key:prod/apim/k", rotate_after=86400, keep_old_for=60)
    facts = [
        fact("instance", "apim"),
        fact("key", "k", record=notes),
        fact("key", "k-2", ours="k", record=notes),
    ]

    assert planned([resource("instance:prod/apim"), key], facts).objections == ()
    assert words(text) == day(epoch(text) or 0) or epoch(text) is None


def test_what_anybody_writes_beside_a_key_leaves_the_list_of_keys_as_published(tmp_path: Path) -> None:
    life = begun(tmp_path, "cloudfoundry", "{}")
    life.done()
    verified = "v1;at=2026-01-01T01:00:00.5%2B01:00;verdict=splendid"
    receipt = "v1;at=2026-01-01T01:00:00.5%2B01:00;of=delivery:prod/apim/k/gone"
    noted(life, "transport", {"verified": verified, "to-1": receipt, "to-2": "v1;at=soon;of=x"})
    found = life.bench.plan(life.spec)
    (row,) = keys.keys_json(found.prepared.wanted, found.facts, life.bench.now())["keys"]

    assert "verified" not in row
    assert row["delivered"] == [
        {"to": "delivery:prod/apim/k/gone", "place": "", "at": "2026-01-01T00:00:00Z"}
    ]


def test_what_anybody_writes_into_a_destination_about_its_key_ends_no_plan() -> None:
    assert holdings("key:a//b#1 x, key:/#2 y, key:#3 z, nonsense") == ()
    assert [one.id for one in holdings("key:a//b#1 x, key:prod/apim/k#2 y")] == ["y"]


def test_the_day_of_an_older_generation_that_became_the_newest_again_is_not_its_day(
    tmp_path: Path, runtime: str
) -> None:
    """The second key was deleted by hand; when the first one is superseded again, it is kept as long as always."""
    life = begun(tmp_path, runtime, to_file(tmp_path))
    life.done()
    life.days(20)
    life.done()
    life.days(1)
    deleted(life, "transport-2")
    life.days(30)

    steps = life.done()
    assert [one for one in steps if one.startswith("delete")] == []
    assert generation_in(tmp_path / "key.json") == 2
    assert life.keys() == ["transport", "transport-2"]
    assert life.actions() == {}
    life.days(4.9)
    assert life.actions() == {}
    life.days(0.2)
    assert life.actions() == {KEY: "retire"}


def test_a_day_that_somebody_wrote_on_the_key_in_use_does_not_shorten_its_time(
    tmp_path: Path, runtime: str
) -> None:
    folder = tmp_path / "consumer"
    folder.mkdir()
    life = begun(tmp_path, runtime, to_file(folder))
    life.done()
    noted(life, "transport", {record.RETIRE_AFTER: "2001-01-01T00:00:00Z"})
    life.days(20)
    away = folder.rename(tmp_path / "away")
    life.apply()
    away.rename(folder)

    life.done()
    assert generation_in(folder / "key.json") == 2
    assert life.keys() == ["transport", "transport-2"]
    life.days(4.9)
    assert life.actions() == {}


def test_the_old_key_stays_while_the_new_one_is_refused(tmp_path: Path, runtime: str) -> None:
    life = begun(tmp_path, runtime, to_file(tmp_path))
    life.done()
    life.days(20)
    life.done()
    refused = record.Proof(record.moment(life.bench.now()), "token-refused")
    noted(life, "transport-2", {record.VERIFIED: record.proof_text(refused)})
    life.days(6)

    assert life.actions() == {}
    assert life.plan()[KEY].notes == (
        "transport is kept: transport-2 was no use when it was last tried (token-refused); `apply --verify` tries it again",
    )
    noted(life, "transport-2", {record.VERIFIED: record.proof_text(record.Proof(refused.at, "ok"))})
    assert life.actions() == {KEY: "retire"}


def test_who_is_given_a_key_later_than_others_has_its_time_of_grace_too(tmp_path: Path, runtime: str) -> None:
    """And the run that gives it leaves nothing to do behind."""
    life = begun(tmp_path, runtime, to_file(tmp_path))
    life.done()
    life.days(20)
    life.done()
    life.days(6)
    both = f"main: {{file: {{path: {tmp_path}/key.json}}}}, late: {{file: {{path: {tmp_path}/late.json}}}}"
    rewritten(life, runtime, f"{{rotate_after: 20d, keep_old_for: 5d, deliver: {{{both}}}}}")

    assert life.actions() == {KEY: "retire", MAIN.replace("main", "late"): "create"}
    life.done()
    assert life.keys() == ["transport", "transport-2"]
    assert life.actions() == {}
    life.days(5.1)
    assert life.actions() == {KEY: "retire"}


def test_an_end_of_a_certificate_that_cannot_be_read_is_noted_anew(tmp_path: Path, runtime: str) -> None:
    life = begun(tmp_path, runtime, "{credential: {type: x509, validity: 14d}}")
    life.done()
    before = life.plan()[KEY].found
    noted(life, "transport", {record.NOT_AFTER: "in spring"})

    assert life.actions() == {KEY: "update"}
    life.done()
    after = life.plan()[KEY].found
    assert before is not None
    assert after is not None
    assert record.not_after(after) == record.not_after(before)
    assert life.actions() == {}


# --- who still uses it ----------------------------------------------------------------------------------

OBSERVED = """\
    destinations:
      APIManagement: {recipe: api-management-transport, key: apim/transport, manage: WISH}
"""


def test_an_old_key_stays_while_a_destination_that_is_only_watched_holds_it(tmp_path: Path) -> None:
    both = APIM + OBSERVED
    key = "{rotate_after: 20d, keep_old_for: 5d}"
    life = begun(tmp_path, "cloudfoundry", key, both.replace("WISH", "full"))
    life.done()
    life.bench.write(
        (HEAD + both.replace("WISH", "observe")).replace("RUNTIME", "cloudfoundry").replace("KEY", key)
    )
    life.days(20)
    life.done()
    assert life.keys() == ["transport", "transport-2"]
    life.days(6)

    assert life.actions() == {}
    assert life.plan()[KEY].notes == ("transport is kept: destination APIManagement of prod still holds it",)
    life.bench.write(
        (HEAD + both.replace("WISH", "full")).replace("RUNTIME", "cloudfoundry").replace("KEY", key)
    )
    life.done()
    life.days(6)
    life.done()
    assert life.keys() == ["transport-2"]


def test_nothing_is_written_on_a_key_that_is_only_watched(tmp_path: Path) -> None:
    both = APIM + OBSERVED.replace("WISH", "full")
    life = begun(tmp_path, "cloudfoundry", "{}", APIM)
    life.done()
    before = life.plan()[KEY].found
    life.bench.write((HEAD + both).replace("RUNTIME", "cloudfoundry").replace("KEY", "{manage: observe}"))

    life.done()
    pipeline_world = life.bench.world()
    now_there = life.bench.plan(life.spec)
    pipeline.verify(now_there, pipeline_world, note=True)
    after = life.plan()[KEY].found
    assert before is not None
    assert after is not None
    assert after.record == before.record
    assert life.actions() == {}


def test_who_had_the_old_key_and_is_in_no_spec_any_more_is_named_before_it_goes(
    tmp_path: Path, runtime: str
) -> None:
    folder = tmp_path / "consumer"
    folder.mkdir()
    life = begun(tmp_path, runtime, to_file(folder))
    life.done()
    life.days(20)
    folder.rename(tmp_path / "away")
    life.apply()
    rewritten(life, runtime, "{rotate_after: 60d, keep_old_for: 5d}")
    life.days(6)

    changed = life.plan()[KEY]
    assert changed.action is Action.RETIRE
    assert [one.partition(" since")[0] for one in changed.notes] == [
        f"left behind: {MAIN} (file {folder}/key.json) has had transport"
    ]


def test_who_has_a_key_is_named_before_it_is_pruned(tmp_path: Path, runtime: str) -> None:
    life = begun(tmp_path, runtime, to_file(tmp_path))
    life.done()
    life.bench.write(
        (HEAD + APIM).replace("RUNTIME", runtime).replace("        keys:\n          transport: KEY\n", "")
    )

    changed = life.plan(prune=True)[KEY]
    assert changed.action is Action.DELETE
    assert [one.partition(" has had")[0] for one in changed.notes] == [
        f"left behind: {MAIN} (file {tmp_path}/key.json)"
    ]


def test_a_key_that_goes_though_a_destination_of_no_spec_holds_it_says_so(tmp_path: Path) -> None:
    both = APIM + OBSERVED.replace("WISH", "full")
    life = begun(tmp_path, "cloudfoundry", "{}", both)
    life.done()
    other = both.replace(
        "APIManagement: {recipe: api-management-transport, key: apim/transport, manage: full}",
        "x: {properties: {Type: HTTP, URL: 'https://x.example', ProxyType: Internet, Authentication: NoAuthentication}}",
    )
    life.bench.write((HEAD + other).replace("RUNTIME", "cloudfoundry").replace("KEY", "{ensure: absent}"))

    assert "transport is deleted: destination APIManagement of prod still holds it" in life.plan()[KEY].notes


def test_an_instance_stays_while_a_consumer_was_not_seen_in_the_run_that_makes_its_key_anew() -> None:
    """The key is made anew in the new instance, and one consumer still uses the one in the old instance."""
    key = resource("key:prod/apim/k", keep_old_for=60)
    where = [Address.parse(f"delivery:prod/apim/k/{name}") for name in ("near", "far")]
    deliveries = [
        Resource(
            address,
            {"runtime": "file", "place": address.path[-1], "block": {}, "config": "c", "adopt": False},
            Mark(OWNER, SPEC, address.path[-1]),
            requires=(key.address,),
        )
        for address in where
    ]
    instances = [fact("instance", "apim"), fact("instance", "apim-2", ours="apim", id="id-apim-2")]
    mark = instances[1].mark
    assert mark is not None
    instances[1] = replace(instances[1], mark=replace(mark, generation=2))
    wished = [resource("instance:prod/apim", keep_old_for=60), key, *deliveries]
    plan = planned(
        wished,
        [*instances, fact("key", "k")],
        allow=frozenset({"instance:prod/apim"}),
        unseen={("prod", str(where[1])): Problem("platform/unseen", "far away")},
    )

    done = {str(one.address): str(one.action) for one in plan.changes}
    assert done == {
        "instance:prod/apim": "keep",
        "key:prod/apim/k": "rotate",
        "delivery:prod/apim/k/near": "create",
    }
    assert [one.id for one in plan.steps if one.verb == "delete"] == []


def test_a_destination_that_only_loses_its_earlier_name_was_not_given_the_new_key() -> None:
    """It needs a second key, which is not there, so nothing is sent to it."""
    two = [resource(f"key:prod/apim/{name}", keep_old_for=0) for name in ("a", "b")]
    two = [replace(two[0], rotate_after=86400), replace(two[1], observe_only=True)]
    where = Address.parse("destination:prod/d")
    addresses = tuple(one.address for one in two)
    destination = Resource(
        where,
        {
            "runtime": "",
            "properties": {"URL": "https://x.example"},
            "keys": addresses,
            "secret": (),
            "recipe": None,
        },
        Mark(OWNER, SPEC, "d"),
        name="d",
        requires=addresses,
    )
    seen = {
        "names": ("URL",),
        "properties": {"URL": "https://old.example"},
        "written": ("URL",),
        "templates": {"URL": ""},
        "changed": (),
        "differs": (),
        "keys": (),
    }
    there = [
        Fact("destination", name, name, "prod", attributes=seen, mark=Mark(OWNER, SPEC, "d"))
        for name in ("d", "before")
    ]
    plan = planned(
        [resource("instance:prod/apim"), *two, destination],
        [fact("instance", "apim"), fact("key", "a"), *there],
        allow=frozenset({str(where)}),
    )

    assert {str(one.address): str(one.action) for one in plan.changes if one.action is not Action.KEEP} == {
        "key:prod/apim/a": "rotate",
        str(where): "retire",
    }
    assert [one.address.kind for one in plan.steps if one.verb in {"delete", "date"}] == ["destination"]


def test_an_old_key_whose_time_is_over_goes_also_while_the_next_rotation_has_to_wait(
    tmp_path: Path, runtime: str
) -> None:
    life = begun(tmp_path, runtime, to_file(tmp_path))
    life.done()
    life.days(20)
    life.done()
    life.days(20)

    assert life.actions(at_most=0) == {KEY: "retire"}
    assert life.plan(at_most=0)[KEY].retired[0].name == "transport"


class Hasty:
    """A file to which another run delivers an older key just before us, and whose answer to us is lost."""

    def __init__(self, real: Consumer) -> None:
        self._real = real
        self._first = True

    def look(self, block: Data) -> Held | None:
        return self._real.look(block)

    def put(self, block: Data, parcel: Parcel, found: Held | None) -> Held:
        if not self._first:
            return self._real.put(block, parcel, found)
        self._first = False
        self._real.put(block, replace(parcel, identity=replace(parcel.identity, key="older")), found)
        raise LostResponse(Blame("file", "POST", message="no answer"))

    def close(self) -> None:
        self._real.close()


class HastyConsumers(Consumers):
    """Sinks that are hasty, each opened once."""

    def __init__(
        self, sinks: Sequence[Sink], access: Mapping[str, Mapping[str, Any]], around: Around
    ) -> None:
        super().__init__(sinks, access, around)
        self._opened: dict[str, SinkDoor] = {}

    def door(self, service: str, subaccount: Subaccount) -> SinkDoor:
        found = super().door(service, subaccount)
        return self._opened.setdefault(service, replace(found, consumer=Hasty(found.consumer)))


class HastyBench(Bench):
    """A bench whose files are hasty."""

    def consumers(self, wanted: Wanted, around: Around) -> Consumers:
        return HastyConsumers(SINKS, wanted.access, around)


def test_an_older_key_that_another_run_delivered_is_not_taken_for_ours_when_our_answer_is_lost(
    tmp_path: Path, runtime: str
) -> None:
    life = begun(tmp_path, runtime, to_file(tmp_path))
    life.bench = HastyBench(tmp_path, life.bench.sandbox)

    assert life.apply()[f"create {MAIN}#1"] == "failed"
    life.bench = Bench(tmp_path, life.bench.sandbox)
    found = life.plan()[KEY].found
    assert found is not None
    assert record.receipts(found) == {}
    life.done()
    assert life.actions() == {}


# --- another owner --------------------------------------------------------------------------------------


def test_what_was_delivered_goes_over_to_the_new_owner_with_its_key(tmp_path: Path, runtime: str) -> None:
    life = begun(tmp_path, runtime, to_file(tmp_path))
    life.done()
    text = (HEAD + APIM).replace("RUNTIME", runtime).replace("KEY", to_file(tmp_path))
    life.bench.write(text.replace("owner: finance\n", "owner: treasury\nowner_was: finance\n"))

    assert life.plan()[MAIN].action is Action.UPDATE
    life.done()
    assert life.actions() == {}
    life.bench.write(text.replace("owner: finance\n", "owner: treasury\n"))
    assert life.actions() == {}
    beside = json.loads((tmp_path / ".key.json.reconcile").read_text(encoding="utf-8"))
    assert beside["identity"]["owner"] == "treasury"


# --- what was approved ----------------------------------------------------------------------------------


def test_no_more_keys_are_made_anew_in_one_run_than_allowed_however_often_it_plans(tmp_path: Path) -> None:
    slow = """\
      slow: {service: sandbox-slow, plan: standard, runtime: cloudfoundry}
"""
    many = "".join(f"          k{number}: {{rotate_after: 20d}}\n" for number in range(5))
    life = begun(tmp_path, "cloudfoundry", "", APIM.replace("          transport: KEY\n", many) + slow)
    with life.bench.sandbox.hold() as sandbox:
        sandbox.settings["delays"]["provision"] = 20
    life.apply(deadline=20.0)
    life.apply(deadline=60.0)
    life.days(20)
    reports = life.bench.apply(life.spec, at_most=2)

    ended = {str(one.step.id): str(one.status) for report in reports for one in report.outcomes}
    assert ended["await instance:prod/slow#1"] == "done"
    assert len([one for one in ended if one.startswith("create key:")]) == 2


def test_another_shape_or_time_of_grace_is_another_plan(tmp_path: Path, runtime: str) -> None:
    life = begun(tmp_path, runtime, to_file(tmp_path))
    life.done()
    life.days(20)
    before = life.bench.plan(life.spec).plan.digest
    digests = {before}
    for other in (
        to_file(tmp_path, "rotate_after: 20d, keep_old_for: 1d"),
        to_file(tmp_path).replace("key.json}", "key.json, mode: '0640'}"),
        to_file(tmp_path).replace("}}}", "}, shape: uaa}}"),
        to_file(tmp_path, "verify: false, rotate_after: 20d, keep_old_for: 5d"),
    ):
        rewritten(life, runtime, other)
        digests.add(life.bench.plan(life.spec).plan.digest)

    assert len(digests) == 5


def test_what_is_only_watched_is_given_no_day_and_does_not_go(tmp_path: Path, runtime: str) -> None:
    """Two generations of a key, and a destination that takes from it: the key is somebody else's now."""
    life = begun(tmp_path, runtime, "{rotate_after: 20d, keep_old_for: 5d}", APIM)
    life.done()
    life.days(20)
    life.done()
    both = (HEAD + APIM + OBSERVED.replace("WISH", "full")).replace("RUNTIME", runtime)
    life.bench.write(both.replace("KEY", "{manage: observe, keep_old_for: 0m}"))

    assert life.actions() == {"destination:prod/APIManagement": "create"}
    life.done()
    assert life.keys() == ["transport", "transport-2"]
    assert life.actions() == {}


@pytest.mark.parametrize("target", ["instance:prod/apim", "instance:prod/y"])
def test_a_conflict_of_two_is_one_for_each_of_them(target: str) -> None:
    resources = [resource("instance:prod/apim", adopt=Adoption(name="y")), resource("instance:prod/y")]
    found = planned(resources, [fact("instance", "y")], targets=(Address.parse(target),))

    assert [one.code for one in found.objections] == ["conflict/claimed-twice"]


def test_what_others_write_into_labels_ends_no_line_of_an_export(tmp_path: Path) -> None:
    marks = {
        "btp-reconcile/owner": ["x\nowner: evil"],
        "btp-reconcile/spec": ["s"],
        "btp-reconcile/name": ["n"],
    }
    stranger = {
        "runtime": "other",
        "name": "one",
        "service": "sandbox-config",
        "plan": "standard",
        "labels": {**marks, "btp-reconcile/generation": ["1"]},
    }
    life = begun(tmp_path, "other", "{}")
    life.done()
    bench = life.bench
    bench.sandbox.seed(
        {"subaccounts": {"prod": {"id": "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10", "instances": [stranger]}}}
    )
    world = bench.world()
    prepared = pipeline.prepare([life.spec], world, whole="prod")
    text, _ = pipeline.export(prepared, world, prepared.wanted.subaccounts["prod"])

    assert [one for one in text.splitlines() if "evil" in one] == [
        "#   instance one: it belongs to owner x�owner: evil, spec s"
    ]


def test_a_receipt_fits_whatever_version_a_consumer_names() -> None:
    receipt = record.Receipt(
        f"delivery:{'n' * 200}", "2026-01-01T00:00:00Z", "c" * 8, "%" * 64, "d" * 16, "p" * 300
    )

    assert len(record.receipt_text(receipt)) <= record.LIMIT
