"""What applying does with keys, with a platform and a prover that say what a test tells them to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile import pipeline
from btp_reconcile.core import record
from btp_reconcile.core.errors import Blame, PlatformError
from btp_reconcile.core.model import Action, Address, Change, Facts, Plan, Secret
from btp_reconcile.core.verdict import Verdict, Word
from btp_reconcile.edges.clock import MovingClock
from btp_reconcile.edges.handover import Handover
from btp_reconcile.edges.known import Known
from btp_reconcile.kinds.key import CloudFoundryKeys
from tests.build import NOW, fact, resource, wanted
from tests.kinds.scripted import ScriptedDoor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btp_reconcile.core.catalogue import Catalogue
    from btp_reconcile.core.kind import Door
    from btp_reconcile.core.model import Fact, Resource, Subaccount

APIM = resource("instance:prod/apim", parameters={"role": Secret("env:ROLE", "APIPortal.Guest")})
KEY = resource("key:prod/apim/transport")
FOUND = fact("key", "transport")
OPENS = {
    "clientid": "sb-it",
    "clientsecret": "secret",
    "url": "https://it.authentication.eu10.hana.ondemand.com",
}
PROVEN = {"verified": "v1;at=2026-01-01T00:00:00Z;verdict=ok;scopes=abc"}


class Keys(CloudFoundryKeys):
    """Keys whose notes are kept here, and can be refused."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, Mapping[str, str | None]]] = []
        self.refuses = False

    def credentials(self, door: Door, fact: Fact) -> Any:
        return {name: Secret(name, text) for name, text in OPENS.items()}

    def note(self, door: Door, fact: Fact, notes: Mapping[str, str | None]) -> Mapping[str, str]:
        if self.refuses:
            raise PlatformError(Blame("cloud_foundry", status=404, message="it is gone"))
        self.notes.append((fact.id, notes))
        return {**fact.record, **{name: text for name, text in notes.items() if text}}


class Prover:
    """Whoever is asked gets the same verdict; the roles are remembered."""

    def __init__(self, word: Word) -> None:
        self.word = word
        self.roles: list[str | None] = []

    def check(self, address: Address, generation: int, raw: Mapping[str, object], **asked: Any) -> Verdict:
        self.roles.append(asked["role"])
        return Verdict(address, generation, self.word, scopes="abc")


class Scripted:
    """A platform with one door."""

    def __init__(self, prover: Prover) -> None:
        self._prover = prover

    def door(self, service: str, subaccount: Subaccount) -> Door:
        return ScriptedDoor(service)

    def has(self, service: str, subaccount: Subaccount) -> bool:
        return True

    def unassigned(self, service: str, subaccount: Subaccount) -> bool:
        return False

    def entrust(self, service: str, subaccount: Subaccount, key: Mapping[str, Any]) -> None:
        raise AssertionError("nobody is to be entrusted with anything")

    def prover(self, catalogue: Catalogue) -> Prover:
        return self._prover

    def clock_off(self) -> float:
        return 0.0


class Desk:
    """One run's keys, `found` by their addresses."""

    def __init__(self, *resources: Resource, word: Word = Word.OK, **found: Fact) -> None:
        self.prover, self.keys = Prover(word), Keys()
        self.known = Known(Plan((), ()), wanted(*resources), Facts(()))
        for name, one in found.items():
            self.known.newest[Address("key", ("prod", "apim", name))] = one
        self.handover = Handover(
            self.known,
            Scripted(self.prover),
            {"cloudfoundry": self.keys},
            pipeline.shipped_catalogue(),
            MovingClock(NOW),
        )


def test_a_key_is_tried_in_its_instances_role_and_that_is_noted() -> None:
    desk = Desk(APIM, KEY, transport=FOUND)

    assert desk.handover.prove(KEY, FOUND).works
    assert desk.prover.roles == ["APIPortal.Guest"]
    assert desk.keys.notes == [(FOUND.id, PROVEN)]
    assert desk.known.key(KEY.address).record == PROVEN


def test_a_proof_that_cannot_be_noted_is_none() -> None:
    desk = Desk(APIM, KEY, transport=FOUND)
    desk.keys.refuses = True

    with pytest.raises(PlatformError, match="it is gone"):
        desk.handover.prove(KEY, FOUND)


def test_what_speaks_against_a_key_counts_without_a_note() -> None:
    desk = Desk(APIM, KEY, word=Word.TOKEN_REFUSED, transport=FOUND)
    desk.keys.refuses = True

    assert desk.handover.prove(KEY, FOUND).verdict is Word.TOKEN_REFUSED


def test_nothing_is_written_beside_a_key_that_is_only_watched() -> None:
    watched = replace(KEY, observe_only=True)
    desk = Desk(APIM, watched, transport=FOUND)

    desk.handover.prove(watched, FOUND)
    desk.handover.date(watched, FOUND)

    assert desk.keys.notes == []
    assert desk.known.key(KEY.address) == FOUND


def test_an_old_key_is_dated_from_now_on() -> None:
    key = replace(KEY, keep_old_for=86400)
    desk = Desk(APIM, key, transport=FOUND)

    desk.handover.date(key, FOUND)

    assert desk.keys.notes == [(FOUND.id, {record.RETIRE_AFTER: "2026-01-02T00:00:00Z"})]


def test_a_rotation_that_renews_nothing_is_said() -> None:
    new = fact("key", "transport-2", ours=2)
    desk = Desk(APIM, KEY, transport=new)
    said = desk.handover.same_secret(Change(KEY.address, Action.ROTATE, wanted=KEY, found=FOUND), new)

    assert [one.partition(":")[0] for one in said] == ["transport-2 has the same secret as transport"]
    made = Change(KEY.address, Action.CREATE, wanted=KEY, found=FOUND)
    assert desk.handover.same_secret(made, new) == ()


def test_a_key_that_is_not_there_is_said_with_what_to_do() -> None:
    with pytest.raises(PlatformError) as raised:
        Desk(APIM, KEY).known.key(KEY.address)

    assert str(raised.value) == (
        "apply: key:prod/apim/transport was neither found nor made, so there is nothing to try or to hand over; "
        "run again: it is planned anew"
    )
