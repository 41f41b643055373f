"""A bench for tests: a sandbox in this process, and the straight line run against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btp_reconcile import pipeline
from btp_reconcile.cli.world import read_outside, rehearse, within_sandbox
from btp_reconcile.core.sink import Around
from btp_reconcile.core.view import Policy
from btp_reconcile.edges import files
from btp_reconcile.edges.access import Platform
from btp_reconcile.edges.client import Client
from btp_reconcile.edges.clock import MovingClock, WallClock
from btp_reconcile.edges.consumers import Consumers, Rehearsed
from btp_reconcile.sandbox import InProcessAdapter, Sandbox
from btp_reconcile.sinks import SINKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btp_reconcile.core.model import Report, Wanted

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Bench:
    """One sandbox and as many runs against it as a test likes. `folder` is where its specs are written."""

    folder: Path
    sandbox: Sandbox = field(default_factory=Sandbox)
    parallel: int = 1
    attempts: int = 6
    seeded: bool = True
    """Give the sandbox the subaccounts that a spec names, as --sandbox does."""
    events: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    waited: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)
    compare_clocks: bool = False

    def write(self, text: str, name: str = "spec.yaml") -> str:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def now(self) -> float:
        with self.sandbox.hold() as world:
            return world.now()

    def advance(self, seconds: float) -> None:
        with self.sandbox.hold() as world:
            world.advance(seconds)

    def world(self) -> pipeline.World:
        clock = MovingClock(self.now())
        client = Client(
            clock=clock,
            events=lambda name, fields: self.events.append((name, fields)),
            adapter=InProcessAdapter(self.sandbox),
            parallel=self.parallel,
            attempts=self.attempts,
            compare_clocks=self.compare_clocks,
        )
        self.clients.append(client)

        def platform(wanted: Wanted) -> Platform:
            around = Around(
                self.environment,
                check=lambda url: client.check("sink", url),
                folder=lambda path: str(Path(path).absolute()),
                read=files.whole,
                commands=True,
                now=WallClock().now,
            )
            return Platform(client, self.access(wanted), {}, None, self.consumers(wanted, around))

        return pipeline.World(
            self.environment,
            read_outside,
            platform,
            clock,
            lambda name, fields: self.events.append((name, fields)),
            rehearsal=True,
            really=frozenset(sink.name for sink in SINKS),
            parallel=self.parallel,
            served=within_sandbox,
        )

    def access(self, wanted: Wanted) -> Mapping[str, Mapping[str, Any]]:
        """Credentials of the sandbox for what is wanted."""
        return rehearse(self.sandbox, wanted)

    def consumers(self, wanted: Wanted, around: Around) -> Consumers | Rehearsed:
        """Real sinks."""
        return Consumers(SINKS, wanted.access, around)

    def policy(self, **options: Any) -> Policy:
        return Policy(options.pop("now", self.now()), **options)

    def prepare(self, *paths: str) -> pipeline.Prepared:
        return pipeline.prepare(paths, self.world())

    def plan(self, *paths: str, **options: Any) -> pipeline.Planned:
        world = self.world()
        return pipeline.make_plan(pipeline.prepare(paths, world), world, self.policy(**options))

    def apply(self, *paths: str, deadline: float = 1800.0, **options: Any) -> list[Report]:
        """Plan and carry out, as `reconcile apply` does. Refuses nothing: tests look at objections themselves."""
        world = self.world()
        policy = self.policy(**options)
        planned = pipeline.make_plan(pipeline.prepare(paths, world), world, policy)
        assert planned.plan.objections == ()
        _, reports = pipeline.settle(planned, world, policy, deadline)
        return reports

    def requests(self) -> list[tuple[str, str, str]]:
        """(method, host, path) of everything asked since the last call."""
        asked = [(method, host, path) for method, host, path, _ in self.sandbox.requests]
        self.sandbox.requests.clear()
        return asked
