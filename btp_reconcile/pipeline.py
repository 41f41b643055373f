"""The straight line, twice: what would be done, and doing it.

    load → validate → resolve → observe → diff → plan → apply → report

Three of these touch the world: load reads files, observe reads the platform, apply writes to it. The others are
arithmetic. A dry run is not a mode: it is the same line, stopped before apply.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import catalogue as catalogues, diff, plan, resolve, schema, validate
from btp_reconcile.core.model import Action, Status
from btp_reconcile.edges import apply, load, observe
from btp_reconcile.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from btp_reconcile.core.catalogue import Catalogue
    from btp_reconcile.core.model import Facts, Plan, Problem, Report, Wanted
    from btp_reconcile.core.validate import Checked
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
    return validate.check(documents, KINDS, catalogue)


def prepare(paths: Sequence[str], world: World) -> Prepared:
    """Files → what is wanted, with values from outside. Raises SpecError with every problem."""
    documents = load.documents(paths)
    catalogue = catalogues.build(load.catalogue(load.own_catalogues(documents)))
    checked = validate.check(documents, KINDS, catalogue)
    outside = resolve.Outside(world.environment, world.read, placeholders=world.rehearsal)
    wanted = world.served(resolve.resources(checked.specs, catalogue, outside))
    return Prepared(wanted, catalogue, checked.warnings)


def make_plan(prepared: Prepared, world: World, policy: Policy) -> Planned:
    """What is wanted → what would be done. Reads only."""
    platform = world.platform(prepared.wanted)
    facts = observe.facts(prepared.wanted, KINDS, platform, world.parallel, world.stopped)
    differences = diff.compare(prepared.wanted, facts, KINDS, prepared.catalogue, policy)
    return Planned(plan.arrange(differences, policy), prepared, facts, platform)


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
        still = any(one.status is not Status.DONE for one in reports[-1].outcomes)
        if not waited or still or len(reports) >= rounds or world.stopped():
            return planned, reports
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
    "carry_out",
    "check",
    "definitions",
    "make_plan",
    "prepare",
    "schema_text",
    "settle",
    "shipped_catalogue",
    "yaml_text",
]
