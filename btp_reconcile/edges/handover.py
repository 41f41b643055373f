"""What applying does with keys: they are tried, handed over, and what was done is noted beside them.

A consumer is what is filled from keys: a delivery or a destination. There is no state file, so the notes
(`core/record.py`) are what the next run goes by.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from btp_reconcile.core import recipes, record
from btp_reconcile.core.errors import PlatformError
from btp_reconcile.core.fingerprint import epoch
from btp_reconcile.core.model import Action, Verb
from btp_reconcile.core.verdict import Word, role_of
from btp_reconcile.core.view import CONSUMERS
from btp_reconcile.edges import certificates
from btp_reconcile.edges.keyring import Keyring

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btp_reconcile.core.catalogue import Catalogue
    from btp_reconcile.core.kind import Driver, Task
    from btp_reconcile.core.model import Address, Change, Fact, Resource
    from btp_reconcile.core.verdict import Verdict
    from btp_reconcile.edges.clock import Clock
    from btp_reconcile.edges.known import Known
    from btp_reconcile.edges.observe import Platform

SOME_TIME = 3600.0
"""Seconds for which a new key that could not be tried holds the old ones back in any case: an outage may be over then."""


class Handover:
    """Keys of one run, on their way to consumers. Any number of threads; raises `PlatformError` and its kin.

    `drivers`: those of keys, by runtime.
    """

    def __init__(
        self,
        known: Known,
        platform: Platform,
        drivers: Mapping[str, Driver],
        catalogue: Catalogue,
        clock: Clock,
    ) -> None:
        self._known = known
        self._platform = platform
        self._catalogue = catalogue
        self._clock = clock
        self._keyring = Keyring(known.wanted, platform, drivers, catalogue)
        self._resources = {one.address: one for one in known.wanted.resources}

    def prove(self, key: Resource, fact: Fact) -> Verdict:
        """Try out the newest generation of a key, and note how that went."""
        instance = self._resources.get(key.parent) if key.parent else None
        prover = self._platform.prover(self._catalogue)
        verdict = self._keyring.prove(prover, fact, key, role_of(instance))
        try:
            noted = self._keyring.note_verdict(key, fact, verdict, self._clock.now())
            self._known.newest[key.address] = noted
        except PlatformError:
            if verdict.works:
                raise  # what speaks against a key counts without a note
        return verdict

    def unheard(self, change: Change, fact: Fact, verdict: Verdict) -> tuple[str, ...]:
        """Did nobody answer, as when it was tried before, and nobody is given it by us? Then old ones go all the same:
        that says nothing about the key, and its API may never be reached from here. Says so in words.
        """
        proof, made = record.proof_of(fact), epoch(fact.created_at)
        asked = change.action in {Action.RETIRE, Action.UPDATE} and bool(change.retired)
        twice = proof is not None and proof.verdict == verdict.verdict == Word.UNREACHABLE
        later = made is not None and self._clock.now() - made >= SOME_TIME
        if not (asked and twice and later) or any(
            change.address in one.requires and not (one.absent or one.observe_only)
            for one in self._resources.values()
            if one.address.kind in CONSUMERS
        ):
            return ()
        old = ", ".join(sorted(one.name for one in change.retired))
        tried = f"{fact.name} could not be tried, as before ({verdict.verdict}: {verdict.detail})"
        return (f"{tried}; that says nothing about it, so {old} goes all the same",)

    def same_secret(self, change: Change, fact: Fact) -> tuple[str, ...]:
        """Is the secret of the new key that of the old one? Then rotating it changes nothing, and is worth a word."""
        old, key = change.found, change.wanted
        if change.action is not Action.ROTATE or key is None or old is None or old.id == fact.id:
            return ()
        with suppress(PlatformError):  # the old one may not be readable any more
            if self._keyring.same_secret(fact, old, key):
                return (
                    (
                        f"{fact.name} has the same secret as {old.name}: it belongs to the instance and not to the "
                        "key, so a rotation does not renew it; a new instance would"
                    ),
                )
        return ()

    def filled(self, task: Task) -> Task:
        """The same task; one that gives a consumer something holds the credentials of its keys then."""
        wanted = task.wanted
        if wanted is None or task.step.verb is Verb.DELETE:
            return task
        if wanted.address.kind == "delivery":
            address = wanted.requires[0]
            fact = self._known.key(address)
            instance = self._known.instances.get(fact.parent or "")
            parcel = self._keyring.parcel(fact, self._resources[address], wanted, instance)
            return replace(task, parcel=parcel, parent=fact)
        if wanted.address.kind == "destination":
            keys = {key: self._known.key(key) for key in wanted.requires if key.kind == "key"}
            opened = {
                key: self._keyring.credentials(fact, self._resources[key]) for key, fact in keys.items()
            }
            properties = recipes.filled(wanted.spec["properties"], opened)
            return replace(
                task,
                spec={**wanted.spec, "properties": properties, "facts": keys},
                parent=next(iter(keys.values()), None),
            )
        return task

    def note(self, made: Resource, fact: Fact) -> None:
        """What was made or changed is there: a consumer has its keys, a new key has a certificate that ends."""
        if made.address.kind in CONSUMERS:
            self._acknowledge(made, fact)
        elif made.address.kind == "key":
            self._note_end(made, fact)

    def date(self, key: Resource, old: Fact) -> None:
        """Every consumer has the new one: from now on the old one is kept for so long, and no longer."""
        at = record.moment(self._clock.now() + key.keep_old_for)
        self._keyring.note(key, old, {record.RETIRE_AFTER: at})

    def forget(self, change: Change) -> None:
        """A destination is gone: its receipts are, too; not when only its earlier name is."""
        wanted = change.wanted
        gone = change.action is Action.DELETE and change.address.kind == "destination"
        if wanted is None or not gone:
            return
        name = record.receipt_name(change.address)
        for key in wanted.requires:
            newest = self._known.newest.get(key)
            if newest is not None and name in newest.record:
                with suppress(PlatformError):  # it may be gone by now; the note harms nobody
                    self._note(key, newest, {name: None})

    def _acknowledge(self, consumer: Resource, fact: Fact) -> None:
        """A consumer was given a key: that is noted on the key, and from then on it counts."""
        said = fact.attributes
        receipt = record.Receipt(
            str(consumer.address),
            record.moment(self._clock.now()),
            str(consumer.spec.get("config", "")),
            str(said.get("version") or ""),
            str(said.get("digest") or ""),
            f"{consumer.spec.get('runtime') or consumer.address.kind} {consumer.spec.get('place') or fact.name}",
        )
        notes = {record.receipt_name(consumer.address): record.receipt_text(receipt)}
        for key in consumer.requires:
            if key.kind == "key":
                newest = self._known.key(key)
                old = dict.fromkeys(record.former_receipts(newest, consumer.formerly))
                self._note(key, newest, {**notes, **old})

    def _note_end(self, key: Resource, fact: Fact) -> None:
        """When the certificate of a new key ends is read once, and kept as a note."""
        if key.spec.get("credential_type") != "x509" or record.ends_noted(fact):
            return
        found = self._keyring.credentials(fact, key)
        ends = record.NO_CERTIFICATE
        if found.certificate is not None:
            ends = record.moment(certificates.not_after(found.certificate))
        self._keyring.note(key, fact, {record.NOT_AFTER: ends})

    def _note(self, key: Address, newest: Fact, notes: Mapping[str, str | None]) -> None:
        self._known.newest[key] = self._keyring.note(self._resources[key], newest, notes)
