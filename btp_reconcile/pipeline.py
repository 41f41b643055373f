"""The straight line, twice: what would be done, and doing it.

    load → validate → resolve → observe → diff → plan → apply → report

Three of these touch the world: load reads files, observe reads the platform, apply writes to it. The others are
arithmetic. A dry run is not a mode: it is the same line, stopped before apply.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import (
    catalogue as catalogues,
    clocks,
    deliveries,
    diff,
    export as exporting,
    plan,
    resolve,
    schema,
    validate,
    verdict,
)
from btp_reconcile.core.errors import SpecError
from btp_reconcile.core.model import Action, Problem, Status
from btp_reconcile.core.report import opens_later
from btp_reconcile.edges import apply, export as exports, load, observe
from btp_reconcile.edges.keyring import Keyring
from btp_reconcile.kinds import KINDS
from btp_reconcile.sinks import SINKS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from btp_reconcile.core.authors import Author
    from btp_reconcile.core.catalogue import Catalogue
    from btp_reconcile.core.model import Address, Facts, Plan, Report, Subaccount, Wanted
    from btp_reconcile.core.shards import Shard
    from btp_reconcile.core.validate import Checked, Spec
    from btp_reconcile.core.verdict import Verdict
    from btp_reconcile.core.view import Policy
    from btp_reconcile.edges.clock import Clock
    from btp_reconcile.edges.observe import Platform

ROUNDS = 3
"""How often applying plans again after it had to wait for something, before it leaves the rest to the next run."""


@dataclass(frozen=True)
class World:
    """What the line needs from outside: values, a way to the platform, time, and somebody to tell."""

    environment: Mapping[str, str]
    read: Callable[[str, str], str]
    """(path, spec file) → what `${file:path}` stands for."""
    platform: Callable[[Wanted], Platform]
    clock: Clock
    events: Callable[[str, Mapping[str, Any]], None]
    rehearsal: bool = False
    really: frozenset[str] = frozenset()
    """Sinks that are delivered to even in a rehearsal."""
    parallel: int = 8
    stopped: Callable[[], bool] = field(default=lambda: False)
    served: Callable[[Wanted], Wanted] = field(default=lambda wanted: wanted)
    """Addresses as this world serves them."""


@dataclass(frozen=True)
class Prepared:
    """What the specs say, before anybody was asked."""

    wanted: Wanted
    catalogue: Catalogue
    warnings: tuple[Problem, ...]
    specs: tuple[Spec, ...] = ()


@dataclass(frozen=True)
class Planned:
    """A plan, and all it was made from."""

    plan: Plan
    prepared: Prepared
    facts: Facts
    platform: Platform


def check(paths: Sequence[str]) -> Checked:
    """Files → specs, merged and checked. Asks nobody. Raises SpecError with every problem."""
    documents = load.documents(paths)
    catalogue = catalogues.build(load.catalogue(load.own_catalogues(documents)))
    return validate.check(documents, KINDS, catalogue, SINKS)


def prepare(paths: Sequence[str], world: World, shard: Shard | None = None, whole: str = "") -> Prepared:
    """Files → what is wanted, with values from outside; with `shard`, what that part of all subaccounts is about.
    `whole`: the subaccount that is to be exported. Raises SpecError with every problem.
    """
    documents = load.documents(paths)
    catalogue = catalogues.build(load.catalogue(load.own_catalogues(documents)))
    checked = validate.check(documents, KINDS, catalogue, SINKS)
    outside = resolve.Outside(world.environment, world.read, world.rehearsal, world.really, whole)
    places = {sink.name: sink.place for sink in SINKS}
    wanted = resolve.resources(checked.specs, catalogue, outside, places, shard)
    wanted = world.served(deliveries.located(wanted, checked.specs, SINKS))
    return Prepared(wanted, catalogue, checked.warnings, checked.specs)


def sketch(paths: Sequence[str]) -> Wanted:
    """Files → what is wanted, for who asks only what there is to be. Nothing from outside is read, nobody is asked."""
    documents = load.documents(paths)
    catalogue = catalogues.build(load.catalogue(load.own_catalogues(documents)))
    checked = validate.check(documents, KINDS, catalogue, SINKS)
    outside = resolve.Outside({}, _unread, placeholders=True)
    return resolve.resources(checked.specs, catalogue, outside)


def _unread(path: str, file: str) -> str:
    raise SpecError([Problem("input/file", f"{path}, named in {file}, is not read here")])


def make_plan(prepared: Prepared, world: World, policy: Policy) -> Planned:
    """What is wanted → what would be done. Reads only."""
    platform = world.platform(prepared.wanted)
    facts = observe.facts(prepared.wanted, KINDS, platform, world.parallel, world.stopped)
    if wrong := clocks.said(facts.clock_off):
        world.events("clock", {"said": wrong})
    differences = diff.compare(prepared.wanted, facts, KINDS, prepared.catalogue, policy)
    return Planned(plan.arrange(differences, policy), prepared, facts, platform)


def export(prepared: Prepared, world: World, place: Subaccount) -> tuple[str, tuple[Problem, ...]]:
    """What is live in a subaccount and not described by these specs → a spec that adopts it, and what was not seen."""
    wanted = prepared.wanted
    here = replace(
        wanted,
        resources=tuple(one for one in wanted.resources if one.address.subaccount == place.name),
        access={name: said for name, said in wanted.access.items() if name == place.name},
    )
    platform = world.platform(wanted)
    list(observe.entrusted(here, KINDS, platform))
    live = exports.live(place, KINDS, platform)
    return exporting.text(place, live, prepared.specs, wanted, prepared.catalogue), live.unseen


def authors(planned: Planned, world: World) -> Mapping[Address, Author | str]:
    """Who changed what differs, by one request per endpoint; a text says why that is not known. Reads only."""
    from btp_reconcile.edges import events  # without drift nobody asks

    drivers = next(kind.drivers for kind in KINDS if kind.name == "instance")
    wanted = planned.prepared.wanted
    return events.authors(planned.plan.changes, wanted, planned.platform, drivers, world.clock.now())


def carry_out(planned: Planned, world: World, deadline: float = 1800.0) -> Report:
    """A plan → the platform. Never raises for a step that fails: the report says so."""
    run = apply.Run(
        planned.plan,
        planned.prepared.wanted,
        planned.facts,
        planned.platform,
        KINDS,
        planned.prepared.catalogue,
        world.clock,
        world.events,
        apply.Limits(deadline, world.parallel),
        world.stopped,
    )
    return run.run()


def verify(
    planned: Planned, world: World, targets: Sequence[Address] = (), *, note: bool = False
) -> list[Verdict]:
    """Every wanted key → whether it works: a token, then one harmless request. `note`: say so on the keys, too."""
    from btp_reconcile.edges import verify as trying

    prepared = planned.prepared
    candidates = verdict.candidates(planned.plan, prepared.wanted, planned.facts, targets)
    drivers = next(kind.drivers for kind in KINDS if kind.name == "key")
    found = trying.try_all(
        candidates,
        prepared.wanted,
        planned.platform,
        drivers,
        planned.platform.prover(prepared.catalogue),
        world.events,
        world.parallel,
        world.stopped,
    )
    if note:
        keyring = Keyring(prepared.wanted, planned.platform, drivers, prepared.catalogue)
        keyring.note_verdicts(candidates, found, world.clock.now())
    return found


def settle(
    planned: Planned, world: World, policy: Policy, deadline: float = 1800.0, rounds: int = ROUNDS
) -> tuple[Planned, list[Report]]:
    """Carry out; if something had to be waited for, what follows from it can be planned only now, so plan again.
    What was asked for once with `--reapply` is not done again.

    Gives the last plan and the report of every round.
    """
    reports: list[Report] = []
    until = world.clock.now() + deadline
    while True:
        reports.append(carry_out(planned, world, max(0.0, until - world.clock.now())))
        waited = any(change.action is Action.AWAIT and not change.gate for change in planned.plan.changes)
        waited = waited or (opens_later(planned.plan) and bool(planned.plan.steps))
        still = any(one.status is not Status.DONE for one in reports[-1].outcomes)
        if not waited or still or len(reports) >= rounds or world.stopped():
            return planned, reports
        # As many as a run may make anew because of their age: all rounds together.
        policy = replace(policy, at_most=max(0, policy.at_most - planned.plan.count(Action.ROTATE)))
        again = make_plan(planned.prepared, world, replace(policy, reapply=frozenset()))
        if not again.plan.steps or again.plan.objections:
            return again, reports
        planned = again


def shipped_catalogue() -> Catalogue:
    """The APIs that are known without any spec."""
    return catalogues.build(load.catalogue())


def schema_text() -> str:
    """The JSON Schema of a spec, as `schemas/spec.schema.json` holds it."""
    return schema.text(KINDS, shipped_catalogue())


def definitions() -> Mapping[str, Mapping[str, Any]]:
    """What the schema's shared definitions say."""
    found: Mapping[str, Mapping[str, Any]] = schema.build(KINDS, shipped_catalogue())["$defs"]
    return found


yaml_text = load.text

__all__ = [
    "Planned",
    "Prepared",
    "World",
    "authors",
    "carry_out",
    "check",
    "definitions",
    "export",
    "make_plan",
    "prepare",
    "schema_text",
    "settle",
    "shipped_catalogue",
    "sketch",
    "verify",
    "yaml_text",
]
