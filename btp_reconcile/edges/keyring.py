"""Keys in hand: their credentials, read once a run and only when something is done with them, and the notes beside them."""

from __future__ import annotations

import hmac
import threading
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from btp_reconcile.core import credentials, digest, record
from btp_reconcile.core.credentials import About, ShapeError
from btp_reconcile.core.errors import Blame, NotAsKnown
from btp_reconcile.core.sink import Identity, Parcel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from btp_reconcile.core.catalogue import Catalogue
    from btp_reconcile.core.credentials import Credentials
    from btp_reconcile.core.kind import Door, Driver, KeyDriver
    from btp_reconcile.core.model import Address, Fact, Resource, Subaccount, Wanted
    from btp_reconcile.core.verdict import Candidate, Verdict


class Prover(Protocol):
    """Who tries out a key: `edges.verify.Verifier`."""

    def check(
        self,
        address: Address,
        generation: int,
        raw: Mapping[str, object],
        *,
        service: str,
        plan: str,
        role: str | None,
        scopes: str = "",
    ) -> Verdict:
        """A token, then one harmless call. `scopes`: the digest noted before."""


class Doors(Protocol):
    """The way to the platform, as far as keys need it: a part of `edges.observe.Platform`."""

    def door(self, service: str, subaccount: Subaccount) -> Door:
        """A door to one service of one subaccount."""


class Keyring:
    """The keys of one run. Any number of threads."""

    def __init__(
        self, wanted: Wanted, platform: Doors, drivers: Mapping[str, Driver], catalogue: Catalogue
    ) -> None:
        self._wanted = wanted
        self._platform = platform
        self._drivers = drivers
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._raw: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._read: dict[tuple[str, str], Credentials] = {}
        self._turns: dict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)

    def credentials(self, fact: Fact, resource: Resource) -> Credentials:
        """What a key opens. Raises PlatformError; NotAsKnown when it has another form than is known of it."""
        key = (fact.runtime, fact.id)
        with self._turn(key):
            found = self._read.get(key)
            if found is None:
                raw = self._given(fact)
                shape = self._catalogue.shape_of(str(resource.spec["service"]), str(resource.spec["plan"]))
                try:
                    found = credentials.read(raw, shape)
                except ShapeError as error:
                    said = f"{resource.address} has another form than is known: it lacks {', '.join(error.missing)}"
                    raise self._not_as_known(fact, said) from None
                self._read[key] = found
            return found

    def raw(self, fact: Fact) -> Mapping[str, Any]:
        """The same as it came, whatever its form."""
        with self._turn((fact.runtime, fact.id)):
            return self._given(fact)

    def note(self, key: Resource, fact: Fact, notes: Mapping[str, str | None]) -> Fact:
        """Write notes beside a key, one writer at a time; gives it with all that are there then.

        A key that is only watched stays as it is.
        """
        if key.watched:
            return fact
        driver, door = self._way(fact)
        with self._turn((fact.runtime, fact.id)):
            return replace(fact, record=driver.note(door, fact, notes))

    def parcel(self, fact: Fact, key: Resource, delivery: Resource, instance: Fact | None) -> Parcel:
        """What a consumer is handed: the credentials in the shape that is asked for, and which key they are."""
        about = About(
            str(key.spec["service"]),
            str(key.spec["plan"]),
            instance.name if instance is not None else key.address.path[1],
            instance.id if instance is not None else fact.parent or "",
            fact.name,
            fact.id,
        )
        shape = str(delivery.spec["shape"])
        try:
            # As it came: of any form.
            native = shape == "native"
            shaped = (
                self.raw(fact) if native else credentials.shaped(self.credentials(fact, key), shape, about)
            )
        except ShapeError as error:
            said = f"{key.address} cannot be given in the shape {shape}: it has no {' and no '.join(error.missing)}"
            raise NotAsKnown(Blame(str(delivery.spec["runtime"]), message=said)) from None
        return Parcel(
            shaped,
            Identity(
                delivery.mark.owner,
                delivery.mark.spec,
                str(delivery.address),
                fact.id,
                fact.mark.generation if fact.mark else 1,
            ),
        )

    def prove(self, prover: Prover, fact: Fact, key: Resource, role: str | None) -> Verdict:
        """Try out a key."""
        proof = record.proof_of(fact)
        return prover.check(
            key.address,
            fact.mark.generation if fact.mark else 1,
            self.raw(fact),
            service=str(key.spec["service"]),
            plan=str(key.spec["plan"]),
            role=role,
            scopes=proof.scopes if proof else "",
        )

    def note_verdict(self, key: Resource, fact: Fact, verdict: Verdict, now: float) -> Fact:
        """Note on a key how it was proven; gives as `note` does."""
        proof = record.Proof(record.moment(now), str(verdict.verdict), verdict.scopes)
        return self.note(key, fact, {record.VERIFIED: record.proof_text(proof)})

    def note_verdicts(self, candidates: Sequence[Candidate], verdicts: Sequence[Verdict], now: float) -> None:
        """Note on each key how it was proven. Raises PlatformError when that cannot be written."""
        keys = {one.address: one for one in self._wanted.of("key")}
        facts = {one.address: one.found for one in candidates}
        for verdict in verdicts:
            fact = facts.get(verdict.address)
            if fact is not None:
                self.note_verdict(keys[verdict.address], fact, verdict, now)

    def same_secret(self, one: Fact, other: Fact, key: Resource) -> bool:
        """Have two generations the same secret? Then it belongs to the instance, and ends only with that."""
        secrets = [self.credentials(fact, key).client_secret for fact in (one, other)]
        if secrets[0] is None or secrets[1] is None:
            return False
        return hmac.compare_digest(*(digest.plain(secret).encode() for secret in secrets))

    def _given(self, fact: Fact) -> Mapping[str, Any]:
        key = (fact.runtime, fact.id)
        if key not in self._raw:
            driver, door = self._way(fact)
            self._raw[key] = driver.credentials(door, fact)
        return self._raw[key]

    def _not_as_known(self, fact: Fact, said: str) -> NotAsKnown:
        return NotAsKnown(Blame(self._drivers[fact.runtime].service, "GET", message=said))

    def _way(self, fact: Fact) -> tuple[KeyDriver, Door]:
        driver = cast("KeyDriver", self._drivers[fact.runtime])
        return driver, self._platform.door(driver.service, self._wanted.subaccounts[fact.subaccount])

    def _turn(self, key: tuple[str, str]) -> threading.Lock:
        with self._lock:
            return self._turns[key]
